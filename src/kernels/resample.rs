//! Weighted sums of pixels in fixed point: the two passes of a resampling.
//!
//! The sums are of integers, so that every kernel gives the same bytes.

use super::pixels::PixelKernel;

/// Fractional bits of a weight: 32 less 8 for the byte and 2 for the overshoot of the bicubic lobes.
pub(crate) const FRACTION_BITS: u32 = 32 - 8 - 2;
/// Half a unit, so that the final shift rounds.
const ROUND: i32 = 1 << (FRACTION_BITS - 1);
/// Bits of the lower part of a weight where it is multiplied in two parts of 16 bits.
const LOW_BITS: u32 = 12;
/// Bytes that may be read at once where a pair of pixels is read, beyond those of the pair.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const READ_BEYOND: usize = 2;

/// First input of each output of a line, and the weights of the inputs from there on.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    starts: Vec<usize>,
    ends: Vec<usize>,
    weights: Vec<i32>,
    pair_ends: Vec<usize>,
    /// Of each pair of weights the lower parts and the upper parts, as two i16 in an i32.
    pairs: Vec<[i32; 2]>,
    /// Inputs that pairs reach over, the last of which may be one too many.
    reach: usize,
}

impl Taps {
    /// Adds an output.
    pub(crate) fn push(&mut self, start: usize, weights: impl IntoIterator<Item = i32>) {
        let first = self.weights.len();
        self.starts.push(start);
        self.weights.extend(weights);
        self.ends.push(self.weights.len());
        let added = &self.weights[first..];
        let parts = |weight: i32| [weight & ((1 << LOW_BITS) - 1), weight >> LOW_BITS];
        let two = |low: i32, high: i32| (low & 0xffff) | (high << 16);
        self.pairs.extend(added.chunks(2).map(|pair| {
            let (one, other) = (parts(pair[0]), parts(pair.get(1).copied().unwrap_or(0)));
            [two(one[0], other[0]), two(one[1], other[1])]
        }));
        self.pair_ends.push(self.pairs.len());
        self.reach = self.reach.max(start + added.len().next_multiple_of(2));
    }

