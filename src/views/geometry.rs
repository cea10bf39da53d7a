//! Affine transforms with bilinear sampling, as Pillow's `Image.transform` and `Image.rotate` compute them.

use super::pixels::Pixels;
use crate::kernels::{PixelKernel, Source, warp};

/// `[a, b, c, d, e, f]`: the output pixel (x, y) is sampled at (a x + b y + c, d x + e y + f) of the input.
pub(crate) type Affine = [f64; 6];

/// Samples `image` through `map` onto a canvas of the same size; what falls outside is black.
pub fn affine(image: &Pixels, map: Affine) -> Pixels {
    let (width, height) = (image.width(), image.height());
    let mut out = Pixels::black(width, height);
    warp(PixelKernel::best(), Source { bytes: image.bytes(), width, height }, map, out.bytes_mut());
    out
}

/// Rotates about the centre, counter-clockwise by whole `degrees`; the canvas keeps its size.
pub fn rotate(image: &Pixels, degrees: i32) -> Pixels {
    if degrees % 360 == 0 {
        return image.clone();
    }
    // The map leads from output to input, which turns the other way. libm's sine and cosine are the same on every
    // platform.
    let angle = -f64::from(degrees.rem_euclid(360)).to_radians();
    let (sine, cosine) = (round_15(libm::sin(angle)), round_15(libm::cos(angle)));
    let (center_x, center_y) = (image.width() as f64 / 2.0, image.height() as f64 / 2.0);
    let shift_x = -cosine * center_x - sine * center_y + center_x;
    let shift_y = sine * center_x - cosine * center_y + center_y;
    affine(image, [cosine, sine, shift_x, -sine, cosine, shift_y])
}

/// Pillow rounds the entries of a rotation to 15 decimals, so that right angles are exact.
fn round_15(value: f64) -> f64 {
    (value * 1e15).round() / 1e15
}
