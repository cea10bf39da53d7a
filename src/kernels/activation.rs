//! Activations, in arithmetic that gives the same bits on every processor: no fused multiply-add, no library's exponential.

/// What follows a linear operation, value by value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Activation {
    /// Nothing.
    None,
    /// `min(max(x, low), high)`: ReLU is from 0 to infinity, ReLU6 from 0 to 6.
    Clamp {
        /// Least value.
        low: f32,
        /// Largest value.
        high: f32,
    },
    /// `x Φ(x)`, with the error function.
    Gelu,
    /// `x σ(1.702 x)`, as in OpenAI's CLIP.
    QuickGelu,
    /// `x σ(x)`.
    Silu,
}

impl Activation {
    #[cfg(test)]
    pub(crate) const RELU: Self = Self::Clamp { low: 0.0, high: f32::INFINITY };

    /// Applies the activation to every value of `row`.
    #[inline(always)]
    pub(super) fn apply(self, row: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Clamp { low, high } => row.iter_mut().for_each(|value| *value = clamp(*value, low, high)),
            Self::Gelu => row.iter_mut().for_each(|value| *value = gelu(*value)),
            Self::QuickGelu => row.iter_mut().for_each(|value| *value = swish(*value, 1.702)),
            Self::Silu => row.iter_mut().for_each(|value| *value = swish(*value, 1.0)),
        }
    }
}

/// NaN stays NaN: comparisons with it are false.
#[inline(always)]
pub(super) fn clamp(value: f32, low: f32, high: f32) -> f32 {
    let raised = if value < low { low } else { value };
    if raised > high { high } else { raised }
}

#[inline(always)]
fn swish(x: f32, slope: f32) -> f32 {
    x / (1.0 + exp(-slope * x))
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * normal_gate(x)
}

/// `Φ(x)`, what the exact GELU multiplies x by.
#[inline(always)]
pub(super) fn normal_gate(x: f32) -> f32 {
    0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The exponential, within 2 units in the last place from -87 to 88; beyond them that of -87.3 and of 88.3.
///
/// `e^x = 2^n e^r` with `|r| ≤ ln 2 / 2`, and a polynomial for `e^r` (Cephes, `expf`).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 · 2^23 rounds to the nearest integer, which is in the last bits before it is taken away: a conversion would
    // ask each value whether it is a number.
    const ROUND: f32 = 12_582_912.0;
    let x = clamp(x, -87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + coefficient;
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits() - 127) << 23);
    (p * (r * r) + r + 1.0) * power
}

/// The error function, within 5e-7: a rational function of degree 13 by 8 on [-4, 4] (Eigen, `generic_fast_erf_float`).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = clamp(x, -4.0, 4.0);
    let square = x * x;
    let mut above = -2.726_142_3e-10;
    for coefficient in [2.770_681_4e-8, -2.101_024e-6, -5.692_506_5e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2] {
        above = above * square + coefficient;
    }
    let mut below = -1.456_607_2e-5;
    for coefficient in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_3e-3, -1.426_473_9e-2] {
        below = below * square + coefficient;
    }
    x * above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    fn largest_difference(of: impl Fn(f32) -> f64) -> f64 {
        (-200_000..=200_000).map(|step| of(step as f32 / 10_000.0)).fold(0.0, f64::max)
    }

    #[test]
    fn the_functions_are_those_of_the_library() {
        let relative = |found: f32, expected: f64| (f64::from(found) - expected).abs() / expected;
        let of_exp = largest_difference(|x| relative(exp(x), f64::from(x).exp()));
        assert!(of_exp < 2e-7, "{of_exp}");
        let of_erf = largest_difference(|x| (f64::from(erf(x)) - libm::erf(f64::from(x))).abs());
        assert!(of_erf < 5e-7, "{of_erf}");
        let gelu_of = |x: f64| 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2));
        assert!(largest_difference(|x| (f64::from(gelu(x)) - gelu_of(f64::from(x))).abs()) < 3e-6);
        let swish_of = |x: f64| x / (1.0 + (-1.702 * x).exp());
        assert!(largest_difference(|x| (f64::from(swish(x, 1.702)) - swish_of(f64::from(x))).abs()) < 3e-6);
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for activation in [Activation::RELU, Activation::Gelu, Activation::QuickGelu, Activation::Silu] {
            let mut row = [f32::NAN, 1.0];
            activation.apply(&mut row);
            assert!(row[0].is_nan() && row[1].is_finite(), "{activation:?}");
        }
        let mut row = [f32::INFINITY];
        Activation::RELU.apply(&mut row);
        assert_eq!(row, [f32::INFINITY]);
    }
}
