//! The augmented views: RandomResizedCrop and mirroring, and AugMix over them.
//!
//! Sources: torchvision's `RandomResizedCrop.get_params` for the sampling rules; Hendrycks et al., "AugMix" (ICLR
//! 2020), with TPT's settings (severity 1, three chains of one to three operations) for the mixing.

use super::Preprocessing;
use super::geometry::{affine, rotate};
use super::pixels::{Pixels, Region};
use super::resize::{Filter, resize, resize_rows};
use super::sampler::Sampler;
use super::tone::{autocontrast, equalize, posterize, solarize};
use crate::kernels::{COPIES, Mixture, PixelKernel, mix};

/// Fraction of the area a crop covers.
const CROP_SCALE: (f64, f64) = (0.08, 1.0);
/// Width over height of a crop.
const CROP_RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
/// Crops tried before the central one is taken.
const CROP_ATTEMPTS: usize = 10;

/// Most operations in one of the chains that are mixed into an AugMix view.
const CHAIN_DEPTH_MAX: usize = 3;
/// AugMix severity; operations draw their strength below it, out of 10.
const SEVERITY: f64 = 1.0;

/// A random part of `image` at `resolution`, mirrored half of the time: the `crop` augmentation.
pub(crate) fn random_resized_crop(image: &Pixels, resolution: usize, sampler: &mut Sampler) -> Pixels {
    let Crop { region, is_mirrored } = Crop::draw(image, sampler);
    let mut crop = resize(image, region, resolution, resolution, Filter::Bilinear);
    if is_mirrored {
        crop.flip_horizontal();
    }
    crop
}

/// As [`random_resized_crop`], row by row: calls `take(y, bytes, whether the row is to be mirrored)` for each in order.
pub(super) fn random_resized_rows(
    image: &Pixels,
    resolution: usize,
    sampler: &mut Sampler,
    mut take: impl FnMut(usize, &[u8], bool),
) {
    let Crop { region, is_mirrored } = Crop::draw(image, sampler);
    let window = Region { left: 0, top: 0, width: resolution, height: resolution };
    let size = (resolution, resolution);
    resize_rows(image, region, size, window, Filter::Bilinear.into(), |y, row| take(y, row, is_mirrored));
}

/// A crop that was drawn.
struct Crop {
    region: Region,
    is_mirrored: bool,
}

impl Crop {
    fn draw(image: &Pixels, sampler: &mut Sampler) -> Self {
        // The order of the draws decides the view. With another order the same seed would give other crops, and features
        // that this version has cached would be those of the old ones.
        let region = crop_region(image.width(), image.height(), sampler);
        Self { region, is_mirrored: sampler.coin() }
    }
}

/// Mixes augmented copies of `crop` with it into `planes`, normalised.
///
/// The mix is `m x + (1 - m) Σ wᵢ chainᵢ(x)` in float, `w` from Dirichlet(1, 1, 1) and `m` from Beta(1, 1).
pub(super) fn augmix(crop: &Pixels, preprocessing: &Preprocessing, sampler: &mut Sampler, planes: [&mut [f32]; 3]) {
    // In f32, as the reference code rounds them (`np.float32`).
    let weights = sampler.dirichlet3().map(|weight| weight as f32);
    // Beta(1, 1) is the uniform distribution.
    let keep = sampler.uniform(0.0, 1.0) as f32;
    let chains: [Pixels; COPIES] = std::array::from_fn(|_| {
        let depth = 1 + sampler.below(CHAIN_DEPTH_MAX);
        let first = Operation::random(sampler, crop.width()).applied(crop);
        (1..depth).fold(first, |chain, _| Operation::random(sampler, crop.width()).apply(chain))
    });
    // The reference mixes tensors that are already normalised. The weights add up to 1, so mixing before the
    // normalisation is the same.
    let mixture = Mixture { keep, weights, mean: preprocessing.mean, std: preprocessing.std };
    mix(PixelKernel::best(), &mixture, crop.bytes(), chains.each_ref().map(Pixels::bytes), planes);
}

