//! The heads `context` and `class-lowrank` against R-TPT's formulas in PyTorch's autograd, and the class cut-off.

use std::sync::Arc;

use ndarray::{Array2, Axis, s};
use rtpt_edge::internal::method::{
    ClassLowrank, Context, ContextModel, Decide, Decision, Head, Material, Tuned, class_basis,
};
use rtpt_edge::internal::rows::{Real, scaled_products};
use rtpt_edge::internal::text::{Activation, PromptTokens, Prompts, TowerShape, TowerStyle};
use rtpt_edge::internal::tuning::{mean_entropy, mean_entropy_backward};
use rtpt_edge::{Method, MethodSettings};
use serde::Deserialize;

use crate::episodes::{assert_episode, assert_near, prepared};
use crate::goldens::Goldens;
use crate::tower::golden_prompts;
use crate::toy::toy_tower;

#[derive(Deserialize)]
struct Case {
    name: String,
    head: Method,
    context: Vec<u32>,
    classes: usize,
    steps: usize,
    scale: f64,
    learning_rate: f64,
    rank: usize,
}

impl Case {
    fn settings(&self) -> MethodSettings {
        let mut settings = MethodSettings::of(self.head);
        settings.set("steps", self.steps as f64).unwrap();
        settings.set("learning_rate", self.learning_rate).unwrap();
        if self.head.name() == "class-lowrank" {
            settings.set("rank", self.rank as f64).unwrap();
        }
        settings
    }

    /// The tower and prompts the goldens were made with.
    fn context_model<T: Real>(&self) -> ContextModel<T> {
        let shape = TowerShape {
            layers: 2,
            width: 64,
            heads: 4,
            context_length: 77,
            vocabulary: 600,
            embedding: 16,
            hidden: 256,
            activation: Activation::QuickGelu,
            style: TowerStyle::CLIP,
        };
        let tower = toy_tower::<T>(shape);
        let shared = [&[598], &self.context[..]].concat();
        let tokens = PromptTokens { shared, fixed: 1, own: golden_prompts(self.classes, 600) };
        let prompts = Prompts::read(&tower, &tokens).unwrap();
        ContextModel::new(Arc::new(tower), prompts)
    }

    fn prepared<T: Real>(&self, settings: &MethodSettings, classes: &Array2<T>) -> Box<dyn Decide<T>> {
        let context = (self.head.name() == "context").then(|| Arc::new(self.context_model()));
        prepared(settings, Material { classes: classes.view(), context })
    }
}

fn cases(goldens: &Goldens) -> Vec<Case> {
    let cases: Vec<Case> = serde_json::from_str(&goldens.metadata("cases")).unwrap();
    assert_eq!(cases.len(), 8);
    cases
}

#[test]
fn episodes_agree_with_pytorch() {
    let goldens = Goldens::open("prompts.safetensors");
    for case in cases(&goldens) {
        let classes = goldens.matrix(&format!("{}.classes", case.name));
        let settings = case.settings();
        let double = case.prepared(&settings, &classes);
        let single = case.prepared(&settings, &classes.mapv(|value| value as f32));
        assert_episode(&goldens, &case.name, case.scale, &*double, &*single, 2e-3);
    }
}

#[test]
fn the_tower_gives_the_classes_the_episode_starts_from() {
    let goldens = Goldens::open("prompts.safetensors");
    let cases = cases(&goldens);
    for case in cases.iter().filter(|case| case.head.name() == "context") {
        let classes = goldens.matrix(&format!("{}.classes", case.name));
        let model = case.context_model();
        let head = Context::new(&model, classes.view(), None);
        let start = head.start();
        assert_eq!(start.dim(), (case.context.len(), 64));
        assert_near(&Context::into_classes(head.forward(&start)), &classes, 1e-12, &case.name);
        let gradient = gradient_of(&head, &start, &goldens, case);
        assert_near(&gradient, &goldens.matrix(&format!("{}.gradient", case.name)), 1e-9, &case.name);
    }
}

/// The first gradient of an episode.
fn gradient_of<H: Head<f64>>(head: &H, theta: &Array2<f64>, goldens: &Goldens, case: &Case) -> Array2<f64> {
    let features = goldens.matrix(&format!("{}.features", case.name));
    let chosen = features.select(Axis(0), &goldens.indices(&format!("{}.selected", case.name)));
    let tape = head.forward(theta);
    let logits = scaled_products(case.scale, chosen.view(), H::classes(&tape));
    let dlogits = mean_entropy_backward(mean_entropy(&logits).1);
    head.backward(&tape, case.scale * dlogits.t().dot(&chosen))
}

