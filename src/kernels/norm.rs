//! Layer norm and softmax of rows, each in one visit of a row, in arithmetic that gives the same bits on every processor.

use super::activation::exp;
use super::float::FloatKernel;

/// Partial sums of a row: as many on every processor, so that the order of the terms is the same.
const PARTS: usize = 16;

/// A layer norm: `(x - mean) / √(variance + ε) γ + β`.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    /// ε, that no row divides by zero.
    pub epsilon: f32,
    /// γ, a factor for each column.
    pub gain: Vec<f32>,
    /// β, a summand for each column.
    pub bias: Vec<f32>,
}

impl LayerNorm {
    /// The norm of every row of `input` into `out`; both have rows of as many values as there are factors.
    pub(crate) fn run(&self, kernel: FloatKernel, input: &[f32], out: &mut [f32]) {
        let width = self.gain.len();
        assert!(self.bias.len() == width && input.len() == out.len() && input.len().is_multiple_of(width));
        // The kernel was found on this processor.
        match kernel {
            #[cfg(target_arch = "x86_64")]
            FloatKernel::Avx512 => unsafe { norm_avx512(self, input, out) },
            #[cfg(target_arch = "x86_64")]
            FloatKernel::Avx2 => unsafe { norm_avx2(self, input, out) },
            _ => norm(self, input, out),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2")]
unsafe fn norm_avx512(layer: &LayerNorm, input: &[f32], out: &mut [f32]) {
    norm(layer, input, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn norm_avx2(layer: &LayerNorm, input: &[f32], out: &mut [f32]) {
    norm(layer, input, out);
}

#[inline(always)]
fn norm(layer: &LayerNorm, input: &[f32], out: &mut [f32]) {
    let width = layer.gain.len();
    let share = 1.0 / width as f32;
    for (row, slots) in input.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mean = sum(row, |value| value) * share;
        let variance = sum(row, |value| (value - mean) * (value - mean)) * share;
        let inverse = 1.0 / (variance + layer.epsilon).sqrt();
        let factors = layer.gain.iter().zip(&layer.bias);
        for ((slot, &value), (&gain, &bias)) in slots.iter_mut().zip(row).zip(factors) {
            *slot = (value - mean) * inverse * gain + bias;
        }
    }
}

/// The sum of `of` every value, in [`PARTS`] parts.
#[inline(always)]
fn sum(row: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut parts = [0.0; PARTS];
    let chunks = row.chunks_exact(PARTS);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (part, &value) in parts.iter_mut().zip(chunk) {
            *part += of(value);
        }
    }
    for (part, &value) in parts.iter_mut().zip(rest) {
        *part += of(value);
    }
    folded(parts, |a, b| a + b)
}

/// What `of` makes of all parts, by halves: the order is the same on every processor, and a vector's lanes are not asked one after the other.
#[inline(always)]
fn folded(mut parts: [f32; PARTS], of: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = PARTS / 2;
    while half > 0 {
        let (low, high) = parts.split_at_mut(half);
        low.iter_mut().zip(high).for_each(|(low, high)| *low = of(*low, *high));
        half /= 2;
    }
    parts[0]
}

/// The softmax of `scale` times the first `width` of every `stride` of `values`, in place.
///
/// A row with a NaN becomes NaN.
pub(super) fn softmax(kernel: FloatKernel, values: &mut [f32], (width, stride): (usize, usize), scale: f32) {
    // The kernel was found on this processor.
    match kernel {
        #[cfg(target_arch = "x86_64")]
        FloatKernel::Avx512 => unsafe { softmax_avx512(values, (width, stride), scale) },
        #[cfg(target_arch = "x86_64")]
        FloatKernel::Avx2 => unsafe { softmax_avx2(values, (width, stride), scale) },
        _ => softmax_rows(values, (width, stride), scale),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2")]
unsafe fn softmax_avx512(values: &mut [f32], sizes: (usize, usize), scale: f32) {
    softmax_rows(values, sizes, scale);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn softmax_avx2(values: &mut [f32], sizes: (usize, usize), scale: f32) {
    softmax_rows(values, sizes, scale);
}

#[inline(always)]
fn softmax_rows(values: &mut [f32], (width, stride): (usize, usize), scale: f32) {
    for row in values.chunks_exact_mut(stride) {
        // The rest as a whole vector too: what fills it up takes no part.
        let (chunks, rest) = row[..width].as_chunks_mut::<PARTS>();
        let mut last = [f32::NEG_INFINITY; PARTS];
        last.iter_mut().zip(&*rest).for_each(|(slot, &value)| *slot = value * scale);
        let mut largest = last;
        for chunk in &mut *chunks {
            for (largest, value) in largest.iter_mut().zip(chunk) {
                *value *= scale;
                *largest = if *value > *largest { *value } else { *largest };
            }
        }
        let largest = folded(largest, |a, b| if b > a { b } else { a });
        let mut sums = [0.0; PARTS];
        for chunk in &mut *chunks {
            for (sum, value) in sums.iter_mut().zip(chunk) {
                *value = exp(*value - largest);
                *sum += *value;
            }
        }
        last.iter_mut().for_each(|value| *value = exp(*value - largest));
        sums.iter_mut().zip(&last[..rest.len()]).for_each(|(sum, value)| *sum += value);
        let share = 1.0 / folded(sums, |a, b| a + b);
        chunks.as_flattened_mut().iter_mut().for_each(|value| *value *= share);
        rest.iter_mut().zip(last).for_each(|(slot, value)| *slot = value * share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::noise;

    #[test]
    fn a_layer_norm_is_its_formula_on_every_kernel() {
        for width in [1, 5, 16, 50, 768] {
            let input: Vec<f32> = noise(1, 3 * width).into_iter().map(|value| value * 5.0 + 2.0).collect();
            let layer = LayerNorm { epsilon: 1e-5, gain: noise(2, width), bias: noise(3, width) };
            let run = |kernel| {
                let mut out = vec![f32::NAN; input.len()];
                layer.run(kernel, &input, &mut out);
                out
            };
            let expected = run(FloatKernel::Portable);
            for (row, found) in input.chunks(width).zip(expected.chunks(width)) {
                let count = width as f64;
                let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
                let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
                for (column, &found) in found.iter().enumerate() {
                    let unit = (f64::from(row[column]) - mean) / (variance + 1e-5).sqrt();
                    let expected = unit * f64::from(layer.gain[column]) + f64::from(layer.bias[column]);
                    assert!((f64::from(found) - expected).abs() < 2e-6, "{found} {expected}");
                }
            }
            FloatKernel::available().into_iter().for_each(|kernel| assert!(run(kernel) == expected, "{kernel:?}"));
        }
    }

    #[test]
    fn a_softmax_is_its_formula_on_every_kernel() {
        for width in [1, 7, 16, 50, 197] {
            let input: Vec<f32> = noise(1, 3 * width).into_iter().map(|value| value * 40.0).collect();
            let run = |kernel| {
                let mut values = input.clone();
                softmax(kernel, &mut values, (width, width), 0.3);
                values
            };
            let expected = run(FloatKernel::Portable);
            for (row, found) in input.chunks(width).zip(expected.chunks(width)) {
                let sum: f64 = row.iter().map(|&x| (0.3 * f64::from(x)).exp()).sum();
                for (&x, &found) in row.iter().zip(found) {
                    assert!((f64::from(found) - (0.3 * f64::from(x)).exp() / sum).abs() < 1e-6);
                }
            }
            FloatKernel::available().into_iter().for_each(|kernel| assert!(run(kernel) == expected, "{kernel:?}"));
        }
        let mut values = [1.0, f32::NAN, 3.0, 1.0, 2.0, 3.0];
        softmax(FloatKernel::best(), &mut values, (3, 3), 1.0);
        assert!(values[..3].iter().all(|value| value.is_nan()) && values[3..].iter().all(|value| value.is_finite()));
    }
}
