//! Recorded decisions made again, to the bit, or with other settings.

use std::path::Path;

use super::RecordingError;
use super::part::{RecordedFrame, RecordedSettings};
use super::reader::RecordingPart;
use crate::bundle::Bundle;
use crate::cancellation::CancellationToken;
use crate::classifier::{Classifier, ClassifierSettings};
use crate::device::device_key;
use crate::error::Result;
use crate::extractor::{CacheUse, ExtractorSettings, worker_pool};
use crate::label_set::LabelSet;
use crate::labels::Labels;
use crate::method::Method;
use crate::rounds::RoundSettings;
use crate::views::DamagedImages;

/// Changes for a replay; without any it reproduces the decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WhatIf {
    /// Another method, with its published settings.
    pub method: Option<Method>,
    /// Other labels.
    pub labels: Option<Labels>,
}

/// A frame decided again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Replayed {
    /// The answer now.
    pub label: String,
    /// Probability (0–1) of the answer.
    pub probability: f32,
    /// True if prediction, weights and the clean view's logits have the recorded bits.
    pub same_bits: bool,
    /// True if the answer is the recorded one.
    pub same_label: bool,
}

/// Decides the frames of a part again.
pub(crate) struct Replayer {
    classifier: Classifier,
    /// True if nothing was changed.
    is_as_it_was: bool,
    /// True if the part was recorded on another kind of device, where the last bits may differ.
    pub other_device: bool,
}

/// Prepares to decide again with `bundle` and the settings of a part, changed as `what_if` says.
///
/// # Errors
/// The bundle is not the one that was recorded with, or the classifier cannot be made.
pub(crate) fn replayer(
    bundle: &Bundle,
    settings: &RecordedSettings,
    what_if: &WhatIf,
    threads: Option<usize>,
    cache_folder: Option<&Path>,
) -> Result<Replayer> {
    let found = bundle.digest.to_hex();
    // Before anything is loaded: other weights give other bits, and the comparison would mean nothing.
    if found.as_str() != settings.bundle_digest {
        return Err(RecordingError::OtherBundle {
            recorded: settings.bundle_digest.get(..16).unwrap_or_default().into(),
            recorded_at: settings.bundle.clone(),
            found: found[..16].into(),
            found_at: bundle.folder.clone(),
        }
        .into());
    }
    let list = match &what_if.labels {
        Some(list) => list.clone(),
        None => {
            settings.examples.check()?;
            Labels::with_ids(settings.labels.clone(), settings.ids.clone())?.with_examples(&settings.examples)
        }
    };
    let method = what_if.method.map_or(settings.method, |method| settings.method.with_method(method));
    let extractor = ExtractorSettings {
        views: settings.views,
        threads,
        // That of the recording: another may change the last bits.
        batch: settings.batch,
        // What was decided was answered.
        damaged: DamagedImages::Answer,
    };
    let labels = worker_pool(threads)?.install(|| LabelSet::new(bundle, list, settings.prompt(), cache_folder))?;
    // Where time ended the rounds, the number of views says where.
    let rounds = settings.rounds.map(|rounds| RoundSettings { budget_ms: None, ..rounds });
    let settings_then = ClassifierSettings { extractor, method, rounds };
    let classifier = Classifier::new(bundle, labels, settings_then, cache_folder)?;
    let is_as_it_was = *what_if == WhatIf::default();
    Ok(Replayer { classifier, is_as_it_was, other_device: device_key() != settings.device })
}

impl Replayer {
    /// Decides a frame again.
    ///
    /// # Errors
    /// The image of the frame cannot be read, decoded or encoded.
    pub(crate) fn replay(&self, part: &RecordingPart, frame: &RecordedFrame) -> Result<Replayed> {
        let mut plan = self.classifier.plan();
        if let Some(views_used) = frame.views_used.filter(|_| plan.rounds.is_some() && self.is_as_it_was) {
            plan.views.count = views_used.clamp(1, plan.views.count);
        }
        let image = part.image(frame)?;
        let answer = self.classifier.classify_in(&image, plan, CacheUse::LookUp, &CancellationToken::default())?;
        let best = answer.best();
        Ok(Replayed {
            same_bits: blake3::Hash::from(answer.digest()).to_hex().as_str() == frame.bits,
            same_label: best.label == frame.answer.label,
            probability: best.probability,
            label: best.label,
        })
    }
}
