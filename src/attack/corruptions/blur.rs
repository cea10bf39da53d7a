//! Blur of a lens or a moving camera.

use ndarray::{Array2, s};

use super::super::draws::Draws;
use super::Canvas;
use super::filters::{Border, convolve, each_channel, gaussian_channels, motion as moved, zoomed};

pub(crate) fn defocus(canvas: &Canvas, level: usize) -> Canvas {
    let (radius, alias) = [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)][level];
    let kernel = disk(radius, alias);
    each_channel(canvas, |plane| convolve(plane, kernel.view()))
}

/// A disk of `radius` pixels, its edge smoothed by a small Gaussian of deviation `alias`.
fn disk(radius: isize, alias: f64) -> Array2<f64> {
    // The package draws every disk up to radius 8 on the same grid, and smooths with a kernel of 3 or 5 pixels.
    let (reach, smoothing) = if radius <= 8 { (8, 1) } else { (radius, 2) };
    let side = 2 * reach as usize + 1;
    let hard = Array2::from_shape_fn((side, side), |(y, x)| {
        let (y, x) = (y as isize - reach, x as isize - reach);
        f64::from(u8::from(x * x + y * y <= radius * radius))
    });
    let hard = &hard / hard.sum();
    let weight = |offset: isize| (-((offset * offset) as f64) / (2.0 * alias * alias)).exp();
    let total: f64 = (-smoothing..=smoothing).map(weight).sum();
    // OpenCV's default border.
    let at = |y: isize, x: isize| hard[[Border::Mirror.inside(y, side), Border::Mirror.inside(x, side)]];
    Array2::from_shape_fn((side, side), |(y, x)| {
        let mut sum = 0.0;
        for dy in -smoothing..=smoothing {
            for dx in -smoothing..=smoothing {
                sum += weight(dy) * weight(dx) / (total * total) * at(y as isize + dy, x as isize + dx);
            }
        }
        sum
    })
}

pub(crate) fn glass(canvas: &Canvas, level: usize, draws: &mut impl Draws) -> Canvas {
    let (deviation, reach, passes) = [(0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)][level];
    let (height, width, _) = canvas.dim();
    // The package cuts to whole levels here; the hair keeps what is a whole level but for rounding.
    let mut mixed = gaussian_channels(canvas, deviation).mapv(|value| (value * 255.0 + 1e-9).floor());
    for _ in 0..passes {
        // From these places no neighbour is outside: it is at most `reach` up or left, and one less down or right.
        for y in (reach + 1..(height + 1).saturating_sub(reach)).rev() {
            for x in (reach + 1..(width + 1).saturating_sub(reach)).rev() {
                let mut near = |place: usize| place + draws.below(2 * reach) - reach;
                // Across first, then down: the order of the package's draws.
                let (from_x, from_y) = (near(x), near(y));
                // The package means to exchange the two pixels; its assignment copies one over the other.
                let source = mixed.slice(s![from_y, from_x, ..]).to_owned();
                mixed.slice_mut(s![y, x, ..]).assign(&source);
            }
        }
    }
    gaussian_channels(&(mixed / 255.0), deviation)
}

pub(crate) fn motion(canvas: &Canvas, level: usize, draws: &mut impl Draws) -> Canvas {
    let (radius, deviation) = [(10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)][level];
    let angle = draws.uniform(-45.0, 45.0);
    each_channel(canvas, |plane| moved(plane, radius, deviation, angle))
}

pub(crate) fn zoom(canvas: &Canvas, level: usize) -> Canvas {
    let (end, step): (f64, f64) = [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)][level];
    // The length and the values of NumPy's `arange`, whose step is the difference of its first two values.
    let count = ((end - 1.0) / step).ceil() as usize;
    let (height, width, _) = canvas.dim();
    let mut sum = canvas.clone();
    for index in 0..count {
        let factor = 1.0 + index as f64 * ((1.0 + step) - 1.0);
        for channel in 0..3 {
            let layer = zoomed(canvas.slice(s![.., .., channel]), factor);
            // Rounding may leave a layer a pixel short of the image or past it; as in the package, the rest of the
            // image gets nothing.
            let (rows, columns) = (layer.nrows().min(height), layer.ncols().min(width));
            let mut target = sum.slice_mut(s![..rows, ..columns, channel]);
            target += &layer.slice(s![..rows, ..columns]);
        }
    }
    sum / (count + 1) as f64
}
