//! Means of windows of an image whose channels lie together: `[H, W, C]`.

use super::depthwise::Extent;
use super::float::FloatKernel;

/// Windows of a pool, which lie within the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    /// Height and width.
    pub size: Extent,
    /// Distance of two windows along both axes.
    pub strides: Extent,
    /// Distance of two pixels of a window.
    pub dilations: Extent,
}

impl Windows {
    /// The mean of every window of `image`, `width` pixels wide, into `out`, `out_width` wide.
    pub(crate) fn means(
        &self,
        kernel: FloatKernel,
        (image, width): (&[f32], usize),
        (out, out_width): (&mut [f32], usize),
        channels: usize,
    ) {
        // The kernel was found on this processor.
        match kernel {
            #[cfg(target_arch = "x86_64")]
            FloatKernel::Avx512 => unsafe { means_avx512(self, (image, width), (out, out_width), channels) },
            #[cfg(target_arch = "x86_64")]
            FloatKernel::Avx2 => unsafe { means_avx2(self, (image, width), (out, out_width), channels) },
            _ => means(self, (image, width), (out, out_width), channels),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2")]
unsafe fn means_avx512(windows: &Windows, image: (&[f32], usize), out: (&mut [f32], usize), channels: usize) {
    means(windows, image, out, channels);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn means_avx2(windows: &Windows, image: (&[f32], usize), out: (&mut [f32], usize), channels: usize) {
    means(windows, image, out, channels);
}

#[inline(always)]
fn means(windows: &Windows, (image, width): (&[f32], usize), (out, out_width): (&mut [f32], usize), channels: usize) {
    let Windows { size, strides, dilations } = *windows;
    let share = 1.0 / (size[0] * size[1]) as f32;
    for (place, slots) in out.chunks_exact_mut(channels).enumerate() {
        let (top, left) = (place / out_width * strides[0], place % out_width * strides[1]);
        slots.fill(0.0);
        for y in 0..size[0] {
            for x in 0..size[1] {
                let pixel = (top + y * dilations[0]) * width + left + x * dilations[1];
                slots.iter_mut().zip(&image[pixel * channels..][..channels]).for_each(|(slot, value)| *slot += value);
            }
        }
        slots.iter_mut().for_each(|slot| *slot *= share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::noise;

    #[test]
    fn means_are_their_formula_on_every_kernel() {
        for (channels, size, strides, dilations) in [
            (1, [1, 1], [1, 1], [1, 1]),
            (3, [2, 2], [2, 2], [1, 1]),
            (21, [3, 2], [2, 1], [1, 2]),
            (64, [2, 3], [1, 3], [2, 1]),
        ] {
            let (height, width) = (9, 11);
            let windows = Windows { size, strides, dilations };
            let fits =
                |axis: usize, extent: usize| (extent - 1 - (size[axis] - 1) * dilations[axis]) / strides[axis] + 1;
            let (out_height, out_width) = (fits(0, height), fits(1, width));
            let image = noise(1, height * width * channels);
            for kernel in FloatKernel::available() {
                let mut out = vec![f32::NAN; out_height * out_width * channels];
                windows.means(kernel, (&image, width), (&mut out, out_width), channels);
                for (place, found) in out.iter().enumerate() {
                    let (channel, pixel) = (place % channels, place / channels);
                    let (top, left) = (pixel / out_width * strides[0], pixel % out_width * strides[1]);
                    let of_window = (0..size[0] * size[1]).map(|at| {
                        let (y, x) = (top + at / size[1] * dilations[0], left + at % size[1] * dilations[1]);
                        f64::from(image[(y * width + x) * channels + channel])
                    });
                    let expected = of_window.sum::<f64>() / (size[0] * size[1]) as f64;
                    assert!((f64::from(*found) - expected).abs() < 1e-6, "{kernel:?} {windows:?}");
                }
            }
        }
    }
}
