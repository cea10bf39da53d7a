//! Models whose text tower or preprocessing is not CLIP's, imported: MobileCLIP's kind and SigLIP's, against open_clip.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::goldens::{Goldens, root};
use crate::program::{Bench, Run};

const CLASSES: &[u8] = "dog\nsea horse\nred_car\nÉCOLE\ncup\n".as_bytes();

/// A copy of a model's folder.
fn folder(bench: &Bench, name: &str) -> PathBuf {
    let folder = bench.path(name);
    fs::create_dir_all(folder.join("onnx")).unwrap();
    let from = root().join("tests/data").join(name);
    for path in fs::read_dir(&from).unwrap().chain(fs::read_dir(from.join("onnx")).unwrap()) {
        let path = path.unwrap().path();
        if path.is_file() {
            fs::copy(&path, folder.join(path.strip_prefix(&from).unwrap())).unwrap();
        }
    }
    folder
}

fn import(bench: &Bench, name: &str, change: impl FnOnce(&mut Value)) -> Run {
    let folder = folder(bench, name);
    let path =
        ["open_clip_config.json", "config.json"].map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
    let path = path.unwrap();
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(&path, config.to_string()).unwrap();
    bench.rtpt(&["bundle", "import", name, "-o", "out"])
}

fn assert_near(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(largest < tolerance, "{what}: {largest}");
}

#[test]
fn towers_and_preprocessing_of_other_kinds_agree_with_pytorch() {
    let goldens = Goldens::open("tiny-others.safetensors");
    for (name, width) in [("tiny-mobileclip", 8), ("tiny-siglip", 8), ("tiny-siglip-transformers", 16)] {
        let bench = Bench::new();
        let run = import(&bench, name, |_| {});
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(bench.rtpt(&["bundle", "check", "out"]).code, 0);
        let (labels, image) = (bench.write("labels.txt", CLASSES), bench.image("rgb.png"));
        // The method that needs the tower's gradient works on the same prompts.
        let trace =
            ["trace", "--bundle", "out", "--labels", &labels, "--head", "context", "--views", "4", &image, "-o", "t"];
        let run = bench.rtpt(&trace);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let found = Goldens::read(&bench.path("t"));
        let golden = |part: &str| goldens.flat(&format!("{name}.{part}"));
        assert_near(&found.flat("views")[..3 * 24 * 24], &golden("view"), 1e-6, name);
        assert_near(&found.flat("features")[..width], &golden("features"), 1e-5, name);
        assert_near(&found.flat("classes"), &golden("classes"), 1e-5, name);
        let moved = &found.matrix("tuned_logits") - &found.matrix("logits");
        assert!(moved.iter().any(|moved| moved.abs() > 1e-3), "{name}: nothing was tuned");
    }
}

