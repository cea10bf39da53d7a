//! The order of the stages, and nothing else: bytes → views → features → decision → answer.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::answer::Answer;
use crate::bundle::Bundle;
use crate::cache::FeatureCache;
use crate::cancellation::CancellationToken;
use crate::error::Result;
use crate::extractor::{CacheUse, Extractor, ExtractorSettings, Features};
use crate::label_set::LabelSet;
use crate::method::{Decision, MethodSettings, ViewUse};
use crate::predictor::Predictor;
use crate::rounds::RoundSettings;
use crate::timings::{Timings, milliseconds_since};
use crate::views::{Pixels, ViewSettings};

/// Settings of a classifier that a user may choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ClassifierSettings {
    /// Views and encoder.
    pub extractor: ExtractorSettings,
    /// Method and its parameters.
    pub method: MethodSettings,
    /// Rounds of views, up to the number of the extractor's; without them an image is seen in all.
    pub rounds: Option<RoundSettings>,
}

impl ClassifierSettings {
    /// The settings that the bundle's manifest recommends.
    pub(crate) fn of(bundle: &Bundle) -> Self {
        Self { extractor: ExtractorSettings::of(bundle), method: bundle.manifest.method, rounds: None }
    }

    /// Range check of the settings of the views.
    ///
    /// # Errors
    /// A setting is out of its range.
    pub(crate) fn check(&self) -> Result<()> {
        self.extractor.check()?;
        self.rounds.map_or(Ok(()), |rounds| rounds.check(self.extractor.views.count))
    }
}

/// The views that an image may be seen in, and in which order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ViewPlan {
    /// The views.
    pub views: ViewSettings,
    /// The rounds in which it is seen in them until its answer is settled; all at once if there are none.
    pub rounds: Option<RoundSettings>,
}

/// Classifies images with one bundle, one label set and one choice of settings. Threads may share it.
#[derive(Clone)]
pub struct Classifier {
    extractor: Arc<Extractor>,
    predictor: Arc<Predictor>,
    rounds: Option<RoundSettings>,
}

impl Classifier {
    /// Prepares to classify with `bundle` into `labels`; `cache_folder` is the folder where packed weights are stored.
    ///
    /// # Errors
    /// A setting is out of range, the encoder cannot be loaded, or the method needs a text tower or a prompt that is
    /// not there.
    pub(crate) fn new(
        bundle: &Bundle,
        labels: LabelSet,
        settings: ClassifierSettings,
        cache_folder: Option<&Path>,
    ) -> Result<Self> {
        settings.check()?;
        let extractor = Extractor::new(bundle, settings.extractor, cache_folder)?;
        // Text towers run in parallel, and outside of a pool rayon would start its global one.
        let predictor = extractor.pool().install(|| Predictor::new(bundle, Arc::new(labels), settings.method))?;
        Ok(Self { extractor: Arc::new(extractor), predictor: Arc::new(predictor), rounds: settings.rounds })
    }

    /// The same classifier with a cache, where features are looked up first and kept.
    pub(crate) fn with_cache(self, cache: Option<Arc<FeatureCache>>) -> Self {
        Self { extractor: Arc::new(self.extractor.with_cache(cache)), ..self }
    }

    /// A classifier over the same encoder that decides with another predictor.
    pub(crate) fn with_predictor(&self, predictor: Arc<Predictor>) -> Self {
        Self { extractor: Arc::clone(&self.extractor), predictor, rounds: self.rounds }
    }

    /// The answer about the bytes of an image file.
    ///
    /// # Errors
    /// The image cannot be decoded (see [`crate::views::decode`]), or the encoder fails or gives features that are not
    /// finite.
    pub fn classify(&self, bytes: &[u8]) -> Result<Answer> {
        self.classify_in(bytes, self.plan(), CacheUse::LookUp, &CancellationToken::default())
    }

    /// The answer about an image file in other views; `token` can cancel the work.
    ///
    /// # Errors
    /// As [`Self::classify`], or `token` was cancelled.
    pub(crate) fn classify_in(
        &self,
        bytes: &[u8],
        plan: ViewPlan,
        cache: CacheUse,
        token: &CancellationToken,
    ) -> Result<Answer> {
        let views = self.predictor.views(plan.views);
        let Some(rounds) = plan.rounds else {
            return Ok(self.answer(&self.extractor.features_in(bytes, &views, cache, token)?));
        };
        let began = Instant::now();
        let (decided, features) = self.extractor.pool().install(|| {
            let mut encoding = self.extractor.encoding(bytes, views, cache, token)?;
            let decided = self.predictor.decide_in_rounds(&rounds, views.count, &mut encoding)?;
            Result::Ok((decided, encoding.into_features()))
        })?;
        let (decision, effort) = decided;
        let mut answer = Answer::new(&self.predictor, features, decision, Some(effort));
        let total = milliseconds_since(began);
        let Timings { decode, views, encode, .. } = answer.timings;
        answer.timings = Timings { tune: (total - decode - views - encode).max(0.0), total, ..answer.timings };
        Ok(answer)
    }

    /// The features of an image file: other classifiers over the same encoder can answer from them.
    ///
    /// # Errors
    /// As [`Self::classify`].
    pub fn features(&self, bytes: &[u8]) -> Result<Features> {
        self.extractor.features_in(bytes, &self.views(), CacheUse::LookUp, &CancellationToken::default())
    }

    /// The answer from features.
    pub fn answer(&self, features: &Features) -> Answer {
        let began = Instant::now();
        let decision = self.extractor.pool().install(|| self.predictor.decide(features.matrix.view()));
        let mut answer = Answer::new(&self.predictor, features.clone(), decision, None);
        answer.timings.tune = milliseconds_since(began);
        answer.timings.total += answer.timings.tune;
        answer
    }

    /// The decision about decoded pixels, without tamper score; `digest` stands for the content and decides the views.
    ///
    /// # Errors
    /// As [`Self::classify`], less decoding.
    pub(crate) fn decide_pixels(&self, image: &Pixels, digest: blake3::Hash) -> Result<Decision<f32>> {
        let features =
            self.extractor.features_of_pixels(image, digest, &self.views(), &CancellationToken::default())?;
        Ok(self.extractor.pool().install(|| self.predictor.decide(features.matrix.view())))
    }

    /// The views that images are seen in, and their rounds.
    pub(crate) fn plan(&self) -> ViewPlan {
        // A method that looks at the clean view alone has no rounds.
        let has_rounds = self.method().method().views() == ViewUse::AllViews;
        ViewPlan { views: self.views(), rounds: self.rounds.filter(|_| has_rounds) }
    }

    /// The views that images are seen in, at most.
    pub(crate) fn views(&self) -> ViewSettings {
        self.predictor.views(self.extractor.settings().views)
    }

    /// The method prepared for the labels.
    pub(crate) fn predictor(&self) -> &Arc<Predictor> {
        &self.predictor
    }

    /// The labels and their embeddings.
    pub(crate) fn labels(&self) -> &LabelSet {
        self.predictor.labels()
    }

    /// Views and encoder.
    pub(crate) fn extractor(&self) -> &Extractor {
        &self.extractor
    }

    /// The method and its parameters.
    pub(crate) fn method(&self) -> &MethodSettings {
        self.predictor.settings()
    }
}
