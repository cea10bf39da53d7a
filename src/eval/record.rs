//! Lines an evaluation writes: one about the settings, then one an image. A promise to other programs.

use serde::{Deserialize, Serialize};

use crate::method::MethodSettings;
use crate::rounds::{RoundSettings, StoppedBy};
use crate::views::ViewSettings;

/// Version of the lines.
pub(crate) const SCHEMA: u32 = 1;

/// The first line: everything the results depend on. Results of different plans are never mixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Version of the lines.
    pub schema: u32,
    /// Version of the program.
    pub version: String,
    /// The condition's name.
    pub condition: String,
    /// Place among the conditions, from 0: the first is the one others are compared with.
    pub place: usize,
    /// The bundle's name and digest.
    pub bundle: String,
    /// BLAKE3 of the data set's image names and truths.
    pub dataset: String,
    /// Images in the whole data set.
    pub images: usize,
    /// The labels, in order: classes are numbers into it.
    pub labels: Vec<String>,
    /// BLAKE3 of labels and prompt with the members of groups and the examples, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<String>,
    /// Prompt: the text written around a label.
    pub prompt: Vec<String>,
    /// The views.
    #[serde(flatten)]
    pub views: ViewSettings,
    /// The encoder's batch.
    pub batch: usize,
    /// The rounds in which the methods are measured as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounds: Option<RoundSettings>,
    /// The methods and their settings.
    pub methods: Vec<MethodSettings>,
    /// Smaller numbers of views at which the methods are measured as well.
    pub curve: Vec<usize>,
    /// The method whose probabilities are also given at a calibrated temperature, and that temperature.
    pub temperature: Option<(String, f64)>,
    /// Part of the data set, as in `2/4`; `None` for all of it.
    pub shard: Option<String>,
}

/// The line of one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Record {
    /// An image that was measured.
    Measured(Measured),
    /// An image that could not be measured.
    Failed(Failure),
}

/// One image under every method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measured {
    /// Place in the data set, from 0.
    pub index: usize,
    /// Path below the data set's folder.
    pub name: String,
    /// The file, as it was found.
    pub path: String,
    /// BLAKE3 of the file.
    pub digest: String,
    /// The class that it shows.
    pub truth: usize,
    /// The tamper score; `None` with a single view.
    pub tamper: Option<f32>,
    /// True if the features were in the cache.
    pub cached: bool,
    /// Milliseconds of decoding (or finding in the cache), of making views, and of encoding.
    pub ms: [f64; 3],
    /// A result a method, in the plan's order.
    pub results: Vec<MethodResult>,
    /// The answers at each of the plan's smaller numbers of views, a method each.
    pub curve: Vec<Vec<usize>>,
    /// Results in rounds, of every method that looks at more than the clean view.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<RoundsResult>,
}

/// Result of one method on one image that is seen in as few views as settle the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoundsResult {
    /// Place of the method in the plan.
    pub method: usize,
    /// Number of views that the image was seen in.
    pub views_used: usize,
    /// Reason for the end.
    pub stopped_by: StoppedBy,
    /// Cosine of the clean view's feature and that of the low-passed one.
    pub cosine: f32,
    /// The answer; the time is that of all rounds.
    pub result: MethodResult,
}

/// Result of one method on one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MethodResult {
    /// The most probable class.
    pub answer: usize,
    /// Classes that are more probable than the true one: 0 if the answer is right.
    pub rank: usize,
    /// Probability of the answer (0–1).
    pub confidence: f32,
    /// ln of the true class's probability, which counts as 1e-12 at least.
    pub log_truth: f32,
    /// Entropy of the probabilities (nats).
    pub entropy: f32,
    /// Probability of the answer at the calibrated temperature, where there is one for this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrated: Option<f32>,
    /// Milliseconds from features to answer, on one thread.
    pub ms: f64,
}

/// An image that could not be measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failure {
    /// Place in the data set, from 0.
    pub index: usize,
    /// Path below the data set's folder.
    pub name: String,
    /// Reason for the failure.
    pub error: String,
}

impl Record {
    /// Place in the data set, from 0.
    pub(crate) fn index(&self) -> usize {
        match self {
            Self::Measured(measured) => measured.index,
            Self::Failed(failure) => failure.index,
        }
    }
}
