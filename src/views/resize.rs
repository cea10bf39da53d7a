//! Antialiased resampling with Pillow's arithmetic, or PyTorch's, to the byte.
//!
//! CLIP's preprocessing is defined by Pillow's `Image.resize`: two passes, horizontal then vertical, with the filter
//! stretched by the scale when shrinking, coefficients rounded to 22 fractional bits and an 8-bit image between the
//! passes (Pillow `src/libImaging/Resample.c`). torchvision's resize of byte tensors, which newer processors use, differs:
//! for the bicubic filter coefficients have 16 bits with the sign, of which as many are fractional as the largest leaves
//! room for (PyTorch `aten/src/ATen/native/cpu/UpSampleKernel.cpp`); with the bilinear one it computes in floats, and
//! rounds at the end (but on processors whose best is AVX2). The general libraries round differently, so this is our own;
//! the tests compare it with images made by Pillow and by torchvision.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::pixels::{Pixels, Region};
use crate::kernels::{FRACTION_BITS, PixelKernel, Taps, narrow, shorten};

/// The resampling kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The mean of what a pixel covers, support 1/2.
    Box,
    /// Triangle, support 1; torchvision's default for RandomResizedCrop.
    Bilinear,
    /// Cubic convolution with a = -0.5, support 2; CLIP's choice for the clean view.
    Bicubic,
}

/// How coefficients are rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arithmetic {
    /// Pillow's: 22 fractional bits.
    #[default]
    Pillow,
    /// PyTorch's for tensors of bytes, as torchvision's transforms of tensors use it.
    Torchvision,
}

/// A filter with its arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resampling {
    /// The filter.
    pub filter: Filter,
    /// How its coefficients are rounded.
    pub arithmetic: Arithmetic,
}

/// Resamples one region of `image` to `width`×`height`; pixels outside the region have no influence.
pub fn resize(image: &Pixels, region: Region, width: usize, height: usize, filter: Filter) -> Pixels {
    let window = Region { left: 0, top: 0, width, height };
    resize_window(image, region, (width, height), window, filter.into())
}

/// The part `window` of what [`resize`] to `size` (width, height) would give, without computing the rest.
///
/// A central crop after a resize needs no more than this, and the memory stays bounded for any aspect ratio.
pub fn resize_window(
    image: &Pixels,
    region: Region,
    size: (usize, usize),
    window: Region,
    resampling: Resampling,
) -> Pixels {
    let mut out = Pixels::black(window.width, window.height);
    resize_rows(image, region, size, window, resampling, |y, row| out.row_mut(y).copy_from_slice(row));
    out
}

/// As [`resize_window`], row by row: calls `take(y, bytes)` for each in order.
pub(super) fn resize_rows(
    image: &Pixels,
    region: Region,
    size: (usize, usize),
    window: Region,
    resampling: Resampling,
    mut take: impl FnMut(usize, &[u8]),
) {
    if resampling == (Resampling { filter: Filter::Bilinear, arithmetic: Arithmetic::Torchvision }) {
        return resize_in_floats(image, region, size, window, take);
    }
    let kernel = PixelKernel::best();
    // Pillow leaves out a pass that changes no size.
    let narrowed = if size.0 == region.width {
        image.crop(Region { left: region.left + window.left, width: window.width, ..region })
    } else {
        let taps = taps(region.width, size.0, window.left..window.left + window.width, resampling);
        let mut out = Pixels::black(taps.len(), region.height);
        let first = (region.top * image.width() + region.left) * 3;
        narrow(kernel, &image.bytes()[first..], image.width() * 3, &taps, out.bytes_mut());
        out
    };
    if size.1 == region.height {
        (0..window.height).for_each(|y| take(y, narrowed.row(window.top + y)));
        return;
    }
    let taps = taps(region.height, size.1, window.top..window.top + window.height, resampling);
    let mut row = vec![0; narrowed.width() * 3];
    for y in 0..taps.len() {
        shorten(kernel, narrowed.bytes(), &taps, y, &mut row);
        take(y, &row);
    }
}

/// As [`resize_rows`] with the bilinear filter, in floats, without rounding between the passes.
fn resize_in_floats(
    image: &Pixels,
    region: Region,
    size: (usize, usize),
    window: Region,
    mut take: impl FnMut(usize, &[u8]),
) {
    let columns = float_weights(region.width, size.0, window.left..window.left + window.width);
    let rows = float_weights(region.height, size.1, window.top..window.top + window.height);
    let width = columns.len() * 3;
    let mut narrowed = vec![0.0_f32; region.height * width];
    for (y, out) in narrowed.chunks_exact_mut(width).enumerate() {
        let row = &image.row(region.top + y)[region.left * 3..];
        for (pixel, (start, weights)) in out.chunks_exact_mut(3).zip(&columns) {
            for (source, &weight) in row[start * 3..].chunks_exact(3).zip(weights) {
                pixel.iter_mut().zip(source).for_each(|(sum, &value)| *sum += weight * f32::from(value));
            }
        }
    }
    let (mut sums, mut bytes) = (vec![0.0_f32; width], vec![0; width]);
    for (y, (start, weights)) in rows.iter().enumerate() {
        sums.fill(0.0);
        for (row, &weight) in narrowed[start * width..].chunks_exact(width).zip(weights) {
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += weight * value);
        }
        let rounded = sums.iter().map(|sum| sum.round_ties_even().clamp(0.0, 255.0) as u8);
        bytes.iter_mut().zip(rounded).for_each(|(byte, value)| *byte = value);
        take(y, &bytes);
    }
}

