//! Every intermediate of one image as a safetensors file, so that each stage can be recomputed elsewhere.

use std::collections::HashMap;

use ndarray::{ArrayBase, ArrayView4, Data, Dimension};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

use crate::answer::Answer;
use crate::classifier::Classifier;
use crate::tuning::AdamWSettings;

/// The trace of an answer of `classifier` about an image whose views `[V, 3, R, R]` are `views`.
///
/// Tensors: `views` `[V,3,R,R]`, `features` `[V,D]`, `classes` `[C,D]`, `logits` `[V,C]`, `selected` `[S]` (i64),
/// `weights` `[V]`, `tuned_logits` `[V,C]`, `prediction` `[C]`; f32 where nothing else is said. Metadata: labels
/// (a JSON list) and every setting that had a part in the result.
pub(crate) fn trace_bytes(classifier: &Classifier, answer: &Answer, views: ArrayView4<f32>) -> Vec<u8> {
    let decision = &answer.decision;
    let selected: Vec<i64> = decision.selected.iter().map(|&view| view as i64).collect();
    let classes = answer.labels.embeddings.view();
    let scale = classifier.predictor().scale();
    // A decision keeps what was tuned, not the logits that follow from it.
    // As the method had them: where some classes are by example and some are not, a column wider.
    let features = answer.labels.widened(answer.features.matrix.view());
    let tuned_logits = decision.tuned_logits(features.view(), classes, scale);
    let tuned_logits = answer.labels.list.of_labels(tuned_logits);
    let floats = [
        Named::floats("views", &views),
        Named::floats("features", &features),
        Named::floats("classes", &classes),
        Named::floats("logits", &decision.logits),
        Named::floats("weights", &decision.weights),
        Named::floats("tuned_logits", &tuned_logits),
        Named::floats("prediction", &decision.prediction),
        Named {
            name: "selected",
            dtype: Dtype::I64,
            shape: vec![selected.len()],
            bytes: selected.iter().flat_map(|value| value.to_le_bytes()).collect(),
        },
    ];
    let tensors = floats.iter().map(|named| (named.name, named.view()));
    serialize(tensors, Some(metadata(classifier, answer))).expect("names differ and sizes fit their shapes")
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

fn metadata(classifier: &Classifier, answer: &Answer) -> HashMap<String, String> {
    let (views, method) = (answer.features.views, answer.method());
    let labels = serde_json::to_string(answer.labels.names()).expect("strings are always JSON");
    let texts = serde_json::to_string(answer.labels.list.texts()).expect("strings are always JSON");
    let templates = answer.labels.prompt.templates();
    let prompt = serde_json::to_string(&templates).expect("strings are always JSON");
    let augment = serde_json::to_value(views.augment).expect("an enum without data is always JSON");
    // No parameters of a method: every tuning has the defaults.
    let optimizer = AdamWSettings::default();
    let entries = [
        ("labels", labels),
        ("texts", texts),
        ("digest", answer.features.digest.to_hex().to_string()),
        ("bundle", answer.features.bundle.to_string()),
        ("logit_scale", classifier.predictor().scale().to_string()),
        ("method", method.to_string()),
        ("head", method.to_string()),
        ("prompt", prompt),
        ("classes_origin", format!("{:?}", answer.labels.origin).to_lowercase()),
        ("beta1", optimizer.betas.0.to_string()),
        ("beta2", optimizer.betas.1.to_string()),
        ("epsilon", optimizer.epsilon.to_string()),
        ("augment", augment.as_str().unwrap_or_default().to_string()),
        ("seed", views.seed.to_string()),
        ("batch", classifier.extractor().batch().to_string()),
        ("version", env!("CARGO_PKG_VERSION").to_string()),
    ];
    let parameters = answer.settings.iter().map(|(name, value)| (name, value.to_string()));
    entries.into_iter().chain(parameters).map(|(key, value)| (key.to_string(), value)).collect()
}
