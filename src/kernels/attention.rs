//! Attention of one head after the other: `softmax(scale Q Kᵀ) V`.

use super::activation::Activation;
use super::float::{FloatKernel, FloatWeights};
use super::matrix::{Rows, RowsMut};
use super::norm::softmax;
use super::tiles::Epilogue;

/// Memory of an attention, which is used again.
#[derive(Debug)]
pub(crate) struct Attention {
    kernel: FloatKernel,
    keys: FloatWeights,
    values: FloatWeights,
    scores: Vec<f32>,
    zeros: Vec<f32>,
}

impl Attention {
    /// An attention that asks `keys` keys of `width` values, for values of `out` values.
    pub(crate) fn new(kernel: FloatKernel, keys: usize, width: usize, out: usize) -> Self {
        // Scores of whole vectors: those beyond the last key are 0, and nobody asks for them.
        let padded = keys.next_multiple_of(kernel.panel() / 2);
        Self {
            kernel,
            keys: FloatWeights::pack(kernel, width, padded, |_, _| 0.0),
            values: FloatWeights::pack(kernel, keys, out, |_, _| 0.0),
            scores: Vec::new(),
            zeros: vec![0.0; padded.max(out).next_multiple_of(kernel.panel())],
        }
    }

    /// `softmax(scale Q Kᵀ) V` of `queries` Q `[L, D]`, `keys` K `[M, D]` and `values` V `[M, E]` into `out`, `[L, E]`.
    pub(crate) fn run(&mut self, queries: Rows<f32>, keys: Rows<f32>, values: Rows<f32>, scale: f32, out: RowsMut) {
        self.keys.set_transposed(keys);
        self.values.set(values);
        let (width, padded) = (keys.count, self.keys.columns());
        self.scores.resize(queries.count * padded, 0.0);
        let plain = Epilogue { bias: &self.zeros, residual: None, activation: Activation::None };
        self.keys.multiply(queries, plain, RowsMut::new(&mut self.scores, padded));
        softmax(self.kernel, &mut self.scores, (width, padded), scale);
        self.values.multiply(Rows::strided(&self.scores, queries.count, width, padded), plain, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::noise;

    #[test]
    fn attention_is_its_formula_on_every_kernel() {
        for (asked, length, width, out) in [(1, 1, 1, 1), (3, 50, 64, 64), (50, 50, 8, 24), (5, 33, 12, 40)] {
            let (queries, keys, values) = (noise(1, asked * width), noise(2, length * width), noise(3, length * out));
            for kernel in FloatKernel::available() {
                let mut attention = Attention::new(kernel, length, width, out);
                let mut found = vec![f32::NAN; asked * out];
                // The second run uses the memory of the first.
                for scale in [0.1, 2.0] {
                    let [queries, keys] = [&queries, &keys].map(|rows| Rows::new(rows, width));
                    attention.run(queries, keys, Rows::new(&values, out), scale, RowsMut::new(&mut found, out));
                }
                for (query, found) in queries.chunks(width).zip(found.chunks(out)) {
                    let product =
                        |key: &[f32]| query.iter().zip(key).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
                    let scores: Vec<f64> = keys.chunks(width).map(|key| (2.0 * product(key)).exp()).collect();
                    let sum: f64 = scores.iter().sum();
                    for (column, &found) in found.iter().enumerate() {
                        let parts =
                            scores.iter().zip(values.chunks(out)).map(|(score, row)| score * f64::from(row[column]));
                        assert!((parts.sum::<f64>() / sum - f64::from(found)).abs() < 1e-5, "{kernel:?}");
                    }
                }
            }
        }
    }
}