/// Crop that torchvision would take: ten tries at a random area and shape, then the central crop nearest in shape.
fn crop_region(width: usize, height: usize, sampler: &mut Sampler) -> Region {
    let area = (width * height) as f64;
    for _ in 0..CROP_ATTEMPTS {
        let target = area * sampler.uniform(CROP_SCALE.0, CROP_SCALE.1);
        // The logarithm is uniform, so that tall and wide crops are equally likely. The standard library's `exp` and
        // `ln` are the platform's and may differ in the last bit; libm's are the same everywhere, and so are the crops.
        let ratio = libm::exp(sampler.uniform(libm::log(CROP_RATIO.0), libm::log(CROP_RATIO.1)));
        // torchvision uses Python's `round`, which takes halves to the even number.
        let crop_width = (target * ratio).sqrt().round_ties_even() as usize;
        let crop_height = (target / ratio).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
            let top = sampler.below(height - crop_height + 1);
            let left = sampler.below(width - crop_width + 1);
            return Region { left, top, width: crop_width, height: crop_height };
        }
    }
    central_region(width, height)
}

fn central_region(width: usize, height: usize) -> Region {
    // torchvision's fallback: as much of the image as the allowed shapes cover.
    let ratio = width as f64 / height as f64;
    let (crop_width, crop_height) = if ratio < CROP_RATIO.0 {
        (width, (width as f64 / CROP_RATIO.0).round_ties_even() as usize)
    } else if ratio > CROP_RATIO.1 {
        ((height as f64 * CROP_RATIO.1).round_ties_even() as usize, height)
    } else {
        (width, height)
    };
    // An image one pixel thin would round to nothing or past its edge.
    let (crop_width, crop_height) = (crop_width.clamp(1, width), crop_height.clamp(1, height));
    let (left, top) = ((width - crop_width) / 2, (height - crop_height) / 2);
    Region { left, top, width: crop_width, height: crop_height }
}

/// One AugMix operation with its drawn strength.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    Autocontrast,
    Equalize,
    Posterize { bits: u32 },
    Rotate { degrees: i32 },
    Solarize { threshold: u32 },
    ShearX { factor: f64 },
    ShearY { factor: f64 },
    TranslateX { pixels: f64 },
    TranslateY { pixels: f64 },
}

impl Operation {
    /// One of the nine, each as likely; strengths as in AugMix, translations relative to `side` (pixels).
    fn random(sampler: &mut Sampler, side: usize) -> Self {
        let kind = sampler.below(9);
        if kind < 2 {
            // The reference draws no strength for these two.
            return if kind == 0 { Self::Autocontrast } else { Self::Equalize };
        }
        // AugMix's `sample_level` draws from 0.1 up to the severity; a level is out of 10.
        let level = sampler.uniform(0.1, SEVERITY) / 10.0;
        let shift_max = side as f64 / 3.0;
        match kind {
            // Casts cut here as the reference's `int` does: at severity 1 four bits are always kept.
            2 => Self::Posterize { bits: 4 - (level * 4.0) as u32 },
            3 => Self::Rotate { degrees: signed((level * 30.0).trunc(), sampler) as i32 },
            4 => Self::Solarize { threshold: 256 - (level * 256.0) as u32 },
            5 => Self::ShearX { factor: signed(level * 0.3, sampler) },
            6 => Self::ShearY { factor: signed(level * 0.3, sampler) },
            7 => Self::TranslateX { pixels: signed((level * shift_max).trunc(), sampler) },
            _ => Self::TranslateY { pixels: signed((level * shift_max).trunc(), sampler) },
        }
    }

    /// The image with the operation applied.
    fn apply(self, mut image: Pixels) -> Pixels {
        match self {
            Self::Autocontrast => autocontrast(&mut image),
            Self::Equalize => equalize(&mut image),
            Self::Posterize { bits } => posterize(&mut image, bits),
            Self::Solarize { threshold } => solarize(&mut image, threshold),
            _ => return self.applied(&image),
        }
        image
    }

    /// A copy with the operation applied.
    fn applied(self, image: &Pixels) -> Pixels {
        match self {
            // What moves pixels makes a new image anyway.
            Self::Rotate { degrees } => rotate(image, degrees),
            Self::ShearX { factor } => affine(image, [1.0, factor, 0.0, 0.0, 1.0, 0.0]),
            Self::ShearY { factor } => affine(image, [1.0, 0.0, 0.0, factor, 1.0, 0.0]),
            Self::TranslateX { pixels } => affine(image, [1.0, 0.0, pixels, 0.0, 1.0, 0.0]),
            Self::TranslateY { pixels } => affine(image, [1.0, 0.0, 0.0, 0.0, 1.0, pixels]),
            Self::Autocontrast | Self::Equalize | Self::Posterize { .. } | Self::Solarize { .. } => {
                self.apply(image.clone())
            }
        }
    }
}

