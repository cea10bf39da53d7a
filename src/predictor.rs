//! A method prepared for one label set of one bundle: from features to decisions.

use std::sync::Arc;

use ndarray::{ArrayView2, Axis};

use crate::bundle::BundleContents;
use crate::calibration::{AppliedCalibration, Calibration};
use crate::error::Result;
use crate::examples::ExamplesError;
use crate::label_set::LabelSet;
use crate::method::{ContextModel, Decide, Decision, Material, MethodSettings, Needs, ViewUse};
use crate::text::context_prompts;
use crate::views::ViewSettings;

/// Decides with one label set and one method.
pub(crate) struct Predictor {
    labels: Arc<LabelSet>,
    settings: MethodSettings,
    method: Box<dyn Decide<f32>>,
    scale: f32,
    bias: Option<f32>,
    calibration: Option<Calibration>,
}

impl Predictor {
    /// Prepares a method to decide among `labels`. Runs on the current rayon pool.
    ///
    /// # Errors
    /// The method needs a text tower or a prompt that is not there.
    pub(crate) fn new(bundle: &BundleContents, labels: Arc<LabelSet>, settings: MethodSettings) -> Result<Self> {
        let context = match settings.method().needs() {
            Needs::Nothing => None,
            Needs::TextTower => {
                if labels.words.is_empty() {
                    return Err(ExamplesError::NoWords.into());
                }
                let (model, texts) = (bundle.text_model()?, labels.list.texts());
                // The labels' embeddings may come from the table or the cache; tuning the context needs the tokens
                // themselves. Classes by example have no words to tune.
                let words: Vec<String> = labels.words.iter().map(|&place| texts[place].clone()).collect();
                let (tower, prompts) = context_prompts(model, &words, &labels.prompt)?;
                let tuned = ContextModel::new(tower, prompts);
                Some(Arc::new(if words.len() < texts.len() { tuned.at(labels.words.clone()) } else { tuned }))
            }
        };
        let method = settings.prepare(Material { classes: labels.embeddings.view(), context });
        let (scale, bias) = (bundle.manifest.logit_scale, bundle.manifest.logit_bias);
        Ok(Self { labels, settings, method, scale, bias, calibration: Calibration::of(bundle) })
    }

    /// The decision about features F `[V, D]`. Its logits and its prediction are of the labels, which may be groups of classes. Runs on the current rayon pool.
    pub(crate) fn decide(&self, features: ArrayView2<f32>) -> Decision<f32> {
        let features = self.labels.widened(features);
        let decision = self.method.decide(features.view(), self.labels.embeddings.view(), self.scale);
        let list = &self.labels.list;
        let prediction = list.of_labels(decision.prediction.insert_axis(Axis(0))).remove_axis(Axis(0));
        Decision { logits: list.of_labels(decision.logits), prediction, ..decision }
    }

    /// The views that have to be encoded of those asked for: only the clean one, if the method looks at no other.
    pub(crate) fn views(&self, asked: ViewSettings) -> ViewSettings {
        match self.settings.method().views() {
            ViewUse::CleanView => ViewSettings { count: 1, ..asked },
            ViewUse::AllViews => asked,
        }
    }

    /// The labels and their embeddings.
    pub(crate) fn labels(&self) -> &Arc<LabelSet> {
        &self.labels
    }

    /// The method and its parameters.
    pub(crate) fn settings(&self) -> &MethodSettings {
        &self.settings
    }

    /// The part of the bundle's calibration that holds for these views.
    pub(crate) fn calibration(&self, views: &ViewSettings) -> AppliedCalibration {
        let calibration = self.calibration.as_ref();
        calibration.map_or_else(Default::default, |one| one.applied_to(views, &self.settings, &self.labels))
    }

    /// What is added to logits before the sigmoid, of a model that was trained with one.
    pub(crate) fn bias(&self) -> Option<f32> {
        self.bias
    }

    /// The logit scale s.
    pub(crate) fn scale(&self) -> f32 {
        self.scale
    }
}
