//! Reliability of each view: R-TPT's reliability weights.

use ndarray::{Array1, Array2, ArrayView2};

use crate::products::{Real, scaled_products};
use crate::rows::softmax;

/// Settings of the reliability weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReliabilitySettings {
    /// Other views that a view's reliability is averaged over, k (count).
    pub neighbours: usize,
    /// Temperature τ of the softmax over the reliabilities, which are cosines.
    pub temperature: f64,
}

impl ReliabilitySettings {
    /// R-TPT's: k = 20, τ = 0.01.
    pub const RTPT: Self = Self { neighbours: 20, temperature: 0.01 };
    /// T-VSS's: k = 5, τ = 0.05.
    pub const TVSS: Self = Self { neighbours: 5, temperature: 0.05 };
}

/// Weights w `[V]`, summing to 1, from untuned unit-row features F `[V, D]`.
///
/// The reliability of a view is the mean cosine to its `min(k, V-1)` nearest other views; w is its softmax at
/// temperature τ. A single view has weight 1.
///
/// The view itself is left out by its index. R-TPT's reference code leaves out cosines ≥ 1.0 instead, which depends
/// on how the cosine of a vector with itself happens to round; the paper's text means the other views.
pub fn reliability_weights<T: Real>(features: ArrayView2<T>, settings: ReliabilitySettings) -> Array1<T> {
    let views = features.nrows();
    if views == 1 {
        return Array1::ones(1);
    }
    // The rows have unit length, so that products are cosines.
    let cosines = scaled_products(T::one(), features, features);
    let neighbours = settings.neighbours.min(views - 1);
    let temperature = T::from(settings.temperature).expect("the temperature fits in any float");
    let scores: Array1<T> = (0..views).map(|view| mean_of_nearest(&cosines, view, neighbours) / temperature).collect();
    softmax(scores.view())
}

fn mean_of_nearest<T: Real>(cosines: &Array2<T>, view: usize, neighbours: usize) -> T {
    let others = cosines.row(view).into_iter().enumerate().filter(|&(other, _)| other != view);
    let mut others: Vec<T> = others.map(|(_, &cosine)| cosine).collect();
    // The encoder refuses features that are not finite, so that any two cosines compare.
    others.sort_by(|a, b| b.partial_cmp(a).unwrap_or(std::cmp::Ordering::Equal));
    let count = T::from(neighbours).expect("a view count fits in any float");
    others[..neighbours].iter().fold(T::zero(), |sum, &cosine| sum + cosine) / count
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn weights_of<T: Real>(features: ArrayView2<T>) -> Array1<T> {
        reliability_weights(features, ReliabilitySettings::RTPT)
    }

    #[test]
    fn the_odd_view_out_loses_its_weight() {
        let features = array![[1.0, 0.0], [0.96, 0.28], [0.28, -0.96]];
        let weights = weights_of(features.view());
        // Mean cosines by hand: 0.62, 0.48, 0.14.
        let scores = array![(0.96 + 0.28) / 2.0, (0.96 + 0.0) / 2.0, (0.28 + 0.0) / 2.0] / 0.01;
        let expected = softmax(scores.view());
        assert!((&weights - &expected).iter().all(|error: &f64| error.abs() < 1e-9), "{weights}");
        assert!((weights.sum() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn equal_views_share_the_weight_and_one_view_has_it_all() {
        let same = Array2::from_shape_fn((30, 4), |_| 0.5_f32);
        assert!(weights_of(same.view()).iter().all(|w| (w - 1.0 / 30.0).abs() < 1e-6));
        assert_eq!(weights_of(array![[1.0_f32, 0.0]].view()), array![1.0]);
        let pair = array![[1.0_f32, 0.0], [0.0, 1.0]];
        assert_eq!(weights_of(pair.view()), array![0.5, 0.5]);
    }

    #[test]
    fn a_view_is_not_its_own_neighbour() {
        // 22 views: with k = 20 of 21 others, one's own cosine of 1 would raise the isolated view.
        let mut features = Array2::from_shape_fn((22, 2), |(_, column)| if column == 0 { 1.0_f64 } else { 0.0 });
        features.row_mut(21).assign(&array![0.0, 1.0]);
        let weights = weights_of(features.view());
        assert!(weights[21] < 1e-30, "{}", weights[21]);
    }
}
