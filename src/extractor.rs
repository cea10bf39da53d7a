//! Image bytes to features: views and encoder, or the cache.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ndarray::{Array2, Array4, ArrayView4};
use rayon::ThreadPool;

use crate::bundle::Bundle;
use crate::cache::{CacheScope, FeatureCache};
use crate::device::device_key;
use crate::encoder::{BatchChoice, BatchOrigin, Encoder, EncoderShape, choose_batch};
use crate::error::{Error, Result};
use crate::limits::{BATCH_MAX, THREADS_MAX, VIEWS_MAX};
use crate::pulse::Pulse;
use crate::views::{Pixels, Preprocessing, ViewSettings, decode, make_views};

/// Everything a user may choose of how features are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExtractorSettings {
    /// The views.
    pub views: ViewSettings,
    /// Worker threads; `None` for as many as the device has. The results do not depend on it.
    pub threads: Option<usize>,
    /// Views the encoder takes at once; `None` to measure once per bundle and device. May change the last bits.
    pub batch: Option<usize>,
}

impl ExtractorSettings {
    /// What the bundle's manifest recommends.
    pub fn of(bundle: &Bundle) -> Self {
        let views = bundle.manifest.views;
        let views = ViewSettings { count: views.count, augment: views.augment, seed: 0 };
        Self { views, threads: None, batch: None }
    }

    /// Whether every setting is in its range.
    ///
    /// # Errors
    /// One is not.
    pub fn check(&self) -> Result<()> {
        within("the number of views", self.views.count, VIEWS_MAX)?;
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

/// Turns images into features with one bundle and one choice of settings.
pub struct Extractor {
    encoder: Encoder,
    preprocessing: Preprocessing,
    settings: ExtractorSettings,
    batch_origin: BatchOrigin,
    bundle_id: String,
    pool: Arc<ThreadPool>,
    encoder_digest: blake3::Hash,
    device: String,
    cache: Option<Arc<FeatureCache>>,
    /// The views of the image at hand, `[V, 3, R, R]`; reused from image to image.
    views: Array4<f32>,
}

/// Whether features are looked up and remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheUse {
    /// They are, if there is a cache.
    Ask,
    /// They are not.
    Bypass,
}

/// The features of one image, and where they came from.
pub struct Extracted {
    /// BLAKE3 of the image file.
    pub digest: blake3::Hash,
    /// The views it was seen in.
    pub settings: ViewSettings,
    /// F `[V, D]`, unit rows.
    pub features: Arc<Array2<f32>>,
    /// Whether they were in the cache.
    pub cached: bool,
    /// Digest and decoding (milliseconds).
    pub decode: f64,
    /// Making the views (milliseconds).
    pub views: f64,
    /// The encoder (milliseconds).
    pub encode: f64,
}

impl Extractor {
    /// Prepares to encode with `bundle`; `memory` is the folder where measured choices are kept.
    ///
    /// # Errors
    /// A setting is out of range, or the encoder cannot be loaded.
    pub fn new(bundle: &Bundle, settings: ExtractorSettings, memory: Option<&Path>) -> Result<Self> {
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
        let side = preprocessing.resolution;
        Ok(Self {
            encoder: Encoder::load(&bundle.encoder, shape, choice.batch)?,
            preprocessing,
            settings,
            batch_origin: choice.origin,
            bundle_id: bundle.id(),
            pool: Arc::new(worker_pool(settings.threads)?),
            encoder_digest: bundle.encoder_digest(),
            device: device_key(),
            cache: None,
            views: Array4::zeros((settings.views.count, 3, side, side)),
        })
    }

    /// Looks features up in `cache` first, and remembers them there.
    pub fn with_cache(mut self, cache: Option<Arc<FeatureCache>>) -> Self {
        self.cache = cache;
        self
    }

    /// The features of an image file.
    ///
    /// # Errors
    /// The image cannot be decoded (see [`decode`]), or the encoder fails or gives features that are not finite.
    pub fn extract(&mut self, bytes: &[u8]) -> Result<Extracted> {
        let views = self.settings.views;
        self.extract_as(bytes, &views, CacheUse::Ask, &Pulse::default())
    }

