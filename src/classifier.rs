//! The order of the stages, and nothing else: bytes → views → features → logits → tuned logits → answer.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use ndarray::{Array1, Array2, Array4, ArrayView4};
use rayon::ThreadPool;

use crate::bundle::Bundle;
use crate::classes::{LabelSet, context_prompts};
use crate::device::device_key;
use crate::encoder::{BatchChoice, BatchOrigin, Encoder, EncoderShape, choose_batch};
use crate::error::{Error, Result};
use crate::head::{ContextModel, HeadKind, HeadModel, class_basis};
use crate::limits::{BATCH_MAX, THREADS_MAX, VIEWS_MAX};
use crate::reliability::reliability_weights;
use crate::rows::softmax;
use crate::tuning::{Episode, TuningSettings, tune};
use crate::views::{Pixels, Preprocessing, ViewSettings, decode, make_views};

/// Everything a user may choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassifierSettings {
    /// The views.
    pub views: ViewSettings,
    /// Head and tuning.
    pub tuning: TuningSettings,
    /// Worker threads; `None` for as many as the device has. The results do not depend on it.
    pub threads: Option<usize>,
    /// Views the encoder takes at once; `None` to measure once per bundle and device. May change the last bits.
    pub batch: Option<usize>,
}

impl ClassifierSettings {
    /// What the bundle's manifest recommends.
    pub fn of(bundle: &Bundle) -> Self {
        let views = bundle.manifest.views;
        Self {
            views: ViewSettings { count: views.count, augment: views.augment, seed: 0 },
            tuning: bundle.manifest.tuning(),
            threads: None,
            batch: None,
        }
    }

    /// Whether every setting is in its range.
    ///
    /// # Errors
    /// One is not.
    pub fn check(&self) -> Result<()> {
        within("the number of views", self.views.count, VIEWS_MAX)?;
        self.tuning.check()?;
        self.threads.map_or(Ok(()), |threads| within("the number of threads", threads, THREADS_MAX))?;
        self.batch.map_or(Ok(()), |batch| within("the encoder's batch", batch, BATCH_MAX))
    }
}

fn within(what: &'static str, found: usize, max: usize) -> Result<()> {
    if (1..=max).contains(&found) {
        return Ok(());
    }
    Err(Error::Setting { what, expected: format!("1 to {max}"), found: found.to_string() })
}

/// Classifies images with one bundle, one label set and one choice of settings.
pub struct Classifier {
    encoder: Encoder,
    labels: LabelSet,
    head: HeadModel<f32>,
    scale: f32,
    preprocessing: Preprocessing,
    settings: ClassifierSettings,
    batch_origin: BatchOrigin,
    bundle_id: String,
    pool: ThreadPool,
    /// The views of the image at hand, `[V, 3, R, R]`; reused from image to image.
    views: Array4<f32>,
}

