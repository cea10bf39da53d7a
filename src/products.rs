//! Products of matrices, and the floats they are made of, with what each float has of its own: layers with constant weights, and functions of
//! many values.

use std::fmt;

use gemm::{Parallelism, gemm};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut2, NdFloat};

use crate::kernels::{self, Epilogue, FloatKernel, FloatWeights, Rows, RowsMut};

/// Float of the computations: f32 on the device, f64 in tests that need more digits.
///
/// Sealed, because `add_product` hands values of this type to unsafe code that knows f32 and f64.
pub trait Real: NdFloat + sealed::Sealed {
    /// A linear layer with constant weights.
    type Affine: Affine<Self>;

    /// `e^x` of every value, in place.
    fn exponentials(values: &mut [Self]);

    /// What QuickGELU multiplies a value x by, `σ(1.702 x)`, in place.
    fn quick_gates(values: &mut [Self]);

    /// What the exact GELU multiplies a value x by, `Φ(x)`, in place.
    fn normal_gates(values: &mut [Self]);
}

/// A linear layer with constant weights, `x · weight + bias`, laid out for many products.
pub trait Affine<T>: Send + Sync {
    /// The layer of a weight `[inputs, outputs]` and a bias `[outputs]`.
    fn new(weight: ArrayView2<T>, bias: ArrayView1<T>) -> Self;

    /// The layer `[outputs, inputs]` of the weight's transpose, without a bias: what gradients go through.
    fn transposed(&self) -> Self;

    /// `x · weight + bias + residual`: `[N, inputs]` to `[N, outputs]`, on one thread.
    fn product(&self, x: ArrayView2<T>, residual: Option<ArrayView2<T>>) -> Array2<T>;
}

mod sealed {
    /// Bound that no other crate can meet, so that no other type is a [`Real`](super::Real).
    pub trait Sealed {}

    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

impl Real for f32 {
    type Affine = PackedAffine;

    fn exponentials(values: &mut [f32]) {
        kernels::exponentials(FloatKernel::best(), values);
    }

    fn quick_gates(values: &mut [f32]) {
        kernels::quick_gates(FloatKernel::best(), values);
    }

    fn normal_gates(values: &mut [f32]) {
        kernels::normal_gates(FloatKernel::best(), values);
    }
}

impl Real for f64 {
    type Affine = PlainAffine;

    fn exponentials(values: &mut [f64]) {
        values.iter_mut().for_each(|value| *value = value.exp());
    }

    fn quick_gates(values: &mut [f64]) {
        values.iter_mut().for_each(|value| *value = 1.0 / (1.0 + (-1.702 * *value).exp()));
    }

    fn normal_gates(values: &mut [f64]) {
        values.iter_mut().for_each(|value| *value = 0.5 * (1.0 + libm::erf(*value * std::f64::consts::FRAC_1_SQRT_2)));
    }
}

/// A layer in f32, in the panels of this processor's kernel.
pub struct PackedAffine {
    weights: FloatWeights,
    /// Filled up with zeros to whole panels.
    bias: Vec<f32>,
}

impl fmt::Debug for PackedAffine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("PackedAffine").field("weights", &self.weights).finish_non_exhaustive()
    }
}

impl PackedAffine {
    fn of(weights: FloatWeights, mut bias: Vec<f32>) -> Self {
        bias.resize(weights.padded_columns(), 0.0);
        Self { weights, bias }
    }
}

impl Affine<f32> for PackedAffine {
    fn new(weight: ArrayView2<f32>, bias: ArrayView1<f32>) -> Self {
        let (inputs, outputs) = weight.dim();
        let weights = FloatWeights::pack(FloatKernel::best(), inputs, outputs, |input, output| weight[[input, output]]);
        Self::of(weights, bias.to_vec())
    }

    fn transposed(&self) -> Self {
        Self::of(self.weights.transposed(), Vec::new())
    }

    fn product(&self, x: ArrayView2<f32>, residual: Option<ArrayView2<f32>>) -> Array2<f32> {
        let outputs = self.weights.columns();
        let mut y = Array2::zeros((x.nrows(), outputs));
        let (x, residual) = (x.as_standard_layout(), residual.as_ref().map(|residual| residual.as_standard_layout()));
        let rows = "an array in standard layout is one slice";
        let residual = residual.as_ref().map(|residual| Rows::new(residual.as_slice().expect(rows), outputs));
        let epilogue = Epilogue { bias: &self.bias, residual, activation: kernels::Activation::None };
        let x = Rows::new(x.as_slice().expect(rows), self.weights.depth());
        self.weights.multiply(x, epilogue, RowsMut::new(y.as_slice_mut().expect(rows), outputs));
        y
    }
}

/// A layer in f64, as its formula says it.
#[derive(Debug)]
pub struct PlainAffine {
    weight: Array2<f64>,
    bias: Array1<f64>,
}

impl Affine<f64> for PlainAffine {
    fn new(weight: ArrayView2<f64>, bias: ArrayView1<f64>) -> Self {
        Self { weight: weight.to_owned(), bias: bias.to_owned() }
    }

    fn transposed(&self) -> Self {
        Self { weight: self.weight.t().to_owned(), bias: Array1::zeros(self.weight.nrows()) }
    }

    fn product(&self, x: ArrayView2<f64>, residual: Option<ArrayView2<f64>>) -> Array2<f64> {
        let mut y = match residual {
            Some(residual) => &residual + &self.bias,
            None => {
                self.bias.broadcast((x.nrows(), self.bias.len())).expect("a row fits any number of rows").to_owned()
            }
        };
        add_product(1.0, x, self.weight.view(), 1.0, y.view_mut());
        y
    }
}

