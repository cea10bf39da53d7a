//! The parts of a transformer layer, each with its backward beside it. Weights are frozen: only inputs have gradients.

use std::sync::OnceLock;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Zip};

use crate::products::{Affine, Real};
use crate::rows::dot;

/// Added to the variance in every published CLIP.
pub const CLIP_EPSILON: f64 = 1e-5;

/// Layer normalisation: `y = (x - mean) / sqrt(variance + ε) · gain + bias`, row by row.
pub(crate) struct LayerNorm<T> {
    /// ε.
    pub epsilon: f64,
    /// `[W]`.
    pub gain: Array1<T>,
    /// `[W]`.
    pub bias: Array1<T>,
}

/// Intermediates of the forward pass that [`LayerNorm::backward`] needs.
pub(crate) struct NormTape<T> {
    /// The rows before gain and bias, `[N, W]`.
    normal: Array2<T>,
    /// `1 / sqrt(variance + ε)` of each row, `[N]`.
    inverse: Array1<T>,
}

impl<T: Real> LayerNorm<T> {
    /// `x` `[N, W]` to y `[N, W]`.
    pub(crate) fn forward(&self, x: ArrayView2<T>) -> (Array2<T>, NormTape<T>) {
        let width = T::from(x.ncols()).expect("a width fits in any float");
        let epsilon = T::from(self.epsilon).expect("a constant fits in any float");
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
    /// With n the normal rows and g = gain · dy: `dx = (g - mean(g) - n · mean(g · n)) / sqrt(variance + ε)`.
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
pub(crate) struct Linear<T: Real> {
    layer: T::Affine,
    /// The transpose, made when a gradient first asks for it: who tunes nothing does not pay the memory.
    transpose: OnceLock<T::Affine>,
}

impl<T: Real> Linear<T> {
    /// The layer of a weight `[inputs, outputs]`, the transpose of what checkpoints of PyTorch hold, and a bias `[outputs]`.
    pub(crate) fn new(weight: ArrayView2<T>, bias: ArrayView1<T>) -> Self {
        Self { layer: T::Affine::new(weight, bias), transpose: OnceLock::new() }
    }

    /// `x` `[N, inputs]` to y `[N, outputs]`.
    pub(crate) fn forward(&self, x: ArrayView2<T>) -> Array2<T> {
        self.layer.product(x, None)
    }

    /// `x + a · weight + bias`, the end of a residual branch.
    pub(crate) fn added_to(&self, x: ArrayView2<T>, a: ArrayView2<T>) -> Array2<T> {
        self.layer.product(a, Some(x))
    }

    /// Gradient of x from that of y: `dx = dy · weightᵀ`.
    pub(crate) fn backward(&self, dy: ArrayView2<T>) -> Array2<T> {
        self.transpose.get_or_init(|| self.layer.transposed()).product(dy, None)
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
    /// GELU by the hyperbolic tangent, `x · ½ (1 + tanh(√(2/π) (x + 0.044715 x³)))`, as in SigLIP.
    GeluTanh,
}

impl Activation {
    /// `a(u)`, element by element.
    pub fn forward<T: Real>(self, u: &Array2<T>) -> Array2<T> {
        let mut gate = self.gate(u);
        gate.zip_mut_with(u, |gate, &u| *gate *= u);
        gate
    }

    /// `du = da · a'(u)`, in place.
    pub fn backward<T: Real>(self, u: &Array2<T>, da: &mut Array2<T>) {
        let gate = self.gate(u);
        match self {
            Self::QuickGelu => {
                // a' = σ (1 + 1.702 u (1 - σ)).
                let slope = constant::<T>(QUICK);
                Zip::from(da).and(&gate).and(u).for_each(|d, &gate, &u| {
                    *d *= gate * (T::one() + slope * u * (T::one() - gate));
                });
            }
            Self::Gelu => {
                // a' = Φ(u) + u φ(u).
                let half = constant::<T>(0.5);
                let density = constant::<T>(1.0 / std::f64::consts::TAU.sqrt());
                let mut bell = u.mapv(|u| -half * u * u);
                T::exponentials(values(&mut bell));
                Zip::from(da).and(&gate).and(&bell).and(u).for_each(|d, &gate, &bell, &u| {
                    *d *= gate + u * density * bell;
                });
            }
            Self::GeluTanh => {
                // With the gate σ(2v): a' = σ + 2 u σ (1 - σ) v'.
                let (rate, cube) = (constant::<T>(2.0 * TANH_RATE), constant::<T>(3.0 * TANH_CUBE));
                Zip::from(da).and(&gate).and(u).for_each(|d, &gate, &u| {
                    *d *= gate + u * gate * (T::one() - gate) * rate * (T::one() + cube * u * u);
                });
            }
        }
    }

    /// What the function multiplies u by: `σ(1.702 u)`, `Φ(u)` or `σ(2v)`, with v what the tangent is of.
    fn gate<T: Real>(self, u: &Array2<T>) -> Array2<T> {
        let mut gate = u.clone();
        match self {
            Self::QuickGelu => T::quick_gates(values(&mut gate)),
            Self::Gelu => T::normal_gates(values(&mut gate)),
            Self::GeluTanh => {
                // ½ (1 + tanh v) = σ(2v).
                let (rate, cube) = (constant::<T>(-2.0 * TANH_RATE), constant::<T>(TANH_CUBE));
                gate.mapv_inplace(|u| rate * u * (T::one() + cube * u * u));
                T::exponentials(values(&mut gate));
                gate.mapv_inplace(|e| T::one() / (T::one() + e));
            }
        }
        gate
    }
}

/// QuickGELU's slope.
const QUICK: f64 = 1.702;
/// √(2/π).
const TANH_RATE: f64 = 0.797_884_560_802_865_4;
/// What the cube counts.
const TANH_CUBE: f64 = 0.044_715;

fn constant<T: Real>(value: f64) -> T {
    T::from(value).expect("a constant fits in any float")
}

/// All values in the order they lie in memory.
fn values<T>(array: &mut Array2<T>) -> &mut [T] {
    array.as_slice_memory_order_mut().expect("an array that was made by mapping another has no gaps")
}
