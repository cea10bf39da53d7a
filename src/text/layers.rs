//! The parts of a transformer layer, each with its backward beside it. Weights are frozen: only inputs have gradients.

use ndarray::{Array1, Array2, ArrayView2, Axis, Zip, s};

use crate::rows::{Real, add_product, dot};

/// Added to the variance, as in every published CLIP.
pub(crate) const NORM_EPSILON: f64 = 1e-5;

/// Layer normalisation: `y = (x - mean) / sqrt(variance + 1e-5) · gain + bias`, row by row.
pub(crate) struct LayerNorm<T> {
    /// `[W]`.
    pub gain: Array1<T>,
    /// `[W]`.
    pub bias: Array1<T>,
}

/// Intermediates of the forward pass that [`LayerNorm::backward`] needs.
pub(crate) struct NormTape<T> {
    /// The rows before gain and bias, `[N, W]`.
    normal: Array2<T>,
    /// `1 / sqrt(variance + 1e-5)` of each row, `[N]`.
    inverse: Array1<T>,
}

impl<T: Real> LayerNorm<T> {
    /// `x` `[N, W]` to y `[N, W]`.
    pub(crate) fn forward(&self, x: ArrayView2<T>) -> (Array2<T>, NormTape<T>) {
        let width = T::from(x.ncols()).expect("a width fits in any float");
        let epsilon = T::from(NORM_EPSILON).expect("a constant fits in any float");
        let mut normal = x.to_owned();
        let inverse = normal.map_axis_mut(Axis(1), |mut row| {
            let mean = row.sum() / width;
            row.mapv_inplace(|value| value - mean);
            // The variance of rows whose mean is already gone: E[x²] - E[x]² would cancel digits.
            let inverse = T::one() / (dot(row.view(), row.view()) / width + epsilon).sqrt();
            row.mapv_inplace(|value| value * inverse);
            inverse
        });
        let y = &normal * &self.gain + &self.bias;
        (y, NormTape { normal, inverse })
    }

    /// Gradient of x from that of y, in place.
    ///
    /// With n the normal rows and g = gain · dy: `dx = (g - mean(g) - n · mean(g · n)) / sqrt(variance + 1e-5)`.
    pub(crate) fn backward(&self, tape: &NormTape<T>, dy: &mut Array2<T>) {
        let width = T::from(dy.ncols()).expect("a width fits in any float");
        for ((mut row, normal), &inverse) in dy.rows_mut().into_iter().zip(tape.normal.rows()).zip(&tape.inverse) {
            row *= &self.gain;
            let mean = row.sum() / width;
            let along = dot(row.view(), normal) / width;
            Zip::from(&mut row).and(normal).for_each(|d, &n| *d = (*d - mean - n * along) * inverse);
        }
    }
}

/// `y = x · weight + bias`.
pub(crate) struct Linear<T> {
    /// `[inputs, outputs]`: the transpose of what checkpoints of PyTorch hold.
    pub weight: Array2<T>,
    /// `[outputs]`.
    pub bias: Array1<T>,
}

impl<T: Real> Linear<T> {
    /// `x` `[N, inputs]` to y `[N, outputs]`.
    pub(crate) fn forward(&self, x: ArrayView2<T>) -> Array2<T> {
        self.forward_columns(x, 0..self.bias.len())
    }

    /// Some columns of y alone.
    pub(crate) fn forward_columns(&self, x: ArrayView2<T>, columns: std::ops::Range<usize>) -> Array2<T> {
        let weight = self.weight.slice(s![.., columns.clone()]);
        let bias = self.bias.slice(s![columns]);
        let mut y = bias.broadcast((x.nrows(), bias.len())).expect("a row fits any number of rows").to_owned();
        add_product(T::one(), x, weight, T::one(), y.view_mut());
        y
    }

    /// `x += a · weight + bias`, the end of a residual branch.
    pub(crate) fn add_to(&self, a: ArrayView2<T>, x: &mut Array2<T>) {
        *x += &self.bias;
        add_product(T::one(), a, self.weight.view(), T::one(), x.view_mut());
    }

    /// Gradient of x from that of y: `dx = dy · weightᵀ`.
    pub(crate) fn backward(&self, dy: ArrayView2<T>) -> Array2<T> {
        let mut dx = Array2::zeros((dy.nrows(), self.weight.nrows()));
        self.add_backward(dy, 0..self.bias.len(), &mut dx);
        dx
    }

    /// `dx += dy · weightᵀ` over some columns of y.
    pub(crate) fn add_backward(&self, dy: ArrayView2<T>, columns: std::ops::Range<usize>, dx: &mut Array2<T>) {
        add_product(T::one(), dy, self.weight.slice(s![.., columns]).t(), T::one(), dx.view_mut());
    }
}

/// The non-linearity of a tower's MLPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// `x · sigmoid(1.702 x)`, as in OpenAI's CLIP.
    QuickGelu,
    /// The exact GELU, `x · Φ(x)`.
    Gelu,
}

impl Activation {
    /// `a(u)`, element by element.
    pub fn forward<T: Real>(self, u: &Array2<T>) -> Array2<T> {
        match self {
            Self::QuickGelu => u.mapv(|u| u * sigmoid(u)),
            Self::Gelu => u.mapv(|u| u * normal_cdf(u)),
        }
    }

    /// `du = da · a'(u)`, in place.
    pub fn backward<T: Real>(self, u: &Array2<T>, da: &mut Array2<T>) {
        let slope = constant::<T>(QUICK);
        let density = constant::<T>(1.0 / std::f64::consts::TAU.sqrt());
        let half = constant::<T>(0.5);
        match self {
            Self::QuickGelu => da.zip_mut_with(u, |d, &u| {
                // a' = σ (1 + 1.702 u (1 - σ)).
                let gate = sigmoid(u);
                *d *= gate * (T::one() + slope * u * (T::one() - gate));
            }),
            Self::Gelu => da.zip_mut_with(u, |d, &u| {
                // a' = Φ(u) + u φ(u).
                *d *= normal_cdf(u) + u * density * (-half * u * u).exp();
            }),
        }
    }
}

/// QuickGELU's slope.
const QUICK: f64 = 1.702;

fn constant<T: Real>(value: f64) -> T {
    T::from(value).expect("a constant fits in any float")
}

fn sigmoid<T: Real>(u: T) -> T {
    T::one() / (T::one() + (-constant::<T>(QUICK) * u).exp())
}

fn normal_cdf<T: Real>(u: T) -> T {
    constant::<T>(0.5) * (T::one() + (u * constant::<T>(std::f64::consts::FRAC_1_SQRT_2)).erf())
}
