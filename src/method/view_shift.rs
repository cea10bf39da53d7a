//! `view-shift` (T-VSS): θ are coefficients a `[1, m]`, at first 0; `F' = unit rows of (F + 1·(B a)ᵀ)`.
//!
//! The views move, not the classes: all by the same vector, within the few directions B `[D, m]` in which the views
//! differ from the clean one. B is made from the image at hand and is constant during its episode.

use ndarray::{Array1, Array2, ArrayView2, Axis};

use super::decision::Tuned;
use super::parameters::{SELECTION, STEPS};
use super::settings::MethodSettings;
use super::{Decide, Decision, Material};
use crate::directions::{Directions, residuals};
use crate::products::{Real, add_product, scaled_products};
use crate::reliability::{ReliabilitySettings, reliability_weights};
use crate::rows::{UnitRows, softmax, unit_rows, unit_rows_backward};
use crate::tuning::{AdamW, AdamWSettings, confident_views, weighted_entropy, weighted_entropy_backward};

/// Share of the residuals' energy that the directions hold (T-VSS: 90 %).
const ENERGY: f64 = 0.9;

/// The method.
struct Prepared {
    steps: usize,
    selection: f64,
    optimizer: AdamWSettings,
}

/// The method; its directions are made of each image.
pub fn prepare<T: Real>(_: Material<T>, settings: &MethodSettings) -> Box<dyn Decide<T>> {
    let (steps, selection) = (settings.count(&STEPS), settings.number(&SELECTION));
    Box::new(Prepared { steps, selection, optimizer: settings.optimizer() })
}

impl<T: Real> Decide<T> for Prepared {
    /// Minimises the weighted entropy of the selected views by a shift of all, then averages their probabilities.
    ///
    /// With every view selected, as is the default, the loss is the paper's `Σ w_i H_i`.
    fn decide(&self, features: ArrayView2<T>, classes: ArrayView2<T>, scale: T) -> Decision<T> {
        let logits = scaled_products(scale, features, classes);
        let selected = confident_views(logits.view(), self.selection);
        let weights = reliability_weights(features, ReliabilitySettings::TVSS);
        let basis = view_basis(features);
        // A single view, or views that are all alike: there is no direction to shift in.
        if basis.ncols() == 0 {
            let prediction = mixed_prediction(logits.view(), &weights);
            return Decision { selected, ..Decision::untuned(logits, weights, prediction) };
        }
        let (theta, losses) = self.tune(features, classes, scale, &selected, &weights, basis.view());
        // The loss looks at the selected views alone, but the shift it finds moves all of them.
        let moved = ViewShift { features, basis: basis.view() }.forward(&theta).rows;
        let prediction = mixed_prediction(scaled_products(scale, moved.view(), classes).view(), &weights);
        let tuned = Tuned::Features(moved);
        Decision { selected, losses, tuned, ..Decision::untuned(logits, weights, prediction) }
    }
}

impl Prepared {
    /// θ after the steps, and the loss before each.
    fn tune<T: Real>(
        &self,
        features: ArrayView2<T>,
        classes: ArrayView2<T>,
        scale: T,
        selected: &[usize],
        weights: &Array1<T>,
        basis: ArrayView2<T>,
    ) -> (Array2<T>, Vec<T>) {
        let picked = features.select(Axis(0), selected);
        // They need not sum to 1: the loss divides by their sum.
        let weights: Array1<T> = selected.iter().map(|&view| weights[view]).collect();
        let head = ViewShift { features: picked.view(), basis };
        let mut theta = head.start();
        let mut losses = Vec::with_capacity(self.steps);
        let mut optimizer = AdamW::new(self.optimizer, self.steps);
        for _ in 0..self.steps {
            let tape = head.forward(&theta);
            let (loss, entropy_tape) =
                weighted_entropy(&scaled_products(scale, tape.rows.view(), classes), weights.view());
            losses.push(loss);
            let dlogits = weighted_entropy_backward(entropy_tape, weights.view());
            // dF' = s dZ T.
            let dfeatures = scaled_products(scale, dlogits.view(), classes.t());
            let dtheta = head.backward(&tape, dfeatures);
            optimizer.step(&mut theta, &dtheta);
        }
        (theta, losses)
    }
}

