//! The fifteen common corruptions of ImageNet-C at five severities (Hendrycks and Dietterich, ICLR 2019).
//!
//! Constants and arithmetic are those of the `imagecorruptions` package (Michaelis et al. 2019), which made ImageNet-C's
//! definitions fit images of any size; given the same random numbers the results agree, as goldens show. Two differ:
//! `frost` lays a generated texture over the image, where the package lays photos of frost, and `jpeg-compression` uses
//! another encoder.

mod blur;
mod digital;
mod filters;
mod noise;
mod weather;

use ndarray::Array3;

use super::draws::Draws;
use crate::views::Pixels;

/// An image in floating point, `[H, W, 3]`, 0–1.
pub(crate) type Canvas = Array3<f64>;

/// Corruption of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corruption {
    /// Normal noise on every value.
    GaussianNoise,
    /// The noise of counting few photons.
    ShotNoise,
    /// Single values black or white.
    ImpulseNoise,
    /// A lens out of focus.
    DefocusBlur,
    /// Frosted glass: near pixels change places.
    GlassBlur,
    /// A camera that moves.
    MotionBlur,
    /// A camera that comes nearer.
    ZoomBlur,
    /// Falling snow.
    Snow,
    /// Ice on the lens.
    Frost,
    /// Fog of varying density.
    Fog,
    /// Too much light.
    Brightness,
    /// Too little contrast.
    Contrast,
    /// Small regions stretched.
    ElasticTransform,
    /// Too few pixels.
    Pixelate,
    /// Too few bytes.
    JpegCompression,
}

impl Corruption {
    /// All of them, in the order of ImageNet-C.
    pub const ALL: [Self; 15] = [
        Self::GaussianNoise,
        Self::ShotNoise,
        Self::ImpulseNoise,
        Self::DefocusBlur,
        Self::GlassBlur,
        Self::MotionBlur,
        Self::ZoomBlur,
        Self::Snow,
        Self::Frost,
        Self::Fog,
        Self::Brightness,
        Self::Contrast,
        Self::ElasticTransform,
        Self::Pixelate,
        Self::JpegCompression,
    ];

    /// The name used on the command line and in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::GaussianNoise => "gaussian-noise",
            Self::ShotNoise => "shot-noise",
            Self::ImpulseNoise => "impulse-noise",
            Self::DefocusBlur => "defocus-blur",
            Self::GlassBlur => "glass-blur",
            Self::MotionBlur => "motion-blur",
            Self::ZoomBlur => "zoom-blur",
            Self::Snow => "snow",
            Self::Frost => "frost",
            Self::Fog => "fog",
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::ElasticTransform => "elastic-transform",
            Self::Pixelate => "pixelate",
            Self::JpegCompression => "jpeg-compression",
        }
    }

    /// The corruption of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|corruption| corruption.name() == name)
    }

    /// A corrupted copy at `severity` 1–5, with random numbers from `draws`.
    ///
    /// # Panics
    /// If the severity is none of these.
    pub fn apply(self, image: &Pixels, severity: usize, draws: &mut impl Draws) -> Pixels {
        assert!((1..=5).contains(&severity), "severities are 1 to 5");
        let level = severity - 1;
        let canvas = || to_canvas(image);
        let result = match self {
            Self::GaussianNoise => noise::gaussian(canvas(), level, draws),
            Self::ShotNoise => noise::shot(canvas(), level, draws),
            Self::ImpulseNoise => noise::impulse(canvas(), level, draws),
            Self::DefocusBlur => blur::defocus(&canvas(), level),
            Self::GlassBlur => blur::glass(&canvas(), level, draws),
            Self::MotionBlur => blur::motion(&canvas(), level, draws),
            Self::ZoomBlur => blur::zoom(&canvas(), level),
            Self::Snow => weather::snow(canvas(), level, draws),
            Self::Frost => weather::frost(canvas(), level, draws),
            Self::Fog => weather::fog(canvas(), level, draws),
            Self::Brightness => digital::brightness(canvas(), level),
            Self::Contrast => digital::contrast(canvas(), level),
            Self::ElasticTransform => digital::elastic(&canvas(), level, draws),
            Self::Pixelate => return digital::pixelate(image, level),
            Self::JpegCompression => return digital::jpeg(image, level),
        };
        to_pixels(&result)
    }
}

fn to_canvas(image: &Pixels) -> Canvas {
    let values = image.bytes().iter().map(|&byte| f64::from(byte) / 255.0).collect();
    Canvas::from_shape_vec((image.height(), image.width(), 3), values).expect("three values a pixel")
}

/// Clipped to 0–1 and cut to whole levels, as the package does.
fn to_pixels(canvas: &Canvas) -> Pixels {
    let (height, width, _) = canvas.dim();
    // A hair is added: what is a whole level but for rounding must not fall to the one below.
    let byte = |value: &f64| (value.clamp(0.0, 1.0) * 255.0 + 1e-6) as u8;
    Pixels::new(width, height, canvas.iter().map(byte).collect())
}
