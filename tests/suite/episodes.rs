//! Tuning, weights and ensemble against PyTorch's autograd and AdamW, and gradients against central differences.

use ndarray::{Array1, Array2, Axis};
use rtpt_edge::internal::method::{self, ClassShift, Decide, Head, Material, ViewShift, view_basis};
use rtpt_edge::internal::reliability::{ReliabilitySettings, reliability_weights};
use rtpt_edge::internal::rows::{Real, scaled_products};
use rtpt_edge::internal::tuning::{mean_entropy, mean_entropy_backward, weighted_entropy, weighted_entropy_backward};
use rtpt_edge::{Method, MethodSettings};
use serde::Deserialize;

use crate::goldens::Goldens;

#[derive(Deserialize)]
struct Case {
    name: String,
    steps: usize,
    scale: f64,
}

impl Case {
    fn settings(&self) -> MethodSettings {
        settings_of(Method::named("class-shift").unwrap(), self.steps)
    }
}

/// The published settings of a method with another number of steps, where it takes steps.
pub fn settings_of(method: Method, steps: usize) -> MethodSettings {
    let mut settings = MethodSettings::of(method);
    if settings.get("steps").is_some() {
        settings.set("steps", steps as f64).unwrap();
    }
    settings
}

/// A method in any float; the table prepares methods in f32 alone.
pub fn prepared<T: Real>(settings: &MethodSettings, material: Material<T>) -> Box<dyn Decide<T>> {
    match settings.method().name() {
        "zero-shot" => method::zero_shot::prepare(material, settings),
        "none" => method::none::prepare(material, settings),
        "class-shift" => method::class_shift::prepare(material, settings),
        "class-lowrank" => method::class_lowrank::prepare(material, settings),
        "view-shift" => method::view_shift::prepare(material, settings),
        "context" => method::context::prepare(material, settings),
        "mta" => method::mta::prepare(material, settings),
        "zero" => method::zero::prepare(material, settings),
        "dbd" => method::dbd::prepare(material, settings),
        other => panic!("{other} is not known here"),
    }
}

/// A method that needs nothing but the classes.
fn alone<T: Real>(settings: &MethodSettings) -> Box<dyn Decide<T>> {
    prepared(settings, Material { classes: Array2::zeros((0, 0)).view(), context: None })
}

fn cases(goldens: &Goldens) -> Vec<Case> {
    let cases: Vec<Case> = serde_json::from_str(&goldens.metadata("cases")).unwrap();
    assert_eq!(cases.len(), 12);
    cases
}

pub fn assert_near<'a>(
    found: impl IntoIterator<Item = &'a f64>,
    expected: impl IntoIterator<Item = &'a f64>,
    tolerance: f64,
    what: &str,
) {
    let (mut found, mut expected) = (found.into_iter(), expected.into_iter());
    let mut count = 0;
    loop {
        match (found.next(), expected.next()) {
            (Some(a), Some(b)) => assert!((a - b).abs() < tolerance, "{what}, value {count}: {a} and {b}"),
            (None, None) => break,
            _ => panic!("{what}: different lengths"),
        }
        count += 1;
    }
    assert!(count > 0, "{what} is empty");
}

/// Compares a golden episode in f64 and in f32, whose tuned logits may be off by `single_tolerance`.
pub fn assert_episode(
    goldens: &Goldens,
    name: &str,
    scale: f64,
    double: &dyn Decide<f64>,
    single: &dyn Decide<f32>,
    single_tolerance: f64,
) {
    let golden = |part: &str| format!("{name}.{part}");
    let (features, classes) = (goldens.matrix(&golden("features")), goldens.matrix(&golden("classes")));
    let decision = double.decide(features.view(), classes.view(), scale);
    assert_near(&decision.logits, &goldens.matrix(&golden("logits")), 1e-9, &golden("logits"));
    assert_eq!(decision.selected, goldens.indices(&golden("selected")), "{name}");
    assert_near(&decision.losses, &goldens.vector(&golden("losses")), 1e-9, &golden("losses"));
    let tuned = decision.tuned_logits(features.view(), classes.view(), scale);
    assert_near(&tuned, &goldens.matrix(&golden("tuned")), 1e-6, &golden("tuned"));
    assert_near(&decision.weights, &goldens.vector(&golden("weights")), 1e-9, &golden("weights"));
    assert_near(&decision.prediction, &goldens.vector(&golden("prediction")), 1e-6, &golden("prediction"));

    let (features, classes) = (features.mapv(|value| value as f32), classes.mapv(|value| value as f32));
    let decision = single.decide(features.view(), classes.view(), scale as f32);
    assert_eq!(decision.selected, goldens.indices(&golden("selected")), "{name} in f32");
    let tuned = decision.tuned_logits(features.view(), classes.view(), scale as f32).mapv(f64::from);
    assert_near(&tuned, &goldens.matrix(&golden("tuned")), single_tolerance, &golden("tuned"));
    let weights = decision.weights.mapv(f64::from);
    assert_near(&weights, &goldens.vector(&golden("weights")), 1e-3, &golden("weights"));
}

