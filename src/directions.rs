//! The principal directions of a set of rows, and how much of the rows lies along each.

use nalgebra::{DMatrix, SymmetricEigen};
use ndarray::{Array1, Array2, ArrayView2, Axis};

use crate::products::{Real, scaled_products};
use crate::rows::length;

/// Below this share of the largest an energy is rounding, and its vector is no direction of the rows.
const ENERGY_MIN: f64 = 1e-10;

/// The singular values and right singular vectors of a matrix `[N, D]`, largest first.
///
/// Computed in f64 from the smaller of the two Gram matrices.
pub(crate) struct Directions {
    rows: Array2<f64>,
    /// True if the Gram matrix is that of the rows, `[N, N]`, not that of the columns, `[D, D]`.
    wide: bool,
    /// Eigenvectors of the Gram matrix, a column each, in the order of `energies`.
    vectors: Vec<Array1<f64>>,
    energies: Vec<f64>,
}

impl Directions {
    /// Directions of `rows` `[N, D]` as they are. Callers subtract a centre where directions are measured from one.
    pub(crate) fn of<T: Real>(rows: ArrayView2<T>) -> Self {
        // A Gram matrix has the squares of the singular values. In f32 those below 3e-4 of the largest would drown in
        // rounding.
        let rows = rows.mapv(|value| value.to_f64().unwrap_or(f64::NAN));
        let wide = rows.nrows() <= rows.ncols();
        let side = if wide { rows.view() } else { rows.t() };
        let size = side.nrows();
        // nalgebra panics over an empty matrix.
        if size == 0 {
            return Self { rows, wide, vectors: Vec::new(), energies: Vec::new() };
        }
        let gram = scaled_products(1.0, side, side);
        let eigen = SymmetricEigen::new(DMatrix::from_fn(size, size, |row, column| gram[[row, column]]));
        // nalgebra gives eigenvalues in no order.
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
        let least = order.first().map_or(0.0, |&first| eigen.eigenvalues[first] * ENERGY_MIN);
        // Strictly above: where all rows are 0 the bound is 0 as well, and no direction is left.
        order.retain(|&index| eigen.eigenvalues[index] > least);
        let vectors = order.iter().map(|&index| eigen.eigenvectors.column(index).iter().copied().collect()).collect();
        let energies = order.iter().map(|&index| eigen.eigenvalues[index]).collect();
        Self { rows, wide, vectors, energies }
    }

    /// The fewest directions that hold `share` (0–1) of the energy; 0 where there is none.
    pub(crate) fn rank(&self, share: f64) -> usize {
        let wanted = self.energies.iter().sum::<f64>() * share;
        let mut held = 0.0;
        let reached = |energy: &f64| {
            held += energy;
            held >= wanted
        };
        // Rounding may leave the whole sum a little below a share of 1.
        self.energies.iter().position(reached).map_or(self.energies.len(), |last| last + 1)
    }

    /// The first `rank` directions as orthonormal columns, `[D, rank]`, or as many as there are.
    ///
    /// The sign of a column is that which makes its largest component positive.
    pub(crate) fn basis<T: Real>(&self, rank: usize) -> Array2<T> {
        let rank = rank.min(self.vectors.len());
        let mut basis = Array2::zeros((self.rows.ncols(), rank));
        for (mut slot, vector) in basis.columns_mut().into_iter().zip(&self.vectors) {
            // Rᵀu has the length of the singular value. That is not 0, since small energies were left out.
            let column = if self.wide { self.rows.t().dot(vector) } else { vector.clone() };
            // The sign of an eigenvector is arbitrary; a rule for it makes bases comparable.
            let largest = column.iter().fold(0.0_f64, |largest, &x| if x.abs() > largest.abs() { x } else { largest });
            let scale = 1.0 / (length(column.view()) * largest.signum());
            let narrowed = |value: f64| T::from(value).expect("a unit vector's component fits in any float");
            slot.iter_mut().zip(&column).for_each(|(slot, &value)| *slot = narrowed(value * scale));
        }
        basis
    }
}

/// The rows `f_i - f_0` for i ≥ 1, `[V-1, D]`, of features F `[V, D]`.
pub(crate) fn residuals<T: Real>(features: ArrayView2<T>) -> Array2<T> {
    let (clean, others) = features.split_at(Axis(0), 1);
    &others - &clean
}

/// Number of directions that the rows `[N, D]` take up: e to the entropy of their energies' shares; 0 where there is no
/// energy.
///
/// The effective rank of Roy and Vetterli (EUSIPCO 2007), of squared singular values. 1 for rows along one direction.
pub(crate) fn effective_rank<T: Real>(rows: ArrayView2<T>) -> f64 {
    let rows = rows.mapv(|value| value.to_f64().unwrap_or(f64::NAN));
    let side = if rows.nrows() <= rows.ncols() { rows.view() } else { rows.t() };
    let size = side.nrows();
    if size == 0 {
        return 0.0;
    }
    let gram = scaled_products(1.0, side, side);
    // The vectors are not needed, which spares their part of the decomposition.
    let energies = DMatrix::from_fn(size, size, |row, column| gram[[row, column]]).symmetric_eigenvalues();
    // Rounding may make an energy of 0 negative, and that has no logarithm.
    let total: f64 = energies.iter().filter(|&&energy| energy > 0.0).sum();
    if total <= 0.0 {
        return 0.0;
    }
    let shares = energies.iter().map(|energy| energy / total).filter(|&share| share > 0.0);
    shares.map(|share| -share * share.ln()).sum::<f64>().exp()
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn ranks_and_directions_are_those_of_the_singular_values() {
        // Singular values 3, 2 and 1 along the axes.
        let square = array![[0.0, 2.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 1.0]];
        for rows in [square.clone(), array![[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]]] {
            let directions = Directions::of(rows.view());
            let expected = &[9.0, 4.0, 1.0][..rows.ncols()];
            assert!(directions.energies.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12));
            assert_eq!(directions.energies.len(), expected.len());
            let basis: Array2<f64> = directions.basis(2);
            assert!((basis[[0, 0]] - 1.0).abs() < 1e-12 && (basis[[1, 1]] - 1.0).abs() < 1e-12, "{basis}");
        }
        let directions = Directions::of(square.view());
        let ranks: Vec<usize> = [0.5, 0.64, 0.65, 0.9, 0.93, 1.0].map(|share| directions.rank(share)).into();
        assert_eq!(ranks, [1, 1, 2, 2, 3, 3], "9, 13 and 14 of 14");
        let entropy: f64 = [9.0, 4.0, 1.0].map(|energy: f64| -(energy / 14.0) * (energy / 14.0).ln()).iter().sum();
        assert!((effective_rank(square.view()) - entropy.exp()).abs() < 1e-12);
        assert!((effective_rank(array![[2.0_f32, 0.0], [5.0, 0.0]].view()) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn nothing_has_no_direction() {
        let directions = Directions::of(Array2::<f32>::zeros((3, 4)).view());
        assert_eq!((directions.rank(0.9), directions.basis::<f32>(2).dim()), (0, (4, 0)));
        assert_eq!(Directions::of(Array2::<f32>::zeros((0, 4)).view()).rank(0.9), 0);
        assert_eq!(
            (effective_rank(Array2::<f32>::zeros((3, 4)).view()), effective_rank(Array2::<f32>::zeros((0, 4)).view())),
            (0.0, 0.0)
        );
    }
}
