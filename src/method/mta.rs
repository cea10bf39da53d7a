//! MTA: the mode of the views' features by mean shift, with an inlierness for each view (Zanella and Ben Ayed,
//! "On the test-time zero-shot generalization of vision-language models", CVPR 2024, section 3).

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

use super::settings::MethodSettings;
use super::{Decide, Decision, Material};
use crate::products::{Real, scaled_products};
use crate::rows::{dot, length, softmax, weighted_sum};

/// Share of a view's nearest other views that its bandwidth is made of.
const NEIGHBOURS: f64 = 0.3;
/// λ_y: how evenly the inlierness is spread.
const SPREAD: f64 = 0.2;
/// λ_q: how much views with the same prediction support one another.
const AFFINITY: f64 = 4.0;
/// Most rounds, and most iterations of each of the two steps of a round.
const ROUNDS: usize = 5;
/// A step ends when its result moves by less than this.
const MOVE_MIN: f64 = 1e-6;

/// The method.
struct Mta;

/// The method; it needs nothing of the material.
pub fn prepare<T: Real>(_: Material<T>, _: &MethodSettings) -> Box<dyn Decide<T>> {
    Box::new(Mta)
}

impl<T: Real> Decide<T> for Mta {
    fn decide(&self, features: ArrayView2<T>, classes: ArrayView2<T>, scale: T) -> Decision<T> {
        let logits = scaled_products(scale, features, classes);
        let mode = mean_shift(features, logits.view());
        let prediction = mode.logits(classes, scale);
        Decision::untuned(logits, mode.weights, prediction)
    }
}

/// The mode of the views' features.
pub struct Mode<T> {
    /// The mode `[D]`, of unit length.
    pub mode: Array1<T>,
    /// Contribution of each view to the mode, `[V]`, summing to 1.
    pub weights: Array1<T>,
}

/// The mode of `features` F `[V, D]` (unit rows), whose logits `[V, C]` say which views predict alike.
///
/// It starts from view 0. As in the authors' code a view's bandwidth is made of its distances to 30 % of the views,
/// λ_y = 0.2, λ_q = 4, and every loop ends after five passes; equal views, which have no bandwidth, get the smallest.
pub fn mean_shift<T: Real>(features: ArrayView2<T>, logits: ArrayView2<T>) -> Mode<T> {
    let views = features.nrows();
    let (spread, affinity_weight) = (real::<T>(SPREAD), real::<T>(AFFINITY));
    let bandwidths = squared_bandwidths(features);
    let mut probabilities = Array2::zeros(logits.dim());
    for (mut row, logits) in probabilities.rows_mut().into_iter().zip(logits.rows()) {
        row.assign(&softmax(logits));
    }
    // The inner product of two predictions is large where both are certain of the same class.
    let affinity = scaled_products(T::one(), probabilities.view(), probabilities.view());
    let mut inlierness = Array1::from_elem(views, T::one() / real(views as f64));
    let mut mode = features.row(0).to_owned();
    let mut weights = Array1::zeros(views);
    for _ in 0..ROUNDS {
        // The mode stands still while the inlierness is found.
        let density = densities(features, mode.view(), &bandwidths);
        for _ in 0..ROUNDS {
            let support = affinity.rows().into_iter().map(|row| dot(row, inlierness.view()));
            let scores: Array1<T> = support
                .zip(&density)
                .map(|(support, &density)| (density + affinity_weight * support) / spread)
                .collect();
            let moved = std::mem::replace(&mut inlierness, softmax(scores.view()));
            if length((&moved - &inlierness).view()) < real(MOVE_MIN) {
                break;
            }
        }
        for _ in 0..ROUNDS {
            weights = densities(features, mode.view(), &bandwidths) * &inlierness;
            weights /= weights.sum();
            let mean = weighted_sum(weights.view(), features);
            let scale = T::one() / length(mean.view());
            let moved = std::mem::replace(&mut mode, mean.mapv(|value| value * scale));
            if length((&moved - &mode).view()) < real(MOVE_MIN) {
                break;
            }
        }
    }
    Mode { mode, weights }
}

