//! One image after another: features once, then every method.

use std::thread;
use std::time::Instant;

use ndarray::{Array1, ArrayView1, ArrayView2, s};
use rayon::ThreadPool;

use super::dataset::Item;
use super::record::{Failure, Measured, MethodResult, Plan, Record, RoundsResult, SCHEMA};
use crate::calibration::labels_digest;
use crate::error::Result;
use crate::extractor::{Encoded, Extractor, Features, worker_pool};
use crate::files::{FileError, read_up_to};
use crate::limits::IMAGE_BYTES_MAX;
use crate::method::ViewUse;
use crate::metrics::PROBABILITY_MIN;
use crate::predictor::Predictor;
use crate::products::scaled_products;
use crate::rounds::{Effort, RoundSettings};
use crate::rows::{argmax, entropy, softmax};
use crate::tamper::tamper_score;
use crate::timings::milliseconds_since;

/// Everything that is needed to measure images.
pub(crate) struct Evaluation {
    extractor: Extractor,
    /// Predictors of the methods, for the same labels.
    predictors: Vec<Predictor>,
    curve: Vec<usize>,
    rounds: Option<RoundSettings>,
    temperature: Option<(String, f64)>,
    /// Pools of one worker: an image's methods run on one thread, as many images at a time as there are threads.
    workers: Vec<ThreadPool>,
}

/// Methods to measure, and settings of the measurement.
pub(crate) struct Measurement {
    /// The methods, prepared for the same labels; at least one.
    pub predictors: Vec<Predictor>,
    /// Smaller numbers of views at which the methods are measured as well; each less than the extractor's.
    pub curve: Vec<usize>,
    /// Rounds in which the methods are measured as well.
    pub rounds: Option<RoundSettings>,
    /// Name of a method, and the temperature by which its probabilities are calibrated.
    pub temperature: Option<(String, f64)>,
}

/// An image of a data set: its place, itself, and the class it shows.
pub(crate) type Task<'a> = (usize, &'a Item, usize);

impl Evaluation {
    /// Prepares to measure with features from `extractor`.
    ///
    /// # Errors
    /// The system cannot start the threads.
    pub(crate) fn new(extractor: Extractor, measurement: Measurement) -> Result<Self> {
        let threads = extractor.pool().current_num_threads();
        let workers = (0..threads).map(|_| worker_pool(Some(1))).collect::<Result<_>>()?;
        let Measurement { predictors, curve, rounds, temperature } = measurement;
        Ok(Self { extractor, predictors, curve, rounds, temperature, workers })
    }

    /// Plan: all that the results of a data set will depend on.
    pub(crate) fn plan(
        &self,
        (place, condition): (usize, &str),
        dataset: &blake3::Hash,
        images: usize,
        shard: Option<String>,
    ) -> Plan {
        let labels = self.predictors[0].labels();
        Plan {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            condition: condition.into(),
            place,
            bundle: self.extractor.bundle_id().into(),
            dataset: dataset.to_hex().to_string(),
            images,
            labels: labels.names().to_vec(),
            classes: labels.is_more_than_names().then(|| labels_digest(labels)),
            prompt: labels.prompt.templates(),
            views: self.extractor.settings().views,
            batch: self.extractor.batch(),
            rounds: self.rounds,
            methods: self.predictors.iter().map(|predictor| *predictor.settings()).collect(),
            curve: self.curve.clone(),
            temperature: self.temperature.clone(),
            shard,
        }
    }

    /// Measures a group of images; what fails is recorded, not returned.
    ///
    /// The features are made one image after the other, on all threads; then each image's methods run on one.
    pub(crate) fn measure(&self, tasks: &[Task]) -> Vec<Record> {
        let features: Vec<Result<Features>> =
            tasks.iter().map(|(_, item, _)| self.features(item, self.rounds.is_some())).collect();
        let this = self;
        let mut records = Vec::with_capacity(tasks.len());
        for (tasks, features) in tasks.chunks(this.workers.len()).zip(features.chunks(this.workers.len())) {
            thread::scope(|scope| {
                let one =
                    |((worker, &task), features)| scope.spawn(move || worker_record(this, worker, task, features));
                // All are started before the first is waited for.
                let running: Vec<_> = this.workers.iter().zip(tasks).zip(features).map(one).collect();
                records.extend(running.into_iter().map(|handle| handle.join().expect("a method does not panic")));
            });
        }
        records
    }

    /// Images that are best measured at once.
    pub(crate) fn group(&self) -> usize {
        self.workers.len()
    }