    /// As [`Self::extract`], in other views, as long as nobody cancels it.
    ///
    /// # Errors
    /// As [`Self::extract`], or `pulse` was cancelled.
    pub fn extract_as(
        &mut self,
        bytes: &[u8],
        settings: &ViewSettings,
        cache: CacheUse,
        pulse: &Pulse,
    ) -> Result<Extracted> {
        let asked = self.cache.as_ref().filter(|_| cache == CacheUse::Ask).map(Arc::clone);
        let began = Instant::now();
        pulse.beat()?;
        let digest = blake3::hash(bytes);
        let scope = CacheScope::new(&self.encoder_digest, settings, self.encoder.batch(), &self.device);
        let key = scope.key(&digest);
        if let Some(features) = asked.as_ref().and_then(|cache| cache.get(&key)) {
            let decode = milliseconds_since(began);
            let settings = *settings;
            return Ok(Extracted { digest, settings, features, cached: true, decode, views: 0.0, encode: 0.0 });
        }
        let image = decode(bytes)?;
        let decode = milliseconds_since(began);
        let extracted = Extracted { decode, ..self.extract_pixels_as(&image, digest, settings, pulse)? };
        if let Some(cache) = &asked {
            cache.put(&key, &extracted.features);
        }
        Ok(extracted)
    }

    /// The features of decoded pixels; `digest` stands for the content and decides the views. The cache is not asked.
    ///
    /// # Errors
    /// As [`Self::extract`], less decoding.
    pub fn extract_pixels(&mut self, image: &Pixels, digest: blake3::Hash) -> Result<Extracted> {
        let views = self.settings.views;
        self.extract_pixels_as(image, digest, &views, &Pulse::default())
    }

    fn extract_pixels_as(
        &mut self,
        image: &Pixels,
        digest: blake3::Hash,
        settings: &ViewSettings,
        pulse: &Pulse,
    ) -> Result<Extracted> {
        let began = Instant::now();
        let Self { encoder, preprocessing, pool, views, .. } = self;
        pulse.beat()?;
        let side = preprocessing.resolution;
        if views.dim().0 != settings.count {
            // The old ones go first: two sets of views may not fit.
            *views = Array4::zeros((0, 3, side, side));
            *views = Array4::zeros((settings.count, 3, side, side));
        }
        pool.install(|| make_views(image, digest.as_bytes(), preprocessing, settings, views.view_mut()));
        let views_done = milliseconds_since(began);
        let features = Arc::new(pool.install(|| encoder.encode_watched(views.view(), pulse))?);
        let encode = milliseconds_since(began) - views_done;
        let settings = *settings;
        Ok(Extracted { digest, settings, features, cached: false, decode: 0.0, views: views_done, encode })
    }

    /// The features F `[V, D]` of decoded pixels, from any thread: as [`Self::extract_pixels`], in memory of its own.
    ///
    /// # Errors
    /// As [`Self::extract_pixels`].
    pub fn features(&self, image: &Pixels, digest: &blake3::Hash) -> Result<Array2<f32>> {
        let mut views = Array4::zeros(self.views.dim());
        self.pool.install(|| {
            make_views(image, digest.as_bytes(), &self.preprocessing, &self.settings.views, views.view_mut());
            self.encoder.encode(views.view())
        })
    }

    /// The views of the last image that was not in the cache, `[V, 3, R, R]`.
    pub fn views(&self) -> ArrayView4<'_, f32> {
        self.views.view()
    }

    /// The settings in force.
    pub fn settings(&self) -> &ExtractorSettings {
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

    /// The workers.
    pub fn pool(&self) -> &Arc<ThreadPool> {
        &self.pool
    }

    /// The names of the encoder's matrix kernels.
    pub fn kernels(&self) -> Vec<String> {
        self.encoder.kernels()
    }

    /// The encoder's batch and where it came from.
    pub fn batch(&self) -> BatchChoice {
        BatchChoice { batch: self.encoder.batch(), origin: self.batch_origin }
    }
}

/// A pool of `threads` workers, one a core if nothing is said.
///
/// # Errors
/// There are none or too many, or the system cannot start as many.
pub fn worker_pool(threads: Option<usize>) -> Result<ThreadPool> {
    let threads = threads.unwrap_or_else(available_threads);
    within("the number of threads", threads, THREADS_MAX)?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|error| Error::Setting {
        what: "the number of threads",
        expected: "as many as the system can start".into(),
        found: format!("{threads} ({error})"),
    })
}

fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(THREADS_MAX)
}

/// Milliseconds since `began`.
pub fn milliseconds_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}
