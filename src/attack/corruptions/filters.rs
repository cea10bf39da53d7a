//! Filters that several corruptions share: smoothing, convolution, interpolation and motion.

use ndarray::{Array2, Array3, ArrayView2, Axis};

/// Rule for the values beyond the border.
#[derive(Clone, Copy)]
pub(crate) enum Border {
    /// The nearest pixel.
    Nearest,
    /// The image mirrored at its edge: `b a | a b c`.
    Reflect,
    /// The image mirrored at its last pixel: `c b | a b c`.
    Mirror,
}

impl Border {
    /// The place inside 0..`length` that `place` stands for.
    pub(crate) fn inside(self, place: isize, length: usize) -> usize {
        let length = length as isize;
        let inside = match self {
            Self::Nearest => place.clamp(0, length - 1),
            Self::Reflect => {
                let around = place.rem_euclid(2 * length);
                around.min(2 * length - 1 - around)
            }
            Self::Mirror if length == 1 => 0,
            Self::Mirror => {
                let around = place.rem_euclid(2 * (length - 1));
                around.min(2 * (length - 1) - around)
            }
        };
        inside as usize
    }
}

/// Gaussian smoothing of a plane `[H, W]`, with a standard deviation (pixels) along each axis; the kernel ends after
/// `truncate` deviations.
pub(crate) fn gaussian(plane: ArrayView2<f64>, deviations: (f64, f64), border: Border, truncate: f64) -> Array2<f64> {
    let along = |plane: &Array2<f64>, axis: usize, deviation: f64| {
        // As SciPy cuts its kernel.
        let radius = (truncate * deviation + 0.5) as isize;
        let weight = |offset: isize| (-0.5 * (offset as f64 / deviation).powi(2)).exp();
        let total: f64 = (-radius..=radius).map(weight).sum();
        let kernel: Vec<(isize, f64)> = (-radius..=radius).map(|offset| (offset, weight(offset) / total)).collect();
        let length = plane.len_of(Axis(axis));
        Array2::from_shape_fn(plane.dim(), |(y, x)| {
            let at = |offset: isize| match axis {
                0 => plane[[border.inside(y as isize + offset, length), x]],
                _ => plane[[y, border.inside(x as isize + offset, length)]],
            };
            kernel.iter().map(|&(offset, weight)| weight * at(offset)).sum()
        })
    };
    along(&along(&plane.to_owned(), 0, deviations.0), 1, deviations.1)
}

/// [`gaussian`] of each channel of an image `[H, W, 3]`.
pub(crate) fn gaussian_channels(image: &Array3<f64>, deviation: f64) -> Array3<f64> {
    each_channel(image, |plane| gaussian(plane, (deviation, deviation), Border::Nearest, 4.0))
}

/// A plane `[H, W]` under a square kernel of odd side.
pub(crate) fn convolve(plane: ArrayView2<f64>, kernel: ArrayView2<f64>) -> Array2<f64> {
    let (height, width) = plane.dim();
    let radius = kernel.nrows() as isize / 2;
    let taps: Vec<(isize, isize, f64)> = kernel
        .indexed_iter()
        // A small disk on its grid has many zeros, which would take as long as the others.
        .filter(|&(_, &weight)| weight != 0.0)
        .map(|((y, x), &weight)| (y as isize - radius, x as isize - radius, weight))
        .collect();
    Array2::from_shape_fn((height, width), |(y, x)| {
        let at = |dy: isize, dx: isize| {
            // OpenCV's default border. Its filter correlates, which is the same for a kernel that is symmetric.
            plane[[Border::Mirror.inside(y as isize + dy, height), Border::Mirror.inside(x as isize + dx, width)]]
        };
        taps.iter().map(|&(dy, dx, weight)| weight * at(dy, dx)).sum()
    })
}

/// Applies `act` to each channel.
pub(crate) fn each_channel(image: &Array3<f64>, act: impl Fn(ArrayView2<f64>) -> Array2<f64>) -> Array3<f64> {
    let mut out = Array3::zeros(image.dim());
    for channel in 0..image.len_of(Axis(2)) {
        out.index_axis_mut(Axis(2), channel).assign(&act(image.index_axis(Axis(2), channel)));
    }
    out
}

