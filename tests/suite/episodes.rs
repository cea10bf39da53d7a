//! Tuning, weights and ensemble against PyTorch's autograd and AdamW, and gradients against central differences.

use ndarray::{Array1, Array2, Axis};
use rtpt_edge::head::{ClassShift, Head, HeadKind, HeadModel};
use rtpt_edge::reliability::reliability_weights;
use rtpt_edge::rows::scaled_products;
use rtpt_edge::tuning::{Episode, TuningSettings, mean_entropy, mean_entropy_backward, tune};
use serde::Deserialize;

use crate::goldens::Goldens;

#[derive(Deserialize)]
struct Case {
    name: String,
    steps: usize,
    scale: f64,
}

impl Case {
    fn settings(&self) -> TuningSettings {
        TuningSettings { steps: self.steps, ..TuningSettings::of(HeadKind::ClassShift) }
    }
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
    settings: &TuningSettings,
    double: &HeadModel<f64>,
    single: &HeadModel<f32>,
    single_tolerance: f64,
) {
    let golden = |part: &str| format!("{name}.{part}");
    let (features, classes) = (goldens.matrix(&golden("features")), goldens.matrix(&golden("classes")));
    let episode = tune(features.view(), classes.view(), scale, double, settings);
    assert_near(&episode.logits, &goldens.matrix(&golden("logits")), 1e-9, &golden("logits"));
    assert_eq!(episode.selected, goldens.indices(&golden("selected")), "{name}");
    assert_near(&episode.losses, &goldens.vector(&golden("losses")), 1e-9, &golden("losses"));
    let tuned = episode.tuned_logits(features.view(), scale);
    assert_near(&tuned, &goldens.matrix(&golden("tuned")), 1e-6, &golden("tuned"));
    let weights = reliability_weights(features.view());
    assert_near(&weights, &goldens.vector(&golden("weights")), 1e-9, &golden("weights"));
    let prediction = episode.prediction(weights.view(), features.view(), scale);
    assert_near(&prediction, &goldens.vector(&golden("prediction")), 1e-6, &golden("prediction"));

    let (features, classes) = (features.mapv(|value| value as f32), classes.mapv(|value| value as f32));
    let episode = tune(features.view(), classes.view(), scale as f32, single, settings);
    assert_eq!(episode.selected, goldens.indices(&golden("selected")), "{name} in f32");
    let tuned = episode.tuned_logits(features.view(), scale as f32).mapv(f64::from);
    assert_near(&tuned, &goldens.matrix(&golden("tuned")), single_tolerance, &golden("tuned"));
    let weights = reliability_weights(features.view()).mapv(f64::from);
    assert_near(&weights, &goldens.vector(&golden("weights")), 1e-3, &golden("weights"));
}

#[test]
fn episodes_agree_with_pytorch() {
    let goldens = Goldens::open("episodes.safetensors");
    for case in cases(&goldens) {
        let (double, single) = (HeadModel::ClassShift, HeadModel::ClassShift);
        assert_episode(&goldens, &case.name, case.scale, &case.settings(), &double, &single, 1e-3);
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
    let episode: Episode<f64> = tune(features.view(), classes.view(), 20.0, &HeadModel::ClassShift, &settings);
    assert!(episode.losses[2] < episode.losses[1] && episode.losses[1] < episode.losses[0], "{:?}", episode.losses);
}

#[test]
fn the_head_none_leaves_the_logits_alone() {
    let goldens = Goldens::open("episodes.safetensors");
    let features = goldens.matrix("v9-c3-d8-s1.features");
    let classes = goldens.matrix("v9-c3-d8-s1.classes");
    let settings = TuningSettings::of(HeadKind::None);
    let episode = tune(features.view(), classes.view(), 20.0, &HeadModel::None, &settings);
    assert_eq!(episode.tuned_logits(features.view(), 20.0), episode.logits);
    let weights = reliability_weights(features.view());
    let prediction = episode.prediction(weights.view(), features.view(), 20.0);
    assert_near(&prediction, &weights.dot(&episode.logits), 1e-12, "prediction");
    assert!(episode.losses.is_empty());
    let expected: Array1<f64> = 20.0 * classes.dot(&features.row(0));
    assert_near(episode.logits.row(0), &expected, 1e-12, "logits");
}
