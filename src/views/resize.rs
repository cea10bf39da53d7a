//! Antialiased resampling with Pillow's arithmetic, to the byte.
//!
//! CLIP's preprocessing is defined by Pillow's `Image.resize`: two passes, horizontal then vertical, with the filter
//! stretched by the scale when shrinking, coefficients rounded to 22 fractional bits and an 8-bit image between the
//! passes (Pillow `src/libImaging/Resample.c`). The general libraries round differently, so this is our own; the
//! tests compare it with images made by Pillow.

use std::ops::Range;

use super::pixels::{Pixels, Region};

/// Fractional bits of a coefficient: 32 less 8 for the byte and 2 for the overshoot of the bicubic lobes.
const PRECISION_BITS: u32 = 32 - 8 - 2;

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
    let columns = Taps::new(region.width, size.0, window.left..window.left + window.width, filter);
    let rows = Taps::new(region.height, size.1, window.top..window.top + window.height, filter);
    // Pillow leaves out a pass that changes no size.
    let narrowed = if size.0 == region.width {
        image.crop(Region { left: region.left + window.left, width: window.width, ..region })
    } else {
        resize_rows(image, region, &columns)
    };
    if size.1 == region.height {
        narrowed.crop(Region { top: window.top, height: window.height, ..narrowed.whole() })
    } else {
        resize_columns(&narrowed, &rows)
    }
}

/// The horizontal pass: every row of the region to the columns of `taps`.
fn resize_rows(image: &Pixels, region: Region, taps: &Taps) -> Pixels {
    let mut out = Pixels::black(taps.len(), region.height);
    for y in 0..region.height {
        let source = &image.row(region.top + y)[region.left * 3..][..region.width * 3];
        for (x, target) in out.row_mut(y).chunks_exact_mut(3).enumerate() {
            let (start, weights) = taps.of(x);
            let mut sums = [ROUND; 3];
            for (pixel, &weight) in source[start * 3..].chunks_exact(3).zip(weights) {
                for channel in 0..3 {
                    sums[channel] += i32::from(pixel[channel]) * weight;
                }
            }
            for channel in 0..3 {
                target[channel] = to_byte(sums[channel]);
            }
        }
    }
    out
}

/// The vertical pass: every column to the rows of `taps`.
fn resize_columns(image: &Pixels, taps: &Taps) -> Pixels {
    let mut out = Pixels::black(image.width(), taps.len());
    // A row of sums at a time reads memory in order. The sums are of integers, so that their order does not matter.
    let mut sums = vec![ROUND; image.width() * 3];
    for y in 0..taps.len() {
        let (start, weights) = taps.of(y);
        sums.fill(ROUND);
        for (row, &weight) in (start..).zip(weights) {
            for (sum, &byte) in sums.iter_mut().zip(image.row(row)) {
                *sum += i32::from(byte) * weight;
            }
        }
        for (target, &sum) in out.row_mut(y).iter_mut().zip(&sums) {
            *target = to_byte(sum);
        }
    }
    out
}

/// Half a unit, so that the final shift rounds.
const ROUND: i32 = 1 << (PRECISION_BITS - 1);

fn to_byte(sum: i32) -> u8 {
    // The bicubic filter has negative lobes: sums may lie below 0 or above 255.
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// First input position of each output position, and the fixed-point weights from there on.
struct Taps {
    starts: Vec<usize>,
    ends: Vec<usize>,
    weights: Vec<i32>,
}

impl Taps {
    /// Taps of the output `positions` when `input` samples become `output`.
    fn new(input: usize, output: usize, positions: Range<usize>, filter: Filter) -> Self {
        let scale = input as f64 / output as f64;
        // Pillow stretches the filter only when it shrinks; enlarging interpolates.
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let mut taps = Self { starts: vec![], ends: vec![], weights: vec![] };
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
            taps.starts.push(start);
            taps.weights.extend(exact.iter().map(|weight| fixed_point(weight / total)));
            taps.ends.push(taps.weights.len());
        }
        taps
    }

    fn len(&self) -> usize {
        self.starts.len()
    }

    fn of(&self, position: usize) -> (usize, &[i32]) {
        let first = if position == 0 { 0 } else { self.ends[position - 1] };
        (self.starts[position], &self.weights[first..self.ends[position]])
    }
}

fn fixed_point(weight: f64) -> i32 {
    // `round` takes halves away from 0, as Pillow's `(int)(x ± 0.5)` does.
    (weight * f64::from(1 << PRECISION_BITS)).round() as i32
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
