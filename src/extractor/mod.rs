//! Image bytes to features: views and encoder, or the cache.

mod encoding;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ndarray::{Array1, Array2, Array4, ArrayView1, ArrayViewMut4, Axis};
use rayon::ThreadPool;

use crate::bundle::Bundle;
use crate::cache::{CacheScope, FeatureCache};
use crate::cancellation::CancellationToken;
use crate::device::device_key;
use crate::encoder::{Encoder, EncoderShape, PreparedStore};
use crate::error::Result;
use crate::labels::Labels;
use crate::limits::{BATCH_MAX, THREADS_MAX};
use crate::rounds::SeenInRounds;
use crate::setting::SettingError;
use crate::timings::{Timings, milliseconds_since};
use crate::views::{DamagedImages, Pixels, Preprocessing, ViewSettings, make_views};

pub(crate) use encoding::{Encoded, Encoding};

/// Settings of the extraction of features that a user may choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ExtractorSettings {
    /// The views.
    pub views: ViewSettings,
    /// Worker threads; `None` for as many as the device has. The results do not depend on it.
    pub threads: Option<usize>,
    /// Views the encoder takes at once. May change the last bits.
    // One is the fastest, wherever it was measured: what a layer makes of more views leaves the cache before the next layer reads it.
    pub batch: usize,
    /// Treatment of damaged images.
    pub damaged: DamagedImages,
}

impl ExtractorSettings {
    /// Settings that the bundle's manifest recommends.
    pub(crate) fn of(bundle: &Bundle) -> Self {
        Self { views: bundle.manifest.views, threads: None, batch: 1, damaged: DamagedImages::Refuse }
    }

    /// Range check of every setting.
    ///
    /// # Errors
    /// A setting is out of its range.
    pub(crate) fn check(&self) -> Result<()> {
        self.views.check()?;
        self.threads.map_or(Ok(()), |threads| within("the number of threads", threads, THREADS_MAX))?;
        within("the encoder's batch", self.batch, BATCH_MAX)
    }
}

fn within(what: &'static str, found: usize, max: usize) -> Result<()> {
    if (1..=max).contains(&found) {
        return Ok(());
    }
    Err(SettingError { what, expected: format!("1 to {max}"), found: found.to_string() }.into())
}

/// Extractor of images' features, with one bundle and one choice of settings. Threads may share it.
pub(crate) struct Extractor {
    encoder: Arc<Encoder>,
    preprocessing: Preprocessing,
    settings: ExtractorSettings,
    bundle_id: Arc<str>,
    pool: Arc<ThreadPool>,
    encoder_digest: blake3::Hash,
    device: String,
    cache: Option<Arc<FeatureCache>>,
}

/// Use of the cache for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheUse {
    /// Features are looked up, and kept if they were not there.
    LookUp,
    /// The cache is left alone.
    Bypass,
}

/// The features of one image. Cheap to clone.
#[derive(Clone)]
pub struct Features {
    /// BLAKE3 of the image file.
    pub(crate) digest: blake3::Hash,
    /// The views that the image was seen in.
    pub(crate) views: ViewSettings,
    /// F `[V, D]`, unit rows.
    pub(crate) matrix: Arc<Array2<f32>>,
    /// The feature `[D]` of the low-passed clean view, where it was asked for.
    pub(crate) low_pass: Option<Arc<Array1<f32>>>,
    /// True if the features came from the cache.
    pub(crate) cached: bool,
    /// Damage of the image file, if it has any.
    pub(crate) damage: Option<&'static str>,
    /// Name and digest of the bundle.
    pub(crate) bundle: Arc<str>,
    /// What decides an image's features: [`crate::bundle::BundleContents::encoder_digest`].
    pub(crate) encoder: blake3::Hash,
    /// Time spent so far.
    pub(crate) timings: Timings,
}

impl Features {
    /// BLAKE3 of the image file.
    pub fn digest(&self) -> [u8; 32] {
        *self.digest.as_bytes()
    }

    /// Damage of the image file, if it has any that the decoder passed over.
    pub fn damage(&self) -> Option<&'static str> {
        self.damage
    }

    /// True if the features came from the cache.
    pub fn cached(&self) -> bool {
        self.cached
    }

    /// Those of the clean view and of the low-passed one, `[D]` each, of features that were made with the latter.
    pub(crate) fn pair(&self) -> [ArrayView1<'_, f32>; 2] {
        [self.matrix.row(0), self.low_pass.as_ref().expect("it was asked for with the views").view()]
    }
}

