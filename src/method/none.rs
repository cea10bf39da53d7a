//! `none`: nothing is tuned; the views are averaged by their reliability, R-TPT's ensemble alone.

use ndarray::ArrayView2;

use super::settings::MethodSettings;
use super::{Decide, Decision, Material};
use crate::products::{Real, scaled_products};
use crate::reliability::{ReliabilitySettings, reliability_weights};
use crate::rows::weighted_sum;

/// The method.
struct Ensemble;

/// The method; it needs nothing of the material.
pub fn prepare<T: Real>(_: Material<T>, _: &MethodSettings) -> Box<dyn Decide<T>> {
    Box::new(Ensemble)
}

impl<T: Real> Decide<T> for Ensemble {
    fn decide(&self, features: ArrayView2<T>, classes: ArrayView2<T>, scale: T) -> Decision<T> {
        let logits = scaled_products(scale, features, classes);
        let weights = reliability_weights(features, ReliabilitySettings::RTPT);
        let prediction = weighted_sum(weights.view(), logits.view());
        Decision::untuned(logits, weights, prediction)
    }
}
