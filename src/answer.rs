//! Answers of a classifier about one image.

use std::sync::Arc;

use ndarray::Array1;
use serde::{Deserialize, Serialize};

use crate::calibration::{AppliedCalibration, calibrated};
use crate::extractor::Features;
use crate::label_set::LabelSet;
use crate::labels::Labels;
use crate::method::{Decision, Method, MethodSettings};
use crate::predictor::Predictor;
use crate::rounds::Effort;
use crate::rows::{argmax, softmax, top};
use crate::tamper::{TamperScore, tamper_score};
use crate::timings::Timings;
use crate::views::ViewSettings;

/// The answer about one image.
pub struct Answer {
    /// The labels it was chosen from.
    pub(crate) labels: Arc<LabelSet>,
    /// The method and its parameters.
    pub(crate) settings: MethodSettings,
    /// The image's features.
    pub(crate) features: Features,
    /// Logits, selected views, tuned embeddings, weights and prediction.
    pub(crate) decision: Decision<f32>,
    /// The tamper score; `None` with a single view.
    pub(crate) tamper: Option<TamperScore>,
    /// What rounds of views came to, if it was seen in rounds.
    pub(crate) effort: Option<Effort>,
    /// What is added to logits before the sigmoid, of a model that was trained with one.
    pub(crate) bias: Option<f32>,
    /// The calibration that holds for these settings.
    pub(crate) calibration: AppliedCalibration,
    /// Time spent in each stage.
    pub(crate) timings: Timings,
}

/// A label and its probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Prediction {
    /// The label.
    pub label: String,
    /// Identifier of the label, where the labels have identifiers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Probability of the label (0–1).
    pub probability: f32,
    /// Probability (0–1) that the label fits, whatever the others are: of models that were trained with a sigmoid, as SigLIP.
    /// Where it is low for all labels, none of them fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigmoid: Option<f32>,
}

/// The tamper score, its parts, and the threshold it is compared with; all 0–1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tamper {
    /// The score and its parts.
    #[serde(flatten)]
    pub score: TamperScore,
    /// Further terms by name that the method computed, which are no part of the score.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "terms")]
    pub terms: Vec<(String, f32)>,
    /// True if the score is above the calibrated threshold; `None` where none was calibrated for these views.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspicious: Option<bool>,
    /// The calibrated threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
}

impl Answer {
    /// The predictor's answer to an image's features. The caller adds the time that it took as `tune`.
    pub(crate) fn new(
        predictor: &Predictor,
        features: Features,
        decision: Decision<f32>,
        effort: Option<Effort>,
    ) -> Self {
        let tamper = match decision.logits.nrows() {
            // Methods that look at the clean view alone have no other views' logits.
            1 => None,
            _ => tamper_score(features.matrix.view(), decision.logits.view()),
        };
        Self {
            labels: Arc::clone(predictor.labels()),
            settings: *predictor.settings(),
            bias: predictor.bias(),
            calibration: match effort {
                None => predictor.calibration(&features.views),
                Some(effort) => {
                    predictor.calibration_in_rounds(&ViewSettings { count: effort.views_max, ..features.views })
                }
            },
            effort,
            timings: features.timings,
            features,
            decision,
            tamper,
        }
    }

    /// The most probable label.
    pub fn best(&self) -> Prediction {
        self.prediction(self.best_class(), &self.calibrated_probabilities())
    }

    /// The `count` most probable labels, most probable first.
    pub fn top(&self, count: usize) -> Vec<Prediction> {
        let probabilities = self.calibrated_probabilities();
        // Read off the logits: probabilities of near-certain classes can round to the same value.
        let classes = top(self.decision.prediction.view(), count);
        classes.into_iter().map(|class| self.prediction(class, &probabilities)).collect()
    }

    /// The probabilities (0–1) of all labels in their order, calibrated where a temperature was fitted.
    pub fn probabilities(&self) -> Vec<f32> {
        self.calibrated_probabilities().to_vec()
    }

