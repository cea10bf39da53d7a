//! `rtpt bundle quantize` as its users run it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::{Bench, demo, tiny};

/// The size of a bundle's encoder (bytes).
fn encoder_bytes(folder: &Path) -> u64 {
    let manifest: Value = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let name = manifest["image"]["file"].as_str().unwrap();
    let size = fs::metadata(folder.join(name)).unwrap().len();
    assert_eq!(manifest["files"][name]["size"], size);
    size
}

/// The size of a bundle's text tower (bytes).
fn text_bytes(folder: &Path) -> u64 {
    fs::metadata(folder.join("text_encoder.safetensors")).unwrap().len()
}

/// The best class of every demo photo, clean and attacked.
fn answers(bench: &Bench, bundle: &str) -> Vec<String> {
    let photos = demo().join("../photos");
    let run = bench.rtpt(&["classify", "--json", "--views", "8", "--bundle", bundle, photos.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.records().iter().map(|record| record["top"][0]["label"].as_str().unwrap().to_string()).collect()
}

#[test]
fn the_demo_in_int8_is_a_quarter_of_its_size_and_answers_as_before() {
    let bench = Bench::new();
    let (from, photos) = (demo(), demo().join("../photos"));
    let [from, photos] = [&from, &photos].map(|path| path.to_str().unwrap());
    let run = bench.rtpt(&["bundle", "quantize", from, "-o", "int8", "--images", photos]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("21 layers in int8, 0 in f32\n"), "{}", run.stdout);
    let line = run.stdout.lines().find(|line| line.starts_with("features of 32 images: cosine at least ")).unwrap();
    let least: f64 = line.split(' ').nth(7).unwrap().trim_end_matches(',').parse().unwrap();
    assert!(least > 0.99 && least < 1.0, "{line}");
    assert!(encoder_bytes(&bench.path("int8")) * 7 < encoder_bytes(&demo()) * 2);
    let line = run.stdout.lines().find(|line| line.starts_with("embeddings of 100 texts: cosine at least ")).unwrap();
    let least: f64 = line.split(' ').nth(7).unwrap().parse().unwrap();
    assert!(least > 0.999 && least < 1.0, "{line}");
    assert!(text_bytes(&bench.path("int8")) * 7 < text_bytes(&demo()) * 4, "it was in f16");
    let check = bench.rtpt(&["bundle", "check", "int8"]);
    assert!(check.code == 0 && check.stdout.contains("gives its golden results"), "{}", check.stderr);
    let before = answers(&bench, from);
    let after = answers(&bench, "int8");
    let same = before.iter().zip(&after).filter(|(before, after)| before == after).count();
    // One of 32 may be as good as two labels at once.
    assert!(same >= before.len() - 1, "{before:?} {after:?}");
    let info = |bundle: &str| bench.rtpt(&["bundle", "info", bundle]).stdout;
    assert!(info("int8").contains("\nweights        21 layers in int8\n"), "{}", info("int8"));
    assert!(info(from).contains("\nweights        21 layers in f32\n"), "{}", info(from));
}

#[test]
fn layers_stay_in_f32_where_they_are_asked_for_or_cost_too_much() {
    let bench = Bench::new();
    let from = demo();
    let from = from.to_str().unwrap();
    let quantize = |more: &[&str]| bench.rtpt(&[&["bundle", "quantize", from], more].concat());
    let kept = quantize(&["-o", "kept", "--keep", "/stem/", "--keep", "/projection"]);
    assert_eq!(kept.code, 0, "{}", kept.stderr);
    assert!(kept.stderr.contains("measured on one image alone"), "{}", kept.stderr);
    assert!(kept.stdout.contains("19 layers in int8, 2 in f32\n"), "{}", kept.stdout);
    assert!(kept.stdout.contains("kept in f32: /stem/stem.0/Conv\n"), "{}", kept.stdout);
    assert!(text_bytes(&bench.path("kept")) < text_bytes(&demo()));
    let text = quantize(&["-o", "text", "--keep", "text_encoder"]);
    assert!(text.code == 0 && text.stdout.contains("21 layers in int8, 0 in f32\n"), "{}", text.stderr);
    assert_eq!(text_bytes(&bench.path("text")), text_bytes(&demo()));
    let info = bench.rtpt(&["bundle", "info", "kept"]).stdout;
    assert!(info.contains("\nweights        19 layers in int8, 2 layers in f32\n"), "{info}");
    // Below what all layers together cost, and above what the cheapest does.
    let bounded = quantize(&["-o", "bounded", "--max-deviation", "0.00002"]);
    assert_eq!(bounded.code, 0, "{}", bounded.stderr);
    let count = bounded.stdout.lines().filter(|line| line.starts_with("kept in f32: ")).count();
    assert!((1..20).contains(&count), "{}", bounded.stdout);
    assert!(bounded.stdout.contains(&format!("{} layers in int8, {count} in f32\n", 21 - count)), "{}", bounded.stdout);
    assert!(!bounded.stdout.contains("past the bound"), "{}", bounded.stdout);
    // Below what the text tower costs, too.
    let tight = quantize(&["-o", "tight", "--max-deviation", "0.000002"]);
    assert!(tight.stdout.contains(", past the bound: the text tower stays as it was\n"), "{}", tight.stdout);
    assert_eq!(text_bytes(&bench.path("tight")), text_bytes(&demo()));
}

#[test]
fn f16_is_half_of_the_size() {
    let bench = Bench::new();
    let from = demo();
    let run = bench.rtpt(&["bundle", "quantize", from.to_str().unwrap(), "-o", "f16", "--to", "f16"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("21 layers in f16, 0 in f32\n"), "{}", run.stdout);
    let (half, whole) = (encoder_bytes(&bench.path("f16")), encoder_bytes(&demo()));
    assert!(half * 100 > whole * 49 && half * 100 < whole * 52, "{half} {whole}");
}

#[test]
fn what_was_of_the_features_before_is_not_taken_over() {
    let bench = Bench::new();
    let bundle = bench.bundle();
    fs::write(bundle.file("calibration.json"), "{}").unwrap();
    fs::write(bundle.file("manifest.json.minisig"), "untrusted comment: x\n").unwrap();
    let run = bench.rtpt(&["bundle", "quantize", bundle.folder(), "-o", "small", "--max-deviation", "0.5"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let mut names: Vec<String> =
        fs::read_dir(bench.path("small")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(
        names,
        ["classes.safetensors", "goldens.safetensors", "image_encoder.onnx", "labels.txt", "manifest.json"]
    );
}

#[test]
fn what_cannot_be_quantized_is_refused_and_nothing_is_written() {
    let bench = Bench::new();
    let from = tiny();
    let from = from.to_str().unwrap();
    let quantize =
        |from: &str, more: &[&str]| bench.rtpt(&[&["bundle", "quantize", from, "-o", "small"], more].concat());
    quantize(from, &["--max-deviation", "0"])
        .fails_with(3, &["would be off by", "at most 0.0e0", "nothing was written"]);
    quantize(from, &["--keep", "/no/such"])
        .fails_with(2, &["no layer's name begins with \"/no/such\"", "expected one of"]);
    quantize(from, &["--max-deviation", "2"]).fails_with(2, &["--max-deviation", "0 to 1"]);
    quantize(from, &["--images", "nowhere"]).fails_with(1, &["nowhere"]);
    quantize("nowhere", &[]).fails_with(3, &["there is no folder nowhere"]);
    assert!(!bench.path("small").exists(), "nothing was written");
    assert_eq!(quantize(from, &["--max-deviation", "0.5"]).code, 0);
    quantize(from, &["--max-deviation", "0.5"]).fails_with(1, &["small", "exists"]);
    let again = bench.rtpt(&["bundle", "quantize", "small", "-o", "smaller"]);
    again.fails_with(3, &["no product of the image encoder has its weights in f32"]);
}

#[test]
fn an_image_that_cannot_be_read_is_named_and_the_others_count() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    fs::create_dir(bench.path("photos")).unwrap();
    fs::copy(&image, bench.path("photos/a.png")).unwrap();
    fs::write(bench.path("photos/b.png"), "no image").unwrap();
    let from = tiny();
    let more = ["--max-deviation", "0.5", "--images", "photos"];
    let run = bench.rtpt(&[&["bundle", "quantize", from.to_str().unwrap(), "-o", "small"], &more[..]].concat());
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("photos/b.png") && run.stdout.contains("features of 1 image:"), "{}", run.stdout);
}