/// First sample and weights of the bilinear filter for each of the output `positions`, computed in f32 as by PyTorch, whose roundings
/// decide ties.
fn float_weights(input: usize, output: usize, positions: Range<usize>) -> Vec<(usize, Vec<f32>)> {
    let scale = input as f32 / output as f32;
    let support = scale.max(1.0);
    let each = positions.map(|position| {
        let center = scale * (position as f32 + 0.5);
        let start = (center - support + 0.5) as usize;
        let end = ((center + support + 0.5) as usize).min(input);
        let weight = |x: usize| (1.0 - ((x as f32 - center + 0.5) * (1.0 / support)).abs()).max(0.0);
        let mut weights: Vec<f32> = (start..end).map(weight).collect();
        let total: f32 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= total);
        (start, weights)
    });
    each.collect()
}

/// Taps of the output `positions` when `input` samples become `output`.
fn taps(input: usize, output: usize, positions: Range<usize>, Resampling { filter, arithmetic }: Resampling) -> Taps {
    // Of all positions, whichever are asked for.
    let unit = match arithmetic {
        Arithmetic::Pillow => 1 << FRACTION_BITS,
        Arithmetic::Torchvision => 1 << short_bits(largest_weight(input, output, filter)),
    };
    let mut taps = Taps::default();
    each_position(input, output, positions, filter, |start, weights| {
        taps.push(start, weights.iter().map(|&weight| fixed_point(weight, unit)));
    });
    taps
}

/// Calls `take` with the first sample of each of the `positions` and the samples' weights, which add up to 1.
fn each_position(
    input: usize,
    output: usize,
    positions: Range<usize>,
    filter: Filter,
    mut take: impl FnMut(usize, &[f64]),
) {
    let scale = input as f64 / output as f64;
    // Pillow stretches the filter only when it shrinks; enlarging interpolates.
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let mut exact = Vec::new();
    for position in positions {
        let center = (position as f64 + 0.5) * scale;
        // `as` saturates negative values to 0, as Pillow clamps them.
        let start = (center - support + 0.5) as usize;
        let end = ((center + support + 0.5) as usize).min(input);
        exact.clear();
        exact.extend((start..end).map(|x| filter.weight((x as f64 - center + 0.5) / stretch)));
        // At the edges a part of the filter is cut off. The rest must add up to 1 again.
        let total: f64 = exact.iter().sum();
        exact.iter_mut().for_each(|weight| *weight /= total);
        take(start, &exact);
    }
}

/// A weight in units of 1 / `unit`, as one with [`FRACTION_BITS`] fractional bits.
fn fixed_point(weight: f64, unit: i32) -> i32 {
    // `round` takes halves away from 0, as Pillow's `(int)(x ± 0.5)` does.
    (weight * f64::from(unit)).round() as i32 * ((1 << FRACTION_BITS) / unit)
}

/// The largest weight of a resize.
fn largest_weight(input: usize, output: usize, filter: Filter) -> f64 {
    let mut largest = 0.0_f64;
    each_position(input, output, 0..output, filter, |_, weights| {
        largest = weights.iter().fold(largest, |largest, &weight| largest.max(weight));
    });
    largest
}

/// Fractional bits of weights in 16 bits, with a sign, of which none is larger than `largest`.
fn short_bits(largest: f64) -> u32 {
    (0..FRACTION_BITS)
        .find(|bits| (0.5 + largest * f64::from(1 << (bits + 1))) as i32 >= 1 << 15)
        .unwrap_or(FRACTION_BITS)
}

impl From<Filter> for Resampling {
    fn from(filter: Filter) -> Self {
        Self { filter, arithmetic: Arithmetic::Pillow }
    }
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        if self == Self::Box {
            // Open on one side, as in Pillow, so that a sample on the border of two pixels counts for one of them.
            return if x > -0.5 && x <= 0.5 { 1.0 } else { 0.0 };
        }
        let x = x.abs();
        match self {
            Self::Box => 0.0,
            Self::Bilinear => (1.0 - x).max(0.0),
            // Keys' kernel for a = -0.5: (a+2)|x|³ - (a+3)|x|² + 1, then a|x|³ - 5a|x|² + 8a|x| - 4a.
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Self::Bicubic => 0.0,
        }
    }
}
