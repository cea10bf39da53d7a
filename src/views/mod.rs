//! Image bytes to the views `[V, 3, R, R]` that the encoder sees.
//!
//! View 0 is CLIP's preprocessing of the whole image; the others are augmented. The same pixels, digest and settings
//! give the same bits, whatever the number of threads.

mod augment;
mod decode;
mod encode;

mod error;
mod geometry;
mod jpeg;
mod jpeg_scans;
mod pixels;
mod png;
mod resize;
mod sampler;
mod tone;
mod yuyv;

use ndarray::{Array3, ArrayView3, ArrayViewMut3, ArrayViewMut4, Axis, parallel::prelude::*};
use serde::{Deserialize, Serialize};

use super::error::Result;
use crate::limits::VIEWS_MAX;
use crate::setting::SettingError;

pub(crate) use augment::random_resized_crop;
pub(crate) use decode::EXTENSIONS;
pub use decode::{DamagedImages, decode};
pub(crate) use decode::{Decoded, decode_as};
pub use encode::{encode_jpeg, encode_png};
pub use error::ImageError;
pub use geometry::{affine, rotate};
pub use pixels::{Pixels, Region};
pub use resize::{Filter, resize, resize_window};
pub use sampler::Sampler;
pub use tone::{autocontrast, equalize, posterize, solarize};
pub use yuyv::yuyv_pixels;

/// Augmentation of a crop after it is cut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Augment {
    /// Nothing: RandomResizedCrop and mirroring only. R-TPT's choice for ImageNet-style label sets.
    Crop,
    /// AugMix. R-TPT's choice for fine-grained label sets.
    Augmix,
}

/// Settings that decide the views of an image: one type for flags, manifests, recordings, calibrations and results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewSettings {
    /// Number of views V, the clean one included.
    // `count` is the manifest's name for it.
    #[serde(rename = "views", alias = "count")]
    pub count: usize,
    /// Augmentation of views 1..V.
    pub augment: Augment,
    /// Seed that is mixed with the content digest.
    // Manifests have no seed.
    #[serde(default)]
    pub seed: u64,
}

impl ViewSettings {
    /// Range check of the number of views.
    ///
    /// # Errors
    /// The number is out of its range.
    pub fn check(&self) -> Result<()> {
        if (1..=VIEWS_MAX).contains(&self.count) {
            return Ok(());
        }
        let (expected, found) = (format!("1 to {VIEWS_MAX}"), self.count.to_string());
        Err(SettingError { what: "the number of views", expected, found }.into())
    }

    /// True if the views are of the same number and kind, whatever their seed.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.count, self.augment) == (other.count, other.augment)
    }
}

/// Preprocessing of bytes into the encoder's input: part of the bundle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preprocessing {
    /// Input side R (pixels).
    pub resolution: usize,
    /// Mean of each channel (values in 0–1).
    pub mean: [f32; 3],
    /// Standard deviation of each channel (values in 0–1).
    pub std: [f32; 3],
}

/// True if the data of a JPEG file has no damage that can be seen; as decoding checks it before it makes pixels.
pub fn is_whole_jpeg(bytes: &[u8]) -> bool {
    jpeg_scans::check_jpeg(bytes).is_ok()
}

/// Fills `views` `[V, 3, R, R]` from an image and the BLAKE3 digest of its file's bytes.
///
/// Runs on the current rayon pool, a view at a time.
pub fn make_views(
    image: &Pixels,
    digest: &[u8; 32],
    preprocessing: &Preprocessing,
    settings: &ViewSettings,
    views: ArrayViewMut4<f32>,
) {
    make_views_from(0, image, digest, preprocessing, settings, views);
}

/// As [`make_views`], for the views from number `first` on.
pub(crate) fn make_views_from(
    first: usize,
    image: &Pixels,
    digest: &[u8; 32],
    preprocessing: &Preprocessing,
    settings: &ViewSettings,
    mut views: ArrayViewMut4<f32>,
) {
    views.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(place, view)| {
        let index = first + place;
        if index == 0 {
            clean_view(image, preprocessing, view);
        } else {
            let mut sampler = Sampler::new(digest, settings.seed, index);
            augmented_view(image, preprocessing, settings.augment, &mut sampler, view);
        }
    });
}