    /// Number of outputs.
    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    #[inline(always)]
    fn of(&self, output: usize) -> (usize, &[i32]) {
        let first = if output == 0 { 0 } else { self.ends[output - 1] };
        (self.starts[output], &self.weights[first..self.ends[output]])
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn pairs_of(&self, output: usize) -> (usize, &[[i32; 2]]) {
        let first = if output == 0 { 0 } else { self.pair_ends[output - 1] };
        (self.starts[output], &self.pairs[first..self.pair_ends[output]])
    }
}

/// The horizontal pass: lines of three channels, `stride` bytes apart in `source`, into as many lines of `taps.len()` pixels in `out`.
pub(crate) fn narrow(kernel: PixelKernel, source: &[u8], stride: usize, taps: &Taps, out: &mut [u8]) {
    let width = taps.len() * 3;
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    let reach = taps.reach * 3 + READ_BEYOND;
    let mut lines = out.chunks_exact_mut(width).enumerate();
    while let Some((line, target)) = lines.next() {
        let from = &source[line * stride..];
        match kernel {
            #[cfg(target_arch = "x86_64")]
            PixelKernel::Avx2 if stride + reach <= from.len() => match lines.next() {
                // The kernel was found on this processor, and both lines have what is read of them.
                Some((_, second)) => unsafe { x86::narrow(from, stride, taps, [target, second]) },
                None => narrow_line(from, taps, target),
            },
            #[cfg(target_arch = "aarch64")]
            PixelKernel::Neon if reach <= from.len() => unsafe { arm::narrow(from, taps, target) },
            _ => narrow_line(from, taps, target),
        }
    }
}

fn narrow_line(source: &[u8], taps: &Taps, target: &mut [u8]) {
    for (output, target) in target.chunks_exact_mut(3).enumerate() {
        let (start, weights) = taps.of(output);
        let mut sums = [ROUND; 3];
        for (pixel, &weight) in source[start * 3..].chunks_exact(3).zip(weights) {
            for channel in 0..3 {
                sums[channel] = sums[channel].wrapping_add(i32::from(pixel[channel]).wrapping_mul(weight));
            }
        }
        for channel in 0..3 {
            target[channel] = to_byte(sums[channel]);
        }
    }
}

/// One line of the vertical pass: of lines of as many bytes as `target` has, the one that `taps` has for `output`.
pub(crate) fn shorten(kernel: PixelKernel, source: &[u8], taps: &Taps, output: usize, target: &mut [u8]) {
    let done = match kernel {
        #[cfg(target_arch = "x86_64")]
        // The kernel was found on this processor.
        PixelKernel::Avx2 => unsafe { x86::shorten(source, taps, output, target) },
        _ => 0,
    };
    let width = target.len();
    let (start, weights) = taps.of(output);
    // A few columns at a time: their sums stay in registers.
    for (block, target) in target[done..].chunks_mut(16).enumerate() {
        let column = done + block * 16;
        let mut sums = [ROUND; 16];
        for (line, &weight) in (start..).zip(weights) {
            let line = &source[line * width + column..][..target.len()];
            for (sum, &byte) in sums.iter_mut().zip(line) {
                *sum = sum.wrapping_add(i32::from(byte).wrapping_mul(weight));
            }
        }
        target.iter_mut().zip(sums).for_each(|(target, sum)| *target = to_byte(sum));
    }
}

fn to_byte(sum: i32) -> u8 {
    // The bicubic filter has negative lobes: sums may lie below 0 or above 255.
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{FRACTION_BITS, LOW_BITS, ROUND, Taps};

    /// Two lines of the horizontal pass.
    ///
    /// # Safety
    /// The processor has AVX2, and `source` has `taps.reach` pixels and two bytes from its start and from `stride` on.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn narrow(source: &[u8], stride: usize, taps: &Taps, mut out: [&mut [u8]; 2]) {
        // Two pixels, r g b r g b, become pairs of a channel in i16.
        let of_one = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
        let pairs_of_channels = _mm256_broadcastsi128_si256(of_one);
        let round = _mm256_set1_epi32(ROUND);
        for output in 0..taps.len() {
            let (start, pairs) = taps.pairs_of(output);
            let mut from = unsafe { source.as_ptr().add(start * 3) };
            let (mut low, mut high) = (round, _mm256_setzero_si256());
            for &[of_low, of_high] in pairs {
                let (first, second) =
                    unsafe { (_mm_loadl_epi64(from.cast()), _mm_loadl_epi64(from.add(stride).cast())) };
                let both = _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
                let both = _mm256_shuffle_epi8(both, pairs_of_channels);
                low = _mm256_add_epi32(low, _mm256_madd_epi16(both, _mm256_set1_epi32(of_low)));
                high = _mm256_add_epi32(high, _mm256_madd_epi16(both, _mm256_set1_epi32(of_high)));
                from = from.wrapping_add(6);
            }
            let sums = _mm256_add_epi32(low, _mm256_slli_epi32(high, LOW_BITS as i32));
            let sums = _mm256_srai_epi32(sums, FRACTION_BITS as i32);
            let bytes = _mm256_packus_epi16(_mm256_packs_epi32(sums, sums), _mm256_setzero_si256());
            let both =
                [_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)].map(|half| _mm_cvtsi128_si32(half));
            for (target, bytes) in out.iter_mut().zip(both) {
                target[output * 3..][..3].copy_from_slice(&bytes.to_ne_bytes()[..3]);
            }
        }
    }

    /// A line of the vertical pass but for the last columns; gives the number of bytes that are done.
    ///
    /// # Safety
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn shorten(source: &[u8], taps: &Taps, output: usize, target: &mut [u8]) -> usize {
        let width = target.len();
        let (start, weights) = taps.of(output);
        let (_, pairs) = taps.pairs_of(output);
        // Every line that is read is there: checked once for all columns.
        let lines = &source[start * width..(start + weights.len()) * width];
        let done = width / 16 * 16;
        for (block, target) in target[..done].chunks_exact_mut(16).enumerate() {
            let round = _mm256_set1_epi32(ROUND);
            let (mut low, mut high) = ([round; 2], [_mm256_setzero_si256(); 2]);
            for (place, &[of_low, of_high]) in pairs.iter().enumerate() {
                // The second of a last pair may be none: its weight is 0.
                let second = (2 * place + 1).min(weights.len() - 1);
                let (one, other) = unsafe {
                    let at = |line: usize| _mm_loadu_si128(lines.as_ptr().add(line * width + block * 16).cast());
                    (at(2 * place), at(second))
                };
                let halves = [_mm_unpacklo_epi8(one, other), _mm_unpackhi_epi8(one, other)];
                for (half, bytes) in halves.into_iter().enumerate() {
                    let pairs = _mm256_cvtepu8_epi16(bytes);
                    low[half] = _mm256_add_epi32(low[half], _mm256_madd_epi16(pairs, _mm256_set1_epi32(of_low)));
                    high[half] = _mm256_add_epi32(high[half], _mm256_madd_epi16(pairs, _mm256_set1_epi32(of_high)));
                }
            }
            let [first, second] = [0, 1].map(|half| {
                let sums = _mm256_add_epi32(low[half], _mm256_slli_epi32(high[half], LOW_BITS as i32));
                _mm256_srai_epi32(sums, FRACTION_BITS as i32)
            });
            // Packing goes by halves of 128 bits.
            let words = _mm256_permute4x64_epi64(_mm256_packs_epi32(first, second), 0b11_01_10_00);
            let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
            unsafe { _mm_storeu_si128(target.as_mut_ptr().cast(), bytes) };
        }
        done
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::{ROUND, Taps, to_byte};

    /// A line of the horizontal pass.
    ///
    /// # Safety
    /// `source` has `taps.reach` pixels and two bytes.
    pub(super) unsafe fn narrow(source: &[u8], taps: &Taps, target: &mut [u8]) {
        // A pixel's bytes become three i32; 255 is beyond the table and gives 0.
        let first = [0, 255, 255, 255, 1, 255, 255, 255, 2, 255, 255, 255, 255, 255, 255, 255_u8];
        let second = first.map(|place| if place == 255 { 255 } else { place + 3 });
        let (first, second) = unsafe { (vld1q_u8(first.as_ptr()), vld1q_u8(second.as_ptr())) };
        for (output, target) in target.chunks_exact_mut(3).enumerate() {
            let (start, weights) = taps.of(output);
            let mut from = unsafe { source.as_ptr().add(start * 3) };
            let mut sums = unsafe { [vdupq_n_s32(ROUND), vdupq_n_s32(0)] };
            for pair in weights.chunks(2) {
                unsafe {
                    let bytes = vcombine_u8(vld1_u8(from), vdup_n_u8(0));
                    let of = |table| vreinterpretq_s32_u8(vqtbl1q_u8(bytes, table));
                    sums[0] = vmlaq_n_s32(sums[0], of(first), pair[0]);
                    if let Some(&weight) = pair.get(1) {
                        sums[1] = vmlaq_n_s32(sums[1], of(second), weight);
                    }
                }
                from = from.wrapping_add(6);
            }
            let mut values = [0; 4];
            unsafe { vst1q_s32(values.as_mut_ptr(), vaddq_s32(sums[0], sums[1])) };
            target.iter_mut().zip(values).for_each(|(target, sum)| *target = to_byte(sum));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(seed: u32, count: usize) -> Vec<u8> {
        crate::kernels::noise(seed, count).into_iter().map(|value| (value * 127.5 + 127.5) as u8).collect()
    }

    /// Sums over `count` inputs, with lobes below zero and beyond one.
    fn taps(inputs: usize, outputs: usize, count: usize) -> Taps {
        let mut taps = Taps::default();
        for output in 0..outputs {
            let count = count.min(inputs);
            let start = output * (inputs - count) / outputs.max(2);
            let weights = crate::kernels::noise(output as u32, count);
            taps.push(start, weights.into_iter().map(|weight| (weight * 5.0e6) as i32));
        }
        taps
    }

    #[test]
    fn every_kernel_gives_the_same_bytes() {
        for (inputs, outputs, count) in [(1, 1, 1), (2, 5, 2), (9, 4, 3), (40, 17, 6), (300, 64, 13)] {
            let taps = taps(inputs, outputs, count);
            for lines in [1, 2, 3, 8] {
                let stride = inputs * 3 + 6;
                let source = bytes(7, stride * (lines - 1) + inputs * 3);
                let narrowed = |kernel| {
                    let mut out = vec![0; lines * outputs * 3];
                    narrow(kernel, &source, stride, &taps, &mut out);
                    out
                };
                let expected = narrowed(PixelKernel::Portable);
                for kernel in PixelKernel::available() {
                    assert!(narrowed(kernel) == expected, "{kernel:?} {inputs} {outputs} {count} {lines}");
                }
            }
            for width in [1, 15, 16, 49] {
                let source = bytes(8, inputs * width);
                let shortened = |kernel| {
                    let mut out = vec![0; outputs * width];
                    for (output, target) in out.chunks_exact_mut(width).enumerate() {
                        shorten(kernel, &source, &taps, output, target);
                    }
                    out
                };
                let expected = shortened(PixelKernel::Portable);
                for kernel in PixelKernel::available() {
                    assert!(shortened(kernel) == expected, "{kernel:?} {inputs} {outputs} {count} {width}");
                }
            }
        }
    }

    #[test]
    fn sums_are_rounded_and_held_within_a_byte() {
        let mut taps = Taps::default();
        for weights in [[1 << (FRACTION_BITS - 1), 0], [2 << FRACTION_BITS, 0], [0, -1 << FRACTION_BITS]] {
            taps.push(0, weights);
        }
        for kernel in PixelKernel::available() {
            let mut out = [9; 9];
            // Half of 3 is rounded up.
            narrow(kernel, &[3, 4, 200, 1, 1, 1, 0, 0, 0, 0, 0, 0], 6, &taps, &mut out);
            assert_eq!(out, [2, 2, 100, 6, 8, 255, 0, 0, 0], "{kernel:?}");
        }
    }
}
