//! The lines of a part's `decisions.jsonl`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::chain::Continued;
use crate::answer::Prediction;
use crate::classifier::Classifier;
use crate::device::device_key;
use crate::examples::Examples;
use crate::label_set::LabelSet;
use crate::method::MethodSettings;
use crate::rounds::RoundSettings;
use crate::text::Prompt;
use crate::views::ViewSettings;

/// Version of the format.
pub(crate) const FORMAT: u32 = 3;
/// The version before, whose frames were all seen in the same number of views; it is still written where they are.
pub(crate) const FORMAT_ALL_VIEWS: u32 = 2;
/// The version before that, without a chain: changes of it cannot be seen.
pub(crate) const FORMAT_UNCHAINED: u32 = 1;
/// The images of a part.
pub(crate) const FRAMES: &str = "frames.bin";
/// The decisions of a part.
pub(crate) const DECISIONS: &str = "decisions.jsonl";
/// What of a part was on the disk, whenever it was forced there.
pub(crate) const HEADS: &str = "heads.jsonl";

/// The folder of a part.
pub(crate) fn part_folder(recording: &Path, number: u64) -> PathBuf {
    recording.join(format!("part-{number:08}"))
}

/// The number of a part, by its folder's name.
pub(crate) fn part_number(name: &str) -> Option<u64> {
    // As `part_folder` writes it and no other way: `part-1` and `part-00000001` would be one number.
    name.strip_prefix("part-").filter(|digits| digits.len() == 8)?.parse().ok()
}

/// Everything the decisions of a part depend on, besides the images: its first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedSettings {
    /// Version of the format.
    pub format: u32,
    /// Version of the program.
    pub version: String,
    /// Key of the device: on another one the last bits may differ.
    pub device: String,
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// BLAKE3 of its manifest, 64 hex digits.
    pub bundle_digest: String,
    /// The labels.
    pub labels: Vec<String>,
    /// Their identifiers, if they have any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    /// The photos of labels by example, if there are any.
    #[serde(default, skip_serializing_if = "Examples::is_empty")]
    pub(crate) examples: Examples,
    /// The words before a label, if they are not templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The prompts with `{}` for the label, if they are not a context.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<String>,
    /// The encoder's batch.
    pub batch: usize,
    /// The views; their seed is mixed with each image's digest.
    #[serde(flatten)]
    pub views: ViewSettings,
    /// The rounds in which images are seen in these views, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rounds: Option<RoundSettings>,
    /// The method and its parameters.
    #[serde(flatten)]
    pub method: MethodSettings,
}

impl RecordedSettings {
    /// Settings of a classifier with the bundle in this folder, whose digest is `bundle_digest`.
    pub fn of(classifier: &Classifier, bundle: &Path, bundle_digest: &blake3::Hash) -> Self {
        let LabelSet { list, prompt, .. } = classifier.labels();
        let (context, templates) = match prompt {
            Prompt::Context(context) => (Some(context.clone()), Vec::new()),
            Prompt::Templates(templates) => (None, templates.clone()),
        };
        let (labels, ids) = list.rows();
        let plan = classifier.plan();
        Self {
            format: if plan.rounds.is_some() { FORMAT } else { FORMAT_ALL_VIEWS },
            version: env!("CARGO_PKG_VERSION").into(),
            device: device_key(),
            // A replay may be started in another folder.
            bundle: bundle.canonicalize().unwrap_or_else(|_| bundle.into()),
            bundle_digest: bundle_digest.to_hex().to_string(),
            labels,
            ids,
            examples: list.examples().clone(),
            context,
            templates,
            batch: classifier.extractor().batch(),
            views: plan.views,
            rounds: plan.rounds,
            method: *classifier.method(),
        }
    }

    /// The prompt around a label.
    pub fn prompt(&self) -> Prompt {
        match &self.context {
            Some(context) => Prompt::Context(context.clone()),
            None => Prompt::Templates(self.templates.clone()),
        }
    }
}

/// The first line of a part.
#[derive(Serialize, Deserialize)]
pub(super) struct Opening<S> {
    /// Everything the decisions depend on.
    #[serde(flatten)]
    pub settings: S,
    /// The part before it, if the recorder knew of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<Continued>,
}

/// The decision about a frame, before its image has a place in a part.
#[derive(Clone, Debug)]
pub(crate) struct RecordedDecision {
    /// Number since the daemon started, from 1.
    pub sequence: u64,
    /// Time at which the frame came (milliseconds since 1970).
    pub unix_ms: u64,
    /// The file it came from, if it did.
    pub name: Option<String>,
    /// BLAKE3 of the image, 64 hex digits.
    pub digest: String,
    /// The answer.
    pub answer: Prediction,
    /// Zero-shot's answer.
    pub zero_shot: Prediction,
    /// Number of views that it was seen in, where it was in rounds.
    pub views_used: Option<usize>,
    /// The tamper score (0–1), with more than one view.
    pub tamper: Option<f32>,
    /// BLAKE3 over the bits of prediction, weights and the clean view's logits, 64 hex digits.
    pub bits: String,
}

impl RecordedDecision {
    /// The line of a frame whose image is `length` bytes from `offset` on.
    ///
    /// Field by field, because a flattened structure would take fields that the format does not know, and the order of
    /// the fields is the format's.
    pub(crate) fn placed(self, offset: u64, length: u64) -> RecordedFrame {
        let Self { sequence, unix_ms, name, digest, answer, zero_shot, views_used, tamper, bits } = self;
        RecordedFrame { sequence, unix_ms, name, offset, length, digest, answer, zero_shot, views_used, tamper, bits }
    }
}

/// A frame and the decision about it: a further line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedFrame {
    /// Number since the daemon started, from 1.
    pub sequence: u64,
    /// Time at which the frame came (milliseconds since 1970).
    pub unix_ms: u64,
    /// The file it came from, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Offset of its image in the part's images (bytes).
    pub offset: u64,
    /// Length of its image (bytes).
    pub length: u64,
    /// BLAKE3 of the image, 64 hex digits.
    pub digest: String,
    /// The answer.
    pub answer: Prediction,
    /// Zero-shot's answer.
    pub zero_shot: Prediction,
    /// Number of views that it was seen in, where it was in rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub views_used: Option<usize>,
    /// The tamper score (0–1), with more than one view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tamper: Option<f32>,
    /// BLAKE3 over the bits of prediction, weights and the clean view's logits, 64 hex digits.
    pub bits: String,
}
