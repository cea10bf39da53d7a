//! A method prepared for one label set of one bundle: from features to decisions.

use std::sync::Arc;

use ndarray::{Array1, ArrayView1, ArrayView2, Axis};

use crate::bundle::BundleContents;
use crate::calibration::{AppliedCalibration, Calibration};
use crate::error::Result;
use crate::examples::ExamplesError;
use crate::label_set::LabelSet;
use crate::method::{ContextModel, Decide, Decision, Material, MethodSettings, Needs, ViewUse};
use crate::products::scaled_products;
use crate::rounds::{Course, Effort, Gate, GateRule, RoundSettings, SeenInRounds, Settling, StoppedBy};
use crate::rows::{argmax, dot};
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

    /// The decision about an image that is seen in as many views as settle it, up to `views_max`. Runs on the current rayon pool.
    ///
    /// # Errors
    /// The image cannot be decoded or encoded.
    pub(crate) fn decide_in_rounds(
        &self,
        rounds: &RoundSettings,
        views_max: usize,
        image: &mut impl SeenInRounds,
    ) -> Result<(Decision<f32>, Effort)> {
        let gate = self.gate(rounds.gate, image.see_pair()?);
        if rounds.gate.answers(gate) && rounds.views_min == 1 {
            let effort = Effort { gate, views_used: 1, views_max, stopped_by: StoppedBy::Gate };
            return Ok((self.decide(image.see(1)?), effort));
        }
        let sizes = rounds.sizes(views_max);
        let mut course = Course::new(rounds.stop, gate);
        let mut place = 0;
        loop {
            let views_used = sizes[place];
            let features = image.see(views_used)?;
            let decision = self.decide(features);
            let is_settled = course.ends_with(argmax(decision.prediction.view()), Settling::of(features, &decision));
            place += 1;
            let stopped_by = match sizes.get(place) {
                _ if is_settled => StoppedBy::Settled,
                None => StoppedBy::ViewsMax,
                Some(next) if !rounds.has_time_for(next - views_used, image) => StoppedBy::Budget,
                Some(_) => continue,
            };
            return Ok((decision, Effort { gate, views_used, views_max, stopped_by }));
        }
    }

    /// The gate's result for the features `[D]` of the clean view and of the low-passed one.
    pub(crate) fn gate(&self, rule: GateRule, [clean, low_pass]: [ArrayView1<f32>; 2]) -> Gate {
        let logits = [clean, low_pass].map(|feature| self.untuned_logits(feature.insert_axis(Axis(0))));
        rule.judge(dot(clean, low_pass), logits.each_ref().map(|logits| logits.view()))
    }

    /// Untuned logits `[C]` of one feature `[1, D]`, of the labels.
    fn untuned_logits(&self, feature: ArrayView2<f32>) -> Array1<f32> {
        let feature = self.labels.widened(feature);
        let logits = scaled_products(self.scale, feature.view(), self.labels.embeddings.view());
        self.labels.list.of_labels(logits).remove_axis(Axis(0))
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

    /// The part of the bundle's calibration that holds for answers in rounds, in these views at most.
    pub(crate) fn calibration_in_rounds(&self, views: &ViewSettings) -> AppliedCalibration {
        let calibration = self.calibration.as_ref();
        calibration.map_or_else(Default::default, |one| one.applied_in_rounds(views, &self.settings, &self.labels))
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
