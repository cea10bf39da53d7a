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
use crate::rows::softmax;
use crate::views::ViewSettings;

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
        // A temperature stretches the logits of one method among certain labels. The tamper score needs neither.
        let fits = |fitted: &&Temperature| fitted.method == *method && fitted.labels == labels_digest(labels);
        let temperature = self.temperature.as_ref().filter(fits).map(|fitted| fitted.temperature as f32);
        AppliedCalibration { threshold: self.tamper.map(|tamper| tamper.threshold), temperature }
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
