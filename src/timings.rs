//! Time spent in each stage of one image.

use std::time::Instant;

use serde::{Deserialize, Serialize, Serializer};

/// Milliseconds spent in each stage of one image; in files rounded to microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Timings {
    /// Digest and decoding, or finding the features in the cache.
    #[serde(serialize_with = "rounded")]
    pub decode: f64,
    /// Making the views.
    #[serde(serialize_with = "rounded")]
    pub views: f64,
    /// The encoder.
    #[serde(serialize_with = "rounded")]
    pub encode: f64,
    /// Method and tamper score.
    #[serde(serialize_with = "rounded")]
    pub tune: f64,
    /// Total.
    #[serde(serialize_with = "rounded")]
    pub total: f64,
}

impl Timings {
    /// Names and milliseconds of all stages, the total last.
    pub(crate) fn stages(&self) -> [(&'static str, f64); 5] {
        let Self { decode, views, encode, tune, total } = *self;
        [("decode", decode), ("views", views), ("encode", encode), ("tune", tune), ("total", total)]
    }
}

/// Milliseconds since `began`.
pub(crate) fn milliseconds_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

fn rounded<S: Serializer>(milliseconds: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((milliseconds * 1e3).round() / 1e3)
}
