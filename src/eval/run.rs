//! One image after another: features once, then every method.

use std::thread;
use std::time::Instant;

use ndarray::{ArrayView1, ArrayView2, s};
use rayon::ThreadPool;

use super::dataset::Item;
use super::methods::MethodRunner;
use super::record::{Failure, Measured, MethodResult, Plan, Record, SCHEMA};
use crate::classes::LabelSet;
use crate::error::{Error, Result};
use crate::extractor::{Extracted, Extractor, milliseconds_since, worker_pool};
use crate::files::read_up_to;
use crate::limits::IMAGE_BYTES_MAX;
use crate::metrics::PROBABILITY_MIN;
use crate::rows::{argmax, entropy, scaled_products, softmax};
use crate::tamper::tamper_score;

/// Everything that is needed to measure images.
pub struct Evaluation {
    extractor: Extractor,
    labels: LabelSet,
    scale: f32,
    methods: Vec<MethodRunner>,
    curve: Vec<usize>,
    temperature: Option<(String, f64)>,
    /// One worker each: an image's methods run on one thread, as many images at a time as there are threads.
    workers: Vec<ThreadPool>,
}

/// What is measured.
pub struct Measurement {
    /// The methods.
    pub methods: Vec<MethodRunner>,
    /// Fewer views at which the methods are measured as well; each less than the extractor's.
    pub curve: Vec<usize>,
    /// A head's name and the temperature its probabilities are calibrated by.
    pub temperature: Option<(String, f64)>,
}

/// An image of a data set: its place, itself, and the class it shows.
pub type Task<'a> = (usize, &'a Item, usize);

impl Evaluation {
    /// Prepares to measure with features from `extractor`.
    ///
    /// # Errors
    /// The system cannot start the threads.
    pub fn new(extractor: Extractor, labels: LabelSet, scale: f32, measurement: Measurement) -> Result<Self> {
        let threads = extractor.pool().current_num_threads();
        let workers = (0..threads).map(|_| worker_pool(Some(1))).collect::<Result<_>>()?;
        let Measurement { methods, curve, temperature } = measurement;
        Ok(Self { extractor, labels, scale, methods, curve, temperature, workers })
    }

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

    /// Measures a group of images; what fails is recorded, not returned.
    ///
    /// The features are made one image after the other, on all threads; then each image's methods run on one.
    pub fn measure(&mut self, tasks: &[Task]) -> Vec<Record> {
        let features: Vec<Result<Extracted>> = tasks.iter().map(|(_, item, _)| self.extract(item)).collect();
        let this = &*self;
        let mut records = Vec::with_capacity(tasks.len());
        for (tasks, features) in tasks.chunks(this.workers.len()).zip(features.chunks(this.workers.len())) {
            thread::scope(|scope| {
                let one =
                    |((worker, &task), extracted)| scope.spawn(move || worker_record(this, worker, task, extracted));
                let running: Vec<_> = this.workers.iter().zip(tasks).zip(features).map(one).collect();
                records.extend(running.into_iter().map(|handle| handle.join().expect("a method does not panic")));
            });
        }
        records
    }

    /// Images that are best measured at once.
    pub fn group(&self) -> usize {
        self.workers.len()
    }

    /// The features of an image.
    ///
    /// # Errors
    /// It cannot be read, decoded or encoded.
    pub fn extract(&mut self, item: &Item) -> Result<Extracted> {
        let bytes = read_up_to(&item.path, IMAGE_BYTES_MAX)
            .map_err(|source| Error::InputUnreadable { path: item.path.clone(), source })?;
        self.extractor.extract(&bytes)
    }

    /// The class embeddings `[C, D]` and the logit scale.
    pub fn classes(&self) -> (ArrayView2<'_, f32>, f32) {
        (self.labels.embeddings.view(), self.scale)
    }

    fn measured(&self, (index, item, truth): Task, extracted: &Extracted) -> Measured {
        let features = extracted.features.view();
        let results = self.methods.iter().map(|method| self.result(method, features, truth)).collect();
        let curve = self.curve.iter().map(|&views| self.answers(features.slice(s![..views, ..]))).collect();
        let logits = scaled_products(self.scale, features, self.labels.embeddings.view());
        let rounded = |milliseconds: f64| (milliseconds * 1e3).round() / 1e3;
        Measured {
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
        }
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
        method.answer(features, self.labels.embeddings.view(), self.scale)
    }
}

fn worker_record(evaluation: &Evaluation, worker: &ThreadPool, task: Task, extracted: &Result<Extracted>) -> Record {
    match extracted {
        Ok(extracted) => Record::Measured(worker.install(|| evaluation.measured(task, extracted))),
        Err(error) => {
            let (index, item, _) = task;
            Record::Failed(Failure { index, name: item.name.clone(), error: error.to_string() })
        }
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
