//! The daemon's JSON: the stable interface to clients and to the page.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::examples::Examples;
use crate::method::Method;
use crate::report::ImageRecord;
use crate::timings::Timings;

/// Version of the records' schema.
pub(crate) const SCHEMA: u32 = 1;

/// The decision about a frame of the source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DecisionRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Number of the frame since the daemon started, from 1.
    pub sequence: u64,
    /// Time at which it came (milliseconds since 1970).
    pub unix_ms: u64,
    /// Frames dropped so far because a later one came first (count).
    pub dropped: u64,
    /// The record that `rtpt classify --json` prints.
    pub image: ImageRecord,
    /// Zero-shot's probabilities (0–1) of the answers listed in `image.top`, in their order.
    pub zero_shot: Vec<f32>,
    /// The views, the clean one first.
    pub views: Vec<ViewRecord>,
}

/// One view's part in a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ViewRecord {
    /// Answer of this view alone, untuned.
    pub label: String,
    /// That answer's probability (0–1).
    pub probability: f32,
    /// Weight in the answer (0–1, all together 1).
    pub weight: f32,
    /// True if it was selected for the tuning.
    pub selected: bool,
}

/// State of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StatusRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Time of the record (milliseconds since 1970).
    pub unix_ms: u64,
    /// Time since the start (seconds).
    pub uptime_s: u64,
    /// True while requests are answered: after the model was loaded and has run once.
    pub ready: bool,
    /// The source of frames.
    pub source: SourceRecord,
    /// Requests that wait (count).
    pub queue: usize,
    /// Requests that may wait (count).
    pub queue_max: usize,
    /// Resident memory (bytes), where the kernel reports it.
    pub rss_bytes: Option<u64>,
    /// The hottest sensor (°C), where there is one.
    pub temperature_c: Option<f64>,
    /// The bundle's slots, if the daemon has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleRecord>,
    /// The change that is being made: `model` or `labels`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changing: Option<ChangeRecord>,
    /// The recording, if there is one.
    pub recording: Option<RecordingRecord>,
}

/// The bundle in force, and its slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BundleRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Name and digest of the bundle.
    pub bundle: Option<String>,
    /// What its signature says, if keys are trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedRecord>,
    /// Folder of the slots.
    pub folder: String,
    /// The slot in force, `a` or `b`; none for the bundle that the device came with.
    pub slot: Option<String>,
    /// `confirmed` or `trial`.
    pub state: String,
    /// Time at which the trial began (milliseconds since 1970).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_unix_ms: Option<u64>,
    /// The last bundle that was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<GivenUpRecord>,
}

impl BundleRecord {
    /// Name of the state of a bundle on trial.
    pub(crate) const ON_TRIAL: &str = "trial";

    /// True while the bundle is on trial.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.state == Self::ON_TRIAL
    }
}

/// What the signature of a bundle says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedRecord {
    /// Version of the bundle.
    pub version: u64,
    /// Name of the key.
    pub key: String,
    /// Last day on which it may be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// A bundle that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GivenUpRecord {
    /// Its slot, `a` or `b`.
    pub slot: String,
    /// Reason, in words.
    pub why: String,
    /// Time at which it was given up (milliseconds since 1970).
    pub unix_ms: u64,
}

/// A change that is being made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangeRecord {
    /// `model` or `labels`.
    pub what: String,
    /// Labels that are embedded (count), if it is labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<usize>,
    /// Time at which it began (milliseconds since 1970).
    pub since_unix_ms: u64,
}

/// State of the source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourceRecord {
    /// Name, if there is a source.
    pub name: Option<String>,
    /// `none`, `opening`, `streaming` or `lost`.
    pub state: String,
    /// Reason that it is lost.
    pub problem: Option<String>,
    /// Time at which the state began (milliseconds since 1970).
    pub since_unix_ms: u64,
    /// Frames that it gave (count).
    pub frames: u64,
    /// Frames that were classified (count).
    pub classified: u64,
    /// Frames that could not be classified (count).
    pub failed: u64,
    /// Frames among these whose files were damaged (count).
    #[serde(default)]
    pub damaged: u64,
    /// Frames dropped because a later one came first (count).
    pub dropped: u64,
    /// Times it was opened again (count).
    pub reopens: u64,
    /// Files of a watched folder that wait for their turn (count).
    #[serde(default)]
    pub waiting: u64,
}