/// What one image led to, stage by stage.
pub struct Outcome {
    /// BLAKE3 of the image file.
    pub digest: blake3::Hash,
    /// F `[V, D]`, unit rows.
    pub features: Array2<f32>,
    /// Logits at the start, the selected views, and what tuning made of the classes.
    pub episode: Episode<f32>,
    /// Reliability weights w `[V]`.
    pub weights: Array1<f32>,
    /// The ensembled logits `w · Z_tuned`, `[C]`.
    pub prediction: Array1<f32>,
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
    /// Head, tuning, reliability and ensemble.
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
        let preprocessing = bundle.manifest.preprocessing();
        let shape = EncoderShape { resolution: preprocessing.resolution, embedding: bundle.manifest.embedding };
        let choice = match settings.batch {
            Some(batch) => BatchChoice { batch, origin: BatchOrigin::Given },
            None => {
                let key = format!("{}-{}", &bundle.digest.to_hex()[..32], device_key());
                choose_batch(&bundle.encoder, shape, memory, &key)?
            }
        };
        let pool = worker_pool(settings.threads)?;
        let head = pool.install(|| head_model(bundle, &labels, &settings.tuning))?;
        let side = preprocessing.resolution;
        Ok(Self {
            encoder: Encoder::load(&bundle.encoder, shape, choice.batch)?,
            labels,
            head,
            scale: bundle.manifest.logit_scale,
            preprocessing,
            settings,
            batch_origin: choice.origin,
            bundle_id: bundle.id(),
            pool,
            views: Array4::zeros((settings.views.count, 3, side, side)),
        })
    }

    /// Classifies the bytes of an image file.
    ///
    /// # Errors
    /// The image cannot be decoded (see [`decode`]), or the encoder fails or gives features that are not finite.
    pub fn classify(&mut self, bytes: &[u8]) -> Result<Outcome> {
        let began = Instant::now();
        let digest = blake3::hash(bytes);
        let image = decode(bytes)?;
        let decode = milliseconds_since(began);
        let mut outcome = self.classify_pixels(&image, digest)?;
        outcome.timings.decode = decode;
        outcome.timings.total = milliseconds_since(began);
        Ok(outcome)
    }

    /// Classifies decoded pixels; `digest` stands for the content and decides the views.
    ///
    /// # Errors
    /// As [`Self::classify`], less decoding.
    pub fn classify_pixels(&mut self, image: &Pixels, digest: blake3::Hash) -> Result<Outcome> {
        let began = Instant::now();
        let Self { encoder, labels, head, scale, preprocessing, settings, pool, views, .. } = self;
        pool.install(|| make_views(image, digest.as_bytes(), preprocessing, &settings.views, views.view_mut()));
        let views_done = milliseconds_since(began);
        let features = pool.install(|| encoder.encode(views.view()))?;
        let encode_done = milliseconds_since(began);
        let classes = labels.embeddings.view();
        let episode = pool.install(|| tune(features.view(), classes, *scale, head, &settings.tuning));
        let weights = reliability_weights(features.view());
        let prediction = episode.prediction(weights.view(), features.view(), *scale);
        let total = milliseconds_since(began);
        let timings = Timings {
            decode: 0.0,
            views: views_done,
            encode: encode_done - views_done,
            tune: total - encode_done,
            total,
        };
        Ok(Outcome { digest, features, episode, weights, prediction, timings })
    }

    /// The labels and their embeddings.
    pub fn labels(&self) -> &LabelSet {
        &self.labels
    }

    /// The views of the last image, `[V, 3, R, R]`.
    pub fn views(&self) -> ArrayView4<'_, f32> {
        self.views.view()
    }

    /// The settings in force.
    pub fn settings(&self) -> &ClassifierSettings {
        &self.settings
    }

    /// How pixels become the encoder's input.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// The bundle's name and digest, as in results.
    pub fn bundle_id(&self) -> &str {
        &self.bundle_id
    }

    /// The logit scale s.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Worker threads in use.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// The encoder's batch and where it came from.
    pub fn batch(&self) -> BatchChoice {
        BatchChoice { batch: self.encoder.batch(), origin: self.batch_origin }
    }
}

impl Outcome {
    /// R-TPT's probabilities `[C]`.
    pub fn probabilities(&self) -> Array1<f32> {
        softmax(self.prediction.view())
    }

    /// Zero-shot CLIP's probabilities `[C]`: the clean view alone, nothing tuned.
    pub fn zero_shot(&self) -> Array1<f32> {
        softmax(self.episode.logits.row(0))
    }
}

/// What the head needs beyond the class embeddings, for one label set.
fn head_model(bundle: &Bundle, labels: &LabelSet, tuning: &TuningSettings) -> Result<HeadModel<f32>> {
    Ok(match tuning.head {
        HeadKind::None => HeadModel::None,
        HeadKind::ClassShift => HeadModel::ClassShift,
        HeadKind::ClassLowrank => HeadModel::ClassLowrank(class_basis(labels.embeddings.view(), tuning.rank)),
        HeadKind::Context => {
            let model = bundle.text_model()?;
            let prompts = context_prompts(&model, labels.names(), &labels.prompting)?;
            HeadModel::Context(Box::new(ContextModel::new(model.tower, prompts)))
        }
    })
}

/// A pool of `threads` workers, one a core if nothing is said.
///
/// # Errors
/// The system cannot start as many.
pub fn worker_pool(threads: Option<usize>) -> Result<ThreadPool> {
    let threads = threads.unwrap_or_else(available_threads);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|error| Error::Setting {
        what: "the number of threads",
        expected: "as many as the system can start".into(),
        found: format!("{threads} ({error})"),
    })
}

fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(THREADS_MAX)
}

fn milliseconds_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}