impl Labels {
    /// The same labels, where a photo is one more example of `name`: the class embedding of a label with examples is the mean
    /// of their features, and no longer that of its text. A `name` that is not among the labels is added to them.
    ///
    /// Features are those of [`Classifier::features`](crate::Classifier::features), of which the clean view counts; they hold
    /// for bundles with the same encoder.
    ///
    /// # Errors
    /// `name` is refused as by [`Self::new`], or cannot be added to labels that have identifiers.
    pub fn with_example(&self, name: &str, features: &Features) -> Result<Self> {
        Ok(self.with_feature(name, &features.encoder, features.matrix.row(0))?)
    }
}

impl Extractor {
    /// Prepares to encode with `bundle`; `cache_folder` is the folder where packed weights are stored.
    ///
    /// # Errors
    /// A setting is out of range, or the encoder cannot be loaded.
    pub(crate) fn new(bundle: &Bundle, settings: ExtractorSettings, cache_folder: Option<&Path>) -> Result<Self> {
        settings.check()?;
        let preprocessing = bundle.manifest.preprocessing();
        let shape = EncoderShape { resolution: preprocessing.resolution, embedding: bundle.manifest.embedding };
        let pool = worker_pool(settings.threads)?;
        let encoder_digest = bundle.encoder_digest();
        let store = cache_folder.map(|folder| PreparedStore::new(folder, &encoder_digest, settings.batch));
        // In the pool, whose threads share the reading of what is stored.
        let encoder =
            pool.install(|| Encoder::load_prepared(&bundle.encoder, shape, settings.batch, store.as_ref()))?;
        Ok(Self {
            encoder: Arc::new(encoder),
            preprocessing,
            settings,
            bundle_id: bundle.id().into(),
            pool: Arc::new(pool),
            encoder_digest,
            device: device_key(),
            cache: None,
        })
    }

    /// The cache, if there is one.
    pub(crate) fn cache(&self) -> Option<Arc<FeatureCache>> {
        self.cache.clone()
    }

    /// An extractor over the same encoder that looks features up in `cache` first, and keeps them there.
    pub(crate) fn with_cache(&self, cache: Option<Arc<FeatureCache>>) -> Self {
        Self {
            encoder: Arc::clone(&self.encoder),
            preprocessing: self.preprocessing,
            settings: self.settings,
            bundle_id: Arc::clone(&self.bundle_id),
            pool: Arc::clone(&self.pool),
            encoder_digest: self.encoder_digest,
            device: self.device.clone(),
            cache,
        }
    }

    /// The features of an image file.
    ///
    /// # Errors
    /// The image cannot be decoded (see [`crate::views::decode`]), or the encoder fails or gives features that are not finite.
    pub(crate) fn features(&self, bytes: &[u8]) -> Result<Features> {
        self.features_in(bytes, &self.settings.views, CacheUse::LookUp, &CancellationToken::default())
    }

    /// The features of an image file, with that of its low-passed clean view.
    ///
    /// # Errors
    /// As [`Self::features`].
    pub(crate) fn features_and_low_pass(&self, bytes: &[u8]) -> Result<Features> {
        let (views, token) = (self.settings.views, CancellationToken::default());
        let mut encoding = self.encoding(bytes, views, CacheUse::LookUp, &token)?;
        encoding.see_pair()?;
        encoding.see(views.count)?;
        Ok(encoding.into_features())
    }

    /// The features of an image file in other views; `token` can cancel the work.
    ///
    /// # Errors
    /// As [`Self::features`], or `token` was cancelled.
    pub(crate) fn features_in(
        &self,
        bytes: &[u8],
        views: &ViewSettings,
        cache: CacheUse,
        token: &CancellationToken,
    ) -> Result<Features> {
        let mut encoding = self.encoding(bytes, *views, cache, token)?;
        encoding.see(views.count)?;
        Ok(encoding.into_features())
    }

