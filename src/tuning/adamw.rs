//! AdamW with decoupled weight decay (Loshchilov & Hutter 2019), in PyTorch's order of operations.

use ndarray::{Array2, NdFloat, Zip};

/// Settings of the optimiser.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AdamWSettings {
    /// Step size (R-TPT: 5e-3). The first step moves every parameter with a gradient by about this much.
    pub learning_rate: f64,
    /// Decay rates of the two moments.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl Default for AdamWSettings {
    /// `torch.optim.AdamW`'s defaults with R-TPT's learning rate.
    fn default() -> Self {
        Self { learning_rate: 5e-3, betas: (0.9, 0.999), epsilon: 1e-8, weight_decay: 0.01 }
    }
}

/// The optimiser's state for one episode; a new image starts with a new one.
pub(crate) struct AdamW<T> {
    settings: AdamWSettings,
    /// First and second moment; allocated by the first step, if another is to follow.
    moments: Option<[Array2<T>; 2]>,
    steps_planned: usize,
    steps_done: usize,
}

impl<T: NdFloat> AdamW<T> {
    /// A fresh state for an episode of `steps` steps.
    ///
    /// R-TPT takes one step, and a single step needs no memory of earlier ones: for large label sets that is half of
    /// what tuning would allocate.
    pub(crate) fn new(settings: AdamWSettings, steps: usize) -> Self {
        Self { settings, moments: None, steps_planned: steps, steps_done: 0 }
    }

    /// One step along `gradient`, in place.
    pub(crate) fn step(&mut self, parameters: &mut Array2<T>, gradient: &Array2<T>) {
        self.steps_done += 1;
        let rule = Rule::at_step(&self.settings, self.steps_done);
        if self.moments.is_none() && self.steps_done < self.steps_planned {
            self.moments = Some([Array2::zeros(parameters.dim()), Array2::zeros(parameters.dim())]);
        }
        match &mut self.moments {
            None => Zip::from(parameters).and(gradient).for_each(|parameter, &slope| {
                rule.apply(parameter, &mut T::zero(), &mut T::zero(), slope);
            }),
            Some([first, second]) => Zip::from(parameters)
                .and(first)
                .and(second)
                .and(gradient)
                .for_each(|parameter, first, second, &slope| rule.apply(parameter, first, second, slope)),
        }
    }
}

/// The arithmetic of one step, its constants already in the float's type.
struct Rule<T> {
    keep: T,
    step_size: T,
    root_correction: T,
    gain1: T,
    beta2: T,
    gain2: T,
    epsilon: T,
    negligible: T,
}

impl<T: NdFloat> Rule<T> {
    fn at_step(settings: &AdamWSettings, step: usize) -> Self {
        let cast = |value: f64| T::from(value).expect("settings are finite and fit in any float");
        let AdamWSettings { learning_rate, betas: (beta1, beta2), epsilon, weight_decay } = *settings;
        // The constants are put together in f64 and rounded once, as PyTorch does with Python's numbers.
        let corrected = |beta: f64| 1.0 - beta.powi(step as i32);
        Self {
            keep: cast(1.0 - learning_rate * weight_decay),
            step_size: cast(learning_rate / corrected(beta1)),
            root_correction: cast(corrected(beta2).sqrt()),
            gain1: cast(1.0 - beta1),
            beta2: cast(beta2),
            gain2: cast(1.0 - beta2),
            epsilon: cast(epsilon),
            // The square of 100 √m is 10⁴ m, with m the smallest normal number. Times `gain2`, 10⁻³, it is still
            // normal.
            negligible: cast(100.0) * T::min_positive_value().sqrt(),
        }
    }

    fn apply(&self, parameter: &mut T, first: &mut T, second: &mut T, slope: T) {
        // The square of such a slope is subnormal or 0, which is a hundred times slower to compute with, and beside
        // epsilon it moves its parameter by nothing: classes far from every view have only such slopes.
        let slope = if slope.abs() < self.negligible { T::zero() } else { slope };
        // PyTorch's `lerp_`. `beta1 * first + gain1 * slope` is the same on paper and differs in the last bit.
        *first += (slope - *first) * self.gain1;
        *second = *second * self.beta2 + slope * slope * self.gain2;
        let denominator = second.sqrt() / self.root_correction + self.epsilon;
        // Decoupled: the decay scales the parameter itself and does not enter the moments.
        *parameter = *parameter * self.keep - self.step_size * *first / denominator;
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_first_step_is_a_sign_step() {
        let mut parameters = array![[0.0, 0.0, 0.0]];
        AdamW::new(AdamWSettings::default(), 1).step(&mut parameters, &array![[3.0, -1e-3, 0.0]]);
        assert!((parameters[[0, 0]] + 5e-3_f64).abs() < 1e-9);
        assert!((parameters[[0, 1]] - 5e-3_f64).abs() < 1e-7);
        assert_eq!(parameters[[0, 2]], 0.0);
    }

    #[test]
    fn weights_decay_without_a_gradient() {
        let mut parameters = array![[2.0]];
        AdamW::new(AdamWSettings::default(), 1).step(&mut parameters, &array![[0.0]]);
        assert!((parameters[[0, 0]] - 2.0_f64 * (1.0 - 5e-5)).abs() < 1e-15);
    }
}