/// A Gaussian kernel around `mode`, of each view's own bandwidth: `[V]`.
fn densities<T: Real>(features: ArrayView2<T>, mode: ArrayView1<T>, bandwidths: &Array1<T>) -> Array1<T> {
    let two = real::<T>(2.0);
    features
        .rows()
        .into_iter()
        .zip(bandwidths)
        .map(|(row, &bandwidth)| (-squared_distance(row, mode) / (two * bandwidth)).exp())
        .collect()
}

/// Half the mean squared distance to the nearest other views, `[V]`.
fn squared_bandwidths<T: Real>(features: ArrayView2<T>) -> Array1<T> {
    let views = features.nrows();
    // The view itself is no neighbour. A single view has none at all: its mean is 0.
    let count = ((views.saturating_sub(1) as f64 * NEIGHBOURS) as usize).max(1);
    let (half, two) = (real::<T>(0.5), real::<T>(2.0));
    let products = scaled_products(T::one(), features, features);
    let of_view = |view: usize| {
        let others = (0..views).filter(|&other| other != view);
        // |a - b|² = |a|² + |b|² - 2 a·b, which rounding may bring below 0.
        let distance = |other: usize| {
            (products[[view, view]] + products[[other, other]] - two * products[[view, other]]).max(T::zero())
        };
        let mut distances: Vec<T> = others.map(distance).collect();
        // Features are finite, so that any two distances compare.
        distances.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        let nearest = &distances[..count.min(distances.len())];
        let mean = nearest.iter().fold(T::zero(), |sum, &distance| sum + distance) / real(nearest.len().max(1) as f64);
        (half * mean).max(T::epsilon())
    };
    (0..views).map(of_view).collect()
}

fn squared_distance<T: Real>(a: ArrayView1<T>, b: ArrayView1<T>) -> T {
    a.iter().zip(b).fold(T::zero(), |sum, (&x, &y)| sum + (x - y) * (x - y))
}

fn real<T: Real>(value: f64) -> T {
    T::from(value).expect("a small number fits in any float")
}

impl<T: Real> Mode<T> {
    /// The logits `[C]` of the mode, for classes T `[C, D]` and logit scale s.
    pub fn logits(&self, classes: ArrayView2<T>, scale: T) -> Array1<T> {
        scaled_products(scale, self.mode.view().insert_axis(Axis(0)), classes).remove_axis(Axis(0))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn an_odd_first_view_does_not_keep_the_mode() {
        // View 0 and view 4 are alone; the others are near one another and predict alike.
        let rows = array![[0.3, 1.0], [1.0, 0.6], [1.0, 0.0], [1.0, -0.4], [-1.0, 0.1], [1.0, 0.2]];
        let features = crate::rows::unit_rows(rows).rows;
        let classes = array![[1.0_f64, 0.0], [0.0, 1.0]];
        let logits = scaled_products(10.0, features.view(), classes.view());
        let found = mean_shift(features.view(), logits.view());
        assert!(found.mode[0] > 0.8, "{}", found.mode);
        assert!((found.weights.sum() - 1.0).abs() < 1e-12 && found.weights[4] < 1e-2, "{}", found.weights);
        let answer = found.logits(classes.view(), 10.0);
        assert!((answer[0] - 10.0 * found.mode[0]).abs() < 1e-12 && answer[0] > answer[1], "{answer}");
    }

    #[test]
    fn equal_views_and_a_single_one_are_their_own_mode() {
        for views in [1, 5] {
            let features = Array2::from_shape_fn((views, 2), |(_, column)| [0.6_f32, 0.8][column]);
            let found = mean_shift(features.view(), Array2::zeros((views, 3)).view());
            assert!((&found.mode - &array![0.6, 0.8]).iter().all(|x| x.abs() < 1e-6), "{}", found.mode);
            assert!(found.weights.iter().all(|w| (w - 1.0 / views as f32).abs() < 1e-6));
        }
    }
}