/// The middle of a plane enlarged by `factor` ≥ 1, to about its own size, with linear interpolation between corners.
pub(crate) fn zoomed(plane: ArrayView2<f64>, factor: f64) -> Array2<f64> {
    let (height, width) = plane.dim();
    let part = |side: usize| (side as f64 / factor).ceil() as usize;
    let (part_height, part_width) = (part(height), part(width));
    let (top, left) = ((height - part_height) / 2, (width - part_width) / 2);
    // SciPy's `zoom` rounds ties to even, and has the corners of both grids coincide.
    let enlarged = |side: usize| (side as f64 * factor).round_ties_even() as usize;
    let (new_height, new_width) = (enlarged(part_height), enlarged(part_width));
    let step = |from: usize, to: usize| if to > 1 { (from - 1) as f64 / (to - 1) as f64 } else { 0.0 };
    let (step_y, step_x) = (step(part_height, new_height), step(part_width, new_width));
    let middle = plane.slice(ndarray::s![top..top + part_height, left..left + part_width]);
    Array2::from_shape_fn((new_height, new_width), |(y, x)| {
        interpolated(middle, y as f64 * step_y, x as f64 * step_x, Border::Nearest)
    })
}

/// The value between four pixels, linear in both directions.
pub(crate) fn interpolated(plane: ArrayView2<f64>, y: f64, x: f64, border: Border) -> f64 {
    let (height, width) = plane.dim();
    let (below, right) = (y - y.floor(), x - x.floor());
    let at = |dy: isize, dx: isize| {
        plane[[border.inside(y.floor() as isize + dy, height), border.inside(x.floor() as isize + dx, width)]]
    };
    let upper = at(0, 0) * (1.0 - right) + at(0, 1) * right;
    let lower = at(1, 0) * (1.0 - right) + at(1, 1) * right;
    upper * (1.0 - below) + lower * below
}

/// A plane blurred along one direction, `angle` (degrees), with weights that fall off.
pub(crate) fn motion(plane: ArrayView2<f64>, radius: usize, deviation: f64, angle: f64) -> Array2<f64> {
    let (height, width) = plane.dim();
    let steps = 2 * radius + 1;
    let weight = |step: usize| (-((step * step) as f64) / (2.0 * deviation * deviation)).exp();
    let total: f64 = (0..steps).map(weight).sum();
    let (down, right) = angle.to_radians().sin_cos();
    let mut blurred = Array2::zeros((height, width));
    for step in 0..steps {
        // The package's rounding, in which a half goes down before the sign is turned.
        let dy = -(step as f64 * down - 0.5).ceil() as isize;
        let dx = -(step as f64 * right - 0.5).ceil() as isize;
        if dy.unsigned_abs() >= height || dx.unsigned_abs() >= width {
            // As in the package: what is left of the weights is missing, so that the picture gets darker.
            break;
        }
        let share = weight(step) / total;
        for ((y, x), value) in blurred.indexed_iter_mut() {
            let source_y = Border::Nearest.inside(y as isize - dy, height);
            let source_x = Border::Nearest.inside(x as isize - dx, width);
            *value += share * plane[[source_y, source_x]];
        }
    }
    blurred
}

/// Clouds (0–1) on a square of `side` (a power of two), by the diamond-square method; a smaller `decay` is rougher.
pub(crate) fn clouds(side: usize, decay: f64, uniform: &mut impl FnMut(f64, f64) -> f64) -> Array2<f64> {
    let mut map = Array2::<f64>::zeros((side, side));
    let (mut step, mut wobble) = (side, 100.0);
    while step >= 2 {
        let (half, count) = (step / 2, side / step);
        // The map closes over its edges, as the package's does by `np.roll`.
        let around = |place: usize| place % count;
        let corner = |map: &Array2<f64>, i: usize, j: usize| map[[around(i) * step, around(j) * step]];
        let center = |map: &Array2<f64>, i: usize, j: usize| map[[half + around(i) * step, half + around(j) * step]];
        // The draw and its factor both have `wobble`, so that its square decides. It reads like a slip, but the goldens
        // have it.
        let mut place = |sum: f64| sum / 4.0 + wobble * uniform(-wobble, wobble);
        for i in 0..count {
            for j in 0..count {
                let sum =
                    corner(&map, i, j) + corner(&map, i + 1, j) + corner(&map, i, j + 1) + corner(&map, i + 1, j + 1);
                map[[half + i * step, half + j * step]] = place(sum);
            }
        }
        for i in 0..count {
            for j in 0..count {
                let across = center(&map, i, j) + center(&map, i + count - 1, j);
                let along = corner(&map, i, j) + corner(&map, i, j + 1);
                map[[i * step, half + j * step]] = place(across + along);
            }
        }
        for i in 0..count {
            for j in 0..count {
                let along = center(&map, i, j) + center(&map, i, j + count - 1);
                let across = corner(&map, i, j) + corner(&map, i + 1, j);
                map[[half + i * step, j * step]] = place(along + across);
            }
        }
        step /= 2;
        wobble /= decay;
    }
    let low = map.fold(f64::INFINITY, |low, &value| low.min(value));
    let high = map.fold(f64::NEG_INFINITY, |high, &value| high.max(value));
    map.mapv(|value| (value - low) / (high - low))
}
