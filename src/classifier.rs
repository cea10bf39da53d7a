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
use crate::method::{Decision, MethodSettings};
use crate::predictor::Predictor;
use crate::timings::milliseconds_since;
use crate::views::{Pixels, ViewSettings};

/// Settings of a classifier that a user may choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ClassifierSettings {
    /// Views and encoder.
    pub extractor: ExtractorSettings,
    /// Method and its parameters.
    pub method: MethodSettings,
}

impl ClassifierSettings {
    /// The settings that the bundle's manifest recommends.
    pub(crate) fn of(bundle: &Bundle) -> Self {
        Self { extractor: ExtractorSettings::of(bundle), method: bundle.manifest.method }
    }
}

/// Classifies images with one bundle, one label set and one choice of settings. Threads may share it.
#[derive(Clone)]
pub struct Classifier {
    extractor: Arc<Extractor>,
    predictor: Arc<Predictor>,
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
        let extractor = Extractor::new(bundle, settings.extractor, cache_folder)?;
        // Text towers run in parallel, and outside of a pool rayon would start its global one.
        let predictor = extractor.pool().install(|| Predictor::new(bundle, Arc::new(labels), settings.method))?;
        Ok(Self { extractor: Arc::new(extractor), predictor: Arc::new(predictor) })
    }

    /// The same classifier with a cache, where features are looked up first and kept.
    pub(crate) fn with_cache(self, cache: Option<Arc<FeatureCache>>) -> Self {
        Self { extractor: Arc::new(self.extractor.with_cache(cache)), ..self }
    }

    /// A classifier over the same encoder that decides with another predictor.
    pub(crate) fn with_predictor(&self, predictor: Arc<Predictor>) -> Self {
        Self { extractor: Arc::clone(&self.extractor), predictor }
    }

    /// The answer about the bytes of an image file.
    ///
    /// # Errors
    /// The image cannot be decoded (see [`crate::views::decode`]), or the encoder fails or gives features that are not
    /// finite.
    pub fn classify(&self, bytes: &[u8]) -> Result<Answer> {
        self.classify_in(bytes, self.views(), CacheUse::LookUp, &CancellationToken::default())
    }

    /// The answer about an image file in other views; `token` can cancel the work.
    ///
    /// # Errors
    /// As [`Self::classify`], or `token` was cancelled.
    pub(crate) fn classify_in(
        &self,
        bytes: &[u8],
        views: ViewSettings,
        cache: CacheUse,
        token: &CancellationToken,
    ) -> Result<Answer> {
        let views = self.predictor.views(views);
        Ok(self.answer(&self.extractor.features_in(bytes, &views, cache, token)?))
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
        let mut answer = self.extractor.pool().install(|| Answer::new(&self.predictor, features.clone()));
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

    /// The views that images are seen in.
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