/// View 0: CLIP's preprocessing. Fills `view` `[3, R, R]`.
pub(crate) fn clean_view(image: &Pixels, preprocessing: &Preprocessing, mut view: ArrayViewMut3<f32>) {
    let crop = clean_view_pixels(image, preprocessing.resolution);
    write_bytes(&crop, preprocessing, &mut view);
}

fn augmented_view(
    image: &Pixels,
    preprocessing: &Preprocessing,
    augment: Augment,
    sampler: &mut Sampler,
    mut view: ArrayViewMut3<f32>,
) {
    let crop = random_resized_crop(image, preprocessing.resolution, sampler);
    match augment {
        Augment::Crop => write_bytes(&crop, preprocessing, &mut view),
        Augment::Augmix => {
            let side = preprocessing.resolution;
            augment::augmix(&crop, sampler, |offset, value| {
                let (pixel, channel) = (offset / 3, offset % 3);
                view[[channel, pixel / side, pixel % side]] = normalized(value, preprocessing, channel);
            });
        }
    }
}

/// Size after the short side becomes `side`; the long side is cut to a whole number, as torchvision's Resize does.
fn short_side_to(width: usize, height: usize, side: usize) -> (usize, usize) {
    // Multiplied before it is divided, as in `int(size * long / short)`: the other order may round below a whole
    // number.
    let long = |short: usize, long: usize| (side as f64 * long as f64 / short as f64) as usize;
    if width <= height { (side, long(width, height)) } else { (long(height, width), side) }
}

/// First column or row of a central crop; halves round to even, as Python's `round` in torchvision's CenterCrop.
fn central_offset(size: usize, side: usize) -> usize {
    // Never below 0: after the resize no side is shorter than `side`.
    ((size - side) as f64 / 2.0).round_ties_even() as usize
}

fn normalized(value: f32, preprocessing: &Preprocessing, channel: usize) -> f32 {
    (value - preprocessing.mean[channel]) / preprocessing.std[channel]
}

fn write_bytes(crop: &Pixels, preprocessing: &Preprocessing, view: &mut ArrayViewMut3<f32>) {
    for channel in 0..3 {
        // A byte has 256 values and an image many more pixels, so that divisions are done once a value.
        let table: [f32; 256] = std::array::from_fn(|byte| normalized(byte as f32 / 255.0, preprocessing, channel));
        let mut plane = view.index_axis_mut(Axis(0), channel);
        for (value, pixel) in plane.iter_mut().zip(crop.bytes().chunks_exact(3)) {
            *value = table[usize::from(pixel[channel])];
        }
    }
}

/// A view `[3, R, R]` back as pixels, for people to look at: normalisation undone, clamped and rounded.
pub fn view_pixels(view: ArrayView3<f32>, preprocessing: &Preprocessing) -> Pixels {
    let side = preprocessing.resolution;
    let mut out = Pixels::black(side, side);
    for ((channel, y, x), &value) in view.indexed_iter() {
        let level = value * preprocessing.std[channel] + preprocessing.mean[channel];
        out.bytes_mut()[(y * side + x) * 3 + channel] = (level * 255.0).round().clamp(0.0, 255.0) as u8;
    }
    out
}

/// View 0 before normalisation: the image as the model sees it, `side`×`side` pixels.
pub(crate) fn clean_view_pixels(image: &Pixels, side: usize) -> Pixels {
    let (width, height) = short_side_to(image.width(), image.height(), side);
    let window =
        Region { left: central_offset(width, side), top: central_offset(height, side), width: side, height: side };
    resize_window(image, image.whole(), (width, height), window, Filter::Bicubic)
}

/// The clean view of an image as an array of its own, `[3, R, R]`.
pub fn clean_view_array(image: &Pixels, preprocessing: &Preprocessing) -> Array3<f32> {
    let side = preprocessing.resolution;
    let mut view = Array3::zeros((3, side, side));
    clean_view(image, preprocessing, view.view_mut());
    view
}
