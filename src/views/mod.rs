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
mod low_pass;
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
use augment::{augmix, random_resized_rows};
pub(crate) use decode::EXTENSIONS;
pub use decode::{DamagedImages, decode};
pub(crate) use decode::{Decoded, decode_as};
pub use encode::{encode_jpeg, encode_png};
pub use error::ImageError;
pub use geometry::{affine, rotate};
use low_pass::low_pass;
pub use pixels::{Pixels, Region};
use resize::resize_rows;
pub use resize::{Arithmetic, Filter, Resampling, resize, resize_window};
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
    /// How an image becomes a square.
    pub squaring: Squaring,
    /// Filter and arithmetic of the clean view.
    pub resampling: Resampling,
}

/// How an image becomes a square.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Squaring {
    /// Its short side becomes the square's, and the middle is cut out, as for CLIP.
    #[default]
    Crop,
    /// Both sides become the square's, whatever they were, as for SigLIP.
    Squash,
}

impl Preprocessing {
    /// CLIP's, with other sizes and normalisation.
    pub fn clip(resolution: usize, mean: [f32; 3], std: [f32; 3]) -> Self {
        Self { resolution, mean, std, squaring: Squaring::Crop, resampling: Filter::Bicubic.into() }
    }
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
    let (size, window) = clean_window(image, preprocessing);
    let (tables, mut planes) = (tables(preprocessing), Planes::of(&mut view));
    resize_rows(image, image.whole(), size, window, preprocessing.resampling, |y, row| {
        planes.write(&tables, y, row, false)
    });
}

/// The clean view without its fine detail. Fills `view` `[3, R, R]`.
pub(crate) fn low_pass_view(image: &Pixels, preprocessing: &Preprocessing, mut view: ArrayViewMut3<f32>) {
    clean_view(image, preprocessing, view.view_mut());
    // Normalisation is affine in each channel: it may come before or after.
    Planes::of(&mut view).0.into_iter().for_each(|plane| low_pass(plane, preprocessing.resolution));
}

fn augmented_view(
    image: &Pixels,
    preprocessing: &Preprocessing,
    augment: Augment,
    sampler: &mut Sampler,
    mut view: ArrayViewMut3<f32>,
) {
    let side = preprocessing.resolution;
    let mut planes = Planes::of(&mut view);
    match augment {
        Augment::Crop => {
            let tables = tables(preprocessing);
            random_resized_rows(image, side, sampler, |y, row, is_mirrored| planes.write(&tables, y, row, is_mirrored));
        }
        Augment::Augmix => {
            let crop = random_resized_crop(image, side, sampler);
            augmix(&crop, preprocessing, sampler, planes.0);
        }
    }
}

/// The channels of a view `[3, R, R]`.
struct Planes<'a>([&'a mut [f32]; 3]);

impl<'a> Planes<'a> {
    fn of(view: &'a mut ArrayViewMut3<f32>) -> Self {
        let (_, height, width) = view.dim();
        let values = view.as_slice_mut().expect("views are made in their standard order");
        let (red, others) = values.split_at_mut(height * width);
        let (green, blue) = others.split_at_mut(height * width);
        Self([red, green, blue])
    }

    /// Writes a row of pixels, normalised.
    fn write(&mut self, tables: &[[f32; 256]; 3], y: usize, row: &[u8], is_mirrored: bool) {
        let width = row.len() / 3;
        let [red, green, blue] = self.0.each_mut().map(|plane| plane[y * width..][..width].iter_mut());
        let values = red.zip(green).zip(blue);
        let put = |(((red, green), blue), pixel): (((&mut f32, &mut f32), &mut f32), &[u8])| {
            *red = tables[0][usize::from(pixel[0])];
            *green = tables[1][usize::from(pixel[1])];
            *blue = tables[2][usize::from(pixel[2])];
        };
        let pixels = row.chunks_exact(3);
        if is_mirrored {
            values.zip(pixels.rev()).for_each(put);
        } else {
            values.zip(pixels).for_each(put);
        }
    }
}

/// Normalised values of all bytes, for each channel.
fn tables(preprocessing: &Preprocessing) -> [[f32; 256]; 3] {
    // A byte has 256 values and an image many more pixels, so that divisions are done once a value.
    [0, 1, 2].map(|channel| std::array::from_fn(|byte| normalized(byte as f32 / 255.0, preprocessing, channel)))
}

/// Size after the short side becomes `side`; the long side is cut to a whole number, as torchvision's Resize does.
fn short_side_to(width: usize, height: usize, side: usize) -> (usize, usize) {
    // Multiplied before it is divided, as in `int(size * long / short)`: the other order may round below a whole
    // number.
    let long = |short: usize, long: usize| (side as f64 * long as f64 / short as f64) as usize;
    if width <= height { (side, long(width, height)) } else { (long(height, width), side) }
}

/// First column or row of a central crop. Halves round to even, as Python's `round` in torchvision's CenterCrop of images; or down,
/// as in the processors of `transformers` that resize tensors.
fn central_offset(size: usize, side: usize, arithmetic: Arithmetic) -> usize {
    // Never below 0: after the resize no side is shorter than `side`.
    match arithmetic {
        Arithmetic::Pillow => ((size - side) as f64 / 2.0).round_ties_even() as usize,
        Arithmetic::Torchvision => (size - side) / 2,
    }
}

fn normalized(value: f32, preprocessing: &Preprocessing, channel: usize) -> f32 {
    (value - preprocessing.mean[channel]) / preprocessing.std[channel]
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

/// View 0 before normalisation: the image as the model sees it, R×R pixels.
pub(crate) fn clean_view_pixels(image: &Pixels, preprocessing: &Preprocessing) -> Pixels {
    let (size, window) = clean_window(image, preprocessing);
    resize_window(image, image.whole(), size, window, preprocessing.resampling)
}

/// Size (width, height) that an image is brought to for its clean view, and the part of it that is the view.
fn clean_window(image: &Pixels, preprocessing: &Preprocessing) -> ((usize, usize), Region) {
    let side = preprocessing.resolution;
    if preprocessing.squaring == Squaring::Squash {
        return ((side, side), Region { left: 0, top: 0, width: side, height: side });
    }
    let (width, height) = short_side_to(image.width(), image.height(), side);
    let offset = |size| central_offset(size, side, preprocessing.resampling.arithmetic);
    let window = Region { left: offset(width), top: offset(height), width: side, height: side };
    ((width, height), window)
}

/// The clean view of an image as an array of its own, `[3, R, R]`.
pub fn clean_view_array(image: &Pixels, preprocessing: &Preprocessing) -> Array3<f32> {
    let side = preprocessing.resolution;
    let mut view = Array3::zeros((3, side, side));
    clean_view(image, preprocessing, view.view_mut());
    view
}
