//! Affine transforms with bilinear sampling, as Pillow's `Image.transform` and `Image.rotate` compute them.

use super::pixels::Pixels;

/// `[a, b, c, d, e, f]`: the output pixel (x, y) is sampled at (a x + b y + c, d x + e y + f) of the input.
pub(crate) type Affine = [f64; 6];

/// Samples `image` through `map` onto a canvas of the same size; what falls outside is black.
pub fn affine(image: &Pixels, map: Affine) -> Pixels {
    let [a, b, c, d, e, f] = map;
    let (width, height) = (image.width(), image.height());
    let mut out = Pixels::black(width, height);
    for y in 0..height {
        let center_y = y as f64 + 0.5;
        for (x, target) in out.row_mut(y).chunks_exact_mut(3).enumerate() {
            let center_x = x as f64 + 0.5;
            let source_x = a * center_x + b * center_y + c;
            let source_y = d * center_x + e * center_y + f;
            // Pillow tests the point alone, not the four pixels around it, so that no edge is mixed with black.
            if (0.0..width as f64).contains(&source_x) && (0.0..height as f64).contains(&source_y) {
                target.copy_from_slice(&bilinear(image, source_x - 0.5, source_y - 0.5));
            }
        }
    }
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

fn bilinear(image: &Pixels, x: f64, y: f64) -> [u8; 3] {
    let (left, top) = (x.floor(), y.floor());
    let (weight_x, weight_y) = (x - left, y - top);
    // Within half a pixel of an edge one neighbour lies outside; Pillow repeats the edge.
    let clip = |position: f64, size: usize| position.clamp(0.0, (size - 1) as f64) as usize;
    let (x0, x1) = (clip(left, image.width()), clip(left + 1.0, image.width()));
    let (y0, y1) = (clip(top, image.height()), clip(top + 1.0, image.height()));
    let (northwest, northeast) = (image.at(x0, y0), image.at(x1, y0));
    let (southwest, southeast) = (image.at(x0, y1), image.at(x1, y1));
    std::array::from_fn(|channel| {
        let north = mix(northwest[channel].into(), northeast[channel].into(), weight_x);
        let south = mix(southwest[channel].into(), southeast[channel].into(), weight_x);
        // Pillow truncates here; it does not round.
        mix(north, south, weight_y) as u8
    })
}

fn mix(from: f64, to: f64, weight: f64) -> f64 {
    from + (to - from) * weight
}
