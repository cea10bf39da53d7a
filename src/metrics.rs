//! Metrics of a classifier that the field reports: intervals, paired tests, calibration and detection.

use serde::{Deserialize, Serialize};

/// A probability of 0 counts as this in logarithms: ZERO gives classes without votes nothing.
pub(crate) const PROBABILITY_MIN: f32 = 1e-12;
/// Bins of the expected calibration error (count).
pub(crate) const ECE_BINS: usize = 15;
/// The two-sided 95 % quantile of the normal distribution.
const Z95: f64 = 1.959_963_984_540_054;

/// Wilson's 95 % interval (0–1) of a share of `hits` in `count` (Wilson 1927); all of 0–1 where nothing was counted.
pub(crate) fn wilson(hits: usize, count: usize) -> (f64, f64) {
    if count == 0 {
        return (0.0, 1.0);
    }
    // Wilson's interval and not the normal one, which has no width at 0 and 100 %.
    let (share, n, square) = (hits as f64 / count as f64, count as f64, Z95 * Z95);
    let center = share + square / (2.0 * n);
    let spread = Z95 * (share * (1.0 - share) / n + square / (4.0 * n * n)).sqrt();
    // Rounding may pass the ends of the unit interval.
    (((center - spread) / (1.0 + square / n)).max(0.0), ((center + spread) / (1.0 + square / n)).min(1.0))
}

/// McNemar's exact two-sided p-value, where `better` images are right only under one method and `worse` only under the
/// other (McNemar 1947; the binomial form).
pub(crate) fn mcnemar(better: usize, worse: usize) -> f64 {
    let (n, fewer) = (better + worse, better.min(worse));
    // From about 1,030 on binomial coefficients overflow an f64; their logarithms do not.
    let log_choose = |k: usize| {
        let gamma = |x: usize| libm::lgamma(x as f64 + 1.0);
        gamma(n) - gamma(k) - gamma(n - k)
    };
    let tail: f64 = (0..=fewer).map(|k| (log_choose(k) - n as f64 * std::f64::consts::LN_2).exp()).sum();
    // Where both counts are equal, the middle of the distribution is in both tails.
    (2.0 * tail).min(1.0)
}

/// Answers of about the same confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bin {
    /// Number of answers.
    pub count: usize,
    /// Their mean confidence (0–1).
    pub confidence: f64,
    /// Share of right answers (0–1).
    pub accuracy: f64,
}

/// `(confidence, right)` in 15 bins of equal width; a bin's upper end belongs to it.
pub(crate) fn bins(answers: &[(f32, bool)]) -> Vec<Bin> {
    let mut bins = vec![Bin::default(); ECE_BINS];
    for &(confidence, right) in answers {
        let place = (f64::from(confidence) * ECE_BINS as f64).ceil() as usize;
        // A confidence of 0 is in no half-open bin, and goes to the first.
        let bin = &mut bins[place.clamp(1, ECE_BINS) - 1];
        bin.count += 1;
        bin.confidence += f64::from(confidence);
        bin.accuracy += f64::from(u8::from(right));
    }
    for bin in bins.iter_mut().filter(|bin| bin.count > 0) {
        bin.confidence /= bin.count as f64;
        bin.accuracy /= bin.count as f64;
    }
    bins
}

/// Expected calibration error (0–1) of `(confidence, right)` over equal bins of confidence (Guo et al. 2017).
pub(crate) fn calibration_error(answers: &[(f32, bool)]) -> f64 {
    let bins = bins(answers);
    bins.iter().map(|bin| bin.count as f64 * (bin.accuracy - bin.confidence).abs()).sum::<f64>()
        / answers.len().max(1) as f64
}

/// Area under the ROC curve: how often a score of `positives` is above one of `negatives`, equals counting half.
///
/// `None` where one of the two is empty.
pub(crate) fn auroc(negatives: &[f32], positives: &[f32]) -> Option<f64> {
    if negatives.is_empty() || positives.is_empty() {
        return None;
    }
    // Sorted once and searched: the pairs themselves may be millions.
    let mut sorted = negatives.to_vec();
    sorted.sort_by(f32::total_cmp);
    let below = |value: f32| sorted.partition_point(|&negative| negative < value);
    let not_above = |value: f32| sorted.partition_point(|&negative| negative <= value);
    let wins: f64 = positives.iter().map(|&value| (below(value) + not_above(value)) as f64 / 2.0).sum();
    Some(wins / (negatives.len() * positives.len()) as f64)
}

/// Quantile of `values` by nearest rank, for a `share` of 0–1; NaN for no values.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(place.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_gives_the_textbook_intervals() {
        // Wilson's formula in Python's doubles.
        for (hits, count, low, high) in [(8, 10, 0.490162, 0.943318), (0, 20, 0.0, 0.161125), (703, 703, 0.994565, 1.0)]
        {
            let (found_low, found_high) = wilson(hits, count);
            assert!((found_low - low).abs() < 1e-6 && (found_high - high).abs() < 1e-6, "{found_low} {found_high}");
        }
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }

    #[test]
    fn mcnemar_is_the_binomial_test() {
        // Twice the sum of binomial coefficients over 2ⁿ, in Python's whole numbers.
        for (better, worse, expected) in [(0, 0, 1.0), (5, 5, 1.0), (1, 9, 0.021484375), (30, 12, 0.007_915_897_334_9)]
        {
            let found = mcnemar(better, worse);
            assert!((found - expected).abs() < 1e-7, "{better} {worse}: {found}");
            assert_eq!(found, mcnemar(worse, better));
        }
        assert!(mcnemar(2000, 10) < 1e-100);
    }

    #[test]
    fn calibration_errors_by_hand() {
        let answers = [(0.95, true), (0.95, false), (0.35, true), (0.35, false), (1.0, true)];
        // Bins of 1/15: 0.35 in the sixth (0.333–0.4), 0.95 and 1.0 in the last.
        let expected = (2.0 * (0.5_f64 - 0.35).abs() + 3.0 * (2.0 / 3.0 - 2.9 / 3.0_f64).abs()) / 5.0;
        assert!((calibration_error(&answers) - expected).abs() < 1e-7);
        assert_eq!(calibration_error(&[]), 0.0);
        for (confidence, place) in [(0.0, 0), (0.01, 0), (0.9, 13), (0.94, 14), (1.0, 14)] {
            assert_eq!(bins(&[(confidence, true)])[place].count, 1, "{confidence}");
        }
    }

    #[test]
    fn auroc_counts_pairs() {
        assert_eq!(auroc(&[0.1, 0.2], &[0.3, 0.4]), Some(1.0));
        assert_eq!(auroc(&[0.1, 0.4], &[0.3, 0.2]), Some(0.5));
        assert_eq!(auroc(&[0.5, 0.5], &[0.5]), Some(0.5));
        assert_eq!(auroc(&[0.9], &[0.1, 0.95, 0.2, 0.3]), Some(0.25));
        assert_eq!(auroc(&[], &[1.0]), None);
    }

    #[test]
    fn quantiles_are_values_that_occur() {
        let values = [4.0, 1.0, 3.0, 2.0];
        let found: Vec<f64> = [0.0, 0.25, 0.5, 0.51, 0.95, 1.0].map(|share| quantile(&values, share)).into();
        assert_eq!(found, [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