#[test]
fn the_lowrank_gradient_agrees_with_central_differences_away_from_zero() {
    let goldens = Goldens::open("prompts.safetensors");
    let case = cases(&goldens).into_iter().find(|case| case.name == "class-lowrank-v20-c5-s1").unwrap();
    let golden = |part: &str| goldens.matrix(&format!("{}.{part}", case.name));
    let (classes, features) = (golden("classes"), golden("features"));
    let basis = class_basis(classes.view(), case.rank);
    let head = ClassLowrank { classes: classes.view(), basis: basis.view() };
    let theta = Array2::from_shape_fn(head.start().dim(), |(c, r)| 0.1 * ((c * 5 + r * 3) % 7) as f64 - 0.3);
    let chosen = features.select(Axis(0), &goldens.indices(&format!("{}.selected", case.name)));
    let gradient = gradient_of(&head, &theta, &goldens, &case);
    for index in ndarray::indices(theta.dim()) {
        let loss = |step: f64| {
            let mut moved = theta.clone();
            moved[index] += step;
            mean_entropy(&scaled_products(case.scale, chosen.view(), head.finish(moved).view())).0
        };
        let numeric = (loss(1e-5) - loss(-1e-5)) / 2e-5;
        assert!((numeric - gradient[index]).abs() < 1e-7, "{index:?}: {numeric} and {}", gradient[index]);
    }
}

#[test]
fn the_basis_is_that_of_the_singular_value_decomposition() {
    let goldens = Goldens::open("prompts.safetensors");
    for case in cases(&goldens).iter().filter(|case| case.head.name() == "class-lowrank") {
        let classes = goldens.matrix(&format!("{}.classes", case.name));
        let expected = goldens.matrix(&format!("{}.basis", case.name));
        let found = class_basis(classes.view(), case.rank);
        assert_eq!(found.dim(), expected.dim());
        for (column, other) in found.columns().into_iter().zip(expected.columns()) {
            assert!((column.dot(&other).abs() - 1.0).abs() < 1e-9, "{}: {}", case.name, column.dot(&other));
        }
    }
}

#[test]
fn a_cutoff_of_zero_is_exact_and_others_leave_unlikely_classes_alone() {
    let goldens = Goldens::open("prompts.safetensors");
    // Five classes are all likely.
    for case in cases(&goldens).into_iter().filter(|case| case.classes >= 20) {
        let golden = |part: &str| goldens.matrix(&format!("{}.{part}", case.name));
        let (features, classes) = (golden("features"), golden("classes"));
        let with = |class_cutoff: f64| {
            let mut settings = case.settings();
            settings.set("class_cutoff", class_cutoff).unwrap();
            case.prepared(&settings, &classes).decide(features.view(), classes.view(), case.scale)
        };
        let exact = with(0.0);
        let likelihood = |class: usize| {
            let views = exact.logits.rows().into_iter();
            views.map(|row| rtpt_edge::internal::rows::softmax(row)[class]).fold(0.0, f64::max)
        };
        let mut likelihoods: Vec<f64> = (0..case.classes).map(likelihood).collect();
        let unlikely_everywhere = likelihoods.clone();
        likelihoods.sort_by(f64::total_cmp);
        // Half of the classes are below the cut-off, as far as that is allowed.
        let cutoff = likelihoods[case.classes / 2].min(0.09);
        let (exact_classes, cut) = (tuned_classes(exact), tuned_classes(with(cutoff)));
        let mut kept = 0;
        for (class, &likelihood) in unlikely_everywhere.iter().enumerate() {
            if likelihood < cutoff {
                assert_eq!(cut.row(class), classes.row(class), "{}, class {class}", case.name);
            } else {
                assert!(cut.row(class) != classes.row(class), "{}, class {class}", case.name);
                kept += 1;
            }
        }
        assert!(kept > 0 && kept < case.classes, "{}: {kept} kept", case.name);
        // A cut-off nothing is below changes nothing, but for the order of sums.
        let barely = tuned_classes(with(likelihoods[0] * 0.5));
        assert_near(&barely, &exact_classes, 1e-9, &case.name);
    }
}

#[test]
fn a_cutoff_above_every_class_tunes_nothing() {
    let goldens = Goldens::open("prompts.safetensors");
    let classes = goldens.matrix("context-v40-c40-s3.classes");
    // A view between all classes finds none of 40 likely.
    let features = classes.mean_axis(Axis(0)).unwrap().insert_axis(Axis(0));
    let mut settings = MethodSettings::of(Method::named("class-shift").unwrap());
    settings.set("class_cutoff", 0.09).unwrap();
    let method = prepared(&settings, Material { classes: classes.view(), context: None });
    let decision = method.decide(features.view(), classes.slice(s![.., ..]), 1.0);
    assert!(matches!(decision.tuned, Tuned::Nothing) && decision.losses.is_empty());
    assert_eq!(decision.tuned_logits(features.view(), classes.view(), 1.0), decision.logits);
}

fn tuned_classes(decision: Decision<f64>) -> Array2<f64> {
    match decision.tuned {
        Tuned::Classes(classes) => classes,
        _ => panic!("no class was tuned"),
    }
}
