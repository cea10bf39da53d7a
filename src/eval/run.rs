//! One image after another: features once, then every method.

use std::time::Instant;

use ndarray::{ArrayView1, ArrayView2, s};

use super::dataset::Item;
use super::methods::MethodRunner;
use super::record::{Failure, Measured, MethodResult, Plan, Record, SCHEMA};
use crate::classes::LabelSet;
use crate::error::{Error, Result};
use crate::extractor::{Extractor, milliseconds_since};
use crate::files::read_up_to;
use crate::limits::IMAGE_BYTES_MAX;
use crate::metrics::PROBABILITY_MIN;
use crate::rows::{argmax, entropy, scaled_products, softmax};
use crate::tamper::tamper_score;

/// Everything that is needed to measure an image.
pub struct Evaluation {
    /// Makes features.
    pub extractor: Extractor,
    /// The labels.
    pub labels: LabelSet,
    /// The logit scale.
    pub scale: f32,
    /// The methods.
    pub methods: Vec<MethodRunner>,
    /// Fewer views at which the methods are measured as well; each less than the extractor's.
    pub curve: Vec<usize>,
    /// A head's name and the temperature its probabilities are calibrated by.
    pub temperature: Option<(String, f64)>,
}

impl Evaluation {
    /// What the results of a data set will depend on.
    pub fn plan(
        &self,
        (place, condition): (usize, &str),
        dataset: &blake3::Hash,
        images: usize,
        shard: Option<String>,
    ) -> Plan {
        let views = self.extractor.settings().views;
        Plan {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            condition: condition.into(),
            place,
            bundle: self.extractor.bundle_id().into(),
            dataset: dataset.to_hex().to_string(),
            images,
            labels: self.labels.names().to_vec(),
            prompt: self.labels.prompting.templates(),
            views: views.count,
            augment: views.augment,
            seed: views.seed,
            batch: self.extractor.batch().batch,
            methods: self.methods.iter().map(MethodRunner::plan).collect(),
            curve: self.curve.clone(),
            temperature: self.temperature.clone(),
            shard,
        }
    }

    /// Measures one image of a data set; what fails is recorded, not returned.
    pub fn measure(&mut self, index: usize, item: &Item, truth: usize) -> Record {
        match self.try_measure(index, item, truth) {
            Ok(measured) => Record::Measured(measured),
            Err(error) => Record::Failed(Failure { index, name: item.name.clone(), error: error.to_string() }),
        }
    }

    fn try_measure(&mut self, index: usize, item: &Item, truth: usize) -> Result<Measured> {
        let bytes = read_up_to(&item.path, IMAGE_BYTES_MAX)
            .map_err(|source| Error::InputUnreadable { path: item.path.clone(), source })?;
        let extracted = self.extractor.extract(&bytes)?;
        let features = extracted.features.view();
        let results = self.methods.iter().map(|method| self.result(method, features, truth)).collect();
        let curve = self.curve.iter().map(|&views| self.answers(features.slice(s![..views, ..]))).collect();
        let logits = scaled_products(self.scale, features, self.labels.embeddings.view());
        let rounded = |milliseconds: f64| (milliseconds * 1e3).round() / 1e3;
        Ok(Measured {
            index,
            name: item.name.clone(),
            path: item.path.to_string_lossy().into_owned(),
            digest: extracted.digest.to_hex().to_string(),
            truth,
            tamper: tamper_score(features, logits.view()).map(|score| score.score),
            cached: extracted.cached,
            ms: [extracted.decode, extracted.views, extracted.encode].map(rounded),
            results,
            curve,
        })
    }

    fn result(&self, method: &MethodRunner, features: ArrayView2<f32>, truth: usize) -> MethodResult {
        let began = Instant::now();
        let prediction = self.run(method, features);
        let milliseconds = milliseconds_since(began);
        let probabilities = softmax(prediction.view());
        let answer = argmax(prediction.view());
        let calibrated = self.temperature.as_ref().filter(|(head, _)| head == method.method.name());
        MethodResult {
            answer,
            rank: rank_of(prediction.view(), truth),
            confidence: probabilities[answer],
            log_truth: probabilities[truth].max(PROBABILITY_MIN).ln(),
            entropy: entropy(prediction.view()),
            calibrated: calibrated
                .map(|&(_, temperature)| softmax(prediction.mapv(|logit| logit / temperature as f32).view())[answer]),
            ms: (milliseconds * 1e3).round() / 1e3,
        }
    }

    fn answers(&self, features: ArrayView2<f32>) -> Vec<usize> {
        self.methods.iter().map(|method| argmax(self.run(method, features).view())).collect()
    }

    fn run(&self, method: &MethodRunner, features: ArrayView2<f32>) -> ndarray::Array1<f32> {
        let classes = self.labels.embeddings.view();
        self.extractor.pool().install(|| method.answer(features, classes, self.scale))
    }
}

/// Classes before `truth` in the order of the answer, equals by their number, as [`argmax`] takes them.
fn rank_of(prediction: ArrayView1<f32>, truth: usize) -> usize {
    let own = prediction[truth];
    let before = |(class, &value): (usize, &f32)| value > own || (value == own && class < truth) || own.is_nan();
    prediction.iter().enumerate().filter(|&(class, value)| class != truth && before((class, value))).count()
}

/// The places of shard `number` (from 1) of `count`, among `images`: every `count`-th.
pub fn shard(images: usize, number: usize, count: usize) -> Vec<usize> {
    (0..images).filter(|index| index % count == number - 1).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn ranks_count_what_is_more_probable() {
        let prediction = array![1.0, 3.0, f32::NEG_INFINITY, 3.0, f32::NEG_INFINITY];
        let ranks: Vec<usize> = (0..5).map(|truth| rank_of(prediction.view(), truth)).collect();
        assert_eq!(ranks, [2, 0, 3, 1, 4]);
    }

    #[test]
    fn shards_are_all_of_it_once() {
        let mut all: Vec<usize> = (1..=3).flat_map(|number| shard(11, number, 3)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..11).collect::<Vec<_>>());
    }
}
