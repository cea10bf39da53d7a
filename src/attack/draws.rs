//! Source of the random numbers of attacks and corruptions.

use crate::views::Sampler;

/// Random numbers, one after the other. A [`Sampler`] draws them; the tests replay those of a golden.
pub trait Draws {
    /// Uniform in [low, high).
    fn uniform(&mut self, low: f64, high: f64) -> f64;
    /// Standard normal.
    fn normal(&mut self) -> f64;
    /// A count of mean `rate`, from Poisson's distribution.
    fn poisson(&mut self, rate: f64) -> f64;
    /// A whole number in 0..`bound`.
    fn below(&mut self, bound: usize) -> usize;
}

impl Draws for Sampler {
    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        Self::uniform(self, low, high)
    }

    fn normal(&mut self) -> f64 {
        Self::normal(self)
    }

    fn poisson(&mut self, rate: f64) -> f64 {
        Self::poisson(self, rate)
    }

    fn below(&mut self, bound: usize) -> usize {
        Self::below(self, bound)
    }
}