/// `scale · a · bᵀ`: `[N, K]` and `[M, K]` to `[N, M]`.
pub fn scaled_products<T: Real>(scale: T, a: ArrayView2<T>, b: ArrayView2<T>) -> Array2<T> {
    let mut out = Array2::zeros((a.nrows(), b.nrows()));
    add_product(scale, a, b.t(), T::zero(), out.view_mut());
    out
}

/// `out = scale · a · b + keep · out`: `[N, K]` and `[K, M]` to `[N, M]`, each with any strides, on one thread.
///
/// With `keep` 0 the old content of `out` is not looked at.
pub(crate) fn add_product<T: Real>(scale: T, a: ArrayView2<T>, b: ArrayView2<T>, keep: T, mut out: ArrayViewMut2<T>) {
    let ((rows, depth), columns) = (a.dim(), b.ncols());
    assert_eq!((depth, out.dim()), (b.nrows(), (rows, columns)), "the shapes of a product fit");
    let [row_stride, column_stride] = [out.strides()[0], out.strides()[1]];
    // 0 · NaN is NaN, so that uninitialised or spoiled content must not be read at all.
    let (destination, read_destination) = (out.as_mut_ptr(), keep != T::zero());
    // SAFETY: each pointer comes from a live view, and sizes and strides are that view's own; the assertion above makes
    // the three agree. `out` is borrowed mutably, so it overlaps neither `a` nor `b`. T is f32 or f64, since `Real` is
    // sealed, and `gemm` has kernels for both.
    unsafe {
        gemm(
            rows,
            columns,
            depth,
            // gemm takes the stride of the columns before that of the rows.
            destination,
            column_stride,
            row_stride,
            read_destination,
            a.as_ptr(),
            a.strides()[1],
            a.strides()[0],
            b.as_ptr(),
            b.strides()[1],
            b.strides()[0],
            // gemm's alpha is the factor of the old content, beta that of the product.
            keep,
            scale,
            // Nothing is conjugated: the numbers are real.
            false,
            false,
            false,
            // Callers have views, chunks or images to spread over threads. A product that is cut up by threads could
            // sum in another order.
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::kernels::noise;

    #[test]
    fn the_layer_in_f32_is_that_in_f64() {
        for (rows, inputs, outputs) in [(1, 3, 5), (20, 33, 70), (70, 2048, 40)] {
            let matrix = |seed, rows, columns| {
                Array2::from_shape_vec((rows, columns), noise(seed, rows * columns)).expect("as many as the shape has")
            };
            let (x, weight, residual) = (matrix(1, rows, inputs), matrix(2, inputs, outputs), matrix(3, rows, outputs));
            let bias = Array1::from(noise(4, outputs));
            let double = |matrix: &Array2<f32>| matrix.mapv(f64::from);
            let single = PackedAffine::new(weight.view(), bias.view());
            let plain = PlainAffine::new(double(&weight).view(), bias.mapv(f64::from).view());
            let compare = |found: Array2<f32>, expected: Array2<f64>| {
                assert_eq!(found.dim(), expected.dim());
                let pairs = found.iter().zip(&expected);
                let worst = pairs.map(|(&found, expected)| (f64::from(found) - expected).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-5 * (inputs.max(outputs) as f64).sqrt(), "[{rows}, {inputs}, {outputs}]: {worst}");
            };
            compare(single.product(x.view(), None), plain.product(double(&x).view(), None));
            let expected = plain.product(double(&x).view(), Some(double(&residual).view()));
            compare(single.product(x.view(), Some(residual.view())), expected);
            let back = plain.transposed().product(double(&residual).view(), None);
            compare(single.transposed().product(residual.view(), None), back.clone());
            // Rows that are not contiguous.
            let columns = residual.t().as_standard_layout().into_owned();
            compare(single.transposed().product(columns.t(), None), back);
        }
    }

    #[test]
    fn products_take_any_strides_and_keep_what_they_are_told() {
        let a = Array2::from_shape_fn((5, 7), |(i, j)| (i * 3 + j) as f64 * 0.25 - 2.0);
        let b = Array2::from_shape_fn((7, 4), |(i, j)| (i as f64 - j as f64) * 0.5);
        let wide = Array2::from_shape_fn((5, 9), |(i, j)| (i + j) as f64);
        let naive = |i: usize, j: usize| (0..7).map(|k| a[[i, k]] * b[[k, j]]).sum::<f64>();
        for transposed in [false, true] {
            let (a, b) = match transposed {
                false => (a.clone(), b.clone()),
                true => (a.t().as_standard_layout().reversed_axes().into_owned(), b.t().to_owned().reversed_axes()),
            };
            let mut out = wide.clone();
            add_product(2.0, a.view(), b.view(), 3.0, out.slice_mut(ndarray::s![.., 2..6]));
            for ((i, j), &found) in out.indexed_iter() {
                let inside = (2..6).contains(&j);
                let expected = if inside { 2.0 * naive(i, j - 2) + 3.0 * wide[[i, j]] } else { wide[[i, j]] };
                assert!((found - expected).abs() < 1e-12, "{transposed} {i} {j}: {found} {expected}");
            }
        }
        let mut unread = array![[f32::NAN]];
        add_product(1.0, array![[2.0]].view(), array![[3.0]].view(), 0.0, unread.view_mut());
        assert_eq!(unread, array![[6.0]]);
    }
}