    /// The beginning of an image file's features, of which nothing is encoded yet; `views` are those that it may be seen in.
    ///
    /// # Errors
    /// `token` was cancelled.
    pub(crate) fn encoding<'a>(
        &'a self,
        bytes: &'a [u8],
        views: ViewSettings,
        cache: CacheUse,
        token: &'a CancellationToken,
    ) -> Result<Encoding<'a>> {
        let cache = self.cache.as_deref().filter(|_| cache == CacheUse::LookUp);
        Encoding::of_file(self, bytes, views, cache, token)
    }

    /// The features of decoded pixels; `digest` stands for the content and decides the views. The cache is left alone.
    ///
    /// # Errors
    /// As [`Self::features_in`], less decoding.
    pub(crate) fn features_of_pixels(
        &self,
        image: &Pixels,
        digest: blake3::Hash,
        views: &ViewSettings,
        token: &CancellationToken,
    ) -> Result<Features> {
        let mut encoding = Encoding::of_pixels(self, image, digest, *views, token)?;
        encoding.see(views.count)?;
        Ok(encoding.into_features())
    }

    /// Features of `count` views that `make(first, views)` makes where they are encoded, and the time (ms) that making took of the whole.
    pub(crate) fn encode(
        &self,
        count: usize,
        token: &CancellationToken,
        make: impl Fn(usize, ArrayViewMut4<f32>) + Sync,
    ) -> Result<(Array2<f32>, Timings)> {
        let began = Instant::now();
        // What views take of the whole is counted on each thread.
        let making = AtomicU64::new(0);
        let make = |first: usize, mut batch: ArrayViewMut4<f32>| {
            let began = Instant::now();
            // One at a time: a thread that waits for others meanwhile takes up other views, whose time would be counted here.
            for (place, view) in batch.axis_chunks_iter_mut(Axis(0), 1).enumerate() {
                make(first + place, view);
            }
            making.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        };
        let matrix = self.pool.install(|| self.encoder.encode_made(count, token, make))?;
        let total = milliseconds_since(began);
        let threads = self.pool.current_num_threads().min(count.div_ceil(self.encoder.batch()));
        let making = (making.into_inner() as f64 / 1e6 / threads as f64).min(total);
        Ok((matrix, Timings { views: making, encode: total - making, total, ..Timings::default() }))
    }

    /// What the features of an image in `views` depend on, besides the image.
    pub(crate) fn cache_scope(&self, views: &ViewSettings) -> CacheScope {
        CacheScope::new(&self.encoder_digest, views, self.encoder.batch(), &self.device)
    }

    /// The views `[V, 3, R, R]` of an image whose file has this digest, as the encoder sees them.
    pub(crate) fn views_of(&self, image: &Pixels, digest: &blake3::Hash, views: &ViewSettings) -> Array4<f32> {
        let side = self.preprocessing.resolution;
        let mut array = Array4::zeros((views.count, 3, side, side));
        let all = array.view_mut();
        self.pool.install(|| make_views(image, digest.as_bytes(), &self.preprocessing, views, all));
        array
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> &ExtractorSettings {
        &self.settings
    }

    /// Preprocessing of pixels into the encoder's input.
    pub(crate) fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// The bundle's name and digest, as in results.
    pub(crate) fn bundle_id(&self) -> &str {
        &self.bundle_id
    }

    /// The same, shared.
    pub(crate) fn shared_bundle_id(&self) -> Arc<str> {
        Arc::clone(&self.bundle_id)
    }

    /// What decides an image's features: [`crate::bundle::BundleContents::encoder_digest`].
    pub(crate) fn encoder_digest(&self) -> &blake3::Hash {
        &self.encoder_digest
    }

    /// Width D of the features.
    pub(crate) fn embedding(&self) -> usize {
        self.encoder.shape().embedding
    }

    /// The worker threads.
    pub(crate) fn pool(&self) -> &Arc<ThreadPool> {
        &self.pool
    }

    /// The names of the encoder's matrix kernels.
    pub(crate) fn kernels(&self) -> Vec<String> {
        self.encoder.kernels()
    }

    /// Views the encoder takes at once.
    pub(crate) fn batch(&self) -> usize {
        self.encoder.batch()
    }
}

/// A pool of `threads` workers, one a core if nothing is said.
///
/// # Errors
/// There are none or too many, or the system cannot start as many.
pub(crate) fn worker_pool(threads: Option<usize>) -> Result<ThreadPool> {
    let threads = threads.unwrap_or_else(available_threads);
    within("the number of threads", threads, THREADS_MAX)?;
    // A pool of its own, not rayon's global one: classifiers in one process do not share settings.
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|error| SettingError {
        what: "the number of threads",
        expected: "as many as the system can start".into(),
        found: format!("{threads} ({error})"),
    })?)
}

fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(THREADS_MAX)
}
