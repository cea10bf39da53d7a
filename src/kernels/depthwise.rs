//! Depthwise convolutions of images whose channels lie together: `[H, W, C]`, a filter for each channel, padding inside.

use super::activation::Activation;
use super::float::FloatKernel;
use super::lanes::{Lanes, Portable};
use super::matrix::Aligned;

/// Outputs of one row that are made at once.
const TOGETHER: usize = 8;
/// What a strip of rows may take of the first cache (bytes).
const STRIP_BYTES: usize = 24 << 10;

/// A depthwise convolution with its weights.
#[derive(Debug)]
pub(crate) struct Depthwise {
    /// Height and width of a filter.
    pub size: [usize; 2],
    /// Distance of two outputs, along both axes.
    pub stride: usize,
    /// Rows above and columns left of the image that filters reach over.
    pub padding: [usize; 2],
    /// `[KH, KW, C]`.
    pub weights: Vec<f32>,
    /// `[C]`.
    pub bias: Vec<f32>,
    /// What follows.
    pub activation: Activation,
}

/// Height and width of an image.
pub(crate) type Extent = [usize; 2];

impl Depthwise {
    /// The convolution of one image `[H, W, C]` into `out`, `[OH, OW, C]`.
    pub(crate) fn run(&self, kernel: FloatKernel, input: &[f32], extent: Extent, out: &mut [f32], out_extent: Extent) {
        let channels = self.bias.len();
        assert!(
            input.len() == extent[0] * extent[1] * channels && out.len() == out_extent[0] * out_extent[1] * channels
        );
        assert!(self.weights.len() == self.size[0] * self.size[1] * channels);
        let job = Job { convolution: self, channels, input, extent, out: out.as_mut_ptr(), out_extent };
        // The kernel was found on this processor, and the sizes were asserted.
        unsafe {
            match kernel {
                #[cfg(target_arch = "x86_64")]
                FloatKernel::Avx512 if channels >= 16 => avx512(&job),
                #[cfg(target_arch = "x86_64")]
                FloatKernel::Avx512 | FloatKernel::Avx2 if channels >= 8 => avx2(&job),
                #[cfg(target_arch = "aarch64")]
                FloatKernel::Neon if channels >= 4 => neon(&job),
                _ if channels >= 4 => run::<Portable>(&job),
                _ => run::<Single>(&job),
            }
        }
    }
}

struct Job<'a> {
    convolution: &'a Depthwise,
    channels: usize,
    input: &'a [f32],
    extent: Extent,
    out: *mut f32,
    out_extent: Extent,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
