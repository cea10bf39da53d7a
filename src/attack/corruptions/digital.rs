//! Corruptions by processing and storing.

use ndarray::{Array2, Axis, s};

use super::super::draws::Draws;
use super::Canvas;
use super::filters::{Border, each_channel, gaussian, interpolated};
use crate::views::{Filter, Pixels, decode, encode_jpeg, resize};

pub(crate) fn brightness(mut canvas: Canvas, level: usize) -> Canvas {
    let added = [0.1, 0.2, 0.3, 0.4, 0.5][level];
    for mut pixel in canvas.lanes_mut(Axis(2)) {
        // Hue and saturation stay: all channels grow as the largest does. Black has neither and becomes gray.
        let value = pixel.fold(0.0_f64, |largest, &channel| largest.max(channel));
        let raised = (value + added).min(1.0);
        pixel.mapv_inplace(|channel| if value > 0.0 { channel * raised / value } else { raised });
    }
    canvas
}

pub(crate) fn contrast(mut canvas: Canvas, level: usize) -> Canvas {
    let kept = [0.4, 0.3, 0.2, 0.1, 0.05][level];
    for channel in 0..3 {
        let mut plane = canvas.slice_mut(s![.., .., channel]);
        let mean = plane.mean().unwrap_or(0.0);
        plane.mapv_inplace(|value| (value - mean) * kept + mean);
    }
    canvas
}

pub(crate) fn elastic(canvas: &Canvas, level: usize, draws: &mut impl Draws) -> Canvas {
    let strength = 250.0 * [0.05, 0.065, 0.085, 0.1, 0.12][level];
    let (height, width, _) = canvas.dim();
    let deviations = (height as f64 * 0.01, width as f64 * 0.01);
    // Of the height in both directions, as in the package.
    let reach = height as f64 * 0.005;
    let mut field = || {
        let noise = Array2::from_shape_simple_fn((height, width), || draws.uniform(-reach, reach));
        gaussian(noise.view(), deviations, Border::Reflect, 3.0) * strength
    };
    // Across first, then down: the order of the package's draws.
    let (right, down) = (field(), field());
    each_channel(canvas, |plane| {
        Array2::from_shape_fn((height, width), |(y, x)| {
            interpolated(plane, y as f64 + down[[y, x]], x as f64 + right[[y, x]], Border::Reflect)
        })
    })
}

pub(crate) fn pixelate(image: &Pixels, level: usize) -> Pixels {
    let share = [0.6, 0.5, 0.4, 0.3, 0.25][level];
    let (width, height) = (image.width(), image.height());
    // Cut and not rounded, as Python's `int` does; at least a pixel is left.
    let fewer = |side: usize| ((side as f64 * share) as usize).max(1);
    let small = resize(image, image.whole(), fewer(width), fewer(height), Filter::Box);
    let (columns, rows) = (nearest(small.width(), width), nearest(small.height(), height));
    let mut out = Pixels::black(width, height);
    for (y, &row) in rows.iter().enumerate() {
        for (x, &column) in columns.iter().enumerate() {
            out.row_mut(y)[x * 3..][..3].copy_from_slice(&small.at(column, row));
        }
    }
    out
}

/// For each of `to` places the nearest of `from`, ties broken as Pillow's sum of steps happens to round.
fn nearest(from: usize, to: usize) -> Vec<usize> {
    let step = from as f64 / to as f64;
    let mut place = step * 0.5;
    let next = |_| {
        let nearest = (place as usize).min(from - 1);
        place += step;
        nearest
    };
    (0..to).map(next).collect()
}

pub(crate) fn jpeg(image: &Pixels, level: usize) -> Pixels {
    let quality = [25, 18, 15, 10, 7][level];
    decode(&encode_jpeg(image, quality)).expect("what was just encoded can be decoded")
}
