//! Calibration to a deployment's own images: a threshold for the tamper score and a temperature for probabilities.
//!
//! Kept in the bundle's folder, in a file of its own: the model stays the same bytes, and cached features stay valid.

use std::collections::HashSet;
use std::path::PathBuf;

use ndarray::Array1;
use serde::{Deserialize, Serialize};

use crate::bundle::{BundleContents, TrustedCalibration};
use crate::error::Result;
use crate::files::{read_up_to, write_file};
use crate::label_set::LabelSet;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::method::MethodSettings;
use crate::rounds::{GateRule, RoundSettings, StopRule};
use crate::rows::softmax;
use crate::views::{Augment, ViewSettings};

/// The file's name in the bundle's folder.
pub(crate) const FILE_NAME: &str = "calibration.json";
/// Version of the file.
const FORMAT: u32 = 1;

/// Calibration of one choice of settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calibration {
    /// Version of the file.
    pub format: u32,
    /// BLAKE3 of the manifest of the bundle it was fitted to, 64 hex digits.
    pub bundle: String,
    /// The views; their seed does not matter.
    #[serde(flatten)]
    pub views: ViewSettings,
    /// The threshold.
    pub tamper: Option<TamperThreshold>,
    /// The temperature.
    pub temperature: Option<Temperature>,
    /// Rules of the rounds of views.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounds: Option<RoundsCalibration>,
}

/// Rules by which an image is seen in as few views as settle its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoundsCalibration {
    /// Augmentation of the views.
    pub augment: Augment,
    /// The gate.
    pub gate: GateRule,
    /// The end of the rounds.
    pub stop: StopRule,
    /// Number of views at most that it was fitted with.
    pub views_max: usize,
    /// Share (0–1) of clean images whose cosine was allowed to be below the gate's bound.
    pub false_positive_rate: f64,
    /// Target that answers were compared with.
    pub target: Target,
    /// Clean images it was fitted to.
    pub images: usize,
    /// Mean number of encoder runs an image, the low-passed view included.
    pub mean_encodes: f64,
    /// Share (0–1) of images whose answer was the target, with the rounds.
    pub right: f64,
    /// The same with all views.
    pub right_with_all: f64,
    /// The same with the clean view alone.
    pub right_with_one: f64,
    /// Temperature of answers in rounds, if one helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<Temperature>,
}

/// Threshold of the tamper score, above which an image is suspicious.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TamperThreshold {
    /// The threshold (0–1).
    pub threshold: f32,
    /// The share (0–1) of clean images that was allowed to be above it.
    pub false_positive_rate: f64,
    /// Clean images it was fitted to.
    pub images: usize,
}

/// Temperature that divides the answer's logits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Temperature {
    /// The temperature, 1 for no change.
    pub temperature: f64,
    /// BLAKE3 of labels and prompt.
    pub labels: String,
    /// Target that answers were compared with.
    pub target: Target,
    /// Images it was fitted to.
    pub images: usize,
    /// Expected calibration error before (0–1).
    pub ece_before: f64,
    /// The same after, each half of the images at the temperature of the other half.
    pub ece_after: f64,
    /// The method and its parameters.
    #[serde(flatten)]
    pub method: MethodSettings,
}

/// Target that answers are compared with when a temperature is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Target {
    /// True labels of the images.
    Truth,
    /// Answers with the bundle's full number of views.
    FullViews,
}

/// The part of a calibration that holds for the settings at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct AppliedCalibration {
    /// Tamper score above which an image is suspicious.
    pub threshold: Option<f32>,
    /// Divisor of the answer's logits.
    pub temperature: Option<f32>,
}

impl Calibration {
    /// An empty calibration of a bundle, for these views.
    pub(crate) fn new(bundle: &BundleContents, views: &ViewSettings) -> Self {
        Self {
            format: FORMAT,
            bundle: bundle.digest.to_hex().to_string(),
            views: *views,
            tamper: None,
            temperature: None,
            rounds: None,
        }
    }

    /// The file of a bundle.
    pub(crate) fn path(bundle: &BundleContents) -> PathBuf {
        bundle.folder.join(FILE_NAME)
    }

