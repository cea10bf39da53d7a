//! `view-shift` (T-VSS): θ are coefficients a `[1, m]`, at first 0; `F' = unit rows of (F + 1·(B a)ᵀ)`.
//!
//! Not the classes move but the views, all by the same vector, within the few directions B `[D, m]` in which the views
//! differ from the clean one. B is made of the image at hand and is a constant of its episode.

use ndarray::{Array2, ArrayView2, Axis};

use crate::directions::Directions;
use crate::rows::{Real, UnitRows, add_product, scaled_products, unit_rows, unit_rows_backward};

/// Share of the residuals' energy that the directions hold (T-VSS: 90 %).
const ENERGY: f64 = 0.9;

/// The head for one image.
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

/// The rows `f_i - f_0` for i ≥ 1, `[V-1, D]`.
pub fn residuals<T: Real>(features: ArrayView2<T>) -> Array2<T> {
    let (clean, others) = features.split_at(Axis(0), 1);
    &others - &clean
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
