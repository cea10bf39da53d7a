//! Corruptions by the weather.

use ndarray::{Array2, Axis, s};

use super::super::draws::Draws;
use super::Canvas;
use super::filters::{clouds, motion, zoomed};

pub(crate) fn snow(mut canvas: Canvas, level: usize, draws: &mut impl Draws) -> Canvas {
    let (mean, deviation, zoom, least, radius, blur, keep) = [
        (0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
        (0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
        (0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
    ][level];
    let (height, width, _) = canvas.dim();
    let flakes = Array2::from_shape_simple_fn((height, width), || mean + deviation * draws.normal());
    let flakes = zoomed(flakes.view(), zoom);
    let flakes = flakes.mapv(|value| if value < least { 0.0 } else { value.clamp(0.0, 1.0) });
    let flakes = motion(flakes.view(), radius, blur, draws.uniform(-135.0, -45.0));
    // The package keeps the flakes in whole levels; NumPy rounds ties to even.
    let flakes = flakes.mapv(|value| (value * 255.0).round_ties_even() / 255.0);
    // What falls on the lower right of a small layer is missing, as in the package.
    let (rows, columns) = (flakes.nrows().min(height), flakes.ncols().min(width));
    let flakes = flakes.slice(s![..rows, ..columns]);
    for mut pixel in canvas.lanes_mut(Axis(2)) {
        // OpenCV's weights of gray (BT.601).
        let gray = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
        let bright = gray * 1.5 + 0.5;
        pixel.mapv_inplace(|value| keep * value + (1.0 - keep) * value.max(bright));
    }
    for ((y, x), flake) in flakes.indexed_iter() {
        // The layer turned by 180 degrees is added as well, as in the package.
        let opposite = flakes[[rows - 1 - y, columns - 1 - x]];
        canvas.slice_mut(s![y, x, ..]).mapv_inplace(|value| value + flake + opposite);
    }
    canvas
}

/// A texture of our own in place of photos: clouds folded into needles, as ice grows, lighter towards the blue.
pub(crate) fn frost(mut canvas: Canvas, level: usize, draws: &mut impl Draws) -> Canvas {
    let (keep, ice) = [(1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)][level];
    let (height, width, _) = canvas.dim();
    // A side of 1 would get no clouds, and 0/0 from their normalisation.
    let side = height.max(width).next_power_of_two().max(2);
    let mut map = || clouds(side, 1.7, &mut |low, high| draws.uniform(low, high));
    let (coarse, fine) = (map(), map());
    for ((y, x, channel), value) in canvas.indexed_iter_mut() {
        // Ridges where the clouds pass through their middle.
        let ridge = |clouds: &Array2<f64>| 1.0 - (2.0 * clouds[[y, x]] - 1.0).abs();
        let crystal = ridge(&coarse).powi(3) * (0.4 + 0.6 * ridge(&fine).powi(2));
        let tint = [0.85, 0.93, 1.0][channel];
        *value = keep * *value + ice * tint * crystal;
    }
    canvas
}

pub(crate) fn fog(mut canvas: Canvas, level: usize, draws: &mut impl Draws) -> Canvas {
    let (density, decay) = [(1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)][level];
    let (height, width, _) = canvas.dim();
    let brightest = canvas.fold(0.0_f64, |brightest, &value| brightest.max(value));
    // An image of one or two pixels is as wide as its three channels are many.
    let side = height.max(width).max(3).next_power_of_two();
    let map = clouds(side, decay, &mut |low, high| draws.uniform(low, high));
    for ((y, x, _), value) in canvas.indexed_iter_mut() {
        // Scaled back to the brightest value that the image had, so that fog does not clip.
        *value = (*value + density * map[[y, x]]) * brightest / (brightest + density);
    }
    canvas
}
