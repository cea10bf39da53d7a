//! The random numbers of the views: a ChaCha8 stream per view, so that a view depends on the seed and its own index
//! alone, never on how many others are made or on which thread.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Source of one view's random choices.
pub struct Sampler(ChaCha8Rng);

impl Sampler {
    /// The stream of view `view` of the image with this digest (BLAKE3 of its bytes) under the user's `seed`.
    pub fn new(digest: &[u8; 32], seed: u64, view: usize) -> Self {
        let mut hasher = blake3::Hasher::new();
        // Sets these keys apart from other digests of the same bytes.
        hasher.update(b"rtpt-edge views 1");
        hasher.update(digest);
        hasher.update(&seed.to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(*hasher.finalize().as_bytes());
        generator.set_stream(view as u64);
        Self(generator)
    }

    /// Uniform in [low, high).
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        // A float has 53 significant bits: with more, the largest values would round up to 1.
        let unit = (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        low + (high - low) * unit
    }

    /// A whole number in 0..`bound`; the bias of the multiplication is below `bound` / 2⁶⁴.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.0.next_u64()) * bound as u128) >> 64) as usize
    }

    /// True half of the time.
    pub fn coin(&mut self) -> bool {
        self.0.next_u64() >> 63 == 1
    }

    /// Standard normal, by the method of Box and Muller.
    pub fn normal(&mut self) -> f64 {
        // 1 - u is above 0.
        let radius = (-2.0 * (1.0 - self.uniform(0.0, 1.0)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform(0.0, 1.0)).cos()
    }

    /// A count of mean `rate`, from Poisson's distribution (Knuth's method, for rates up to a few hundred).
    pub fn poisson(&mut self, rate: f64) -> f64 {
        let limit = (-rate).exp();
        let (mut count, mut product) = (0.0, self.uniform(0.0, 1.0));
        while product > limit {
            count += 1.0;
            product *= self.uniform(0.0, 1.0);
        }
        count
    }

    /// Three weights from Dirichlet(1, 1, 1): the gaps that two uniform points leave in the unit interval.
    pub fn dirichlet3(&mut self) -> [f64; 3] {
        let (a, b) = (self.uniform(0.0, 1.0), self.uniform(0.0, 1.0));
        let (low, high) = (a.min(b), a.max(b));
        [low, high - low, 1.0 - high]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(view: usize) -> Sampler {
        Sampler::new(&[7; 32], 3, view)
    }

    #[test]
    fn normals_and_counts_have_their_moments() {
        let mut sampler = sampler(9);
        let mut moments = |draw: &mut dyn FnMut(&mut Sampler) -> f64| {
            let values: Vec<f64> = (0..20_000).map(|_| draw(&mut sampler)).collect();
            let mean = values.iter().sum::<f64>() / 2e4;
            (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 2e4)
        };
        let (mean, variance) = moments(&mut Sampler::normal);
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
        for rate in [0.0, 0.4, 30.0] {
            let (mean, variance) = moments(&mut |sampler| sampler.poisson(rate));
            let tolerance = 0.05 * rate + 1e-9;
            assert!(
                (mean - rate).abs() < tolerance && (variance - rate).abs() < tolerance,
                "{rate}: {mean} {variance}"
            );
        }
    }

    #[test]
    fn streams_are_reproducible_and_differ_by_digest_seed_and_view() {
        let first = sampler(1).0.next_u64();
        assert_eq!(first, sampler(1).0.next_u64());
        assert_ne!(first, sampler(2).0.next_u64());
        assert_ne!(first, Sampler::new(&[7; 32], 4, 1).0.next_u64());
        assert_ne!(first, Sampler::new(&[8; 32], 3, 1).0.next_u64());
    }

    #[test]
    fn whole_numbers_are_uniform() {
        let mut sampler = sampler(0);
        let mut counts = [0_i32; 5];
        for _ in 0..50_000 {
            counts[sampler.below(5)] += 1;
        }
        // Five standard deviations of a binomial count.
        assert!(counts.iter().all(|count| (count - 10_000).abs() < 450), "{counts:?}");
    }

    #[test]
    fn dirichlet_weights_have_the_right_mean_and_variance() {
        let mut sampler = sampler(0);
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..50_000 {
            let weights = sampler.dirichlet3();
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            sum += weights[1];
            squares += weights[1] * weights[1];
        }
        let mean = sum / 50_000.0;
        let variance = squares / 50_000.0 - mean * mean;
        assert!((mean - 1.0 / 3.0).abs() < 5e-3, "{mean}");
        assert!((variance - 1.0 / 18.0).abs() < 2e-3, "{variance}");
    }
}
