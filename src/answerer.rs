//! From features to the answer: one label set, one head.

use std::sync::Arc;
use std::time::Instant;

use ndarray::{Array1, Array2};
use rayon::ThreadPool;

use crate::bundle::Bundle;
use crate::calibration::{Applicable, Calibration, calibrated};
use crate::classes::{LabelSet, context_prompts};
use crate::error::Result;
use crate::extractor::{Extracted, milliseconds_since};
use crate::head::{ContextModel, HeadKind, HeadModel, class_basis};
use crate::rows::softmax;
use crate::tamper::{TamperScore, tamper_score};
use crate::tuning::{Episode, TuningSettings, tune};
use crate::views::{Augment, ViewSettings};

/// Answers with one label set and one head.
pub struct Answerer {
    labels: Arc<LabelSet>,
    head: HeadModel<f32>,
    scale: f32,
    tuning: TuningSettings,
    /// Number and kind of views that something was fitted to, and what.
    fitted: Option<(usize, Augment, Applicable)>,
}

/// What one image led to, stage by stage.
pub struct Outcome {
    /// BLAKE3 of the image file.
    pub digest: blake3::Hash,
    /// The views it was seen in.
    pub views: ViewSettings,
    /// F `[V, D]`, unit rows.
    pub features: Arc<Array2<f32>>,
    /// Whether they were in the cache.
    pub cached: bool,
    /// Logits at the start, the selected views, what tuning made of them, and the answer.
    pub episode: Episode<f32>,
    /// How unlike a clean image the views behave; `None` with a single view.
    pub tamper: Option<TamperScore>,
    /// What was fitted to these settings.
    pub calibration: Applicable,
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

impl Answerer {
    /// Prepares to answer with `labels`. Runs on the current rayon pool.
    ///
    /// # Errors
    /// A setting is out of range, or the head needs a text tower or a prompt that is not there.
    pub fn new(bundle: &Bundle, labels: Arc<LabelSet>, tuning: TuningSettings) -> Result<Self> {
        tuning.check()?;
        let head = head_model(bundle, &labels, &tuning)?;
        let fitted = Calibration::of(bundle).map(|calibration| {
            let views = ViewSettings { count: calibration.views, augment: calibration.augment, seed: 0 };
            (views.count, views.augment, calibration.applicable(&views, &tuning, &labels))
        });
        Ok(Self { labels, head, scale: bundle.manifest.logit_scale, tuning, fitted })
    }

    /// The answer to features that were asked for at `began`, on `pool`.
    pub fn answer(&self, extracted: Extracted, pool: &ThreadPool, began: Instant) -> Outcome {
        let Extracted { digest, settings, features, cached, decode, views, encode } = extracted;
        let tuning_began = Instant::now();
        let classes = self.labels.embeddings.view();
        let episode = pool.install(|| tune(features.view(), classes, self.scale, &self.head, &self.tuning));
        let tamper = tamper_score(features.view(), episode.logits.view());
        let tune = milliseconds_since(tuning_began);
        let timings = Timings { decode, views, encode, tune, total: milliseconds_since(began) };
        let calibration = self.calibration(&settings);
        Outcome { digest, views: settings, features, cached, episode, tamper, calibration, timings }
    }

    /// The labels and their embeddings.
    pub fn labels(&self) -> &Arc<LabelSet> {
        &self.labels
    }

    /// Head and tuning.
    pub fn tuning(&self) -> &TuningSettings {
        &self.tuning
    }

    /// What of the bundle's calibration holds for these views.
    pub fn calibration(&self, views: &ViewSettings) -> Applicable {
        match self.fitted {
            Some((count, augment, applicable)) if (count, augment) == (views.count, views.augment) => applicable,
            _ => Applicable::default(),
        }
    }

    /// The logit scale s.
    pub fn scale(&self) -> f32 {
        self.scale
    }
}

impl Outcome {
    /// R-TPT's probabilities `[C]`, calibrated where something was fitted.
    pub fn probabilities(&self) -> Array1<f32> {
        calibrated(&self.episode.prediction, self.calibration.temperature.unwrap_or(1.0))
    }

    /// Zero-shot CLIP's probabilities `[C]`: the clean view alone, nothing tuned.
    pub fn zero_shot(&self) -> Array1<f32> {
        softmax(self.episode.logits.row(0))
    }

    /// BLAKE3 of everything the answer consists of, to the last bit: prediction `[C]`, weights `[V]`, logits of the
    /// clean view `[C]`.
    pub fn answer_digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let Episode { prediction, weights, logits, .. } = &self.episode;
        for values in [prediction.view(), weights.view(), logits.row(0)] {
            hasher.update(&(values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| {
                hasher.update(&value.to_le_bytes());
            });
        }
        hasher.finalize()
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
