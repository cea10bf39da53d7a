//! Mixture of an image's copies, normalised: the last step of an AugMix view.

use super::pixels::PixelKernel;

/// Copies that are mixed.
pub(crate) const COPIES: usize = 3;
/// Pixels that are computed at once.
const BLOCK: usize = 16;

/// Factors of a mixture, and the normalisation that follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mixture {
    /// Factor of the image itself.
    pub keep: f32,
    /// Factors of the copies, of what the image leaves.
    pub weights: [f32; COPIES],
    /// Mean of each channel (values in 0–1).
    pub mean: [f32; 3],
    /// Standard deviation of each channel (values in 0–1).
    pub std: [f32; 3],
}

/// `keep x + (1 - keep) Σ wᵢ xᵢ` of an image x of three channels and its copies, with x in 0–1, normalised, as planes.
pub(crate) fn mix(
    kernel: PixelKernel,
    mixture: &Mixture,
    image: &[u8],
    copies: [&[u8]; COPIES],
    planes: [&mut [f32]; 3],
) {
    let count = image.len() / 3;
    assert!(copies.iter().all(|copy| copy.len() == image.len()) && planes.iter().all(|plane| plane.len() == count));
    match kernel {
        #[cfg(target_arch = "x86_64")]
        // The kernel was found on this processor.
        PixelKernel::Avx2 => unsafe { mix_avx2(mixture, image, copies, planes) },
        _ => mix_any(mixture, image, copies, planes),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn mix_avx2(mixture: &Mixture, image: &[u8], copies: [&[u8]; COPIES], planes: [&mut [f32]; 3]) {
    mix_any(mixture, image, copies, planes);
}

#[inline(always)]
fn mix_any(mixture: &Mixture, image: &[u8], copies: [&[u8]; COPIES], planes: [&mut [f32]; 3]) {
    let Mixture { keep, weights, mean, std } = *mixture;
    for (channel, plane) in planes.into_iter().enumerate() {
        for (block, values) in plane.chunks_mut(BLOCK).enumerate() {
            let start = block * BLOCK * 3;
            let end = start + values.len() * 3;
            // Of this channel alone, side by side, so that the arithmetic is that of vectors.
            let gathered = |bytes: &[u8]| {
                let mut units = [0.0; BLOCK];
                let pixels = bytes[start..end].chunks_exact(3);
                units.iter_mut().zip(pixels).for_each(|(slot, pixel)| *slot = unit(pixel[channel]));
                units
            };
            let (of_image, of_copies) = (gathered(image), copies.map(gathered));
            let [first, second, third] = &of_copies;
            let mut mixed = [0.0; BLOCK];
            for (index, slot) in mixed.iter_mut().enumerate() {
                let sum = weights[0] * first[index] + weights[1] * second[index] + weights[2] * third[index];
                let value = keep * of_image[index] + (1.0 - keep) * sum;
                *slot = (value - mean[channel]) / std[channel];
            }
            let count = values.len();
            values.copy_from_slice(&mixed[..count]);
        }
    }
}

/// `byte / 255`, rounded once: the first product is exact.
#[inline(always)]
fn unit(byte: u8) -> f32 {
    const HIGH: f32 = 1.0 / 256.0;
    const LOW: f32 = (1.0 / 255.0 - 1.0 / 256.0) as f32;
    let value = f32::from(byte);
    value * HIGH + value * LOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_its_quotient() {
        for byte in 0..=255_u8 {
            assert_eq!(unit(byte), f32::from(byte) / 255.0);
        }
    }

    #[test]
    fn every_kernel_gives_the_formula() {
        for count in [1, 15, 16, 17, 100] {
            let bytes = |seed: u32| -> Vec<u8> {
                crate::kernels::noise(seed, count * 3).into_iter().map(|value| (value * 127.5 + 127.5) as u8).collect()
            };
            let (image, copies) = (bytes(1), [bytes(2), bytes(3), bytes(4)]);
            let mixture = Mixture { keep: 0.3, weights: [0.5, 0.2, 0.3], mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3] };
            for kernel in PixelKernel::available() {
                let mut planes = [(); 3].map(|()| vec![f32::NAN; count]);
                let [red, green, blue] = &mut planes;
                let [first, second, third] = &copies;
                mix(kernel, &mixture, &image, [first, second, third], [red, green, blue]);
                for (channel, plane) in planes.iter().enumerate() {
                    for (pixel, &found) in plane.iter().enumerate() {
                        let at = |bytes: &[u8]| f32::from(bytes[pixel * 3 + channel]) / 255.0;
                        let sum = 0.5 * at(&copies[0]) + 0.2 * at(&copies[1]) + 0.3 * at(&copies[2]);
                        let expected =
                            (0.3 * at(&image) + (1.0 - 0.3) * sum - mixture.mean[channel]) / mixture.std[channel];
                        assert_eq!(found.to_bits(), expected.to_bits(), "{kernel:?} {channel} {pixel}");
                    }
                }
            }
        }
    }
}
