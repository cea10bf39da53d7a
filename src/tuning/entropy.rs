//! Entropy of predictions, per view and as a loss, with its gradient.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, NdFloat};

use crate::rows::{entropy, log_softmax_inplace};

/// Entropy (nats) of each view's prediction: `logits` `[V, C]` to `[V]`.
pub(crate) fn entropies<T: NdFloat>(logits: ArrayView2<T>) -> Array1<T> {
    logits.rows().into_iter().map(entropy).collect()
}

/// Intermediates of the forward pass that [`mean_entropy_backward`] needs.
pub struct EntropyTape<T> {
    /// `ln softmax(z)` `[S, C]`.
    pub log_probs: Array2<T>,
    /// Entropy of each view `[S]` (nats).
    pub entropies: Array1<T>,
}

/// R-TPT's loss: the mean of the views' own entropies. `logits` `[S, C]`, one row a selected view.
///
/// TPT also has the entropy of the averaged prediction in its loss; R-TPT (section 3.2) drops that term, because
/// it pulls all views, attacked ones too, towards one answer.
pub fn mean_entropy<T: NdFloat>(logits: &Array2<T>) -> (T, EntropyTape<T>) {
    weighted_entropy(logits, Array1::from_elem(logits.nrows(), T::one()).view())
}

/// Gradient of [`mean_entropy`] with respect to the logits, `[S, C]`.
pub fn mean_entropy_backward<T: NdFloat>(tape: EntropyTape<T>) -> Array2<T> {
    let weights = Array1::from_elem(tape.entropies.len(), T::one());
    weighted_entropy_backward(tape, weights.view())
}

/// The mean of the views' own entropies with weights `[S]`, which need not sum to 1: `Σ w_i H_i / Σ w_i`.
pub fn weighted_entropy<T: NdFloat>(logits: &Array2<T>, weights: ArrayView1<T>) -> (T, EntropyTape<T>) {
    // From log-probabilities p ln p needs no logarithm of a probability that has become 0.
    let mut log_probs = logits.as_standard_layout().into_owned();
    for mut row in log_probs.rows_mut() {
        log_softmax_inplace(row.as_slice_mut().expect("rows of an owned standard-layout array are contiguous"));
    }
    let entropy_of = |row: ArrayView1<T>| row.iter().fold(T::zero(), |sum, &log_prob| sum - log_prob.exp() * log_prob);
    let entropies: Array1<T> = log_probs.rows().into_iter().map(entropy_of).collect();
    let loss = (&entropies * &weights).sum() / weights.sum();
    (loss, EntropyTape { log_probs, entropies })
}

/// Gradient of [`weighted_entropy`] with respect to the logits, `[S, C]`.
///
/// With `p = softmax(z)` and `H` a view's entropy, `dH/dz_c = -p_c (ln p_c + H)`.
pub fn weighted_entropy_backward<T: NdFloat>(tape: EntropyTape<T>, weights: ArrayView1<T>) -> Array2<T> {
    // The tape comes by value, so that the gradient can be written over the log-probabilities.
    let EntropyTape { log_probs: mut dlogits, entropies } = tape;
    let total = weights.sum();
    for ((mut row, &entropy), &weight) in dlogits.rows_mut().into_iter().zip(&entropies).zip(weights) {
        row.mapv_inplace(|log_prob| -log_prob.exp() * (log_prob + entropy) * weight / total);
    }
    dlogits
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn uniform_and_certain_predictions_have_the_textbook_entropies() {
        let logits = array![[0.0, 0.0, 0.0, 0.0], [0.0, 2000.0, 0.0, 0.0]];
        let found = entropies(logits.view());
        assert!((found[0] - 4.0_f64.ln()).abs() < 1e-12);
        assert!(found[1].abs() < 1e-12);
        let (mean, _) = mean_entropy(&logits);
        assert!((mean - 4.0_f64.ln() / 2.0).abs() < 1e-12);
    }

    #[test]
    fn gradient_agrees_with_central_differences() {
        let logits = array![[1.0, -0.5, 0.2], [3.0, 2.9, -4.0]];
        let weights = array![0.3, 1.9];
        let gradient = weighted_entropy_backward(mean_entropy(&logits).1, weights.view());
        for index in ndarray::indices(logits.dim()) {
            let loss = |h: f64| {
                let mut moved = logits.clone();
                moved[index] += h;
                weighted_entropy(&moved, weights.view()).0
            };
            let numeric = (loss(1e-5) - loss(-1e-5)) / 2e-5;
            assert!((numeric - gradient[index]).abs() < 1e-9, "{index:?}: {numeric} {}", gradient[index]);
        }
    }
}
