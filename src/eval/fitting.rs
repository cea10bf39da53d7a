//! Fitting of a calibration: the tamper score's threshold and the probabilities' temperature.

use ndarray::Array1;

use crate::calibration::calibrated;
use crate::metrics::{PROBABILITY_MIN, quantile};
use crate::rows::argmax;

/// Range of the temperatures that are searched.
const TEMPERATURES: (f64, f64) = (0.02, 50.0);

/// Threshold of the tamper score: a share of at most `false_positive_rate` (0–1) of the clean `scores` is above it.
pub(crate) fn fit_threshold(scores: &[f32], false_positive_rate: f64) -> f32 {
    let scores: Vec<f64> = scores.iter().map(|&score| f64::from(score)).collect();
    quantile(&scores, 1.0 - false_positive_rate) as f32
}

/// An image's answer `[C]` and the class it is compared with.
pub(crate) type Answered = (Array1<f32>, usize);

/// The temperature that makes the wanted classes most probable (Guo et al. 2017, section 4.2).
///
/// The mean negative log-likelihood has one minimum in the logarithm of the temperature; it is enclosed by golden
/// section.
pub(crate) fn fit_temperature(answers: &[Answered]) -> f64 {
    let loss = |log_temperature: f64| -> f64 {
        let temperature = log_temperature.exp() as f32;
        let of = |(prediction, wanted): &Answered| {
            -f64::from(calibrated(prediction, temperature)[*wanted].max(PROBABILITY_MIN).ln())
        };
        answers.iter().map(of).sum()
    };
    // With this ratio one of the two inner points serves again, and a step costs one evaluation.
    let golden = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (TEMPERATURES.0.ln(), TEMPERATURES.1.ln());
    let (mut left, mut right) = (high - golden * (high - low), low + golden * (high - low));
    let (mut loss_left, mut loss_right) = (loss(left), loss(right));
    // In the logarithm: 0.01 % of the temperature.
    while high - low > 1e-4 {
        if loss_left <= loss_right {
            (high, right, loss_right) = (right, left, loss_left);
            left = high - golden * (high - low);
            loss_left = loss(left);
        } else {
            (low, left, loss_left) = (left, right, loss_right);
            right = low + golden * (high - low);
            loss_right = loss(right);
        }
    }
    f64::midpoint(low, high).exp()
}

/// Confidence at a temperature, and whether the answer is the wanted one.
pub(crate) fn confidences(answers: &[Answered], temperature: f64) -> Vec<(f32, bool)> {
    let of = |(prediction, wanted): &Answered| {
        let answer = argmax(prediction.view());
        (calibrated(prediction, temperature as f32)[answer], answer == *wanted)
    };
    answers.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_lets_no_more_clean_images_through_than_asked() {
        let scores: Vec<f32> = (0..200).map(|place| place as f32 / 200.0).collect();
        for (rate, expected) in [(0.05, 10), (0.01, 2), (0.5, 100), (0.0, 0)] {
            let threshold = fit_threshold(&scores, rate);
            assert_eq!(scores.iter().filter(|&&score| score > threshold).count(), expected, "{rate}");
        }
    }

    #[test]
    fn the_temperature_makes_confidence_the_share_of_right_answers() {
        // Two classes, always the same logits, three of four answers right: softmax(d / T) = 3/4, so T = d / ln 3.
        for gap in [0.5_f32, 4.0, 30.0] {
            let answers: Vec<Answered> =
                (0..40).map(|place| (Array1::from(vec![gap, 0.0]), usize::from(place % 4 == 0))).collect();
            let temperature = fit_temperature(&answers);
            let expected = f64::from(gap) / 3.0_f64.ln();
            assert!((temperature / expected - 1.0).abs() < 1e-3, "{gap}: {temperature}, expected {expected}");
            assert!(confidences(&answers, temperature).iter().all(|(confidence, _)| (confidence - 0.75).abs() < 1e-3));
        }
    }

    #[test]
    fn an_answer_without_votes_for_the_truth_can_be_calibrated() {
        let answers = vec![(Array1::from(vec![0.0, f32::NEG_INFINITY]), 1), (Array1::from(vec![0.0, -1.0]), 0)];
        assert!(fit_temperature(&answers).is_finite());
    }
}
