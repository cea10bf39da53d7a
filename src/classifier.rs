//! The order of the stages, and nothing else: bytes → views → features → logits → tuned logits → answer.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ndarray::{Array1, Array2};

use crate::bundle::Bundle;
use crate::cache::FeatureCache;
use crate::calibration::{Applicable, Calibration, calibrated};
use crate::classes::{LabelSet, context_prompts};
use crate::error::Result;
use crate::extractor::{Extracted, Extractor, ExtractorSettings, milliseconds_since};
use crate::head::{ContextModel, HeadKind, HeadModel, class_basis};
use crate::rows::softmax;
use crate::tamper::{TamperScore, tamper_score};
use crate::tuning::{Episode, TuningSettings, tune};
use crate::views::Pixels;

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
    labels: LabelSet,
    head: HeadModel<f32>,
    scale: f32,
    tuning: TuningSettings,
    calibration: Applicable,
}

/// What one image led to, stage by stage.
pub struct Outcome {
    /// BLAKE3 of the image file.
    pub digest: blake3::Hash,
    /// F `[V, D]`, unit rows.
    pub features: Arc<Array2<f32>>,
    /// Whether they were in the cache.
    pub cached: bool,
    /// Logits at the start, the selected views, what tuning made of them, and the answer.
    pub episode: Episode<f32>,
    /// How unlike a clean image the views behave; `None` with a single view.
    pub tamper: Option<TamperScore>,
    /// What probabilities are calibrated by; 1 if nothing was fitted to these settings.
    pub temperature: f32,
    /// Where the time went.
    pub timings: Timings,
}

/// Milliseconds spent in each stage of one image.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Digest and decoding.
    pub decode: f64,
    /// Making the views.
    pub views: f64,
    /// The encoder.
    pub encode: f64,
    /// Head, tuning, reliability, ensemble and tamper score.
    pub tune: f64,
    /// All of it.
    pub total: f64,
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
        let head = extractor.pool().install(|| head_model(bundle, &labels, &settings.tuning))?;
        let calibration = Calibration::of(bundle).map_or_else(Applicable::default, |calibration| {
            calibration.applicable(&settings.extractor.views, &settings.tuning, &labels)
        });
        let scale = bundle.manifest.logit_scale;
        Ok(Self { extractor, labels, head, scale, tuning: settings.tuning, calibration })
    }

    /// Looks features up in `cache` first, and remembers them there.
    pub fn with_cache(mut self, cache: Option<FeatureCache>) -> Self {
        self.extractor = self.extractor.with_cache(cache);
        self
    }

    /// Classifies the bytes of an image file.
    ///
    /// # Errors
    /// The image cannot be decoded (see [`crate::views::decode`]), or the encoder fails or gives features that are not
    /// finite.
    pub fn classify(&mut self, bytes: &[u8]) -> Result<Outcome> {
        let began = Instant::now();
        let extracted = self.extractor.extract(bytes)?;
        Ok(self.answer(extracted, began))
    }

    /// Classifies decoded pixels; `digest` stands for the content and decides the views. The cache is not asked.
    ///
    /// # Errors
    /// As [`Self::classify`], less decoding.
    pub fn classify_pixels(&mut self, image: &Pixels, digest: blake3::Hash) -> Result<Outcome> {
        let began = Instant::now();
        let extracted = self.extractor.extract_pixels(image, digest)?;
        Ok(self.answer(extracted, began))
    }

    fn answer(&self, extracted: Extracted, began: Instant) -> Outcome {
        let Extracted { digest, features, cached, decode, views, encode } = extracted;
        let tuning_began = Instant::now();
        let classes = self.labels.embeddings.view();
        let pool = self.extractor.pool();
        let episode = pool.install(|| tune(features.view(), classes, self.scale, &self.head, &self.tuning));
        let tamper = tamper_score(features.view(), episode.logits.view());
        let tune = milliseconds_since(tuning_began);
        let timings = Timings { decode, views, encode, tune, total: milliseconds_since(began) };
        let temperature = self.calibration.temperature.unwrap_or(1.0);
        Outcome { digest, features, cached, episode, tamper, temperature, timings }
    }

    /// The labels and their embeddings.
    pub fn labels(&self) -> &LabelSet {
        &self.labels
    }

    /// How features are made.
    pub fn extractor(&self) -> &Extractor {
        &self.extractor
    }

    /// Head and tuning.
    pub fn tuning(&self) -> &TuningSettings {
        &self.tuning
    }

    /// What of the bundle's calibration holds for these settings.
    pub fn calibration(&self) -> &Applicable {
        &self.calibration
    }

    /// The logit scale s.
    pub fn scale(&self) -> f32 {
        self.scale
    }
}

impl Outcome {
    /// R-TPT's probabilities `[C]`, calibrated where something was fitted.
    pub fn probabilities(&self) -> Array1<f32> {
        calibrated(&self.episode.prediction, self.temperature)
    }

    /// Zero-shot CLIP's probabilities `[C]`: the clean view alone, nothing tuned.
    pub fn zero_shot(&self) -> Array1<f32> {
        softmax(self.episode.logits.row(0))
    }
}

/// What the head needs beyond the class embeddings, for one label set.
///
/// # Errors
/// It needs a text tower or a context that is not there.
pub fn head_model(bundle: &Bundle, labels: &LabelSet, tuning: &TuningSettings) -> Result<HeadModel<f32>> {
    Ok(match tuning.head {
        HeadKind::None => HeadModel::None,
        HeadKind::ClassShift => HeadModel::ClassShift,
        HeadKind::ViewShift => HeadModel::ViewShift,
        HeadKind::Mta => HeadModel::Mta,
        HeadKind::Zero => HeadModel::Zero,
        HeadKind::ClassLowrank => HeadModel::ClassLowrank(class_basis(labels.embeddings.view(), tuning.rank)),
        HeadKind::Context => {
            let model = bundle.text_model()?;
            let prompts = context_prompts(&model, labels.names(), &labels.prompting)?;
            HeadModel::Context(Box::new(ContextModel::new(model.tower, prompts)))
        }
    })
}
