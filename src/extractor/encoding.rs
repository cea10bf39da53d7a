//! An image's features, as many views as are asked for, one round after another.
//!
//! The first n views are the same to the bit, whether they were asked for at once, in rounds, or found in the cache.

use std::sync::Arc;
use std::time::Instant;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut4, Axis, s};

use super::{Extractor, Features};
use crate::cache::{CacheKey, FeatureCache};
use crate::cancellation::CancellationToken;
use crate::error::Result;
use crate::rounds::SeenInRounds;
use crate::timings::{Timings, milliseconds_since};
use crate::views::{Decoded, Pixels, ViewSettings, decode_as, low_pass_view, make_views_from};

/// An image on its way through the encoder.
pub(crate) struct Encoding<'a> {
    extractor: &'a Extractor,
    token: &'a CancellationToken,
    /// The views it may be seen in.
    views: ViewSettings,
    /// What decides the views: BLAKE3 of the file.
    digest: blake3::Hash,
    content: Content<'a>,
    cache: Option<Kept<'a>>,
    /// F `[n, D]` of the views so far.
    matrix: Arc<Array2<f32>>,
    /// The low-passed clean view's feature `[D]`.
    low_pass: Option<Array1<f32>>,
    /// Views that were asked for.
    seen: usize,
    /// Views that the encoder ran for.
    encoded: usize,
    timings: Timings,
    began: Instant,
}

/// Where the pixels come from.
enum Content<'a> {
    /// A file that was not decoded: so far all features were in the cache.
    File(&'a [u8]),
    /// A file's pixels.
    Decoded(Decoded),
    /// Pixels that were given.
    Pixels(&'a Pixels),
}

/// The image's place in a cache.
struct Kept<'a> {
    cache: &'a FeatureCache,
    views: CacheKey,
    low_pass: CacheKey,
    /// Views that are there.
    found: usize,
}

impl<'a> Encoding<'a> {
    /// The beginning of an image file.
    ///
    /// # Errors
    /// `token` was cancelled.
    pub(crate) fn of_file(
        extractor: &'a Extractor,
        bytes: &'a [u8],
        views: ViewSettings,
        cache: Option<&'a FeatureCache>,
        token: &'a CancellationToken,
    ) -> Result<Self> {
        let began = Instant::now();
        // A request that was given up while it waited in the queue costs nothing more.
        token.checkpoint()?;
        // Of the file and not of its pixels, so that a hit needs no decoding.
        let digest = blake3::hash(bytes);
        let mut encoding = Self::new(extractor, Content::File(bytes), digest, views, token, began);
        if let Some(cache) = cache {
            let scope = extractor.cache_scope(&views);
            let (views, low_pass) = (scope.key(&digest), scope.low_pass_key(&digest));
            if let Some(matrix) = cache.get(&views) {
                encoding.matrix = matrix;
            }
            encoding.cache = Some(Kept { cache, views, low_pass, found: encoding.matrix.nrows() });
        }
        encoding.timings.decode = milliseconds_since(began);
        Ok(encoding)
    }

    /// The beginning of decoded pixels; `digest` stands for the content and decides the views.
    ///
    /// # Errors
    /// `token` was cancelled.
    pub(crate) fn of_pixels(
        extractor: &'a Extractor,
        image: &'a Pixels,
        digest: blake3::Hash,
        views: ViewSettings,
        token: &'a CancellationToken,
    ) -> Result<Self> {
        token.checkpoint()?;
        Ok(Self::new(extractor, Content::Pixels(image), digest, views, token, Instant::now()))
    }

    fn new(
        extractor: &'a Extractor,
        content: Content<'a>,
        digest: blake3::Hash,
        views: ViewSettings,
        token: &'a CancellationToken,
        began: Instant,
    ) -> Self {
        let matrix = Arc::new(Array2::zeros((0, extractor.embedding())));
        let (cache, low_pass, timings) = (None, None, Timings::default());
        Self { extractor, token, views, digest, content, cache, matrix, low_pass, seen: 0, encoded: 0, timings, began }
    }

    /// Encodes the clean view and the low-passed one, which on two threads takes no longer than one of them.
    fn encode_pair(&mut self) -> Result<()> {
        self.decode()?;
        let (extractor, image, views) = (self.extractor, self.pixels(), &self.views);
        let make = |place: usize, mut batch: ArrayViewMut4<f32>| match place {
            0 => make_views_from(0, image, self.digest.as_bytes(), extractor.preprocessing(), views, batch),
            _ => low_pass_view(image, extractor.preprocessing(), batch.index_axis_mut(Axis(0), 0)),
        };
        // Both, even where the clean view is known: the other's last bits may depend on its place in a batch.
        let (pair, timings) = extractor.encode(2, self.token, make)?;
        self.add(&timings, 2);
        if self.matrix.nrows() == 0 {
            self.matrix = Arc::new(pair.slice(s![..1, ..]).to_owned());
        }
        if let Some(kept) = self.cache.as_ref().filter(|_| self.damage().is_none()) {
            kept.cache.put(&kept.low_pass, &Arc::new(pair.slice(s![1.., ..]).to_owned()));
        }
        self.low_pass = Some(pair.row(1).to_owned());
        Ok(())
    }