#[test]
fn a_sigmoid_says_that_no_label_fits() {
    let bench = Bench::new();
    assert_eq!(import(&bench, "tiny-siglip", |_| {}).code, 0);
    let (labels, image) = (bench.write("labels.txt", CLASSES), bench.image("rgb.png"));
    let ask = |method: &str| {
        let run = bench.rtpt(&[
            "classify", "--bundle", "out", "--labels", &labels, "--views", "4", "--method", method, "--json", &image,
        ]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.records().remove(0)
    };
    let record = ask("zero-shot");
    let goldens = Goldens::open("tiny-others.safetensors");
    let (feature, classes) = (goldens.vector("tiny-siglip.features"), goldens.matrix("tiny-siglip.classes"));
    // The checkpoint's logit scale is e³ and its bias -10.
    let logits = classes.dot(&feature) * 3.0_f64.exp();
    let names = ["dog", "sea horse", "red_car", "ÉCOLE", "cup"];
    for one in record["top"].as_array().unwrap() {
        let place = names.iter().position(|name| one["label"] == *name).unwrap();
        let expected = 1.0 / (1.0 + (10.0 - logits[place]).exp());
        assert!((one["sigmoid"].as_f64().unwrap() - expected).abs() < 1e-4, "{one}: {expected}");
    }
    assert_eq!(record["sigmoid"], record["top"][0]["sigmoid"]);
    // Of the views' mean, in methods that look at several; and of the clean view for the answer of zero-shot.
    let several = ask("view-shift");
    assert_eq!(several["zero_shot"]["sigmoid"], record["sigmoid"]);
    assert!(several["sigmoid"].as_f64().unwrap() > 0.0);

    // A model without a bias has no such number.
    let plain = bench.rtpt(&["classify", "--json", &image]);
    assert!(plain.records()[0].get("sigmoid").is_none());
}

#[test]
fn a_text_model_in_onnx_is_run_as_it_is() {
    let goldens = Goldens::open("tiny-others.safetensors");
    let bench = Bench::new();
    folder(&bench, "tiny-closed");
    let import = ["bundle", "import", "tiny-closed", "-o", "out"];
    // Nothing says the scale of the logits.
    bench.rtpt(&import).fails_with(3, &["the logit scale is missing", "--logit-scale"]);
    let run = bench.rtpt(&[&import[..], &["--logit-scale", "20"]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("text_encoder.onnx, in ONNX, 40 tokens at most"), "{}", run.stdout);
    assert_eq!(bench.rtpt(&["bundle", "check", "out"]).code, 0);
    let (labels, image) = (bench.write("labels.txt", CLASSES), bench.image("rgb.png"));
    let on = ["--bundle", "out", "--labels", &labels, "--views", "4"];
    let run = bench.rtpt(&[&["trace", &image, "-o", "t"], &on[..]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    let found = Goldens::read(&bench.path("t"));
    let golden = |part: &str| goldens.flat(&format!("tiny-mobileclip.{part}"));
    assert_near(&found.flat("views")[..3 * 24 * 24], &golden("view"), 1e-6, "view");
    assert_near(&found.flat("classes"), &golden("classes"), 1e-5, "classes");
    // It has no gradients, and its labels are remembered like any.
    let context = bench.rtpt(&[&["classify", &image, "--method", "context"], &on[..]].concat());
    context.fails_with(2, &["the text tower's gradients", "a model in ONNX", "another method"]);
    let again = bench.rtpt(&[&["trace", &image, "-o", "t2"], &on[..]].concat());
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(Goldens::read(&bench.path("t2")).metadata("classes_origin"), "remembered");
    let small = bench.rtpt(&["bundle", "quantize", "out", "-o", "small", "--max-deviation", "0.5"]);
    assert_eq!(small.code, 0, "{}", small.stderr);
    let long = bench.write("long.txt", format!("dog\n{}\n", "very ".repeat(40)).as_bytes());
    bench.rtpt(&["classify", "--bundle", "out", "--labels", &long, &image]).fails_with(2, &["expected at most 40"]);
}

#[test]
fn a_text_model_in_onnx_that_cannot_be_used_is_refused() {
    for (file, change, part) in [
        ("onnx/text_model.onnx", (|bytes: &mut Vec<u8>| bytes.truncate(200)) as fn(&mut Vec<u8>), "cannot be parsed"),
        (
            "tokenizer_config.json",
            |bytes| *bytes = b"{}".to_vec(),
            "model_max_length in tokenizer_config.json is missing",
        ),
        (
            "tokenizer_config.json",
            |bytes| *bytes = br#"{"model_max_length": 40}"#.to_vec(),
            "pad_token in tokenizer_config.json is missing",
        ),
        (
            "tokenizer_config.json",
            |bytes| *bytes = br#"{"model_max_length": 99999, "pad_token": "!"}"#.to_vec(),
            "the length of its texts (tokens) is 99999",
        ),
        ("onnx/vision_model.onnx", |bytes| bytes.clear(), "graph"),
    ] {
        let bench = Bench::new();
        let path = folder(&bench, "tiny-closed").join(file);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        bench.rtpt(&["bundle", "import", "tiny-closed", "-o", "out", "--logit-scale", "20"]).fails_with(3, &[part]);
    }
    let bench = Bench::new();
    fs::remove_file(folder(&bench, "tiny-closed").join("tokenizer.json")).unwrap();
    let import = ["bundle", "import", "tiny-closed", "-o", "out", "--logit-scale", "20"];
    bench.rtpt(&import).fails_with(3, &["the tokenizer is missing", "tokenizer.json beside a text model"]);
}

#[test]
fn configurations_of_siglip_that_are_not_understood_are_refused() {
    let refused = |file: &str, field: &str, value: Value, parts: &[&str]| {
        let bench = Bench::new();
        let path = folder(&bench, "tiny-siglip-transformers").join(file);
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        *config.pointer_mut(field).unwrap() = value;
        fs::write(&path, config.to_string()).unwrap();
        bench.rtpt(&["bundle", "import", "tiny-siglip-transformers", "-o", "out"]).fails_with(3, parts);
    };
    refused("config.json", "/text_config/hidden_act", "relu".into(), &["hidden_act is relu"]);
    refused("config.json", "/text_config/intermediate_size", 64.into(), &["mlp.fc1.weight is [40, 16]", "[64, 16]"]);
    refused(
        "config.json",
        "/text_config/max_position_embeddings",
        64.into(),
        &["the context length is 40, expected 64"],
    );
    let tokenizer = "tokenizer_config.json";
    refused(
        tokenizer,
        "/tokenizer_class",
        "T5Tokenizer".into(),
        &["tokenizer_class in tokenizer_config.json is T5Tokenizer"],
    );
    refused("preprocessor_config.json", "/size/width", 20.into(), &["the height and width of a square"]);
    refused(
        "preprocessor_config.json",
        "/image_processor_type",
        "BitImageProcessor".into(),
        &["SiglipImageProcessorFast"],
    );
}

#[test]
fn what_is_missing_for_texts_seen_whole_is_named() {
    for (name, change, parts) in [
        ("tiny-mobileclip", json!({"pad_id": 5000}), ["a token is 5000", "token_embedding"]),
        ("tiny-siglip", json!({"proj_bias": false}), ["the text tower's projection is with a bias", "without one"]),
        ("tiny-siglip", json!({"mlp_ratio": 4.0}), ["mlp.c_fc.weight is [59, 16]", "[64, 16]"]),
    ] {
        let bench = Bench::new();
        let run = import(&bench, name, |config| {
            for (field, value) in change.as_object().unwrap() {
                config["model_cfg"]["text_cfg"][field] = value.clone();
            }
        });
        run.fails_with(3, &parts);
    }
    let bench = Bench::new();
    let model = folder(&bench, "tiny-siglip");
    let config = model.join("tokenizer_config.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    value["pad_token"] = "<nothing>".into();
    fs::write(&config, value.to_string()).unwrap();
    bench
        .rtpt(&["bundle", "import", "tiny-siglip", "-o", "out"])
        .fails_with(3, &["\"<nothing>\", which fills texts up", "a token of tokenizer.json"]);
    fs::remove_file(&config).unwrap();
    bench
        .rtpt(&["bundle", "import", "tiny-siglip", "-o", "out"])
        .fails_with(3, &["pad_token in tokenizer_config.json", "missing"]);
}

#[test]
fn punctuation_and_capitals_are_nothing_to_a_tokenizer_that_ignores_them() {
    let bench = Bench::new();
    assert_eq!(import(&bench, "tiny-siglip", |_| {}).code, 0);
    let image = bench.image("rgb.png");
    let classes = |labels: &str| {
        let labels = bench.write("labels.txt", labels.as_bytes());
        let run = bench.rtpt(&["trace", "--bundle", "out", "--labels", &labels, "--views", "2", &image, "-o", "t"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        Goldens::read(&bench.path("t")).matrix("classes")
    };
    assert_eq!(classes("dog\nred car\n"), classes("DOG!\n\"Red\" (car)\n"));
    assert_ne!(classes("dog\nred car\n"), classes("dog\nred cars\n"));
}
