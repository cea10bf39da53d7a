//! Deciding again what was decided, to the bit; or what would have been decided otherwise.

use std::path::Path;

use super::part::{RecordedFrame, RecordedSettings};
use super::reader::RecordingPart;
use crate::answerer::Outcome;
use crate::bundle::Bundle;
use crate::classes::{LabelList, LabelSet};
use crate::classifier::{Classifier, ClassifierSettings};
use crate::device::device_key;
use crate::error::{Error, Result};
use crate::extractor::{ExtractorSettings, worker_pool};
use crate::head::HeadKind;
use crate::rows::argmax;

/// What to change in a replay; nothing reproduces the decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhatIf {
    /// Another head, with its published settings.
    pub head: Option<HeadKind>,
    /// Other labels.
    pub labels: Option<LabelList>,
}

/// A frame decided again.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// The answer now.
    pub label: String,
    /// Its probability (0–1).
    pub probability: f32,
    /// Whether prediction, weights and the clean view's logits have the recorded bits.
    pub same_bits: bool,
    /// Whether the answer is the recorded one.
    pub same_label: bool,
}

/// Decides the frames of a part again.
pub struct Replayer {
    classifier: Classifier,
    /// Whether the part was recorded on another kind of device, where the last bits may differ.
    pub other_device: bool,
}

/// Prepares to decide with the settings of a part, but for what is to be changed. `bundle` is the one to use.
///
/// # Errors
/// The bundle is not the one that was recorded with, or the classifier cannot be made.
pub fn replayer(
    bundle: &Bundle,
    settings: &RecordedSettings,
    what_if: &WhatIf,
    threads: Option<usize>,
    memory: Option<&Path>,
) -> Result<Replayer> {
    let found = bundle.digest.to_hex();
    if found.as_str() != settings.bundle_digest {
        let problem = format!(
            "was made with the bundle {}…, found {}… in {}; name the right one with --bundle",
            settings.bundle_digest.get(..16).unwrap_or_default(),
            &found[..16],
            bundle.folder.display()
        );
        return Err(Error::Recording { path: settings.bundle.clone(), problem });
    }
    let list = match &what_if.labels {
        Some(list) => list.clone(),
        None => LabelList::new(settings.labels.clone(), settings.ids.clone())?,
    };
    let tuning = what_if.head.map_or_else(|| settings.tuning(), |head| settings.tuning().with_head(head));
    let extractor = ExtractorSettings { views: settings.views(), threads, batch: Some(settings.batch) };
    let labels = worker_pool(threads)?.install(|| LabelSet::new(bundle, list, settings.prompting(), memory))?;
    let classifier = Classifier::new(bundle, labels, ClassifierSettings { extractor, tuning }, memory)?;
    Ok(Replayer { classifier, other_device: device_key() != settings.device })
}

impl Replayer {
    /// Decides a frame again.
    ///
    /// # Errors
    /// Its image cannot be read, decoded or encoded.
    pub fn replay(&mut self, part: &RecordingPart, frame: &RecordedFrame) -> Result<Replayed> {
        let outcome: Outcome = self.classifier.classify(&part.image(frame)?)?;
        let best = argmax(outcome.episode.prediction.view());
        let label = self.classifier.labels().names()[best].clone();
        Ok(Replayed {
            same_bits: outcome.answer_digest().to_hex().as_str() == frame.bits,
            same_label: label == frame.answer.label,
            probability: outcome.probabilities()[best],
            label,
        })
    }
}
