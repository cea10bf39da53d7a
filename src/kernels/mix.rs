//! Mixture of an image's copies, normalised: the last step of an AugMix view.

use super::pixels::PixelKernel;

/// Copies that are mixed.
pub(crate) const COPIES: usize = 3;
/// Pixels that are computed at once.
const BLOCK: usize = 16;
/// Values of these.
const VALUES: usize = BLOCK * 3;

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
    let [first, second, third] = copies;
    let [red, green, blue] = planes;
    let of_channels = Channels { means: spread(mixture.mean), stds: spread(mixture.std) };
    let blocks = image.as_chunks::<VALUES>().0.iter();
    let copies = first.as_chunks().0.iter().zip(second.as_chunks().0).zip(third.as_chunks().0);
    let slots =
        red.as_chunks_mut().0.iter_mut().zip(green.as_chunks_mut().0.iter_mut()).zip(blue.as_chunks_mut().0.iter_mut());
    for ((image, ((first, second), third)), ((red, green), blue)) in blocks.zip(copies).zip(slots) {
        mix_block(mixture, &of_channels, image, [first, second, third], [red, green, blue]);
    }
    // What is left, as a block that is filled up.
    let done = image.len() / VALUES * VALUES;
    let rest = (image.len() - done) / 3;
    let [mut of_image, mut of_first, mut of_second, mut of_third] = [[0; VALUES]; 4];
    for (filled, from) in
        [(&mut of_image, image), (&mut of_first, first), (&mut of_second, second), (&mut of_third, third)]
    {
        filled[..rest * 3].copy_from_slice(&from[done..]);
    }
    let [mut reds, mut greens, mut blues] = [[0.0; BLOCK]; 3];
    let slots = [&mut reds, &mut greens, &mut blues];
    mix_block(mixture, &of_channels, &of_image, [&of_first, &of_second, &of_third], slots);
    for (plane, values) in [(red, reds), (green, greens), (blue, blues)] {
        plane[done / 3..].copy_from_slice(&values[..rest]);
    }
}

/// Mean and standard deviation of every value of a block.
struct Channels {
    means: [f32; VALUES],
    stds: [f32; VALUES],
}

/// A number for each channel, for every value of a block.
#[inline(always)]
fn spread(of_channels: [f32; 3]) -> [f32; VALUES] {
    let mut values = [0.0; VALUES];
    values.iter_mut().enumerate().for_each(|(place, slot)| *slot = of_channels[place % 3]);
    values
}

/// One block. Its values are mixed in the order they lie in, so that the arithmetic is that of vectors, and put in their planes then.
#[inline(always)]
fn mix_block(
    mixture: &Mixture,
    Channels { means, stds }: &Channels,
    image: &[u8; VALUES],
    [first, second, third]: [&[u8; VALUES]; COPIES],
    planes: [&mut [f32; BLOCK]; 3],
) {
    let Mixture { keep, weights, .. } = *mixture;
    let mut mixed = [0.0; VALUES];
    for (place, slot) in mixed.iter_mut().enumerate() {
        let sum = weights[0] * unit(first[place]) + weights[1] * unit(second[place]) + weights[2] * unit(third[place]);
        let value = keep * unit(image[place]) + (1.0 - keep) * sum;
        *slot = (value - means[place]) / stds[place];
    }
    for (channel, plane) in planes.into_iter().enumerate() {
        for (place, slot) in plane.iter_mut().enumerate() {
            *slot = mixed[place * 3 + channel];
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
