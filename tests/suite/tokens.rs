//! Tokens against OpenAI's own tokenizer, and tokenizers that do not fit.

use std::fs;
use std::io::Read;

use flate2::read::GzDecoder;
use rtpt_edge::internal::text::{Cleaning, Tokenizer, context_tokens, template_tokens};
use serde::Deserialize;
use serde_json::Value;

use crate::goldens::root;

#[derive(Deserialize)]
struct TokenGoldens {
    cases: Vec<(String, Vec<u32>)>,
}

/// OpenAI's merges, as many as its models use.
pub fn openai_merges() -> Vec<u8> {
    fs::read(root().join("tests/data/clip-bpe/bpe_simple_vocab_16e6.txt.gz")).unwrap()
}

fn openai() -> Tokenizer {
    Tokenizer::parse("merges", &openai_merges(), 49408, Cleaning::Clip).unwrap()
}

fn demo() -> Tokenizer {
    let bytes = fs::read(root().join("models/demo/bundle/tokenizer.json")).unwrap();
    Tokenizer::parse("tokenizer.json", &bytes, 1024, Cleaning::Clip).unwrap()
}

/// OpenAI's vocabulary as a `tokenizer.json`: the demo's, which has CLIP's structure, with other merges.
fn openai_as_json() -> Tokenizer {
    let mut text = String::new();
    GzDecoder::new(&openai_merges()[..]).read_to_string(&mut text).unwrap();
    let merges: Vec<&str> = text.lines().skip(1).collect();
    let printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let symbols = (0..256).filter(printable).chain((0x100..).take(68)).map(|code| char::from_u32(code).unwrap());
    let symbols: Vec<String> = symbols.map(String::from).collect();
    let at_end = symbols.iter().map(|symbol| format!("{symbol}</w>"));
    let merged = merges.iter().map(|merge| merge.replace(' ', ""));
    let special = ["<|startoftext|>", "<|endoftext|>"].map(String::from);
    let tokens = symbols.iter().cloned().chain(at_end).chain(merged).chain(special);
    let vocab: serde_json::Map<String, Value> = tokens.zip(0..).map(|(token, id)| (token, Value::from(id))).collect();
    assert_eq!(vocab.len(), 49408);
    let mut json: Value =
        serde_json::from_slice(&fs::read(root().join("models/demo/bundle/tokenizer.json")).unwrap()).unwrap();
    for (index, id) in [(0, 49406), (1, 49407)] {
        json["added_tokens"][index]["id"] = id.into();
    }
    json["post_processor"] = Value::Null;
    json["model"]["vocab"] = vocab.into();
    json["model"]["merges"] = merges.into();
    Tokenizer::parse("tokenizer.json", json.to_string().as_bytes(), 49408, Cleaning::Clip).unwrap()
}

#[test]
fn tokens_are_those_of_openais_tokenizer() {
    let goldens: TokenGoldens =
        serde_json::from_str(&fs::read_to_string(root().join("tests/golden/tokens.json")).unwrap()).unwrap();
    assert!(goldens.cases.len() > 2000);
    for (tokenizer, kind) in [(openai(), "merges"), (openai_as_json(), "tokenizer.json")] {
        assert_eq!((tokenizer.start(), tokenizer.end()), (Some(49406), Some(49407)));
        let mut wrong = Vec::new();
        for (text, expected) in &goldens.cases {
            let found = tokenizer.encode(text).unwrap();
            // A tokenizer.json puts letter by letter in lower case, so it knows no sigma for the end of a word.
            if found != *expected && !(kind == "tokenizer.json" && text.contains("ΟΣ")) {
                wrong.push(format!("{text:?}: {found:?}, expected {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{kind}: {} of {} differ:\n{}", wrong.len(), goldens.cases.len(), wrong.join("\n"));
    }
}

#[test]
fn names_of_special_tokens_are_refused() {
    for (tokenizer, kind) in [(openai(), "merges"), (demo(), "tokenizer.json")] {
        let message = tokenizer.encode("a <|endoftext|> dog").unwrap_err().to_string();
        assert!(message.contains("special token") || message.contains("starts or ends a text"), "{kind}: {message}");
    }
}

#[test]
fn prompts_are_cut_where_they_begin_to_differ() {
    let tokenizer = openai();
    let labels = ["yin_yang".to_string(), "dog".into(), "!".into()];
    let tokens = context_tokens(&tokenizer, "a photo of a", &labels, 77).unwrap();
    assert_eq!(tokens.shared, [49406, 320, 1125, 539, 320]);
    // OpenAI's tokenizer joins the punctuation of a label with the full stop after it.
    assert_eq!(tokens.own, [vec![23543, 12605, 269, 49407], vec![1929, 269, 49407], vec![22517, 49407]]);
    let tokens = template_tokens(&tokenizer, "{} texture.", &labels[..2], 77).unwrap();
    assert_eq!(tokens.shared, [49406]);
    assert_eq!(tokens.own[1], [1929, 16505, 269, 49407]);
    // Prompts that are equal still have an end of their own.
    let twice = [labels[1].clone(), labels[1].clone()];
    let tokens = template_tokens(&tokenizer, "a {}.", &twice, 77).unwrap();
    assert_eq!(tokens.own, [vec![49407], vec![49407]]);
    let none = context_tokens(&tokenizer, "", &labels[1..2], 77).unwrap();
    assert_eq!((none.shared, none.own), (vec![49406], vec![vec![1929, 269, 49407]]));
}

#[test]
fn labels_that_do_not_fit_are_named() {
    let tokenizer = openai();
    let prompt = |words: usize| context_tokens(&tokenizer, "a photo of a", &["dog".into(), "dog ".repeat(words)], 77);
    // Start, four of context, the label, the full stop, the end.
    assert_eq!(prompt(70).unwrap().own[1].len(), 72);
    let message = prompt(71).unwrap_err().to_string();
    assert!(message.contains("dog dog dog") && message.contains("78 tokens, expected at most 77"), "{message}");
}

#[test]
fn tokenizers_that_do_not_fit_are_refused() {
    let refused = |bytes: &[u8], vocabulary, part: &str| {
        let message =
            Tokenizer::parse("file", bytes, vocabulary, Cleaning::Clip).err().expect("it is refused").to_string();
        assert!(message.contains(part) && message.contains("tokenizer file"), "{message}");
    };
    let merges = openai_merges();
    refused(&merges, 49409, "lists 48894 merges, a vocabulary of 49409 needs 48895");
    refused(&merges, 513, "too small");
    refused(&merges[..merges.len() / 2], 49408, "cannot be read");
    refused(b"#version\ni n\nqq zz\n", 516, "line 3 is \"qq zz\", expected two known tokens");
    refused(b"\xff\xfe\x00", 49408, "cannot be read");
    refused(b"{\"version\": 1}", 49408, "not a valid tokenizer.json");
    let demo = fs::read_to_string(root().join("models/demo/bundle/tokenizer.json")).unwrap();
    refused(demo.as_bytes(), 1023, "has number 1023, the tower's token embedding has 1023 rows");
    refused(demo.replace("<|startoftext|>", "<start>").as_bytes(), 1024, "no token <|startoftext|>");
    refused(demo.replace("<|endoftext|>", "<end>").as_bytes(), 1024, "no token <|endoftext|>");
}
