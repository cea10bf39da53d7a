//! Values brought to int8: rows with a scale each, images with one, columns of weights.

use std::ops::Range;

use super::IntKernel;
use crate::kernels::matrix::Rows;
use crate::kernels::patches::{Bordered, Patches};

/// Largest magnitude of a value in int8. -128 is not used, so that a product with it cannot be.
const LARGEST: f32 = 127.0;
/// Rows whose largest value is below have no direction in int8 and are taken for zeros.
const SMALLEST: f32 = 1e-30;

/// Rows in int8, each with its scale: `x ≈ scale q`.
#[derive(Clone, Debug, Default)]
pub(crate) struct IntRows {
    pub(super) values: Vec<u8>,
    pub(super) scales: Vec<f32>,
    pub(super) stride: usize,
}

impl IntRows {
    /// Brings `rows` to int8 for `kernel`; memory of earlier rows is used again.
    ///
    /// A row with a NaN or an infinity has the scale NaN, so that all its products are NaN.
    pub(crate) fn set(&mut self, kernel: IntKernel, rows: Rows<f32>) {
        self.stride = rows.width.next_multiple_of(kernel.terms());
        self.values.resize(rows.count * self.stride, 0);
        self.scales.resize(rows.count, 0.0);
        // The kernel was found on this processor.
        match kernel {
            #[cfg(target_arch = "x86_64")]
            IntKernel::Avx512Vnni => unsafe { quantise_avx512(rows, kernel.offset(), self) },
            #[cfg(target_arch = "x86_64")]
            IntKernel::AvxVnni | IntKernel::Avx2 => unsafe { quantise_avx2(rows, kernel.offset(), self) },
            _ => quantise(rows, kernel.offset(), self),
        }
    }

    /// Brings an image to int8 as one row, with zeros around it; the rows of `image` are its lines.
    pub(crate) fn set_image(&mut self, kernel: IntKernel, image: Rows<f32>, size: Bordered) {
        self.stride = size.lines * size.width;
        // The kernel was found on this processor.
        match kernel {
            #[cfg(target_arch = "x86_64")]
            IntKernel::Avx512Vnni => unsafe { quantise_image_avx512(image, size, kernel.offset(), self) },
            #[cfg(target_arch = "x86_64")]
            IntKernel::AvxVnni | IntKernel::Avx2 => unsafe { quantise_image_avx2(image, size, kernel.offset(), self) },
            _ => quantise_image(image, size, kernel.offset(), self),
        }
    }

    /// Takes the rows `range` of the patches of an image that [`Self::set_image`] brought to int8.
    pub(crate) fn gather(&mut self, kernel: IntKernel, image: &Self, patches: Patches, range: Range<usize>) {
        self.stride = patches.depth().next_multiple_of(kernel.terms());
        self.values.resize(range.len() * self.stride, 0);
        self.scales.clear();
        self.scales.resize(range.len(), image.scales[0]);
        for (row, slots) in range.zip(self.values.chunks_exact_mut(self.stride.max(1))) {
            let (values, rest) = slots.split_at_mut(patches.depth());
            let seen = &image.values[patches.start(row)..];
            for (part, slots) in patches.parts.iter().zip(values.chunks_exact_mut(patches.length)) {
                slots.copy_from_slice(&seen[*part..][..patches.length]);
            }
            rest.fill(kernel.offset());
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2")]
unsafe fn quantise_avx512(rows: Rows<f32>, offset: u8, into: &mut IntRows) {
    quantise(rows, offset, into);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn quantise_avx2(rows: Rows<f32>, offset: u8, into: &mut IntRows) {
    quantise(rows, offset, into);
}

#[inline(always)]
fn quantise(rows: Rows<f32>, offset: u8, into: &mut IntRows) {
    let IntRows { values, scales, stride } = into;
    for ((index, slots), scale) in values.chunks_exact_mut((*stride).max(1)).enumerate().zip(scales) {
        let (values, rest) = slots.split_at_mut(rows.width);
        *scale = quantise_row(rows.row(index), offset, values);
        rest.fill(offset);
    }
}

/// A byte with a sign or without.
trait Byte {
    /// The last eight bits of a number.
    fn of(bits: u32) -> Self;
}

impl Byte for u8 {
    #[inline(always)]
    fn of(bits: u32) -> Self {
        bits as Self
    }
}

impl Byte for i8 {
    #[inline(always)]
    fn of(bits: u32) -> Self {
        bits as Self
    }
}

/// How values whose largest magnitude is known are brought to int8.
struct Rounding {
    /// What a value is multiplied by; nothing where all values are taken for zeros.
    factor: Option<f32>,
    offset: u8,
    /// The scale: `x ≈ scale q`.
    scale: f32,
}

impl Rounding {
    /// Of `largest`, a [`largest_bits`].
    #[inline(always)]
    fn of(largest: u32, offset: u8) -> Self {
        let largest = f32::from_bits(largest);
        if !largest.is_finite() || largest < SMALLEST {
            return Self { factor: None, offset, scale: if largest.is_finite() { 0.0 } else { f32::NAN } };
        }
        Self { factor: Some(LARGEST / largest), offset, scale: largest / LARGEST }
    }

    /// Puts the values in int8, plus the offset, into `slots`.
    #[inline(always)]
    fn round<T: Byte>(&self, values: &[f32], slots: &mut [T]) {
        // 1.5 · 2^23: a number that is added to it is rounded to the nearest integer, ties to even, and is in its last bits.
        const ROUND: f32 = 12_582_912.0;
        let Some(factor) = self.factor else {
            slots.fill_with(|| T::of(u32::from(self.offset)));
            return;
        };
        let base = ROUND.to_bits().wrapping_sub(u32::from(self.offset));
        for (slot, &value) in slots.iter_mut().zip(values) {
            *slot = T::of((value * factor + ROUND).to_bits().wrapping_sub(base));
        }
    }
}

/// The bits of the largest magnitude: of these, infinity is above every number, and NaN above infinity.
#[inline(always)]
fn largest_bits(values: &[f32]) -> u32 {
    values.iter().fold(0, |largest: u32, value| largest.max(value.to_bits() & 0x7fff_ffff))
}

/// The scale of a row, whose values in int8, plus `offset`, are put into `slots`.
#[inline(always)]
fn quantise_row<T: Byte>(row: &[f32], offset: u8, slots: &mut [T]) -> f32 {
    let rounding = Rounding::of(largest_bits(row), offset);
    rounding.round(row, slots);
    rounding.scale
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2")]
unsafe fn quantise_image_avx512(image: Rows<f32>, size: Bordered, offset: u8, into: &mut IntRows) {
    quantise_image(image, size, offset, into);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn quantise_image_avx2(image: Rows<f32>, size: Bordered, offset: u8, into: &mut IntRows) {
    quantise_image(image, size, offset, into);
}

#[inline(always)]
fn quantise_image(image: Rows<f32>, size: Bordered, offset: u8, into: &mut IntRows) {
    let mut largest = 0;
    // A loop: what an iterator calls for each line would not be compiled for the kernel's instructions.
    for line in 0..image.count {
        largest = largest.max(largest_bits(image.row(line)));
    }
    let rounding = Rounding::of(largest, offset);
    size.fill(image, offset, &mut into.values, |values, slots| rounding.round(values, slots));
    into.scales.clear();
    into.scales.push(rounding.scale);
}

/// The scale of a column of weights, whose values in int8 are put into `slots`.
pub(crate) fn quantise_weights(column: &[f32], slots: &mut [i8]) -> f32 {
    quantise_row(column, 0, slots)
}