fn signed(strength: f64, sampler: &mut Sampler) -> f64 {
    if sampler.coin() { -strength } else { strength }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(view: usize) -> Sampler {
        Sampler::new(&[0; 32], 0, view)
    }

    #[test]
    fn crops_stay_inside_and_within_scale_and_ratio() {
        for view in 0..2000 {
            let region = crop_region(300, 200, &mut sampler(view));
            assert!(region.left + region.width <= 300 && region.top + region.height <= 200);
            let scale = (region.width * region.height) as f64 / 60_000.0;
            let ratio = region.width as f64 / region.height as f64;
            // Sides are whole pixels, so that both pass their bounds a little.
            assert!((0.075..=1.005).contains(&scale), "{region:?}");
            assert!((0.72..=1.39).contains(&ratio), "{region:?}");
        }
    }

    #[test]
    fn crops_cover_the_whole_range_of_scales() {
        let scales: Vec<f64> = (0..2000)
            .map(|view| crop_region(300, 300, &mut sampler(view)))
            .map(|region| (region.width * region.height) as f64 / 90_000.0)
            .collect();
        let mean = scales.iter().sum::<f64>() / 2000.0;
        assert!(scales.iter().any(|&s| s < 0.1) && scales.iter().any(|&s| s > 0.9));
        // Uniform on 0.08–1 has mean 0.54; shapes that stick out are drawn again, which lowers it.
        assert!((0.44..0.56).contains(&mean), "{mean}");
    }

    #[test]
    fn extreme_shapes_fall_back_to_the_central_crop() {
        assert_eq!(central_region(1000, 100), Region { left: 433, top: 0, width: 133, height: 100 });
        assert_eq!(central_region(100, 1000), Region { left: 0, top: 433, width: 100, height: 133 });
        assert_eq!(central_region(100, 100), Region { left: 0, top: 0, width: 100, height: 100 });
        for (width, height) in [(1, 1), (1, 5000), (5000, 1), (2, 1)] {
            let region = crop_region(width, height, &mut sampler(1));
            assert!(region.width >= 1 && region.left + region.width <= width);
            assert!(region.height >= 1 && region.top + region.height <= height);
        }
    }

    #[test]
    fn every_operation_is_drawn_with_bounded_strength() {
        let mut seen = std::collections::HashSet::new();
        let mut sampler = sampler(0);
        for _ in 0..3000 {
            let operation = Operation::random(&mut sampler, 224);
            seen.insert(std::mem::discriminant(&operation));
            match operation {
                // Levels are 0.01 to 0.1.
                Operation::Posterize { bits } => assert_eq!(bits, 4),
                Operation::Rotate { degrees } => assert!((-2..=2).contains(&degrees)),
                Operation::Solarize { threshold } => assert!((231..=254).contains(&threshold)),
                Operation::ShearX { factor } | Operation::ShearY { factor } => assert!(factor.abs() < 0.03),
                Operation::TranslateX { pixels } | Operation::TranslateY { pixels } => {
                    assert!(pixels.abs() <= 7.0 && pixels.fract() == 0.0);
                }
                Operation::Autocontrast | Operation::Equalize => {}
            }
        }
        assert_eq!(seen.len(), 9);
    }

    #[test]
    fn augmix_stays_in_the_unit_interval_and_differs_from_the_crop() {
        let bytes = (0..32 * 32 * 3).map(|i| (i * 7 % 256) as u8).collect();
        let crop = Pixels::new(32, 32, bytes);
        let mut changed = 0;
        let mut planes = [[0.0; 32 * 32]; 3];
        let preprocessing = Preprocessing::clip(32, [0.0; 3], [1.0; 3]);
        augmix(&crop, &preprocessing, &mut sampler(5), planes.each_mut().map(|plane| &mut plane[..]));
        for (channel, plane) in planes.iter().enumerate() {
            for (index, &value) in plane.iter().enumerate() {
                assert!((0.0..=1.000_001).contains(&value));
                let before = f32::from(crop.bytes()[index * 3 + channel]) / 255.0;
                changed += usize::from((value - before).abs() > 0.01);
            }
        }
        assert!(changed > 100, "{changed}");
    }
}
