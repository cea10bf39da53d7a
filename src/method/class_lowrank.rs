//! `class-lowrank`: θ are coefficients Γ `[C, r]`, at first 0; `T' = unit rows of (T + Γ Bᵀ)`.
//!
//! B `[D, r]` are the directions in which the class embeddings differ most: the top right singular vectors of
//! `T - mean(T)`. A shift outside that space tells no classes apart; STS (NeurIPS 2025) steers in such a space.

use ndarray::{Array2, ArrayView2, Axis};

use super::class_tuning::{ClassTuning, Head};
use super::parameters::RANK;
use super::settings::MethodSettings;
use super::{Decide, Decision, Material};
use crate::directions::Directions;
use crate::products::{Real, add_product, scaled_products};
use crate::rows::{UnitRows, unit_rows, unit_rows_backward};

/// The method for one label set.
struct Prepared<T> {
    tuning: ClassTuning,
    basis: Array2<T>,
}

/// The method, with the directions of the material's classes.
pub fn prepare<T: Real>(material: Material<T>, settings: &MethodSettings) -> Box<dyn Decide<T>> {
    // Over all classes, whatever a cut-off leaves out for one image: the decomposition is done once a label set.
    let basis = class_basis(material.classes, settings.count(&RANK));
    Box::new(Prepared { tuning: ClassTuning::of(settings), basis })
}

impl<T: Real> Decide<T> for Prepared<T> {
    fn decide(&self, features: ArrayView2<T>, classes: ArrayView2<T>, scale: T) -> Decision<T> {
        let basis = self.basis.view();
        self.tuning.decide(features, classes, scale, |descent, classes| descent.run(&ClassLowrank { classes, basis }))
    }
}

/// The head over the classes that are tuned.
pub struct ClassLowrank<'a, T> {
    /// Class embeddings T `[C, D]`, unit rows.
    pub classes: ArrayView2<'a, T>,
    /// The basis B `[D, r]`, orthonormal columns.
    pub basis: ArrayView2<'a, T>,
}

impl<T: Real> Head<T> for ClassLowrank<'_, T> {
    /// The shifted classes, and the lengths they had.
    type Tape = UnitRows<T>;

    fn start(&self) -> Array2<T> {
        Array2::zeros((self.classes.nrows(), self.basis.ncols()))
    }

    fn forward(&self, theta: &Array2<T>) -> UnitRows<T> {
        let mut moved = self.classes.to_owned();
        add_product(T::one(), theta.view(), self.basis.t(), T::one(), moved.view_mut());
        unit_rows(moved)
    }

    fn classes(tape: &UnitRows<T>) -> ArrayView2<'_, T> {
        tape.rows.view()
    }

    /// `dΓ = du B`, where u are the rows before they were brought to unit length.
    fn backward(&self, tape: &UnitRows<T>, mut dclasses: Array2<T>) -> Array2<T> {
        unit_rows_backward(tape.rows.view(), tape.lengths.view(), &mut dclasses);
        scaled_products(T::one(), dclasses.view(), self.basis.t())
    }

    fn into_classes(tape: UnitRows<T>) -> Array2<T> {
        tape.rows
    }
}

/// The top right singular vectors of `classes - mean`, as the columns of B `[D, r]`.
///
/// r is `rank`, or fewer where the classes span fewer directions. The result of tuning does not depend on the sign of a
/// column.
pub fn class_basis<T: Real>(classes: ArrayView2<T>, rank: usize) -> Array2<T> {
    // In f64 before the mean is subtracted: class embeddings are alike, so that most of their digits cancel.
    let mut centered = classes.mapv(|value| value.to_f64().unwrap_or(f64::NAN));
    let mean = centered.mean_axis(Axis(0)).unwrap_or_default();
    centered -= &mean;
    Directions::of(centered.view()).basis(rank)
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_basis_spans_the_differences_of_the_classes() {
        // Differences lie in the first two axes, mostly in the second.
        let classes = array![[0.1, 2.0, 5.0], [-0.1, -2.0, 5.0], [0.2, 0.0, 5.0], [-0.2, 0.0, 5.0], [0.0, 0.0, 5.0]];
        for classes in [classes.clone(), classes.slice(ndarray::s![..2, ..]).to_owned()] {
            let basis = class_basis(classes.view(), 3);
            let expected = classes.nrows().min(3) - 1;
            assert_eq!(basis.dim(), (3, expected), "no direction along the mean");
            assert!(basis[[1, 0]] > 0.99 && basis.row(2).iter().all(|x: &f64| x.abs() < 1e-9), "{basis}");
            let products = basis.t().dot(&basis);
            assert!((products - Array2::<f64>::eye(expected)).iter().all(|x| x.abs() < 1e-9));
        }
        assert_eq!(class_basis(classes.view(), 1).ncols(), 1);
    }
}
