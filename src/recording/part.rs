//! What stands in a part's `decisions.jsonl`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::classes::LabelSet;
use crate::classifier::Classifier;
use crate::device::device_key;
use crate::head::HeadKind;
use crate::report::Answer;
use crate::text::Prompting;
use crate::tuning::{AdamWSettings, TuningSettings};
use crate::views::{Augment, ViewSettings};

/// Version of the format.
pub const FORMAT: u32 = 1;
/// The images of a part.
pub const FRAMES: &str = "frames.bin";
/// The decisions of a part.
pub const DECISIONS: &str = "decisions.jsonl";

/// The folder of a part.
pub fn part_folder(recording: &Path, number: u64) -> PathBuf {
    recording.join(format!("part-{number:08}"))
}

/// The number of a part, by its folder's name.
pub fn part_number(name: &str) -> Option<u64> {
    name.strip_prefix("part-").filter(|digits| digits.len() == 8)?.parse().ok()
}

/// Everything the decisions of a part depend on, besides the images: its first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedSettings {
    /// Version of the format.
    pub format: u32,
    /// Version of the program.
    pub version: String,
    /// What names the device: on another one the last bits may differ.
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
    /// The words before a label, if they are not templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The prompts with `{}` for the label, if they are not a context.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<String>,
    /// Number of views.
    pub views: usize,
    /// How views are made.
    pub augment: Augment,
    /// Their seed, which is mixed with each image's digest.
    pub seed: u64,
    /// The encoder's batch.
    pub batch: usize,
    /// The head.
    pub head: HeadKind,
    /// Optimiser steps.
    pub steps: usize,
    /// Fraction of the views that is selected (0–1).
    pub selection: f64,
    /// Directions of `class-lowrank` (count).
    pub rank: usize,
    /// Probability below which classes are left out of the tuning.
    pub class_cutoff: f64,
    /// AdamW's learning rate.
    pub learning_rate: f64,
    /// AdamW's β₁ and β₂.
    pub betas: (f64, f64),
    /// AdamW's ε.
    pub epsilon: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
}

impl RecordedSettings {
    /// Those of a classifier with the bundle in this folder, whose digest is `bundle_digest`.
    pub fn of(classifier: &Classifier, bundle: &Path, bundle_digest: &blake3::Hash) -> Self {
        let LabelSet { list, prompting, .. } = classifier.labels();
        let views = classifier.extractor().settings().views;
        let TuningSettings { head, steps, selection, rank, class_cutoff, optimizer } = *classifier.tuning();
        let (context, templates) = match prompting {
            Prompting::Context(context) => (Some(context.clone()), Vec::new()),
            Prompting::Templates(templates) => (None, templates.clone()),
        };
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            device: device_key(),
            // A replay may be started in another folder.
            bundle: bundle.canonicalize().unwrap_or_else(|_| bundle.into()),
            bundle_digest: bundle_digest.to_hex().to_string(),
            labels: list.names().to_vec(),
            ids: list.ids().map(<[String]>::to_vec),
            context,
            templates,
            views: views.count,
            augment: views.augment,
            seed: views.seed,
            batch: classifier.extractor().batch().batch,
            head,
            steps,
            selection,
            rank,
            class_cutoff,
            learning_rate: optimizer.learning_rate,
            betas: optimizer.betas,
            epsilon: optimizer.epsilon,
            weight_decay: optimizer.weight_decay,
        }
    }

    /// What was written around a label.
    pub fn prompting(&self) -> Prompting {
        match &self.context {
            Some(context) => Prompting::Context(context.clone()),
            None => Prompting::Templates(self.templates.clone()),
        }
    }

    /// The views.
    pub fn views(&self) -> ViewSettings {
        ViewSettings { count: self.views, augment: self.augment, seed: self.seed }
    }

    /// Head and tuning.
    pub fn tuning(&self) -> TuningSettings {
        TuningSettings {
            head: self.head,
            steps: self.steps,
            selection: self.selection,
            rank: self.rank,
            class_cutoff: self.class_cutoff,
            optimizer: AdamWSettings {
                learning_rate: self.learning_rate,
                betas: self.betas,
                epsilon: self.epsilon,
                weight_decay: self.weight_decay,
            },
        }
    }
}

/// A frame and what was decided: a further line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedFrame {
    /// Number since the daemon started, from 1.
    pub sequence: u64,
    /// When the frame came (milliseconds since 1970).
    pub unix_ms: u64,
    /// The file it came from, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where its image begins in the part's images (bytes).
    pub offset: u64,
    /// How long the image is (bytes).
    pub length: u64,
    /// BLAKE3 of the image, 64 hex digits.
    pub digest: String,
    /// R-TPT's answer.
    pub answer: Answer,
    /// Zero-shot's answer.
    pub zero_shot: Answer,
    /// The tamper score (0–1), with more than one view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tamper: Option<f32>,
    /// BLAKE3 over the bits of prediction, weights and the clean view's logits, 64 hex digits.
    pub bits: String,
}
