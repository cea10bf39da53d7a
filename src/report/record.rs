//! The JSON of one classified image: the stable interface to other programs.

use std::path::Path;

use ndarray::ArrayView1;
use serde::{Deserialize, Serialize};

use crate::answerer::{Answerer, Outcome, Timings};
use crate::classes::LabelList;
use crate::error::Error;
use crate::head::HeadKind;
use crate::rows::{argmax, top};
use crate::tamper::TamperScore;

/// Version of the records' schema.
pub const RECORD_SCHEMA: u32 = 1;

/// One classified image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// [`RECORD_SCHEMA`].
    pub schema: u32,
    /// The input as it was named.
    pub path: String,
    /// BLAKE3 of the file, 64 hex digits.
    pub digest: String,
    /// The bundle: name, `@`, first 16 hex digits of its digest.
    pub bundle: String,
    /// R-TPT's answer.
    pub label: String,
    /// Its identifier, where the labels have identifiers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its probability (0–1).
    pub probability: f32,
    /// The most probable answers, most probable first.
    pub top: Vec<Answer>,
    /// What zero-shot CLIP answers: the clean view alone.
    pub zero_shot: Answer,
    /// The head.
    pub head: HeadKind,
    /// Number of views.
    pub views: usize,
    /// The user's seed.
    pub seed: u64,
    /// Whether the features were remembered from an earlier time.
    pub cached: bool,
    /// How unlike a clean image the views behave; `None` with a single view.
    pub tamper: Option<TamperRecord>,
    /// The temperature the probabilities were calibrated by, where one was fitted to these settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Where the time went.
    pub timings_ms: TimingsRecord,
}

/// A label and its probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The label.
    pub label: String,
    /// Its identifier, where the labels have identifiers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its probability (0–1).
    pub probability: f32,
}

/// The tamper score, its parts, and what it was compared with; all 0–1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TamperRecord {
    /// The mean of the parts.
    pub score: f32,
    disagreement: f32,
    isolation: f32,
    narrowness: f32,
    /// Whether the score is above the calibrated threshold; `None` where none was calibrated for these views.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspicious: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<f32>,
}

/// Milliseconds per stage, rounded to microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimingsRecord {
    decode: f64,
    views: f64,
    encode: f64,
    tune: f64,
    total: f64,
}

/// An input that could not be classified.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ErrorRecord {
    schema: u32,
    path: String,
    error: ErrorBody,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ErrorBody {
    kind: &'static str,
    message: String,
}

impl ImageRecord {
    /// The record of `outcome`, which `answerer` gave for the input `path` with the bundle of this name, with the
    /// `top_count` most probable answers.
    pub fn new(path: &Path, bundle: &str, answerer: &Answerer, outcome: &Outcome, top_count: usize) -> Self {
        let labels = &answerer.labels().list;
        let probabilities = outcome.probabilities();
        let zero_shot = outcome.zero_shot();
        // The answer is read off the logits: probabilities of near-certain classes can round to the same value.
        let best = argmax(outcome.episode.prediction.view());
        let listed = top(outcome.episode.prediction.view(), top_count);
        Self {
            schema: RECORD_SCHEMA,
            path: path.to_string_lossy().into_owned(),
            digest: outcome.digest.to_hex().to_string(),
            bundle: bundle.into(),
            label: labels.names()[best].clone(),
            id: labels.id(best).map(String::from),
            probability: probabilities[best],
            top: listed.into_iter().map(|class| Answer::of(labels, probabilities.view(), class)).collect(),
            zero_shot: Answer::of(labels, zero_shot.view(), argmax(outcome.episode.logits.row(0))),
            head: answerer.tuning().head,
            views: outcome.views.count,
            seed: outcome.views.seed,
            cached: outcome.cached,
            tamper: outcome.tamper.map(|score| TamperRecord::new(score, outcome.calibration.threshold)),
            temperature: outcome.calibration.temperature,
            timings_ms: outcome.timings.into(),
        }
    }
}

impl TamperRecord {
    fn new(tamper: TamperScore, threshold: Option<f32>) -> Self {
        let TamperScore { score, disagreement, isolation, narrowness } = tamper;
        let suspicious = threshold.map(|threshold| score > threshold);
        Self { score, disagreement, isolation, narrowness, suspicious, threshold }
    }
}

impl Answer {
    fn of(labels: &LabelList, probabilities: ArrayView1<f32>, class: usize) -> Self {
        let id = labels.id(class).map(String::from);
        Self { label: labels.names()[class].clone(), id, probability: probabilities[class] }
    }
}

impl TimingsRecord {
    /// Milliseconds from bytes to answer.
    pub fn total(&self) -> f64 {
        self.total
    }
}

impl From<Timings> for TimingsRecord {
    fn from(timings: Timings) -> Self {
        let rounded = |milliseconds: f64| (milliseconds * 1e3).round() / 1e3;
        Self {
            decode: rounded(timings.decode),
            views: rounded(timings.views),
            encode: rounded(timings.encode),
            tune: rounded(timings.tune),
            total: rounded(timings.total),
        }
    }
}

impl ErrorRecord {
    /// The record of an input that failed.
    pub fn new(path: &Path, error: &Error) -> Self {
        let error = ErrorBody { kind: error.kind(), message: error.to_string() };
        Self { schema: RECORD_SCHEMA, path: path.to_string_lossy().into_owned(), error }
    }
}
