//! `class-lowrank`: θ are coefficients Γ `[C, r]`, at first 0; `T' = unit rows of (T + Γ Bᵀ)`.
//!
//! B `[D, r]` are the directions in which the class embeddings differ most: the top right singular vectors of
//! `T - mean(T)`. A shift outside that space tells no classes apart; STS (NeurIPS 2025) steers in such a space.

use nalgebra::{DMatrix, SymmetricEigen};
use ndarray::{Array2, ArrayView2, Axis};

use super::Head;
use crate::rows::{Real, UnitRows, add_product, length, scaled_products, unit_rows, unit_rows_backward};

/// The head for one label set.
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
/// r is `rank`, or fewer where the classes span fewer directions. The sign of a column is that which makes its largest
/// component positive; the result of tuning does not depend on it. Computed in f64 from the smaller of the two Gram
/// matrices.
pub fn class_basis<T: Real>(classes: ArrayView2<T>, rank: usize) -> Array2<T> {
    let mut centered = classes.mapv(|value| value.to_f64().unwrap_or(f64::NAN));
    let mean = centered.mean_axis(Axis(0)).unwrap_or_default();
    centered -= &mean;
    let wide = centered.nrows() <= centered.ncols();
    let rows = if wide { centered.view() } else { centered.t() };
    let gram = scaled_products(1.0, rows, rows);
    let size = gram.nrows();
    let eigen = SymmetricEigen::new(DMatrix::from_fn(size, size, |row, column| gram[[row, column]]));
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    // Below this share of the largest an eigenvalue is rounding, and its vector is no direction of the classes.
    let least = eigen.eigenvalues[order[0]] * 1e-10;
    let real = order.into_iter().take(rank).take_while(|&index| eigen.eigenvalues[index] > least);
    let columns: Vec<_> = real
        .map(|index| {
            let vector = eigen.eigenvectors.column(index);
            let vector = ndarray::Array1::from_iter(vector.iter().copied());
            let mut column = if wide { centered.t().dot(&vector) } else { vector };
            let largest = column.iter().fold(0.0_f64, |largest, &x| if x.abs() > largest.abs() { x } else { largest });
            column /= length(column.view()) * largest.signum();
            column.mapv(|value| T::from(value).expect("a unit vector's component fits in any float"))
        })
        .collect();
    let mut basis = Array2::zeros((classes.ncols(), columns.len()));
    basis.columns_mut().into_iter().zip(&columns).for_each(|(mut slot, column)| slot.assign(column));
    basis
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
