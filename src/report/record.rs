//! The JSON of one classified image: the stable interface to other programs.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Prediction, Tamper};
use crate::error::Error;
use crate::method::Method;
use crate::rounds::{Gate, StoppedBy};
use crate::timings::Timings;

/// Version of the records' schema.
pub(crate) const RECORD_SCHEMA: u32 = 1;

/// One classified image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// [`RECORD_SCHEMA`].
    pub schema: u32,
    /// The input as it was named.
    pub path: String,
    /// BLAKE3 of the file, 64 hex digits.
    pub digest: String,
    /// The bundle: name, `@`, first 16 hex digits of its digest.
    pub bundle: String,
    /// The answer.
    #[serde(flatten)]
    pub best: Prediction,
    /// The most probable answers, most probable first.
    pub top: Vec<Prediction>,
    /// The answer of zero-shot CLIP: the clean view alone.
    pub zero_shot: Prediction,
    /// The method.
    pub method: Method,
    /// The method once more, under the name that earlier versions gave it.
    pub head: Method,
    /// Number of views; in rounds the most that there could have been.
    pub views: usize,
    /// Number of views that the image was seen in, where it was in rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub views_used: Option<usize>,
    /// Reason for the end of the rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_by: Option<StoppedBy>,
    /// Result of the gate before the rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// The user's seed.
    pub seed: u64,
    /// True if the features were in the cache.
    pub cached: bool,
    /// Damage of the image file; only where damaged images are answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
    /// Tamper score: how unlike a clean image the views behave; `None` with a single view.
    pub tamper: Option<Tamper>,
    /// The temperature the probabilities were calibrated by, where one was fitted to these settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Time taken by each stage (milliseconds).
    pub timings_ms: Timings,
}

/// An input that could not be classified.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ErrorRecord {
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
    /// The record of the answer about the input `path`, with the `top_count` most probable labels.
    pub(crate) fn new(path: &Path, answer: &Answer, top_count: usize) -> Self {
        Self {
            schema: RECORD_SCHEMA,
            path: path.to_string_lossy().into_owned(),
            digest: answer.features.digest.to_hex().to_string(),
            bundle: answer.features.bundle.to_string(),
            best: answer.best(),
            top: answer.top(top_count),
            zero_shot: answer.zero_shot(),
            method: answer.method(),
            head: answer.method(),
            views: answer.effort.map_or(answer.features.views.count, |effort| effort.views_max),
            views_used: answer.effort.map(|effort| effort.views_used),
            stopped_by: answer.effort.map(|effort| effort.stopped_by),
            gate: answer.effort.map(|effort| effort.gate),
            seed: answer.features.views.seed,
            cached: answer.features.cached,
            damage: answer.damage().map(String::from),
            tamper: answer.tamper(),
            temperature: answer.temperature(),
            timings_ms: answer.timings,
        }
    }

    /// True if the image seems to have been tampered with: see [`Answer::is_suspicious`].
    pub(crate) fn is_suspicious(&self) -> bool {
        match &self.gate {
            Some(gate) => gate.is_suspicious(),
            None => self.tamper.as_ref().is_some_and(|tamper| tamper.suspicious == Some(true)),
        }
    }
}

impl ErrorRecord {
    /// The record of an input that failed.
    pub(crate) fn new(path: &Path, error: &Error) -> Self {
        let error = ErrorBody { kind: error.kind(), message: error.to_string() };
        Self { schema: RECORD_SCHEMA, path: path.to_string_lossy().into_owned(), error }
    }
}