#[test]
fn episodes_agree_with_pytorch() {
    let goldens = Goldens::open("episodes.safetensors");
    for case in cases(&goldens) {
        let settings = case.settings();
        let (double, single) = (alone(&settings), alone(&settings));
        assert_episode(&goldens, &case.name, case.scale, &*double, &*single, 1e-3);
    }
}

#[test]
fn the_first_gradient_agrees_with_pytorch() {
    let goldens = Goldens::open("episodes.safetensors");
    for case in cases(&goldens) {
        let golden = |part: &str| format!("{}.{part}", case.name);
        let (features, classes) = (goldens.matrix(&golden("features")), goldens.matrix(&golden("classes")));
        let chosen = features.select(Axis(0), &goldens.indices(&golden("selected")));
        let gradient = gradient_at(&chosen, &classes, &Array2::zeros(classes.dim()), case.scale);
        let head = ClassShift { classes: classes.view() };
        let zero = head.start();
        assert_eq!(zero, Array2::<f64>::zeros(classes.dim()));
        let (a, b) =
            (ClassShift::into_classes(head.forward_start(&zero)), ClassShift::into_classes(head.forward(&zero)));
        assert_near(&a, &b, 1e-12, "classes at zero");
        assert_near(&gradient, &goldens.matrix(&golden("gradient")), 1e-10, &golden("gradient"));
    }
}

fn gradient_at(chosen: &Array2<f64>, classes: &Array2<f64>, theta: &Array2<f64>, scale: f64) -> Array2<f64> {
    let head = ClassShift { classes: classes.view() };
    let tape = head.forward(theta);
    let logits = scaled_products(scale, chosen.view(), ClassShift::classes(&tape));
    let dlogits = mean_entropy_backward(mean_entropy(&logits).1);
    head.backward(&tape, scale * dlogits.t().dot(chosen))
}

#[test]
fn the_gradient_agrees_with_central_differences_away_from_zero() {
    let goldens = Goldens::open("episodes.safetensors");
    let case = "v9-c3-d8-s1";
    let classes = goldens.matrix(&format!("{case}.classes"));
    let chosen = goldens.matrix(&format!("{case}.features"));
    let theta = Array2::from_shape_fn(classes.dim(), |(c, d)| 0.1 * ((c * 5 + d * 3) % 7) as f64 - 0.3);
    let loss = |theta: &Array2<f64>| {
        let shifted = ClassShift { classes: classes.view() }.finish(theta.clone());
        mean_entropy(&scaled_products(20.0, chosen.view(), shifted.view())).0
    };
    let gradient = gradient_at(&chosen, &classes, &theta, 20.0);
    for index in ndarray::indices(theta.dim()) {
        let at = |step: f64| {
            let mut moved = theta.clone();
            moved[index] += step;
            loss(&moved)
        };
        let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((numeric - gradient[index]).abs() < 1e-7, "{index:?}: {numeric} and {}", gradient[index]);
    }
}

#[test]
fn tuning_lowers_the_loss_it_minimises() {
    let goldens = Goldens::open("episodes.safetensors");
    let features = goldens.matrix("v64-c10-d16-s3.features");
    let classes = goldens.matrix("v64-c10-d16-s3.classes");
    let settings = Case { name: String::new(), steps: 3, scale: 20.0 }.settings();
    let decision = alone::<f64>(&settings).decide(features.view(), classes.view(), 20.0);
    assert!(
        decision.losses[2] < decision.losses[1] && decision.losses[1] < decision.losses[0],
        "{:?}",
        decision.losses
    );
}