    fn add(&mut self, timings: &Timings, encoded: usize) {
        self.timings.views += timings.views;
        self.timings.encode += timings.encode;
        self.encoded += encoded;
    }

    /// The features of the views so far.
    pub(crate) fn into_features(self) -> Features {
        let damage = self.damage();
        // A cache has no place for the damage: whoever found the features there would take the image for whole.
        if let Some(kept) = self.cache.as_ref().filter(|kept| damage.is_none() && kept.found < self.matrix.nrows()) {
            kept.cache.put(&kept.views, &self.matrix);
        }
        let timings = Timings { total: milliseconds_since(self.began), ..self.timings };
        // More may have been in the cache than were asked for.
        let matrix = match self.matrix.nrows() {
            rows if rows == self.seen => self.matrix,
            _ => Arc::new(self.matrix.slice(s![..self.seen, ..]).to_owned()),
        };
        Features {
            digest: self.digest,
            views: ViewSettings { count: self.seen, ..self.views },
            matrix,
            low_pass: self.low_pass.map(Arc::new),
            cached: self.encoded == 0,
            damage,
            bundle: self.extractor.shared_bundle_id(),
            encoder: *self.extractor.encoder_digest(),
            timings,
        }
    }

    fn damage(&self) -> Option<&'static str> {
        match &self.content {
            Content::Decoded(decoded) => decoded.damage,
            Content::File(_) | Content::Pixels(_) => None,
        }
    }

    /// Decodes the file, if that was not done.
    fn decode(&mut self) -> Result<()> {
        if let Content::File(bytes) = self.content {
            let began = Instant::now();
            self.content = Content::Decoded(decode_as(bytes, self.extractor.settings().damaged)?);
            self.timings.decode += milliseconds_since(began);
        }
        Ok(())
    }

    fn pixels(&self) -> &Pixels {
        match &self.content {
            Content::Decoded(decoded) => &decoded.pixels,
            Content::Pixels(pixels) => pixels,
            Content::File(_) => unreachable!("files are decoded before their pixels are looked at"),
        }
    }
}

impl SeenInRounds for Encoding<'_> {
    fn see(&mut self, count: usize) -> Result<ArrayView2<'_, f32>> {
        let known = self.matrix.nrows();
        if known < count {
            // Views are cut into batches as if all were encoded at once: a view's last bits may depend on its place among them.
            let first = known - known % self.extractor.batch();
            self.decode()?;
            let (extractor, image, views) = (self.extractor, self.pixels(), &self.views);
            let make = |place: usize, batch: ArrayViewMut4<f32>| {
                make_views_from(first + place, image, self.digest.as_bytes(), extractor.preprocessing(), views, batch);
            };
            let (more, timings) = extractor.encode(count - first, self.token, make)?;
            self.add(&timings, count - first);
            let before = self.matrix.slice(s![..first, ..]);
            let all = ndarray::concatenate(Axis(0), &[before, more.view()]).expect("both have the embedding's width");
            self.matrix = Arc::new(all);
        }
        self.seen = self.seen.max(count);
        Ok(self.matrix.slice(s![..count, ..]))
    }

    fn see_pair(&mut self) -> Result<[ArrayView1<'_, f32>; 2]> {
        if self.low_pass.is_none() {
            let kept =
                self.cache.as_ref().filter(|kept| kept.found > 0).and_then(|kept| kept.cache.get(&kept.low_pass));
            match kept.filter(|found| found.nrows() == 1) {
                Some(found) => self.low_pass = Some(found.row(0).to_owned()),
                None => self.encode_pair()?,
            }
        }
        self.seen = self.seen.max(1);
        let low_pass = self.low_pass.as_ref().expect("it was filled in above");
        Ok([self.matrix.row(0), low_pass.view()])
    }

    fn spent(&self) -> Option<[f64; 2]> {
        let Timings { views, encode, .. } = self.timings;
        Some([milliseconds_since(self.began), (views + encode) / self.encoded.max(1) as f64])
    }
}

/// Features that are all there, as an image that costs nothing to see.
pub(crate) struct Encoded<'a>(pub &'a Features);

impl SeenInRounds for Encoded<'_> {
    fn see(&mut self, count: usize) -> Result<ArrayView2<'_, f32>> {
        Ok(self.0.matrix.slice(s![..count, ..]))
    }

    fn see_pair(&mut self) -> Result<[ArrayView1<'_, f32>; 2]> {
        Ok(self.0.pair())
    }

    fn spent(&self) -> Option<[f64; 2]> {
        None
    }
}