unsafe fn avx512(job: &Job) {
    unsafe { run::<super::lanes::x86::Avx512>(job) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(job: &Job) {
    unsafe { run::<super::lanes::x86::Avx2>(job) }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn neon(job: &Job) {
    unsafe { run::<super::lanes::arm::Neon>(job) }
}

#[inline(always)]
unsafe fn run<L: Lanes>(job: &Job) {
    let Depthwise { size, stride, .. } = *job.convolution;
    unsafe {
        match (size, stride) {
            ([3, 3], 1) => vectors::<L, 3, 1>(job, size, stride),
            ([3, 3], 2) => vectors::<L, 3, 2>(job, size, stride),
            ([5, 5], 1) => vectors::<L, 5, 1>(job, size, stride),
            ([5, 5], 2) => vectors::<L, 5, 2>(job, size, stride),
            // Sizes that are known at run time alone.
            _ => vectors::<L, 0, 0>(job, size, stride),
        }
    }
}

/// One vector of channels of the whole image after the other, with filters of `K` by `K` at a distance of `S`.
#[inline(always)]
unsafe fn vectors<L: Lanes, const K: usize, const S: usize>(job: &Job, size: Extent, stride: usize) {
    // What the compiler knows of these it unrolls.
    let (size, stride) = if K == 0 { (size, stride) } else { ([K, K], S) };
    let strip = Strip::new(job, size, stride, L::COUNT);
    let mut pixels = Aligned::zeros(strip.rows_in * strip.width * L::COUNT);
    let mut filters = Aligned::zeros(size[0] * size[1] * L::COUNT);
    for channel in (0..job.channels).step_by(L::COUNT) {
        // The last vector reaches back over the one before it: the same values are made twice.
        let channel = channel.min(job.channels - L::COUNT);
        for (place, slots) in filters.values_mut().chunks_exact_mut(L::COUNT).enumerate() {
            slots.copy_from_slice(&job.convolution.weights[place * job.channels + channel..][..L::COUNT]);
        }
        for first in (0..job.out_extent[0]).step_by(strip.rows_out) {
            let last = (first + strip.rows_out).min(job.out_extent[0]);
            let rows = (last - first - 1) * stride + size[0];
            unsafe {
                strip.fill::<L>(job, first * stride, rows, channel, pixels.values_mut());
                for y in first..last {
                    let row = pixels.values().as_ptr().add((y - first) * stride * strip.width * L::COUNT);
                    outputs::<L, K, S>(job, row, strip.width, filters.values().as_ptr(), [y, channel]);
                }
            }
        }
    }
}

/// Rows of one vector of channels with the padding around them: few enough for the first cache.
struct Strip {
    rows_out: usize,
    rows_in: usize,
    width: usize,
}

impl Strip {
    fn new(job: &Job, size: Extent, stride: usize, lanes: usize) -> Self {
        let width = (job.out_extent[1] - 1) * stride + size[1];
        let rows_most = STRIP_BYTES / (width * lanes * size_of::<f32>());
        let rows_out = (rows_most.saturating_sub(size[0]) / stride + 1).min(job.out_extent[0]);
        Self { rows_out, rows_in: (rows_out - 1) * stride + size[0], width }
    }

    /// Copies `rows` rows of the padded image from row `top` on.
    #[inline(always)]
    unsafe fn fill<L: Lanes>(&self, job: &Job, top: usize, rows: usize, channel: usize, pixels: &mut [f32]) {
        let padding = job.convolution.padding;
        // Columns of the padded image that are columns of the image.
        let right = (padding[1] + job.extent[1]).min(self.width);
        for (place, slots) in pixels.chunks_exact_mut(self.width * L::COUNT).take(rows).enumerate() {
            let row = (top + place).checked_sub(padding[0]).filter(|&row| row < job.extent[0]);
            let Some(row) = row else {
                slots.fill(0.0);
                continue;
            };
            slots[..padding[1] * L::COUNT].fill(0.0);
            slots[right * L::COUNT..].fill(0.0);
            let input = &job.input[(row * job.extent[1]) * job.channels + channel..];
            for (column, slot) in slots[padding[1] * L::COUNT..right * L::COUNT].chunks_exact_mut(L::COUNT).enumerate()
            {
                // Both were cut to whole vectors.
                unsafe { L::store(slot.as_mut_ptr(), L::load(input.as_ptr().add(column * job.channels))) };
            }
        }
    }
}

/// The outputs of one row and one vector of channels; `row` is where its filters begin.
#[inline(always)]
unsafe fn outputs<L: Lanes, const K: usize, const S: usize>(
    job: &Job,
    row: *const f32,
    width: usize,
    filters: *const f32,
    [y, channel]: [usize; 2],
) {
    let mut x = 0;
    unsafe {
        while x + TOGETHER <= job.out_extent[1] {
            together::<L, K, S, TOGETHER>(job, row, width, filters, [y, x, channel]);
            x += TOGETHER;
        }
        match job.out_extent[1] - x {
            0 => {}
            1 => together::<L, K, S, 1>(job, row, width, filters, [y, x, channel]),
            2 => together::<L, K, S, 2>(job, row, width, filters, [y, x, channel]),
            3 => together::<L, K, S, 3>(job, row, width, filters, [y, x, channel]),
            4 => together::<L, K, S, 4>(job, row, width, filters, [y, x, channel]),
            5 => together::<L, K, S, 5>(job, row, width, filters, [y, x, channel]),
            6 => together::<L, K, S, 6>(job, row, width, filters, [y, x, channel]),
            _ => together::<L, K, S, { TOGETHER - 1 }>(job, row, width, filters, [y, x, channel]),
        }
    }
}

/// `B` outputs beside one another, from column `x` on.
#[inline(always)]
unsafe fn together<L: Lanes, const K: usize, const S: usize, const B: usize>(
    job: &Job,
    row: *const f32,
    width: usize,
    filters: *const f32,
    [y, x, channel]: [usize; 3],
) {
    let Depthwise { size, stride, bias, activation, .. } = job.convolution;
    let (size, stride) = if K == 0 { (*size, *stride) } else { ([K, K], S) };
    unsafe {
        let mut sums = [L::load(bias.as_ptr().add(channel)); B];
        for ky in 0..size[0] {
            let input = row.add((ky * width + x * stride) * L::COUNT);
            for kx in 0..size[1] {
                let weight = L::load(filters.add((ky * size[1] + kx) * L::COUNT));
                for (place, sum) in sums.iter_mut().enumerate() {
                    *sum = L::multiply_add(L::load(input.add((place * stride + kx) * L::COUNT)), weight, *sum);
                }
            }
        }
        for (place, mut sum) in sums.into_iter().enumerate() {
            let out = job.out.add((y * job.out_extent[1] + x + place) * job.channels + channel);
            if let Activation::Clamp { low, high } = *activation {
                sum = L::smaller(L::splat(high), L::larger(L::splat(low), sum));
            }
            L::store(out, sum);
            if !matches!(activation, Activation::Clamp { .. } | Activation::None) {
                activation.apply(std::slice::from_raw_parts_mut(out, L::COUNT));
            }
        }
    }
}

/// One value, for images of fewer channels than a vector has.
#[derive(Clone, Copy)]
struct Single;

unsafe impl Lanes for Single {
    type Vector = f32;
    const COUNT: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> f32 {
        value
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> f32 {
        unsafe { *from }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: f32) {
        unsafe { *to = vector }
    }

    #[inline(always)]
    unsafe fn add(a: f32, b: f32) -> f32 {
        a + b
    }

    #[inline(always)]
    unsafe fn multiply(a: f32, b: f32) -> f32 {
        a * b
    }

    #[inline(always)]
    unsafe fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }

    #[inline(always)]
    unsafe fn larger(a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }

    #[inline(always)]
    unsafe fn smaller(a: f32, b: f32) -> f32 {
        if a < b { a } else { b }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::noise;

    /// The convolution as its formula says it, in f64.
    fn oracle(convolution: &Depthwise, input: &[f32], extent: Extent, out_extent: Extent) -> Vec<f64> {
        let Depthwise { size, stride, padding, weights, bias, activation } = convolution;
        let channels = bias.len();
        let value = |y: usize, x: usize, channel: usize| {
            let mut sum = f64::from(bias[channel]);
            for (ky, kx) in (0..size[0]).flat_map(|ky| (0..size[1]).map(move |kx| (ky, kx))) {
                let row = (y * stride + ky) as isize - padding[0] as isize;
                let column = (x * stride + kx) as isize - padding[1] as isize;
                if (0..extent[0] as isize).contains(&row) && (0..extent[1] as isize).contains(&column) {
                    let at = (row as usize * extent[1] + column as usize) * channels + channel;
                    sum += f64::from(input[at]) * f64::from(weights[(ky * size[1] + kx) * channels + channel]);
                }
            }
            let mut value = [sum as f32];
            activation.apply(&mut value);
            f64::from(value[0])
        };
        let places = (0..out_extent[0]).flat_map(|y| (0..out_extent[1]).map(move |x| (y, x)));
        places
            .flat_map(|(y, x)| (0..channels).map(move |channel| (y, x, channel)))
            .map(|(y, x, c)| value(y, x, c))
            .collect()
    }

    #[test]
    fn every_kernel_gives_the_convolution() {
        let shapes = [
            ([3, 3], 1, [1, 1]),
            ([3, 3], 2, [0, 0]),
            ([5, 5], 1, [2, 2]),
            ([5, 5], 2, [1, 1]),
            ([3, 5], 1, [0, 3]),
            ([7, 7], 3, [3, 3]),
        ];
        for (size, stride, padding) in shapes {
            for extent in [[1_usize, 1], [5, 4], [9, 17], [14, 14]] {
                // What lies below and to the right is padded as far as filters reach.
                let out_extent: Extent = std::array::from_fn(|axis| extent[axis].div_ceil(stride));
                for channels in [1, 3, 4, 8, 13, 16, 24, 40] {
                    let (input, weights) =
                        (noise(1, extent[0] * extent[1] * channels), noise(2, size[0] * size[1] * channels));
                    let activation =
                        [Activation::None, Activation::Clamp { low: -0.5, high: 0.5 }, Activation::Silu][channels % 3];
                    let convolution =
                        Depthwise { size, stride, padding, weights, bias: noise(3, channels), activation };
                    let expected = oracle(&convolution, &input, extent, out_extent);
                    for kernel in FloatKernel::available() {
                        let mut found = vec![f32::NAN; expected.len()];
                        convolution.run(kernel, &input, extent, &mut found, out_extent);
                        for (found, expected) in found.iter().zip(&expected) {
                            let difference = (f64::from(*found) - expected).abs();
                            assert!(
                                difference < 1e-5,
                                "{kernel:?} {size:?} by {stride} of {extent:?}, {channels} channels: {difference}"
                            );
                        }
                    }
                }
            }
        }
    }
}
