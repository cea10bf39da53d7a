//! `rtpt trace`: every stage follows from the one before, in f64 and by another route.

use ndarray::{Array1, Array2};

use crate::goldens::Goldens;
use crate::program::Bench;

fn near(a: f64, b: f64, tolerance: f64, what: &str) {
    assert!((a - b).abs() < tolerance, "{what}: {a} and {b}");
}

#[test]
fn the_stages_of_a_trace_follow_from_one_another() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    let run = bench.rtpt(&["trace", "--views", "20", &image, "-o", "t.safetensors"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let trace = Goldens::read(&bench.path("t.safetensors"));
    let shapes: Vec<(&str, Vec<usize>)> = vec![
        ("views", vec![20, 3, 16, 16]),
        ("features", vec![20, 8]),
        ("classes", vec![4, 8]),
        ("logits", vec![20, 4]),
        ("selected", vec![2]),
        ("weights", vec![20]),
        ("tuned_logits", vec![20, 4]),
        ("prediction", vec![4]),
    ];
    assert_eq!(trace.names().len(), shapes.len());
    for (name, shape) in shapes {
        assert_eq!(trace.shape(name), shape, "{name}");
    }
    let (features, classes) = (trace.matrix("features"), trace.matrix("classes"));
    let (logits, tuned) = (trace.matrix("logits"), trace.matrix("tuned_logits"));
    let expected: Array2<f64> = 20.0 * features.dot(&classes.t());
    expected.iter().zip(&logits).for_each(|(a, b)| near(*a, *b, 1e-3, "logits"));
    let entropy = |view: usize| {
        let row = logits.row(view).mapv(f64::exp);
        let p = &row / row.sum();
        -p.iter().map(|p| p * p.ln()).sum::<f64>()
    };
    let mut order: Vec<usize> = (0..20).collect();
    order.sort_by(|&a, &b| entropy(a).total_cmp(&entropy(b)));
    assert_eq!(trace.indices("selected"), order[..2]);
    let weights = trace.vector("weights");
    near(weights.sum(), 1.0, 1e-5, "weights");
    let prediction: Array1<f64> = weights.dot(&tuned);
    prediction.iter().zip(&trace.vector("prediction")).for_each(|(a, b)| near(*a, *b, 1e-4, "prediction"));
    let moved = (&tuned - &logits).iter().fold(0.0_f64, |largest, e| largest.max(e.abs()));
    assert!(moved > 0.01, "nothing was tuned");
}

#[test]
fn a_trace_tells_its_settings() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    bench.rtpt(&[
        "trace",
        "--method",
        "class-lowrank",
        "--class-cutoff",
        "0.09",
        "--seed",
        "9",
        "--augment",
        "crop",
        "--batch",
        "2",
        &image,
        "-o",
        "t",
    ]);
    let trace = Goldens::read(&bench.path("t"));
    for (key, value) in [
        ("labels", r#"["red","sea horse","yin yang","watch"]"#),
        ("method", "class-lowrank"),
        ("head", "class-lowrank"),
        ("seed", "9"),
        ("augment", "crop"),
        ("batch", "2"),
        ("logit_scale", "20"),
        ("selection", "0.1"),
        ("learning_rate", "0.02"),
        ("prompt", r#"["a photo of a {}."]"#),
        ("classes_origin", "bundle"),
        ("rank", "32"),
        ("class_cutoff", "0.09"),
    ] {
        assert_eq!(trace.metadata(key), value, "{key}");
    }
    bench.rtpt(&["trace", "--method", "none", &image, "-o", "t"]);
    let trace = Goldens::read(&bench.path("t"));
    assert_eq!(trace.matrix("logits"), trace.matrix("tuned_logits"));
}

#[test]
fn a_learning_rate_belongs_to_its_head() {
    let bench = Bench::new();
    let (image, bundle) = (bench.image("rgb.png"), bench.bundle());
    bundle.manifest(|manifest| manifest["head"]["learning_rate"] = 0.125.into());
    let rate = |arguments: &[&str]| {
        let run = bench.rtpt(&[&["trace", "--bundle", bundle.folder(), &image, "-o", "t"], arguments].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        Goldens::read(&bench.path("t")).metadata("learning_rate")
    };
    assert_eq!(rate(&[]), "0.125");
    assert_eq!(rate(&["--head", "class-shift"]), "0.125");
    assert_eq!(rate(&["--head", "class-lowrank"]), "0.02");
    assert_eq!(rate(&["--head", "class-lowrank", "--lr", "0.5"]), "0.5");
}

#[test]
fn a_trace_of_nothing_or_to_nowhere_is_an_error() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    bench.rtpt(&["trace", "missing.png", "-o", "t"]).fails_with(1, &["missing.png"]);
    bench.rtpt(&["trace", &image, "-o", "no/where"]).fails_with(1, &["cannot write no/where"]);
    assert!(!bench.path("t").exists());
}
