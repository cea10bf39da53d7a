//! Selection of the views that a loss is computed over.

use ndarray::ArrayView2;

use super::entropy::entropies;
use crate::products::Real;

/// The views of `logits` `[V, C]` that [`select_confident`] selects.
pub(crate) fn confident_views<T: Real>(logits: ArrayView2<T>, fraction: f64) -> Vec<usize> {
    let entropies = entropies(logits);
    let as_f64: Vec<f64> = entropies.iter().map(|value| value.to_f64().unwrap_or(f64::NAN)).collect();
    select_confident(&as_f64, fraction)
}

/// The indices of the `floor(fraction · V)` views of least entropy, at least one, in order of entropy.
///
/// `fraction` is in 0–1 (R-TPT: 0.1). Equals go by index; NaN counts as the largest entropy.
pub(crate) fn select_confident(entropies: &[f64], fraction: f64) -> Vec<usize> {
    // Cut like `int(n * fraction)` in R-TPT's code, so that a product just below a whole number counts as it does
    // there. `clamp` panics without any view, but an image has at least one.
    let count = ((entropies.len() as f64 * fraction) as usize).clamp(1, entropies.len());
    let key = |index: usize| if entropies[index].is_nan() { f64::INFINITY } else { entropies[index] };
    let mut order: Vec<usize> = (0..entropies.len()).collect();
    order.sort_by(|&a, &b| key(a).total_cmp(&key(b)).then(a.cmp(&b)));
    order.truncate(count);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_floor_of_the_fraction_and_at_least_one() {
        let entropies: Vec<f64> = (0..64).rev().map(f64::from).collect();
        assert_eq!(select_confident(&entropies, 0.1), [63, 62, 61, 60, 59, 58]);
        assert_eq!(select_confident(&entropies[..9], 0.1), [8]);
        assert_eq!(select_confident(&[1.0], 0.1), [0]);
        assert_eq!(select_confident(&[2.0, 1.0], 1.0), [1, 0]);
    }

    #[test]
    fn equals_go_by_index_and_nan_comes_last() {
        assert_eq!(select_confident(&[f64::NAN, 1.0, 0.5, 1.0], 0.8), [2, 1, 3]);
    }
}
