//! What is fitted to a deployment's own images: a threshold for the tamper score and a temperature for probabilities.
//!
//! Kept in the bundle's folder, in a file of its own: the model stays the same bytes, and cached features stay valid.

use std::path::PathBuf;

use ndarray::Array1;
use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::classes::LabelSet;
use crate::error::Result;
use crate::files::{read_up_to, write_file};
use crate::limits::MANIFEST_BYTES_MAX;
use crate::metrics::{PROBABILITY_MIN, quantile};
use crate::rows::{argmax, softmax};
use crate::tuning::TuningSettings;
use crate::views::{Augment, ViewSettings};

/// The file's name in the bundle's folder.
pub const FILE_NAME: &str = "calibration.json";
/// Version of the file.
const FORMAT: u32 = 1;
/// Smallest and largest temperature that is looked for.
const TEMPERATURES: (f64, f64) = (0.02, 50.0);

/// What `rtpt calibrate` found for one choice of settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Version of the file.
    pub format: u32,
    /// BLAKE3 of the manifest of the bundle it was fitted to, 64 hex digits.
    pub bundle: String,
    /// Number of views.
    pub views: usize,
    /// How views are made.
    pub augment: Augment,
    /// The threshold.
    pub tamper: Option<TamperThreshold>,
    /// The temperature.
    pub temperature: Option<Temperature>,
}

/// Above which tamper score an image is suspicious.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TamperThreshold {
    /// The threshold (0–1).
    pub threshold: f32,
    /// The share (0–1) of clean images that was allowed to be above it.
    pub false_positive_rate: f64,
    /// Clean images it was fitted to.
    pub images: usize,
}

/// By what the answer's logits are divided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Temperature {
    /// The temperature, 1 for no change.
    pub temperature: f64,
    /// The head and its settings, in words.
    pub tuning: String,
    /// BLAKE3 of labels and prompt.
    pub labels: String,
    /// What answers were compared with.
    pub target: Target,
    /// Images it was fitted to.
    pub images: usize,
    /// Expected calibration error before (0–1).
    pub ece_before: f64,
    /// The same after, each half of the images at the temperature of the other half.
    pub ece_after: f64,
}

/// What answers are compared with when a temperature is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// What the images show.
    Truth,
    /// What the bundle's full number of views answers.
    FullViews,
}

/// What holds for the settings at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Applicable {
    /// Above it a tamper score is suspicious.
    pub threshold: Option<f32>,
    /// By it the answer's logits are divided.
    pub temperature: Option<f32>,
}

impl Calibration {
    /// An empty calibration of a bundle, for these views.
    pub fn new(bundle: &Bundle, views: &ViewSettings) -> Self {
        Self {
            format: FORMAT,
            bundle: bundle.digest.to_hex().to_string(),
            views: views.count,
            augment: views.augment,
            tamper: None,
            temperature: None,
        }
    }

    /// The file of a bundle.
    pub fn path(bundle: &Bundle) -> PathBuf {
        bundle.folder.join(FILE_NAME)
    }

    /// The calibration kept with a bundle, if there is one; one that cannot be used is a warning.
    pub fn of(bundle: &Bundle) -> Option<Self> {
        let path = Self::path(bundle);
        if !path.exists() {
            return None;
        }
        let parsed = read_up_to(&path, MANIFEST_BYTES_MAX)
            .map_err(|error| error.to_string())
            .and_then(|bytes| serde_json::from_slice::<Self>(&bytes).map_err(|error| error.to_string()))
            .and_then(|found| match found {
                Self { format, .. } if format != FORMAT => Err(format!("it has format {format}, expected {FORMAT}")),
                found if found.bundle != bundle.digest.to_hex().as_str() => {
                    Err("it was made for another bundle".into())
                }
                found => Ok(found),
            });
        let advice = "make it anew with `rtpt calibrate`";
        parsed.map_err(|problem| log::warn!("not using {}: {problem}; {advice}", path.display())).ok()
    }

    /// Keeps it with the bundle.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, bundle: &Bundle) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).expect("a calibration is always JSON");
        text.push('\n');
        write_file(&Self::path(bundle), text.as_bytes())
    }

    /// What of it holds: the threshold for the same views, the temperature for the same views, head and labels.
    pub fn applicable(&self, views: &ViewSettings, tuning: &TuningSettings, labels: &LabelSet) -> Applicable {
        if (self.views, self.augment) != (views.count, views.augment) {
            log::info!("the calibration is for {} {:?} views and not used", self.views, self.augment);
            return Applicable::default();
        }
        let fits = |fitted: &&Temperature| fitted.tuning == in_words(tuning) && fitted.labels == labels_digest(labels);
        let temperature = self.temperature.as_ref().filter(fits).map(|fitted| fitted.temperature as f32);
        Applicable { threshold: self.tamper.map(|tamper| tamper.threshold), temperature }
    }
}

