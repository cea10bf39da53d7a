//! The order of the stages, and nothing else: bytes → views → features → logits → tuned logits → answer.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::answerer::{Answerer, Outcome};
use crate::bundle::Bundle;
use crate::cache::FeatureCache;
use crate::calibration::Applicable;
use crate::classes::LabelSet;
use crate::error::Result;
pub use crate::extractor::CacheUse;
use crate::extractor::{Extractor, ExtractorSettings};
use crate::pulse::Pulse;
use crate::tuning::TuningSettings;
use crate::views::{Pixels, ViewSettings};

/// Everything a user may choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassifierSettings {
    /// Views and encoder.
    pub extractor: ExtractorSettings,
    /// Head and tuning.
    pub tuning: TuningSettings,
}

impl ClassifierSettings {
    /// What the bundle's manifest recommends.
    pub fn of(bundle: &Bundle) -> Self {
        Self { extractor: ExtractorSettings::of(bundle), tuning: bundle.manifest.tuning() }
    }

    /// Whether every setting is in its range.
    ///
    /// # Errors
    /// One is not.
    pub fn check(&self) -> Result<()> {
        self.extractor.check()?;
        self.tuning.check()
    }
}

/// Classifies images with one bundle, one label set and one choice of settings.
pub struct Classifier {
    extractor: Extractor,
    answerer: Arc<Answerer>,
}

impl Classifier {
    /// Prepares to classify with `bundle` into `labels`; `memory` is the folder where measured choices are kept.
    ///
    /// # Errors
    /// A setting is out of range, the encoder cannot be loaded, or the head needs a text tower or a prompt that is not
    /// there.
    pub fn new(bundle: &Bundle, labels: LabelSet, settings: ClassifierSettings, memory: Option<&Path>) -> Result<Self> {
        settings.check()?;
        let extractor = Extractor::new(bundle, settings.extractor, memory)?;
        let answerer = extractor.pool().install(|| Answerer::new(bundle, Arc::new(labels), settings.tuning))?;
        Ok(Self { extractor, answerer: Arc::new(answerer) })
    }

    /// Looks features up in `cache` first, and remembers them there.
    pub fn with_cache(mut self, cache: Option<Arc<FeatureCache>>) -> Self {
        self.extractor = self.extractor.with_cache(cache);
        self
    }

    /// Classifies the bytes of an image file.
    ///
    /// # Errors
    /// The image cannot be decoded (see [`crate::views::decode`]), or the encoder fails or gives features that are not
    /// finite.
    pub fn classify(&mut self, bytes: &[u8]) -> Result<Outcome> {
        let (views, answerer) = (self.extractor.settings().views, Arc::clone(&self.answerer));
        self.classify_as(bytes, &views, &answerer, CacheUse::Ask, &Pulse::default())
    }

    /// As [`Self::classify`], in other views or with another answerer, as long as nobody cancels it.
    ///
    /// # Errors
    /// As [`Self::classify`], or `pulse` was cancelled.
    pub fn classify_as(
        &mut self,
        bytes: &[u8],
        views: &ViewSettings,
        answerer: &Answerer,
        cache: CacheUse,
        pulse: &Pulse,
    ) -> Result<Outcome> {
        let began = Instant::now();
        let extracted = self.extractor.extract_as(bytes, views, cache, pulse)?;
        Ok(answerer.answer(extracted, self.extractor.pool(), began))
    }

    /// Classifies decoded pixels; `digest` stands for the content and decides the views. The cache is not asked.
    ///
    /// # Errors
    /// As [`Self::classify`], less decoding.
    pub fn classify_pixels(&mut self, image: &Pixels, digest: blake3::Hash) -> Result<Outcome> {
        let began = Instant::now();
        let extracted = self.extractor.extract_pixels(image, digest)?;
        Ok(self.answerer.answer(extracted, self.extractor.pool(), began))
    }

    /// Answers with `answerer` from now on.
    pub fn answer_with(&mut self, answerer: Arc<Answerer>) {
        self.answerer = answerer;
    }

    /// What answers.
    pub fn answerer(&self) -> &Arc<Answerer> {
        &self.answerer
    }

    /// The labels and their embeddings.
    pub fn labels(&self) -> &LabelSet {
        self.answerer.labels()
    }

    /// How features are made.
    pub fn extractor(&self) -> &Extractor {
        &self.extractor
    }

    /// Head and tuning.
    pub fn tuning(&self) -> &TuningSettings {
        self.answerer.tuning()
    }

    /// What of the bundle's calibration holds for these settings.
    pub fn calibration(&self) -> Applicable {
        self.answerer.calibration(&self.extractor.settings().views)
    }

    /// The logit scale s.
    pub fn scale(&self) -> f32 {
        self.answerer.scale()
    }
}