    /// The features of an image, with that of its low-passed clean view if it is asked for.
    ///
    /// # Errors
    /// It cannot be read, decoded or encoded.
    pub(crate) fn features(&self, item: &Item, with_low_pass: bool) -> Result<Features> {
        let bytes = read_up_to(&item.path, IMAGE_BYTES_MAX)
            .map_err(|source| FileError::Unreadable { path: item.path.clone(), source })?;
        if with_low_pass { self.extractor.features_and_low_pass(&bytes) } else { self.extractor.features(&bytes) }
    }

    /// The class embeddings `[C, D]` and the logit scale.
    pub(crate) fn classes(&self) -> (ArrayView2<'_, f32>, f32) {
        (self.predictors[0].labels().embeddings.view(), self.predictors[0].scale())
    }

    fn measured(&self, (index, item, truth): Task, features: &Features) -> Measured {
        let matrix = features.matrix.view();
        let results = self.predictors.iter().map(|predictor| self.result(predictor, matrix, truth)).collect();
        // The first rows are the fewer views: each view is drawn from its own random stream.
        let curve = self.curve.iter().map(|&views| self.answers(matrix.slice(s![..views, ..]))).collect();
        let (classes, scale) = self.classes();
        let rounds = self.rounds.iter().flat_map(|rounds| self.in_rounds(rounds, features, truth)).collect();
        // Computed here: a method that looks at the clean view alone has no logits of the others.
        let logits = scaled_products(scale, self.predictors[0].labels().widened(matrix).view(), classes);
        // To microseconds: further digits are noise, and make every line longer.
        let rounded = |milliseconds: f64| (milliseconds * 1e3).round() / 1e3;
        Measured {
            index,
            name: item.name.clone(),
            path: item.path.to_string_lossy().into_owned(),
            digest: features.digest.to_hex().to_string(),
            truth,
            tamper: tamper_score(matrix, logits.view()).map(|score| score.score),
            cached: features.cached,
            ms: [features.timings.decode, features.timings.views, features.timings.encode].map(rounded),
            results,
            curve,
            rounds,
        }
    }

    fn in_rounds(&self, rounds: &RoundSettings, features: &Features, truth: usize) -> Vec<RoundsResult> {
        let all = self.predictors.iter().enumerate();
        let seen = all.filter(|(_, predictor)| predictor.settings().method().views() == ViewUse::AllViews);
        let one = |(method, predictor): (usize, &Predictor)| {
            let began = Instant::now();
            let decided = predictor.decide_in_rounds(rounds, features.views.count, &mut Encoded(features));
            let (decision, effort) = decided.expect("nothing is left to be read or encoded");
            let result = self.result_of(predictor, &decision.prediction, milliseconds_since(began), truth);
            let Effort { gate, views_used, stopped_by, .. } = effort;
            // A temperature is that of one number of views.
            let result = MethodResult { calibrated: None, ..result };
            RoundsResult { method, views_used, stopped_by, cosine: gate.cosine, result }
        };
        seen.map(one).collect()
    }

    fn result(&self, predictor: &Predictor, features: ArrayView2<f32>, truth: usize) -> MethodResult {
        let began = Instant::now();
        let prediction = predictor.decide(features).prediction;
        self.result_of(predictor, &prediction, milliseconds_since(began), truth)
    }

    fn result_of(
        &self,
        predictor: &Predictor,
        prediction: &Array1<f32>,
        milliseconds: f64,
        truth: usize,
    ) -> MethodResult {
        let probabilities = softmax(prediction.view());
        let answer = argmax(prediction.view());
        let calibrated = self.temperature.as_ref().filter(|(method, _)| method == predictor.settings().method().name());
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
        self.predictors.iter().map(|predictor| argmax(predictor.decide(features).prediction.view())).collect()
    }
}

fn worker_record(evaluation: &Evaluation, worker: &ThreadPool, task: Task, features: &Result<Features>) -> Record {
    match features {
        Ok(features) => Record::Measured(worker.install(|| evaluation.measured(task, features))),
        Err(error) => {
            let (index, item, _) = task;
            Record::Failed(Failure { index, name: item.name.clone(), error: error.to_string() })
        }
    }
}

/// Classes before `truth` in the order of the answer, equals by their number, as [`argmax`] takes them.
fn rank_of(prediction: ArrayView1<f32>, truth: usize) -> usize {
    let own = prediction[truth];
    // NaN never wins: a truth without a number comes behind all others.
    let before = |(class, &value): (usize, &f32)| value > own || (value == own && class < truth) || own.is_nan();
    prediction.iter().enumerate().filter(|&(class, value)| class != truth && before((class, value))).count()
}

/// The places of shard `number` (from 1) of `count`, among `images`: every `count`-th.
pub(crate) fn shard(images: usize, number: usize, count: usize) -> Vec<usize> {
    // Not in blocks: data sets come in order of class, and a shard is to be like the whole.
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
