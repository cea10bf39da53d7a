//! Row-wise kernels that several stages share: unit length and log-softmax, forward and backward.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, NdFloat, Zip};

/// Rows brought to unit length, and the lengths they had, which [`unit_rows_backward`] needs.
pub struct UnitRows<T> {
    /// The rows, each of length 1.
    pub rows: Array2<T>,
    /// Length of each row before.
    pub lengths: Array1<T>,
}

/// `t = u / ‖u‖` for each row of `rows`; a row of length 0 becomes NaN, which callers exclude beforehand.
pub fn unit_rows<T: NdFloat>(mut rows: Array2<T>) -> UnitRows<T> {
    let lengths = rows.map_axis(Axis(1), length);
    for (mut row, &length) in rows.rows_mut().into_iter().zip(&lengths) {
        // One division a row; products are several times faster.
        let scale = T::one() / length;
        row.mapv_inplace(|value| value * scale);
    }
    UnitRows { rows, lengths }
}

/// Gradient of [`unit_rows`], in place: `drows` holds dL/dt on entry and `dL/du = (dt - t (t·dt)) / ‖u‖` on return.
///
/// `unit` are the rows t, `lengths` the ‖u‖ they had.
pub(crate) fn unit_rows_backward<T: NdFloat>(unit: ArrayView2<T>, lengths: ArrayView1<T>, drows: &mut Array2<T>) {
    for ((mut drow, row), &length) in drows.rows_mut().into_iter().zip(unit.rows()).zip(lengths) {
        let along = dot(row, drow.view());
        let scale = T::one() / length;
        Zip::from(&mut drow).and(row).for_each(|du, &t| *du = (*du - t * along) * scale);
    }
}

/// Euclidean length of a row.
pub(crate) fn length<T: NdFloat>(row: ArrayView1<T>) -> T {
    dot(row, row).sqrt()
}

/// Inner product in a fixed order of summation: eight interleaved partial sums.
///
/// The order does not depend on alignment or on the CPU's vector width, so the bits do not either.
pub(crate) fn dot<T: NdFloat>(a: ArrayView1<T>, b: ArrayView1<T>) -> T {
    match (a.as_slice(), b.as_slice()) {
        (Some(a), Some(b)) => dot_slices(a, b),
        // Another order of summation. Which one a call gets depends on the layout of its arrays alone.
        _ => a.iter().zip(b).fold(T::zero(), |sum, (&x, &y)| sum + x * y),
    }
}

/// [`dot`] of slices of equal length.
pub(crate) fn dot_slices<T: NdFloat>(a: &[T], b: &[T]) -> T {
    // Eight sums that do not wait for one another, which the compiler turns into vector instructions. It may not do so
    // with a single sum, because that changes the rounding.
    let mut sums = [T::zero(); 8];
    let (chunks_a, chunks_b) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail = chunks_a.remainder().iter().zip(chunks_b.remainder());
    let tail = tail.fold(T::zero(), |sum, (&x, &y)| sum + x * y);
    for (x, y) in chunks_a.zip(chunks_b) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().fold(tail, |total, &sum| total + sum)
}

/// `ln softmax(z)` of one row, in place.
///
/// The row's own maximum is subtracted before anything else, so that neither its size nor another row's costs
/// precision.
pub(crate) fn log_softmax_inplace<T: NdFloat>(row: &mut [T]) {
    // NaN is never the largest. It makes the sum NaN, and so every value of the row.
    let largest = row.iter().fold(T::neg_infinity(), |largest, &value| if value > largest { value } else { largest });
    let sum = row.iter().fold(T::zero(), |sum, &value| sum + (value - largest).exp());
    let shift = sum.ln();
    row.iter_mut().for_each(|value| *value = *value - largest - shift);
}

/// `ln Σ exp(z)` over the columns of each group, row by row: `[N, C]` to `[N, G]`.
///
/// `groups` has the group (below `count`, G) of each column; of a group without columns it is -∞.
pub(crate) fn log_sums<T: NdFloat>(rows: ArrayView2<T>, groups: &[usize], count: usize) -> Array2<T> {
    let mut largest = Array2::from_elem((rows.nrows(), count), T::neg_infinity());
    let mut sums = Array2::zeros((rows.nrows(), count));
    for ((row, mut largest), mut sums) in rows.rows().into_iter().zip(largest.rows_mut()).zip(sums.rows_mut()) {
        for (&z, &group) in row.iter().zip(groups) {
            // NaN is never the largest, but makes its group's sum NaN.
            if z > largest[group] {
                largest[group] = z;
            }
        }
        for (&z, &group) in row.iter().zip(groups) {
            // A probability of 0 adds nothing, also where the group has no other.
            if z != T::neg_infinity() {
                sums[group] += (z - largest[group]).exp();
            }
        }
        sums.zip_mut_with(&largest, |sum: &mut T, &largest| *sum = sum.ln() + largest);
    }
    sums
}

/// `softmax(z)` of one row.
pub fn softmax<T: NdFloat>(row: ArrayView1<T>) -> Array1<T> {
    let mut probabilities = row.to_owned();
    log_softmax_inplace(probabilities.as_slice_mut().expect("an owned row is contiguous"));
    probabilities.mapv_inplace(T::exp);
    probabilities
}

