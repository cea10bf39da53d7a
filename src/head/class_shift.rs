//! `class-shift`: θ is a shift Δ `[C, D]` of the class embeddings, at first 0; `T' = unit rows of (T + Δ)`.

use ndarray::{Array1, Array2, ArrayView2, CowArray, Ix2, NdFloat};

use crate::rows::{UnitRows, scaled_products, unit_rows, unit_rows_backward};

/// The head for one label set.
pub struct ClassShift<'a, T> {
    /// Class embeddings T `[C, D]`, unit rows.
    pub classes: ArrayView2<'a, T>,
    /// Logit scale s.
    pub scale: T,
}

/// What [`ClassShift::backward`] needs from the forward pass.
pub struct ClassShiftTape<'a, T> {
    /// The shifted classes T' `[C, D]`, unit rows.
    shifted: CowArray<'a, T, Ix2>,
    /// The lengths `[C]` of T + Δ.
    lengths: Array1<T>,
}

impl<T: NdFloat> ClassShiftTape<'_, T> {
    /// The shifted classes T' `[C, D]`, unit rows.
    pub fn into_classes(self) -> Array2<T> {
        self.shifted.into_owned()
    }
}

impl<'a, T: NdFloat> ClassShift<'a, T> {
    /// The shifted classes at θ = 0, where they are the classes themselves: no copy is made.
    pub fn unshifted(&self) -> ClassShiftTape<'a, T> {
        ClassShiftTape { shifted: self.classes.into(), lengths: Array1::ones(self.classes.nrows()) }
    }

    /// The shifted classes at `theta` `[C, D]`, whose memory they take over.
    pub fn shift(&self, theta: Array2<T>) -> ClassShiftTape<'a, T> {
        let UnitRows { rows, lengths } = unit_rows(theta + self.classes);
        ClassShiftTape { shifted: rows.into(), lengths }
    }

    /// Logits `Z = s F T'ᵀ` `[N, C]` of `features` `[N, D]`.
    pub fn logits(&self, features: ArrayView2<T>, tape: &ClassShiftTape<T>) -> Array2<T> {
        scaled_products(self.scale, features, tape.shifted.view())
    }

    /// Gradient of θ `[C, D]` from the gradient `dlogits` `[N, C]` of the logits of `features` `[N, D]`.
    ///
    /// `dT' = s dZᵀ F`, then back through the row normalisation. The result is written to `dtheta`.
    pub fn backward(
        &self,
        features: ArrayView2<T>,
        tape: &ClassShiftTape<T>,
        dlogits: ArrayView2<T>,
        dtheta: &mut Array2<T>,
    ) {
        // A sum over few views: row by row it stays in the cache, and a general product is slower.
        for (mut row, column) in dtheta.rows_mut().into_iter().zip(dlogits.columns()) {
            row.fill(T::zero());
            for (&dlogit, feature) in column.iter().zip(features.rows()) {
                row.scaled_add(self.scale * dlogit, &feature);
            }
        }
        unit_rows_backward(tape.shifted.view(), tape.lengths.view(), dtheta);
    }
}
