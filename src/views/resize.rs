//! Antialiased resampling with Pillow's arithmetic, to the byte.
//!
//! CLIP's preprocessing is defined by Pillow's `Image.resize`: two passes, horizontal then vertical, with the filter
//! stretched by the scale when shrinking, coefficients rounded to 22 fractional bits and an 8-bit image between the
//! passes (Pillow `src/libImaging/Resample.c`). The general libraries round differently, so this is our own; the
//! tests compare it with images made by Pillow.

use std::ops::Range;

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

/// Resamples one region of `image` to `width`×`height`; pixels outside the region have no influence.
pub fn resize(image: &Pixels, region: Region, width: usize, height: usize, filter: Filter) -> Pixels {
    let window = Region { left: 0, top: 0, width, height };
    resize_window(image, region, (width, height), window, filter)
}

/// The part `window` of what [`resize`] to `size` (width, height) would give, without computing the rest.
///
/// A central crop after a resize needs no more than this, and the memory stays bounded for any aspect ratio.
pub fn resize_window(image: &Pixels, region: Region, size: (usize, usize), window: Region, filter: Filter) -> Pixels {
    let mut out = Pixels::black(window.width, window.height);
    resize_rows(image, region, size, window, filter, |y, row| out.row_mut(y).copy_from_slice(row));
    out
}

/// As [`resize_window`], row by row: calls `take(y, bytes)` for each in order.
pub(super) fn resize_rows(
    image: &Pixels,
    region: Region,
    size: (usize, usize),
    window: Region,
    filter: Filter,
    mut take: impl FnMut(usize, &[u8]),
) {
    let kernel = PixelKernel::best();
    // Pillow leaves out a pass that changes no size.
    let narrowed = if size.0 == region.width {
        image.crop(Region { left: region.left + window.left, width: window.width, ..region })
    } else {
        let taps = taps(region.width, size.0, window.left..window.left + window.width, filter);
        let mut out = Pixels::black(taps.len(), region.height);
        let first = (region.top * image.width() + region.left) * 3;
        narrow(kernel, &image.bytes()[first..], image.width() * 3, &taps, out.bytes_mut());
        out
    };
    if size.1 == region.height {
        (0..window.height).for_each(|y| take(y, narrowed.row(window.top + y)));
        return;
    }
    let taps = taps(region.height, size.1, window.top..window.top + window.height, filter);
    let mut row = vec![0; narrowed.width() * 3];
    for y in 0..taps.len() {
        shorten(kernel, narrowed.bytes(), &taps, y, &mut row);
        take(y, &row);
    }
}

/// Taps of the output `positions` when `input` samples become `output`.
fn taps(input: usize, output: usize, positions: Range<usize>, filter: Filter) -> Taps {
    let scale = input as f64 / output as f64;
    // Pillow stretches the filter only when it shrinks; enlarging interpolates.
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let mut taps = Taps::default();
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
        taps.push(start, exact.iter().map(|weight| fixed_point(weight / total)));
    }
    taps
}

fn fixed_point(weight: f64) -> i32 {
    // `round` takes halves away from 0, as Pillow's `(int)(x ± 0.5)` does.
    (weight * f64::from(1 << FRACTION_BITS)).round() as i32
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
