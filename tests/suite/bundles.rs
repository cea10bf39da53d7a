//! Bundles, good and broken: `rtpt bundle`, and exit code 3 with what to do.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use half::f16;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};

use crate::goldens::{Goldens, root};
use crate::program::{Bench, BrokenBundle};

/// Breaks a copy of the tiny bundle and asserts that classifying with it is refused.
fn assert_refused(parts: &[&str], break_it: impl FnOnce(&BrokenBundle)) {
    let bench = Bench::new();
    let (bundle, image) = (bench.bundle(), bench.image("rgb.png"));
    break_it(&bundle);
    bench.rtpt(&["classify", "--bundle", bundle.folder(), &image]).fails_with(3, parts);
}

#[test]
fn a_good_bundle_passes_its_check_and_shows_its_deviation() {
    let run = Bench::new().rtpt(&["bundle", "check"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    for stage in ["view", "features", "logits"] {
        let line = run.stdout.lines().find(|line| line.starts_with(stage)).expect(stage);
        assert!(line.ends_with("ok"), "{line}");
    }
}

#[test]
fn info_shows_what_the_bundle_holds() {
    let bench = Bench::new();
    let run = bench.rtpt(&["bundle", "info"]);
    assert_eq!(run.code, 0);
    for part in ["tiny@", "16×16 pixels to 8 numbers", "5, of which 4", "image_encoder.onnx", "BLAKE3"] {
        assert!(run.stdout.contains(part), "{part}: {}", run.stdout);
    }
    let classes = bench.rtpt(&["bundle", "info", "--classes"]);
    assert_eq!(classes.stdout, "red\nsea horse\nyin yang\nwatch\numbrella\n");
}

#[test]
fn goldens_that_are_not_reproduced_fail_the_check() {
    let bench = Bench::new();
    let bundle = bench.bundle();
    replace_tensor(&bundle, "features", vec![1, 8], &[0.125_f32; 8].map(f32::to_le_bytes).concat());
    let run = bench.rtpt(&["bundle", "check", bundle.folder()]);
    run.fails_with(3, &["goldens are not reproduced", "do not trust this bundle"]);
    assert!(run.stdout.contains("FAILED"), "{}", run.stdout);
}

#[test]
fn no_bundle() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    let file = bench.write("model.zip", b"PK");
    bench.rtpt(&["classify", "--bundle", "nowhere", &image]).fails_with(3, &["there is no folder nowhere"]);
    bench.rtpt(&["classify", "--bundle", &file, &image]).fails_with(3, &["it is a file", "manifest.json"]);
    bench.rtpt(&["classify", "--bundle", ".", &image]).fails_with(3, &["it has no manifest.json"]);
}

#[test]
fn wrong_digest_and_size() {
    assert_refused(&["image_encoder.onnx", "BLAKE3 digest", "copy the bundle again"], |bundle| {
        bundle.damage("image_encoder.onnx", |bytes| bytes[5000] ^= 1);
    });
    assert_refused(&["classes.safetensors", "BLAKE3 digest"], |bundle| {
        bundle.damage("classes.safetensors", |bytes| *bytes.last_mut().unwrap() ^= 1);
    });
    assert_refused(&["labels.txt", "size 2", "the manifest says 29"], |bundle| {
        bundle.damage("labels.txt", |bytes| bytes.truncate(2));
    });
}

#[test]
fn a_file_nobody_reads_is_verified_too() {
    assert_refused(&["extra.bin", "BLAKE3 digest"], |bundle| {
        fs::write(bundle.file("extra.bin"), b"weights").unwrap();
        bundle.forge("extra.bin", |_| {});
        bundle.damage("extra.bin", |bytes| bytes[0] = b'W');
    });
}

#[test]
fn missing_files() {
    for name in ["image_encoder.onnx", "classes.safetensors", "labels.txt", "goldens.safetensors"] {
        assert_refused(&[name, "is missing from the bundle"], |bundle| fs::remove_file(bundle.file(name)).unwrap());
    }
}

#[test]
fn manifests_that_make_no_sense() {
    assert_refused(&["format version 2, expected 1", "matching rtpt"], |bundle| {
        bundle.manifest(|manifest| {
            manifest["format"] = 2.into();
            manifest["new"] = "field".into();
        });
    });
    assert_refused(&["not a valid manifest"], |bundle| fs::write(bundle.file("manifest.json"), b"{").unwrap());
    assert_refused(&["not a valid manifest", "unknown field `extra`"], |bundle| {
        bundle.manifest(|manifest| manifest["extra"] = 1.into());
    });
    assert_refused(&["manifest.json", "1048576"], |bundle| {
        bundle.damage("manifest.json", |bytes| bytes.resize((1 << 20) + 1, b' '));
    });
    for (field, pointer, value) in [
        ("image.resolution", "/image/resolution", 7.into()),
        ("image.resolution", "/image/resolution", 1025.into()),
        ("embedding", "/embedding", 0.into()),
        ("embedding", "/embedding", 8193.into()),
        ("views.count", "/views/count", 1025.into()),
        ("logit_scale", "/logit_scale", (-1.0).into()),
        ("image.std", "/image/std/1", 0.0.into()),
        ("files", "/image/file", "../../etc/passwd".into()),
    ] {
        assert_refused(&[&format!("manifest's {field}"), "expected"], |bundle| {
            bundle.manifest(|manifest| *manifest.pointer_mut(pointer).unwrap() = value);
        });
    }
    for (part, pointer, value) in [
        ("the number of tuning steps is 101", "/head/steps", 101.into()),
        ("the fraction of selected views is 1.5", "/head/selection", 1.5.into()),
        ("one of zero-shot", "/head/default", "magic".into()),
    ] {
        assert_refused(&["not a valid manifest", part], |bundle| {
            bundle.manifest(|manifest| *manifest.pointer_mut(pointer).unwrap() = value);
        });
    }
    for name in ["../x", "a/../../x", "/etc/passwd", "a\\b", ".hidden", ""] {
        assert_refused(&["names without folders"], |bundle| {
            bundle.manifest(|manifest| manifest["files"][name] = manifest["files"]["labels.txt"].clone());
        });
    }
}

#[test]
fn class_embeddings_that_are_wrong() {
    let last_value = |value: f32| {
        move |bundle: &BrokenBundle| {
            bundle.forge("classes.safetensors", move |bytes| {
                let start = bytes.len() - 4;
                bytes[start..].copy_from_slice(&value.to_le_bytes());
            });
        }
    };
    assert_refused(&["value 39 of embeddings is NaN", "a finite number"], last_value(f32::NAN));
    assert_refused(&["value 39 of embeddings is inf"], last_value(f32::INFINITY));
    assert_refused(&["embedding of \"umbrella\"", "a row of length 1"], last_value(7.0));
    assert_refused(&["classes.safetensors", "safetensors format"], |bundle| {
        bundle.forge("classes.safetensors", |bytes| bytes.truncate(40));
    });
    assert_refused(&["the shape of embeddings is [5, 8], expected [5, 9]"], |bundle| {
        bundle.manifest(|manifest| manifest["embedding"] = 9.into());
    });
    assert_refused(&["name 4 is name 0"], |bundle| {
        // Same length, so that the header of the file stays valid.
        bundle.forge("classes.safetensors", |bytes| replace(bytes, b"umbrella\\\"", b"red\\\"     "));
    });
}

#[test]
fn class_embeddings_may_be_in_half_precision() {
    let bench = Bench::new();
    let bundle = bench.bundle();
    let names = r#"["red","sea horse","yin yang","watch","umbrella"]"#;
    let table = Goldens::read(&bundle.file("classes.safetensors")).matrix("embeddings");
    let stored = |dtype: Dtype, bytes: Vec<u8>| {
        let embeddings = TensorView::new(dtype, vec![5, 8], &bytes).unwrap();
        let metadata = HashMap::from([("names".to_string(), names.to_string())]);
        let file = serialize([("embeddings", embeddings)], Some(metadata)).unwrap();
        bundle.forge("classes.safetensors", |bytes| *bytes = file);
    };
    stored(Dtype::F16, table.iter().flat_map(|&value| f16::from_f64(value).to_le_bytes()).collect());
    let (image, trace) = (bench.image("rgb.png"), ["trace", "--views", "2", "--bundle", bundle.folder()]);
    let run = bench.rtpt(&[&trace[..], &[&image, "-o", "t"]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    let classes = Goldens::read(&bench.path("t")).matrix("classes");
    let off = |a: f64, b: f64| (a - b).abs() > 1e-3;
    assert!(!classes.iter().zip(&table).any(|(&a, &b)| off(a, b)), "{classes}");
    assert!(classes.iter().zip(&table).any(|(a, b)| a != b), "rounded, and of unit length again");

    stored(Dtype::F64, table.iter().flat_map(|value| value.to_le_bytes()).collect());
    bench
        .rtpt(&[&trace[..], &[&image, "-o", "t"]].concat())
        .fails_with(3, &["the type of embeddings is F64, expected F32 or F16"]);
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let start = bytes.windows(from.len()).position(|window| window == from).expect("the pattern is there");
    bytes[start..start + from.len()].copy_from_slice(to);
}

#[test]
fn default_labels_the_bundle_does_not_have() {
    assert_refused(&["labels.txt", "names from classes.safetensors", "\"rot\""], |bundle| {
        bundle.forge("labels.txt", |bytes| replace(bytes, b"red", b"rot"));
    });
}

#[test]
fn encoders_that_do_not_fit() {
    assert_refused(&["the image encoder cannot be parsed", "damaged"], |bundle| {
        bundle.forge("image_encoder.onnx", |bytes| bytes.truncate(9000));
    });
    assert_refused(&["the image encoder cannot be", "damaged"], |bundle| {
        bundle.forge("image_encoder.onnx", |bytes| *bytes = b"not a model at all".to_vec());
    });
    // The model says 16 where the manifest now says 32.
    assert_refused(&["encoder's input", "[N, 3, 32, 32]"], |bundle| {
        bundle.manifest(|manifest| manifest["image"]["resolution"] = 32.into());
        // With a golden view of that size, only the encoder is left to object.
        replace_tensor(bundle, "view", vec![3, 32, 32], &[0; 3 * 32 * 32 * 4]);
    });
    assert_refused(&["encoder's output", "[1, 9] in f32"], |bundle| {
        bundle.manifest(|manifest| manifest["embedding"] = 9.into());
        replace_tensor(bundle, "features", vec![1, 9], &[0; 9 * 4]);
        let names = r#"["red","sea horse","yin yang","watch","umbrella"]"#;
        let third = (1.0_f32 / 3.0).to_le_bytes();
        let table = third.repeat(5 * 9);
        let embeddings = TensorView::new(Dtype::F32, vec![5, 9], &table).unwrap();
        let metadata = HashMap::from([("names".to_string(), names.to_string())]);
        let forged = serialize([("embeddings", embeddings)], Some(metadata)).unwrap();
        bundle.forge("classes.safetensors", |bytes| *bytes = forged);
    });
}

/// Replaces one f32 tensor of the goldens.
pub fn replace_tensor(bundle: &BrokenBundle, name: &str, shape: Vec<usize>, data: &[u8]) {
    let bytes = fs::read(bundle.file("goldens.safetensors")).unwrap();
    let old = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: HashMap<String, TensorView<'_>> = old.tensors().into_iter().collect();
    tensors.insert(name.into(), TensorView::new(Dtype::F32, shape, data).unwrap()).expect("it replaces one");
    let forged = serialize(tensors, None).unwrap();
    bundle.forge("goldens.safetensors", |bytes| *bytes = forged);
}

#[test]
fn an_encoder_that_overflows_is_reported_by_view() {
    let bench = Bench::new();
    let (bundle, image) = (bench.bundle(), bench.image("rgb.png"));
    // models/tiny_bundle.py puts this bias on the first dimension.
    bundle.forge("image_encoder.onnx", |bytes| replace(bytes, &0.15625_f32.to_le_bytes(), &f32::NAN.to_le_bytes()));
    let run = bench.rtpt(&["classify", "--json", "--bundle", bundle.folder(), &image]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let error = &run.records()[0]["error"];
    assert_eq!(error["kind"], "features_not_finite", "{error}");
    assert!(error["message"].as_str().unwrap().contains("of view 0 are not finite (dimension 0 is NaN)"), "{error}");
}

#[test]
fn the_bundle_that_comes_along_is_found_from_any_folder() {
    let bench = Bench::new();
    let run = bench.rtpt_in_clone(&["bundle", "info"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.starts_with("bundle         everyday@"), "{}", run.stdout);
}

/// Megabytes that the bundle which comes with the program may have.
const EVERYDAY_MB_MAX: u64 = 16;

#[test]
fn the_everyday_bundle_reproduces_its_goldens_and_is_small() {
    let bundle = assert_reproduces("models/everyday/bundle");
    let size: u64 = fs::read_dir(&bundle).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(size <= EVERYDAY_MB_MAX * 1_000_000, "{size} bytes");
}

#[test]
fn the_demo_bundle_reproduces_its_goldens() {
    assert_reproduces("models/demo/bundle");
}

/// A bundle of the repository, which gives its golden results here.
fn assert_reproduces(bundle: &str) -> PathBuf {
    let bundle = root().join(bundle);
    let run = Bench::new().rtpt(&["bundle", "check", bundle.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    bundle
}

#[test]
fn the_demo_runs_and_resists() {
    let bench = Bench::new();
    let picture = bench.path("why.png");
    let run = bench.rtpt_in_clone(&["demo", "--views", "16", "--explain", picture.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let totals = run.stdout.lines().find(|line| line.starts_with("right")).expect("a line of totals");
    let counts: Vec<usize> = totals.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [clean_zero_shot, all, _, _, attacked_zero_shot, _, attacked_rtpt, _] = counts[..] else { panic!("{totals}") };
    assert_eq!(clean_zero_shot, all, "the photos were chosen so");
    assert!(attacked_zero_shot * 4 <= all && attacked_rtpt * 4 >= 3 * all, "{totals}");
    assert!(picture.is_file());
}

#[test]
fn a_bundle_is_named_by_place_or_by_flag() {
    let bench = Bench::new();
    let bundle = bench.bundle().folder().to_string();
    for command in ["check", "info"] {
        let [by_place, by_flag] = [&["bundle", command, &bundle][..], &["bundle", command, "--bundle", &bundle]]
            .map(|arguments| bench.rtpt_without_bundle(arguments));
        assert_eq!((by_flag.code, &by_flag.stdout), (0, &by_place.stdout), "{}", by_flag.stderr);
        // What is named on the command line goes before the environment.
        let mut named = bench.command(&["bundle", command, &bundle]);
        let output = named.env("RTPT_BUNDLE", "/nowhere").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command}");
    }
    let info = bench.rtpt(&["bundle", "info"]).stdout;
    assert!(info.contains("learning rate = "), "a parameter a line: {info}");
}