/// `ln Σ w_i softmax(z_i)`, `[C]`, of logits `[V, C]`.
fn mixed_prediction<T: Real>(logits: ArrayView2<T>, weights: &Array1<T>) -> Array1<T> {
    let mut mixed = Array1::zeros(logits.ncols());
    for (row, &weight) in logits.rows().into_iter().zip(weights) {
        mixed.scaled_add(weight, &softmax(row));
    }
    // A decision holds logits, and the softmax of ln p is p.
    mixed.mapv(T::ln)
}

/// The head over the views that the loss looks at, or over all.
pub struct ViewShift<'a, T> {
    /// Features F `[V, D]`, unit rows.
    pub features: ArrayView2<'a, T>,
    /// The basis B `[D, m]`, orthonormal columns.
    pub basis: ArrayView2<'a, T>,
}

/// The directions `[D, m]` in which views 1..V differ from view 0: the fewest that hold 90 % of the energy.
pub fn view_basis<T: Real>(features: ArrayView2<T>) -> Array2<T> {
    let directions = Directions::of(residuals(features).view());
    directions.basis(directions.rank(ENERGY))
}

impl<T: Real> ViewShift<'_, T> {
    /// θ before the first step.
    pub fn start(&self) -> Array2<T> {
        Array2::zeros((1, self.basis.ncols()))
    }

    /// F' at `theta`.
    pub fn forward(&self, theta: &Array2<T>) -> UnitRows<T> {
        let shift = scaled_products(T::one(), theta.view(), self.basis);
        unit_rows(&self.features + &shift)
    }

    /// Gradient of θ from that of F', `[V, D]`: `da = Bᵀ Σ_i du_i`, where u are the rows before normalisation.
    pub fn backward(&self, tape: &UnitRows<T>, mut dfeatures: Array2<T>) -> Array2<T> {
        unit_rows_backward(tape.rows.view(), tape.lengths.view(), &mut dfeatures);
        // All views share one shift, so that their gradients add up before they meet the basis.
        let total = dfeatures.sum_axis(Axis(0)).insert_axis(Axis(0));
        let mut dtheta = self.start();
        add_product(T::one(), total.view(), self.basis, T::zero(), dtheta.view_mut());
        dtheta
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_basis_holds_nine_tenths_of_what_differs_from_the_clean_view() {
        let features = array![[1.0, 0.0, 0.0, 0.0], [1.0, 3.0, 0.0, 0.0], [1.0, -3.0, 0.1, 0.0], [1.0, 0.0, 0.0, 1.5]];
        let basis: Array2<f64> = view_basis(features.view());
        assert_eq!(basis.dim(), (4, 2), "18 of 20.26 along one axis are too few");
        assert!(basis[[1, 0]] > 0.99 && basis[[3, 1]] > 0.99 && basis.row(0).iter().all(|x| x.abs() < 1e-12));
        assert_eq!(view_basis(features.slice(ndarray::s![..1, ..])).ncols(), 0, "one view differs from nothing");
    }

    #[test]
    fn every_view_moves_by_the_same_vector() {
        let features = array![[1.0, 0.0], [0.6, 0.8]];
        let basis = array![[0.0], [1.0]];
        let head = ViewShift { features: features.view(), basis: basis.view() };
        let moved = head.forward(&array![[2.0]]);
        assert!((&moved.lengths - &array![5.0_f64.sqrt(), (0.36_f64 + 7.84).sqrt()]).iter().all(|x| x.abs() < 1e-12));
        assert!((moved.rows[[1, 0]] * moved.lengths[1] - 0.6).abs() < 1e-12);
    }
}