    /// The calibration kept with a bundle, if there is one; one that cannot be used is a warning.
    pub(crate) fn of(bundle: &BundleContents) -> Option<Self> {
        let path = Self::path(bundle);
        if bundle.calibration == TrustedCalibration::None || !path.exists() {
            return None;
        }
        let parsed = read_up_to(&path, MANIFEST_BYTES_MAX)
            .map_err(|error| error.to_string())
            .and_then(|bytes| match bundle.calibration {
                TrustedCalibration::Of(signed) if signed != blake3::hash(&bytes) => {
                    Err("it is not the one that was signed".into())
                }
                _ => Ok(bytes),
            })
            .and_then(|bytes| serde_json::from_slice::<Self>(&bytes).map_err(|error| error.to_string()))
            .and_then(|found| match found {
                Self { format, .. } if format != FORMAT => Err(format!("it has format {format}, expected {FORMAT}")),
                found if found.bundle != bundle.digest.to_hex().as_str() => {
                    Err("it was made for another bundle".into())
                }
                found => Ok(found),
            });
        let advice = "calibrate again";
        parsed.map_err(|problem| log::warn!("not using {}: {problem}; {advice}", path.display())).ok()
    }

    /// Keeps it with the bundle.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(&self, bundle: &BundleContents) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).expect("a calibration is always JSON");
        text.push('\n');
        Ok(write_file(&Self::path(bundle), text.as_bytes())?)
    }

    /// The rules of the rounds, for views of the same kind; they are taken for any labels and methods.
    fn rounds_for(&self, views: &ViewSettings) -> Option<(GateRule, StopRule)> {
        let fitted = self.rounds.as_ref().filter(|fitted| fitted.augment == views.augment);
        fitted.map(|fitted| (fitted.gate, fitted.stop))
    }

    /// The rounds of a bundle, with the rules that were fitted for views of this kind, if any were.
    pub(crate) fn round_settings(bundle: &BundleContents, views: &ViewSettings) -> RoundSettings {
        let fitted = Self::of(bundle).and_then(|calibration| calibration.rounds_for(views));
        let (gate, stop) = fitted.unwrap_or((GateRule::UNCALIBRATED, StopRule::UNCALIBRATED));
        RoundSettings { gate, stop, ..RoundSettings::UNCALIBRATED }
    }

    /// The part that holds: the threshold for the same views, the temperature for the same views, method and labels.
    pub(crate) fn applied_to(
        &self,
        views: &ViewSettings,
        method: &MethodSettings,
        labels: &LabelSet,
    ) -> AppliedCalibration {
        if !self.views.is_like(views) {
            log::debug!("the calibration is for {} {:?} views and not used", self.views.count, self.views.augment);
            return AppliedCalibration::default();
        }
        let temperature = self.temperature.as_ref().and_then(|fitted| fitted.of(method, labels));
        AppliedCalibration { threshold: self.tamper.map(|tamper| tamper.threshold), temperature }
    }

    /// The part that holds for answers in rounds up to as many views as they were fitted with; the gate's bound is their threshold.
    pub(crate) fn applied_in_rounds(
        &self,
        views: &ViewSettings,
        method: &MethodSettings,
        labels: &LabelSet,
    ) -> AppliedCalibration {
        let like = |fitted: &&RoundsCalibration| (fitted.views_max, fitted.augment) == (views.count, views.augment);
        let fitted = self.rounds.as_ref().filter(like).and_then(|fitted| fitted.temperature.as_ref());
        AppliedCalibration { threshold: None, temperature: fitted.and_then(|fitted| fitted.of(method, labels)) }
    }
}

impl Temperature {
    /// It, if it is this method's among these labels: it stretches the logits of one method among certain labels.
    fn of(&self, method: &MethodSettings, labels: &LabelSet) -> Option<f32> {
        (self.method == *method && self.labels == labels_digest(labels)).then_some(self.temperature as f32)
    }
}

/// BLAKE3 of labels and prompt, 64 hex digits.
pub(crate) fn labels_digest(labels: &LabelSet) -> String {
    let mut hasher = blake3::Hasher::new();
    // Of groups the members, too, each with its group: they are what images are compared with.
    let members = match labels.list.groups() {
        None => Vec::new(),
        Some(groups) => {
            let of_member = |(text, &group)| [text, &labels.names()[group]];
            labels.list.texts().iter().zip(groups).flat_map(of_member).collect()
        }
    };
    for text in labels.prompt.templates().iter().chain(labels.names()).chain(members) {
        // Lengths keep texts from running into one another.
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    // Classes by example are what their photos are, whatever they are called.
    let words = labels.words.iter().copied().collect::<HashSet<usize>>();
    for (place, row) in labels.embeddings.rows().into_iter().enumerate().filter(|(place, _)| !words.contains(place)) {
        hasher.update(&(place as u64).to_le_bytes());
        row.iter().for_each(|value| {
            hasher.update(&value.to_le_bytes());
        });
    }
    hasher.finalize().to_hex().to_string()
}

/// The probabilities `[C]` of an answer's logits at a temperature.
pub(crate) fn calibrated(prediction: &Array1<f32>, temperature: f32) -> Array1<f32> {
    if temperature == 1.0 {
        return softmax(prediction.view());
    }
    softmax(prediction.mapv(|logit| logit / temperature).view())
}
