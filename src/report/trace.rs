//! Every intermediate of one image as a safetensors file, so that each stage can be recomputed elsewhere.

use std::collections::HashMap;

use ndarray::{ArrayBase, Data, Dimension};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

use crate::answerer::Outcome;
use crate::classifier::Classifier;

/// The trace of the classifier's last image.
///
/// Tensors: `views` `[V,3,R,R]`, `features` `[V,D]`, `classes` `[C,D]`, `logits` `[V,C]`, `selected` `[S]` (i64),
/// `weights` `[V]`, `tuned_logits` `[V,C]`, `prediction` `[C]`; f32 where nothing else is said. Metadata: labels
/// (a JSON list) and every setting that had a part in the result.
pub fn trace_bytes(classifier: &Classifier, outcome: &Outcome) -> Vec<u8> {
    let episode = &outcome.episode;
    let selected: Vec<i64> = episode.selected.iter().map(|&view| view as i64).collect();
    let classes = classifier.labels().embeddings.view();
    let tuned_logits = episode.tuned_logits(outcome.features.view(), classes, classifier.scale());
    let floats = [
        Named::floats("views", &classifier.extractor().views()),
        Named::floats("features", &*outcome.features),
        Named::floats("classes", &classifier.labels().embeddings),
        Named::floats("logits", &episode.logits),
        Named::floats("weights", &outcome.episode.weights),
        Named::floats("tuned_logits", &tuned_logits),
        Named::floats("prediction", &outcome.episode.prediction),
        Named {
            name: "selected",
            dtype: Dtype::I64,
            shape: vec![selected.len()],
            bytes: selected.iter().flat_map(|value| value.to_le_bytes()).collect(),
        },
    ];
    let tensors = floats.iter().map(|named| (named.name, named.view()));
    serialize(tensors, Some(metadata(classifier, outcome))).expect("names differ and sizes fit their shapes")
}

struct Named {
    name: &'static str,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Named {
    fn floats<S: Data<Elem = f32>, N: Dimension>(name: &'static str, array: &ArrayBase<S, N>) -> Self {
        let bytes = array.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name, dtype: Dtype::F32, shape: array.shape().to_vec(), bytes }
    }

    fn view(&self) -> TensorView<'_> {
        TensorView::new(self.dtype, self.shape.clone(), &self.bytes).expect("the bytes fill the shape")
    }
}

fn metadata(classifier: &Classifier, outcome: &Outcome) -> HashMap<String, String> {
    let (views, tuning) = (classifier.extractor().settings().views, classifier.tuning());
    let labels = serde_json::to_string(classifier.labels().names()).expect("strings are always JSON");
    let templates = classifier.labels().prompting.templates();
    let prompt = serde_json::to_string(&templates).expect("strings are always JSON");
    let augment = serde_json::to_value(views.augment).expect("an enum without data is always JSON");
    let choice = classifier.extractor().batch();
    let entries = [
        ("labels", labels),
        ("digest", outcome.digest.to_hex().to_string()),
        ("bundle", classifier.extractor().bundle_id().to_string()),
        ("logit_scale", classifier.scale().to_string()),
        ("head", tuning.head.name().to_string()),
        ("prompt", prompt),
        ("classes_origin", format!("{:?}", classifier.labels().origin).to_lowercase()),
        ("rank", tuning.rank.to_string()),
        ("class_cutoff", tuning.class_cutoff.to_string()),
        ("steps", tuning.steps.to_string()),
        ("selection", tuning.selection.to_string()),
        ("learning_rate", tuning.optimizer.learning_rate.to_string()),
        ("beta1", tuning.optimizer.betas.0.to_string()),
        ("beta2", tuning.optimizer.betas.1.to_string()),
        ("epsilon", tuning.optimizer.epsilon.to_string()),
        ("weight_decay", tuning.optimizer.weight_decay.to_string()),
        ("augment", augment.as_str().unwrap_or_default().to_string()),
        ("seed", views.seed.to_string()),
        ("batch", choice.batch.to_string()),
        ("batch_origin", format!("{:?}", choice.origin).to_lowercase()),
        ("version", env!("CARGO_PKG_VERSION").to_string()),
    ];
    entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}
