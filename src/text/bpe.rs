//! OpenAI's byte-pair encoding, from its list of merges.
//!
//! The vocabulary follows from the merges: 256 bytes, the same 256 at the end of a word, one token a merge, then
//! `<|startoftext|>` and `<|endoftext|>` (Radford et al. 2021; `clip/simple_tokenizer.py` in openai/CLIP).

use std::collections::HashMap;
use std::io::Read;
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use regex::Regex;

use super::clean::clean;
use crate::limits::TOKENIZER_BYTES_MAX;

/// Tokens that stand for single bytes, inside a word and at its end.
const BYTE_TOKENS: usize = 512;
/// `<|startoftext|>` and `<|endoftext|>`.
const SPECIAL_TOKENS: usize = 2;

// The reference's pattern less the special tokens: texts that name one are refused before.
static WORD: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"(?i)'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    Regex::new(pattern).expect("the pattern is a constant and valid")
});

/// The merges, ready to encode.
pub(crate) struct Bpe {
    /// Token that a pair of tokens becomes, for the pairs that merge. A smaller token merges earlier.
    merged: HashMap<(u32, u32), u32>,
    /// The token of each byte inside a word.
    bytes: [u32; 256],
    /// Number of tokens, the special ones included.
    size: usize,
}

impl Bpe {
    /// Reads a list of merges in the layout of `bpe_simple_vocab_16e6.txt` or of Hugging Face's `merges.txt`, as it is
    /// or compressed with gzip: a first line that says what it is, then two tokens a line, most frequent pair first.
    ///
    /// `vocabulary` is the number of rows of the token embedding: OpenAI's file lists more merges than its models use.
    ///
    /// # Errors
    /// The list is malformed or too short, as a sentence.
    pub(crate) fn parse(bytes: &[u8], vocabulary: usize) -> Result<Self, String> {
        let text = text_of(bytes)?;
        let wanted = vocabulary
            .checked_sub(BYTE_TOKENS + SPECIAL_TOKENS)
            .ok_or_else(|| format!("a vocabulary of {vocabulary} tokens is too small for a byte-pair encoding"))?;
        // Taken before empty lines are dropped, so that a hole in the list is noticed.
        let lines: Vec<&str> = text.lines().skip(1).take(wanted).filter(|line| !line.is_empty()).collect();
        if lines.len() < wanted {
            return Err(format!("it lists {} merges, a vocabulary of {vocabulary} needs {wanted}", lines.len()));
        }
        let symbols = byte_symbols();
        let mut ids = HashMap::with_capacity(vocabulary);
        let mut bytes = [0; 256];
        for (id, &(byte, symbol)) in symbols.iter().enumerate() {
            ids.insert(symbol.to_string(), id as u32);
            ids.insert(format!("{symbol}</w>"), (256 + id) as u32);
            bytes[usize::from(byte)] = id as u32;
        }
        let mut merged = HashMap::with_capacity(wanted);
        for (index, line) in lines.iter().enumerate() {
            let malformed = || format!("line {} is {line:?}, expected two known tokens and a space between", index + 2);
            let (first, second) = line.split_once(' ').ok_or_else(malformed)?;
            let pair = (*ids.get(first).ok_or_else(malformed)?, *ids.get(second).ok_or_else(malformed)?);
            // Numbers rise with the place in the list, so that the number is the priority, too.
            let id = (BYTE_TOKENS + index) as u32;
            merged.entry(pair).or_insert(id);
            ids.insert(format!("{first}{second}"), id);
        }
        Ok(Self { merged, bytes, size: vocabulary })
    }

    /// The token of `<|startoftext|>`.
    pub(crate) fn start(&self) -> u32 {
        (self.size - 2) as u32
    }

    /// The token of `<|endoftext|>`.
    pub(crate) fn end(&self) -> u32 {
        (self.size - 1) as u32
    }

    /// The tokens of a text, without the special ones.
    pub(crate) fn encode(&self, text: &str) -> Vec<u32> {
        // The whole text at once: a capital sigma becomes another letter at the end of a word, in Rust as in Python.
        let cleaned = clean(text).to_lowercase();
        WORD.find_iter(&cleaned).flat_map(|word| self.encode_word(word.as_str())).collect()
    }

    /// Merges the pair that comes first in the list, wherever it stands, until no pair merges.
    fn encode_word(&self, word: &str) -> Vec<u32> {
        let mut tokens: Vec<u32> = word.bytes().map(|byte| self.bytes[usize::from(byte)]).collect();
        if let Some(last) = tokens.last_mut() {
            // The same byte at the end of a word stands 256 places on in the vocabulary.
            *last += 256;
        }
        while let Some((pair, id)) = self.next_merge(&tokens) {
            let mut kept = 0;
            let mut read = 0;
            while read < tokens.len() {
                let here = read + 1 < tokens.len() && (tokens[read], tokens[read + 1]) == pair;
                tokens[kept] = if here { id } else { tokens[read] };
                kept += 1;
                read += if here { 2 } else { 1 };
            }
            tokens.truncate(kept);
        }
        tokens
    }

    fn next_merge(&self, tokens: &[u32]) -> Option<((u32, u32), u32)> {
        let pairs = tokens.windows(2).map(|pair| (pair[0], pair[1]));
        pairs.filter_map(|pair| Some((pair, *self.merged.get(&pair)?))).min_by_key(|&(_, id)| id)
    }

    /// Check of `vocabulary`, the content of a `vocab.json`, against the token numbers that the merges imply.
    ///
    /// # Errors
    /// The first token that has another number, as a sentence.
    pub(crate) fn agrees_with(&self, merges: &[u8], vocabulary: &HashMap<String, u32>) -> Result<(), String> {
        let symbols = byte_symbols();
        let inside = symbols.iter().map(|(_, symbol)| symbol.to_string());
        let at_end = symbols.iter().map(|(_, symbol)| format!("{symbol}</w>"));
        let text = text_of(merges)?;
        let merges = text.lines().skip(1).take(self.merged.len()).map(|line| line.replace(' ', ""));
        let special = ["<|startoftext|>", "<|endoftext|>"].map(String::from);
        for (id, token) in (0_u32..).zip(inside.chain(at_end).chain(merges).chain(special)) {
            if vocabulary.get(&token) != Some(&id) {
                let found = vocabulary.get(&token).map_or("no number".to_string(), |found| format!("number {found}"));
                return Err(format!("it gives {token:?} {found}, the merges give it {id}"));
            }
        }
        Ok(())
    }
}

fn text_of(bytes: &[u8]) -> Result<String, String> {
    let mut text = String::new();
    // The bound holds for what comes out: a small gzip file may unfold to gigabytes.
    let read = if bytes.starts_with(&[0x1f, 0x8b]) {
        GzDecoder::new(bytes).take(TOKENIZER_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        (&mut &bytes[..]).take(TOKENIZER_BYTES_MAX + 1).read_to_string(&mut text)
    };
    match read {
        Ok(count) if count as u64 > TOKENIZER_BYTES_MAX => {
            Err(format!("it is larger than {TOKENIZER_BYTES_MAX} bytes"))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

/// The printable character that stands for each byte, in the order of the vocabulary: first the bytes that are
/// printable Latin-1 and stand for themselves, then the others, as characters from U+0100 on.
fn byte_symbols() -> Vec<(u8, char)> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let themselves = (0..=255_u8).filter(printable).map(|byte| (byte, char::from(byte)));
    let others = (0..=255_u8).filter(|byte| !printable(byte)).zip('\u{100}'..);
    themselves.chain(others).collect()
}