    /// The answer of zero-shot CLIP: the clean view alone, nothing tuned.
    pub fn zero_shot(&self) -> Prediction {
        let class = self.zero_shot_class();
        let alone = self.bias.map(|bias| sigmoid(self.decision.logits[[0, class]] + bias));
        Prediction { sigmoid: alone, ..self.prediction(class, &self.zero_shot_probabilities()) }
    }

    /// The tamper score: how unlike a clean image the views behave. `None` with a single view.
    pub fn tamper(&self) -> Option<Tamper> {
        let score = self.tamper?;
        // The score is made of untuned features and logits, so that one threshold holds for all methods.
        let threshold = self.calibration.threshold;
        let terms = self.decision.terms.iter().map(|&(name, value)| (name.to_string(), value)).collect();
        Some(Tamper { score, terms, suspicious: threshold.map(|threshold| score.score > threshold), threshold })
    }

    /// The temperature that the probabilities were calibrated with; `None` where none was fitted to these settings.
    pub fn temperature(&self) -> Option<f32> {
        self.calibration.temperature
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.settings.method()
    }

    /// Damage of the image file, if it has any; only with [`DamagedImages::Answer`](crate::DamagedImages::Answer) is there
    /// an answer then.
    pub fn damage(&self) -> Option<&'static str> {
        self.features.damage
    }

    /// Number of views V that the image was seen in.
    pub fn views(&self) -> usize {
        self.features.views.count
    }

    /// True if the image seems to have been tampered with: the gate's cosine is below its bound, or without a gate the tamper score is
    /// above the calibrated threshold. `None` where neither was calibrated.
    pub fn is_suspicious(&self) -> Option<bool> {
        match self.effort {
            Some(Effort { gate, .. }) => Some(gate.is_suspicious()),
            None => self.tamper().and_then(|tamper| tamper.suspicious),
        }
    }

    /// The features it was made of.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Time spent in each stage.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// BLAKE3 of everything the answer consists of, to the last bit: prediction `[C]`, weights `[V]`, logits of the
    /// clean view `[C]`.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let Decision { prediction, weights, logits, .. } = &self.decision;
        for values in [prediction.view(), weights.view(), logits.row(0)] {
            // The lengths keep the three from running into one another.
            hasher.update(&(values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| {
                hasher.update(&value.to_le_bytes());
            });
        }
        *hasher.finalize().as_bytes()
    }

    /// The logits of the answer, `[C]`.
    pub(crate) fn into_prediction(self) -> Array1<f32> {
        self.decision.prediction
    }

    /// Index of the most probable label.
    pub(crate) fn best_class(&self) -> usize {
        argmax(self.decision.prediction.view())
    }

    /// Index of the label that zero-shot CLIP answers.
    pub(crate) fn zero_shot_class(&self) -> usize {
        argmax(self.decision.logits.row(0))
    }

    /// The probabilities `[C]`, calibrated where a temperature was fitted.
    pub(crate) fn calibrated_probabilities(&self) -> Array1<f32> {
        calibrated(&self.decision.prediction, self.calibration.temperature.unwrap_or(1.0))
    }

    /// The probabilities `[C]` of zero-shot CLIP.
    pub(crate) fn zero_shot_probabilities(&self) -> Array1<f32> {
        softmax(self.decision.logits.row(0))
    }

    fn prediction(&self, class: usize, probabilities: &Array1<f32>) -> Prediction {
        let list: &Labels = &self.labels.list;
        let id = list.id(class).map(String::from);
        let sigmoid = self.bias.map(|bias| sigmoid(self.mean_logit(class) + bias));
        Prediction { label: list.names()[class].clone(), id, probability: probabilities[class], sigmoid }
    }

    /// The logit of a label, averaged over the views by their weights. What a method tunes moves labels against one another, and
    /// has no part in it.
    fn mean_logit(&self, class: usize) -> f32 {
        self.decision.weights.iter().zip(self.decision.logits.column(class)).map(|(weight, logit)| weight * logit).sum()
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Terms as a map of name and value.
mod terms {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(terms: &[(String, f32)], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(terms.iter().map(|(name, value)| (name, value)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, f32)>, D::Error> {
        Ok(BTreeMap::deserialize(deserializer)?.into_iter().collect())
    }
}