#[test]
fn the_method_none_leaves_the_logits_alone() {
    let goldens = Goldens::open("episodes.safetensors");
    let features = goldens.matrix("v9-c3-d8-s1.features");
    let classes = goldens.matrix("v9-c3-d8-s1.classes");
    let settings = MethodSettings::of(Method::named("none").unwrap());
    let decision = alone(&settings).decide(features.view(), classes.view(), 20.0);
    assert_eq!(decision.tuned_logits(features.view(), classes.view(), 20.0), decision.logits);
    let weights = reliability_weights(features.view(), ReliabilitySettings::RTPT);
    assert_eq!(decision.weights, weights);
    assert_near(&decision.prediction, &weights.dot(&decision.logits), 1e-12, "prediction");
    assert!(decision.losses.is_empty());
    let expected: Array1<f64> = 20.0 * classes.dot(&features.row(0));
    assert_near(decision.logits.row(0), &expected, 1e-12, "logits");
}

/// An episode of a method that tunes no classes, as `models/methods.py` computes it.
#[test]
fn methods_that_tune_no_classes_agree_with_pytorch() {
    #[derive(Deserialize)]
    struct MethodCase {
        name: String,
        episode: String,
        method: Method,
        steps: usize,
        scale: f64,
    }
    let (goldens, episodes) = (Goldens::open("methods.safetensors"), Goldens::open("episodes.safetensors"));
    let cases: Vec<MethodCase> = serde_json::from_str(&goldens.metadata("cases")).unwrap();
    assert_eq!(cases.len(), 30);
    for case in cases {
        let golden = |part: &str| format!("{}.{part}", case.name);
        let input = |part: &str| episodes.matrix(&format!("{}.{part}", case.episode));
        let (features, classes) = (input("features"), input("classes"));
        let settings = settings_of(case.method, case.steps);
        let decision = alone(&settings).decide(features.view(), classes.view(), case.scale);
        assert_near(&decision.weights, &goldens.vector(&golden("weights")), 1e-6, &golden("weights"));
        // Compared as probabilities: a class without votes has a logarithm of -∞.
        let probabilities = |logits: Array1<f64>| rtpt_edge::internal::rows::softmax(logits.view());
        let expected = probabilities(goldens.vector(&golden("prediction")));
        assert_near(&probabilities(decision.prediction.clone()), &expected, 1e-7, &golden("prediction"));
        if case.method.name() == "dbd" {
            let found = [decision.terms[0].1];
            assert_near(&found, &goldens.vector(&golden("agreement")), 1e-9, &golden("agreement"));
        }
        if case.method.name() == "view-shift" {
            assert_near(&decision.losses, &goldens.vector(&golden("losses")), 1e-8, &golden("losses"));
        }
        let (features, classes) = (features.mapv(|value| value as f32), classes.mapv(|value| value as f32));
        let decision = alone(&settings).decide(features.view(), classes.view(), case.scale as f32);
        let found = probabilities(decision.prediction.mapv(f64::from));
        assert_near(&found, &expected, 1e-4, &golden("prediction"));
    }
}

#[test]
fn the_gradient_of_view_shift_agrees_with_central_differences() {
    let goldens = Goldens::open("episodes.safetensors");
    let (features, classes) = (goldens.matrix("v9-c3-d8-s1.features"), goldens.matrix("v9-c3-d8-s1.classes"));
    let weights = reliability_weights(features.view(), ReliabilitySettings::TVSS);
    let basis = view_basis(features.view());
    assert!(basis.ncols() >= 3, "{:?}", basis.dim());
    let head = ViewShift { features: features.view(), basis: basis.view() };
    let logits = |theta: &Array2<f64>| scaled_products(20.0, head.forward(theta).rows.view(), classes.view());
    let loss = |theta: &Array2<f64>| weighted_entropy(&logits(theta), weights.view()).0;
    for theta in [head.start(), Array2::from_shape_fn((1, basis.ncols()), |(_, j)| 0.2 - 0.1 * j as f64)] {
        let dlogits = weighted_entropy_backward(weighted_entropy(&logits(&theta), weights.view()).1, weights.view());
        let gradient = head.backward(&head.forward(&theta), 20.0 * dlogits.dot(&classes));
        for index in ndarray::indices(theta.dim()) {
            let at = |step: f64| {
                let mut moved = theta.clone();
                moved[index] += step;
                loss(&moved)
            };
            let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((numeric - gradient[index]).abs() < 1e-8, "{index:?}: {numeric} and {}", gradient[index]);
        }
    }
}