/// A head and its settings as they are written into a calibration.
pub fn in_words(tuning: &TuningSettings) -> String {
    let TuningSettings { head, steps, selection, rank, class_cutoff, optimizer } = tuning;
    let rate = optimizer.learning_rate;
    format!("{}, {steps} steps at {rate}, selection {selection}, rank {rank}, cutoff {class_cutoff}", head.name())
}

/// BLAKE3 of labels and prompt, 64 hex digits.
pub fn labels_digest(labels: &LabelSet) -> String {
    let mut hasher = blake3::Hasher::new();
    for text in labels.prompting.templates().iter().chain(labels.names()) {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The probabilities `[C]` of an answer's logits at a temperature.
pub fn calibrated(prediction: &Array1<f32>, temperature: f32) -> Array1<f32> {
    if temperature == 1.0 {
        return softmax(prediction.view());
    }
    softmax(prediction.mapv(|logit| logit / temperature).view())
}

/// The tamper score that at most `false_positive_rate` (0–1) of clean images' `scores` are above.
pub fn fit_threshold(scores: &[f32], false_positive_rate: f64) -> f32 {
    let scores: Vec<f64> = scores.iter().map(|&score| f64::from(score)).collect();
    quantile(&scores, 1.0 - false_positive_rate) as f32
}

/// An image's answer `[C]` and the class it is compared with.
pub type Answered = (Array1<f32>, usize);

/// The temperature that makes the wanted classes most probable (Guo et al. 2017, section 4.2).
///
/// The mean negative log-likelihood has one minimum in the logarithm of the temperature; it is enclosed by golden
/// section.
pub fn fit_temperature(answers: &[Answered]) -> f64 {
    let loss = |log_temperature: f64| -> f64 {
        let temperature = log_temperature.exp() as f32;
        let of = |(prediction, wanted): &Answered| {
            -f64::from(calibrated(prediction, temperature)[*wanted].max(PROBABILITY_MIN).ln())
        };
        answers.iter().map(of).sum()
    };
    let golden = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (TEMPERATURES.0.ln(), TEMPERATURES.1.ln());
    let (mut left, mut right) = (high - golden * (high - low), low + golden * (high - low));
    let (mut loss_left, mut loss_right) = (loss(left), loss(right));
    while high - low > 1e-4 {
        if loss_left <= loss_right {
            (high, right, loss_right) = (right, left, loss_left);
            left = high - golden * (high - low);
            loss_left = loss(left);
        } else {
            (low, left, loss_left) = (left, right, loss_right);
            right = low + golden * (high - low);
            loss_right = loss(right);
        }
    }
    f64::midpoint(low, high).exp()
}

/// Confidence at a temperature, and whether the answer is the wanted one.
pub fn confidences(answers: &[Answered], temperature: f64) -> Vec<(f32, bool)> {
    let of = |(prediction, wanted): &Answered| {
        let answer = argmax(prediction.view());
        (calibrated(prediction, temperature as f32)[answer], answer == *wanted)
    };
    answers.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_lets_no_more_clean_images_through_than_asked() {
        let scores: Vec<f32> = (0..200).map(|place| place as f32 / 200.0).collect();
        for (rate, expected) in [(0.05, 10), (0.01, 2), (0.5, 100), (0.0, 0)] {
            let threshold = fit_threshold(&scores, rate);
            assert_eq!(scores.iter().filter(|&&score| score > threshold).count(), expected, "{rate}");
        }
    }

    #[test]
    fn the_temperature_makes_confidence_the_share_of_right_answers() {
        // Two classes, always the same logits, three of four answers right: softmax(d / T) = 3/4, so T = d / ln 3.
        for gap in [0.5_f32, 4.0, 30.0] {
            let answers: Vec<Answered> =
                (0..40).map(|place| (Array1::from(vec![gap, 0.0]), usize::from(place % 4 == 0))).collect();
            let temperature = fit_temperature(&answers);
            let expected = f64::from(gap) / 3.0_f64.ln();
            assert!((temperature / expected - 1.0).abs() < 1e-3, "{gap}: {temperature}, expected {expected}");
            assert!(confidences(&answers, temperature).iter().all(|(confidence, _)| (confidence - 0.75).abs() < 1e-3));
        }
    }

    #[test]
    fn an_answer_without_votes_for_the_truth_can_be_calibrated() {
        let answers = vec![(Array1::from(vec![0.0, f32::NEG_INFINITY]), 1), (Array1::from(vec![0.0, -1.0]), 0)];
        assert!(fit_temperature(&answers).is_finite());
    }
}
