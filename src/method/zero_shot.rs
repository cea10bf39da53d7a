//! `zero-shot`: CLIP as it is, the clean view alone.

use ndarray::{Array1, ArrayView2, Axis};

use super::settings::MethodSettings;
use super::{Decide, Decision, Material};
use crate::products::{Real, scaled_products};

/// The method.
struct ZeroShot;

/// The method; it needs nothing of the material.
pub fn prepare<T: Real>(_: Material<T>, _: &MethodSettings) -> Box<dyn Decide<T>> {
    Box::new(ZeroShot)
}

impl<T: Real> Decide<T> for ZeroShot {
    fn decide(&self, features: ArrayView2<T>, classes: ArrayView2<T>, scale: T) -> Decision<T> {
        let (clean, others) = features.split_at(Axis(0), 1);
        // Of the clean view alone: one row of logits tells an answer that there are no others to compare with.
        let logits = scaled_products(scale, clean, classes);
        let mut weights = Array1::zeros(1 + others.nrows());
        weights[0] = T::one();
        let prediction = logits.row(0).to_owned();
        Decision::untuned(logits, weights, prediction)
    }
}