/// State of the recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RecordingRecord {
    /// Folder.
    pub folder: String,
    /// Size (bytes).
    pub bytes: u64,
    /// Largest size that it may have (bytes).
    pub bytes_max: u64,
    /// Frames since the start that are on the disk (count).
    pub committed: u64,
    /// Frames that were not recorded (count).
    pub missed: u64,
    /// Problem that keeps it from going on.
    pub problem: Option<String>,
    /// The link of the last line that is on the disk, 64 hex digits: kept elsewhere, it shows later that nobody wrote the recording anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
}

/// The daemon, its model and its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct InfoRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of the program.
    pub version: String,
    /// Process.
    pub pid: u32,
    /// Addresses: the socket's path, and the page's if there is one.
    pub listening: Vec<String>,
    /// The model, once it is loaded.
    pub model: Option<ModelRecord>,
    /// State.
    pub status: StatusRecord,
}

/// The model and its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModelRecord {
    /// Name and beginning of the digest.
    pub bundle: String,
    /// Folder.
    pub folder: String,
    /// Labels (count).
    pub labels: usize,
    /// The method.
    pub method: Method,
    /// The method once more, under the name that earlier versions gave it.
    pub head: Method,
    /// Number of views.
    pub views: usize,
    /// Seed of the views.
    pub seed: u64,
    /// The encoder's batch.
    pub batch: usize,
    /// Worker threads.
    pub threads: usize,
    /// Input side R (pixels).
    pub resolution: usize,
}

/// The labels in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LabelsRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The labels, or all members of groups.
    pub labels: Vec<String>,
    /// Their identifiers, if they have any, or their groups: what is given several times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    /// The prompts, with `{}` for the label.
    pub prompts: Vec<String>,
    /// Number of photos of the labels that are by example.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub examples: BTreeMap<String, usize>,
    /// Origin.
    pub origin: LabelsOrigin,
}

/// Origin of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LabelsOrigin {
    /// The bundle, or the labels file of flags or configuration.
    Configured,
    /// Somebody changed them at the running daemon.
    Edited,
}

// What clients send refuses unknown fields, so that a mistyped one is not passed over. What the daemon sends does not,
// so that an older client reads a newer daemon.
/// Labels as a client sends them in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LabelsRequest {
    /// The labels, or all members of groups.
    pub labels: Vec<String>,
    /// Their identifiers, if they have any, or their groups: what is given several times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    /// The photos of labels by example, as in the file beside a labels file. Without it, those of labels that stay are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<Examples>,
}

/// The label of an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExampleQuery {
    /// The label.
    pub label: String,
}

/// Settings of a request to classify an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassifyQuery {
    /// Another number of views.
    pub views: Option<usize>,
    /// Another method.
    #[serde(alias = "head", skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Answers to list.
    pub top: Option<usize>,
    /// Time that the client waits (milliseconds).
    pub deadline_ms: Option<u64>,
}

/// A point of the history.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HistoryPoint {
    /// Time (milliseconds since 1970).
    pub unix_ms: u64,
    /// Milliseconds of each stage.
    #[serde(flatten)]
    pub timings: Timings,
    /// The hottest sensor (°C), where there is one.
    pub temperature_c: Option<f64>,
}

/// The record of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusalRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The reason.
    pub error: Refusal,
}

/// The reason of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// A stable name, in snake case.
    pub kind: String,
    /// Message that says what was expected, what was found, and what to do.
    pub message: String,
}

impl RefusalRecord {
    /// The record of a reason.
    pub(crate) fn new(kind: &str, message: impl Into<String>) -> Self {
        Self { schema: SCHEMA, error: Refusal { kind: kind.into(), message: message.into() } }
    }
}