/// Index of the largest value; of equals the first, and NaN never wins. 0 for an empty row.
pub(crate) fn argmax<T: NdFloat>(row: ArrayView1<T>) -> usize {
    let mut best = (0, T::neg_infinity());
    for (index, &value) in row.iter().enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}

/// Entropy (nats) of `softmax(z)`.
///
/// With `e = exp(z - max z)` and `S = Σ e`, `H = ln S - Σ e (z - max z) / S`: one exponential a logit and no memory. A
/// logit of -∞ is a probability of 0 and adds nothing.
pub(crate) fn entropy<T: NdFloat>(logits: ArrayView1<T>) -> T {
    let largest = logits.iter().fold(T::neg_infinity(), |largest, &z| if z > largest { z } else { largest });
    let (sum, moment) = logits.iter().fold((T::zero(), T::zero()), |(sum, moment), &z| {
        let weight = (z - largest).exp();
        let part = if z == T::neg_infinity() { T::zero() } else { weight * (z - largest) };
        (sum + weight, moment + part)
    });
    sum.ln() - moment / sum
}

/// The indices of the `count` largest values, largest first; equals in order of index, NaN last.
pub(crate) fn top(row: ArrayView1<f32>, count: usize) -> Vec<usize> {
    // `total_cmp` alone would put NaN above infinity.
    let key = |index: usize| if row[index].is_nan() { f32::NEG_INFINITY } else { row[index] };
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)).then(a.cmp(&b)));
    order.truncate(count);
    order
}

/// The weighted sum of rows: weights `[N]` and rows `[N, K]` to `[K]`, added up in order of the rows.
pub(crate) fn weighted_sum<T: NdFloat>(weights: ArrayView1<T>, rows: ArrayView2<T>) -> Array1<T> {
    let mut sum = Array1::zeros(rows.ncols());
    for (&weight, row) in weights.iter().zip(rows.rows()) {
        sum.scaled_add(weight, &row);
    }
    sum
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn nan_never_wins_and_ties_go_to_the_first() {
        assert_eq!(argmax(array![f32::NAN, 1.0, 3.0, 3.0].view()), 2);
        assert_eq!(argmax(array![f32::NAN, f32::NAN].view()), 0);
        assert_eq!(top(array![f32::NAN, 1.0, 3.0, 3.0, -5.0].view(), 5), [2, 3, 1, 4, 0]);
    }

    #[test]
    fn softmax_keeps_small_rows_beside_large_ones() {
        let large = softmax(array![1000.0_f32, 999.0].view());
        assert!((large[0] - 0.731_058_6).abs() < 1e-6, "{large}");
        let small = softmax(array![-1000.0_f32, -1001.0].view());
        assert!((small[0] - 0.731_058_6).abs() < 1e-6, "{small}");
    }

    #[test]
    fn unit_rows_gradient_agrees_with_central_differences() {
        let rows = array![[0.3, -1.2, 0.7, 0.1], [2.0, 0.4, -0.6, 1.5]];
        let weights = array![[0.5, 1.5, -0.7, 0.2], [-0.3, 0.9, 0.8, -1.1]];
        let loss = |rows: &Array2<f64>| (&unit_rows(rows.clone()).rows * &weights).sum();
        let mut gradient = weights.clone();
        let unit = unit_rows(rows.clone());
        unit_rows_backward(unit.rows.view(), unit.lengths.view(), &mut gradient);
        for index in ndarray::indices(rows.dim()) {
            let step = |h: f64| {
                let mut moved = rows.clone();
                moved[index] += h;
                loss(&moved)
            };
            let numeric = (step(1e-5) - step(-1e-5)) / 2e-5;
            assert!((numeric - gradient[index]).abs() < 1e-9, "{index:?}: {numeric} {}", gradient[index]);
        }
    }

    #[test]
    fn dot_of_any_length_is_the_sum_of_products() {
        for count in [0_i32, 1, 7, 8, 9, 64, 65] {
            let a: Array1<f64> = (0..count).map(f64::from).collect();
            assert_eq!(dot(a.view(), a.view()), f64::from((0..count).map(|x| x * x).sum::<i32>()));
        }
    }

    #[test]
    fn the_probability_of_a_group_is_the_sum_of_its_members() {
        let rows = ndarray::array![[1.0, -3.0, 700.0, 701.0], [0.0, f64::NEG_INFINITY, 2.0, f64::NEG_INFINITY]];
        let found = log_sums(rows.view(), &[1, 0, 1, 0], 3);
        assert_eq!(found.dim(), (2, 3));
        for (row, sums) in rows.rows().into_iter().zip(found.rows()) {
            let (members, groups) = (softmax(row), softmax(sums));
            assert!(
                (groups[0] - members[1] - members[3]).abs() < 1e-12
                    && (groups[1] - members[0] - members[2]).abs() < 1e-12
            );
            assert_eq!(groups[2], 0.0, "a group of nothing");
        }
        assert_eq!(found[[1, 0]], f64::NEG_INFINITY);
        let spoiled = log_sums(ndarray::array![[1.0, f64::NAN, 2.0]].view(), &[0, 0, 1], 2);
        assert!(spoiled[[0, 0]].is_nan() && spoiled[[0, 1]] == 2.0);
    }
}
