//! Rounds of views: an image is seen in as few as settle its answer.
//!
//! First comes the gate: the clean view and the same without its fine detail. What an attack adds is mostly in the detail, so that the two features
//! are apart where there is one (CSR, ICML 2026, takes a cosine below 0.85 for the sign of an attack). Then come rounds of 8, 16, 32 and 64
//! views, until the answer is settled or may cost no more. The clean view alone never decides: the gate takes the other's word, too, and whether
//! an answer is settled is asked of the augmented views. Where the two features are apart, two rounds in a row have to give the same answer:
//! eight views of an attacked image may agree on what is wrong.

use ndarray::{ArrayView1, ArrayView2, s};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::limits::VIEWS_MAX;
use crate::method::Decision;
use crate::reliability::{ReliabilitySettings, reliability_weights};
use crate::rows::{argmax, softmax, weighted_sum};
use crate::setting::SettingError;

/// Views of the first round; each further one doubles them.
pub(crate) const FIRST_ROUND: usize = 8;
/// Number of views of equal weight that would know the margin as well as the weighted ones do, at least.
const LEAST_VIEWS: f32 = 2.0;

/// When a clean view is taken for untouched.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GateRule {
    /// Least cosine of the clean view's feature and that of the low-passed one.
    pub bound: f32,
    /// Least margin, on both views, from which an image that passes is answered from its clean view; otherwise, or with none, it has a first round.
    pub answers_from: Option<f32>,
}

/// When an answer is settled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StopRule {
    /// Standard errors by which the leader's mean margin is above 0, at least.
    pub deviations: f32,
    /// Share of the views, by weight, that have the leader first, at least.
    pub agreement: f32,
}

impl GateRule {
    /// CSR's bound, where nothing was calibrated; then nobody knows whether the clean view is as good as many.
    pub(crate) const UNCALIBRATED: Self = Self { bound: 0.85, answers_from: None };

    /// The result for a cosine and the logits `[C]` of the clean view and of the low-passed one.
    pub(crate) fn judge(self, cosine: f32, [clean, low_pass]: [ArrayView1<f32>; 2]) -> Gate {
        let leader = argmax(clean);
        let agrees = leader == argmax(low_pass);
        let margin = margin(softmax(clean).view(), leader).min(margin(softmax(low_pass).view(), leader));
        self.rejudge(Gate { cosine, bound: self.bound, agrees, margin, passed: false })
    }

    /// The result as it would be by this rule.
    pub(crate) fn rejudge(self, found: Gate) -> Gate {
        let bound = self.bound;
        Gate { bound, passed: found.agrees && found.cosine >= bound, ..found }
    }

    /// True if an image with this result is answered from its clean view.
    pub(crate) fn answers(self, gate: Gate) -> bool {
        gate.passed && self.answers_from.is_some_and(|least| gate.margin >= least)
    }
}

impl Gate {
    /// True if the clean view is unlike its low-passed copy, as where an attack is in the fine detail.
    pub(crate) fn is_suspicious(&self) -> bool {
        self.cosine < self.bound
    }
}

impl StopRule {
    /// Two standard errors and half of the views, where nothing was calibrated.
    pub(crate) const UNCALIBRATED: Self = Self { deviations: 2.0, agreement: 0.5 };
}

/// One image's rounds so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    stop: StopRule,
    is_suspect: bool,
    before: Option<usize>,
}

impl Course {
    /// The beginning, after the gate.
    pub(crate) fn new(stop: StopRule, gate: Gate) -> Self {
        Self { stop, is_suspect: gate.is_suspicious(), before: None }
    }

    /// True if a round's answer, a class, is the last one, as far as it is settled.
    pub(crate) fn ends_with(&mut self, answer: usize, settling: Option<Settling>) -> bool {
        let is_confirmed = !self.is_suspect || self.before == Some(answer);
        self.before = Some(answer);
        is_confirmed && settling.is_some_and(|found| self.stop.is_met_by(found))
    }
}

/// How far an answer is settled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settling {
    /// Standard errors by which the mean margin is above 0.
    pub deviations: f32,
    /// Share of the views, by weight (0–1), that have the answer first.
    pub agreement: f32,
}

/// Settings of the rounds; the number of views is what they end at.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoundSettings {
    /// Number of views before which no round ends; with 2 or more a gate that is passed has a first round all the same.
    pub views_min: usize,
    /// Time (ms) past which no further round begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_ms: Option<f64>,
    /// The gate.
    pub gate: GateRule,
    /// The end.
    pub stop: StopRule,
}

/// Result of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Gate {
    /// Cosine of the clean view's feature and that of the low-passed one.
    pub cosine: f32,
    /// Least cosine that passes.
    pub bound: f32,
    /// True if both have the same best label.
    pub agrees: bool,
    /// Probability of the clean view's best label minus the largest other one, the smaller of the two views'.
    pub margin: f32,
    /// True if the cosine is not below the bound and both agree.
    pub passed: bool,
}

/// Reason why an image was seen in no more views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StoppedBy {
    /// The gate was passed, and answers.
    Gate,
    /// The answer was settled.
    Settled,
    /// The next round would have taken more time than there was.
    Budget,
    /// There were as many as it may be seen in.
    ViewsMax,
}

/// What the rounds came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Effort {
    /// The gate.
    pub gate: Gate,
    /// Number of views that the image was seen in, the clean one included and the low-passed one not.
    pub views_used: usize,
    /// Number of views that it could have been seen in.
    pub views_max: usize,
    /// Reason for the end.
    pub stopped_by: StoppedBy,
}

/// Where the features of an image's views come from.
pub(crate) trait SeenInRounds {
    /// The features F `[n, D]` of the first `count` views.
    ///
    /// # Errors
    /// The image cannot be decoded or encoded.
    fn see(&mut self, count: usize) -> Result<ArrayView2<'_, f32>>;

    /// The features `[D]` of the clean view and of the low-passed one.
    ///
    /// # Errors
    /// As [`Self::see`].
    fn see_pair(&mut self) -> Result<[ArrayView1<'_, f32>; 2]>;

    /// Time since the beginning (ms), and that of one view so far (ms); None where views cost nothing, as they were encoded before.
    fn spent(&self) -> Option<[f64; 2]>;
}

impl RoundSettings {
    /// Where nothing was calibrated.
    pub(crate) const UNCALIBRATED: Self =
        Self { views_min: 1, budget_ms: None, gate: GateRule::UNCALIBRATED, stop: StopRule::UNCALIBRATED };

    /// Range check of every setting, for `views_max` views at most.
    ///
    /// # Errors
    /// A setting is out of its range.
    pub(crate) fn check(&self, views_max: usize) -> Result<()> {
        if !(1..=views_max.min(VIEWS_MAX)).contains(&self.views_min) {
            let (expected, found) = (format!("1 to {views_max}, the most"), self.views_min.to_string());
            return Err(SettingError { what: "the least number of views", expected, found }.into());
        }
        if let Some(budget) = self.budget_ms.filter(|budget| !(budget.is_finite() && *budget > 0.0)) {
            let expected = "more than 0 ms".into();
            return Err(SettingError { what: "the budget", expected, found: budget.to_string() }.into());
        }
        Ok(())
    }

    /// Numbers of views after which the rounds may end, for at most `views_max`.
    pub(crate) fn sizes(&self, views_max: usize) -> Vec<usize> {
        let doubled = std::iter::successors(Some(FIRST_ROUND), |size| Some(size * 2));
        let mut sizes: Vec<usize> = doubled
            .take_while(|&size| size < views_max)
            .map(|size| size.max(self.views_min.min(views_max)))
            .chain([views_max])
            .collect();
        sizes.dedup();
        sizes
    }

    /// True if `views` more may be encoded.
    pub(crate) fn has_time_for(&self, views: usize, image: &impl SeenInRounds) -> bool {
        match (self.budget_ms, image.spent()) {
            (Some(budget), Some([elapsed, of_view])) => elapsed + of_view * views as f64 <= budget,
            _ => true,
        }
    }
}

impl StopRule {
    /// True if an answer that is settled so far is settled enough.
    pub(crate) fn is_met_by(self, found: Settling) -> bool {
        found.deviations > self.deviations && found.agreement >= self.agreement
    }
}

impl Settling {
    /// How far the augmented views settle the method's answer; `None` where they, weighted by their reliability, have another label first,
    /// or where too few count to say.
    ///
    /// The margin of a view is the probability of the answer minus the largest other one.
    pub(crate) fn of(features: ArrayView2<f32>, decision: &Decision<f32>) -> Option<Self> {
        if features.nrows() < 3 || decision.logits.nrows() != features.nrows() {
            return None;
        }
        let weights = reliability_weights(features.slice(s![1.., ..]), ReliabilitySettings::RTPT);
        let mut probabilities = decision.logits.slice(s![1.., ..]).to_owned();
        for mut row in probabilities.rows_mut() {
            let of_view = softmax(row.view());
            row.assign(&of_view);
        }
        let leader = argmax(weighted_sum(weights.view(), probabilities.view()).view());
        // A view that has nearly all the weight is one view, which says nothing of how others would vary.
        let squares: f32 = weights.iter().map(|weight| weight * weight).sum();
        if leader != argmax(decision.prediction.view()) || squares > 1.0 / LEAST_VIEWS {
            return None;
        }
        let margins: Vec<f32> = probabilities.rows().into_iter().map(|row| margin(row, leader)).collect();
        let weighted = |value: &dyn Fn(f32) -> f32| -> f32 {
            weights.iter().zip(&margins).map(|(weight, &margin)| weight * value(margin)).sum()
        };
        let mean = weighted(&|margin| margin);
        let variance = weighted(&|margin| (margin - mean).powi(2));
        let error = (variance * squares / (1.0 - squares)).sqrt();
        // Views that are all sure have no error to divide by.
        let deviations = mean / error.max(f32::MIN_POSITIVE);
        Some(Self { deviations, agreement: weighted(&|margin| f32::from(u8::from(margin > 0.0))) })
    }
}

/// The probability of `leader` minus the largest other one; of a single label its own.
fn margin(probabilities: ArrayView1<f32>, leader: usize) -> f32 {
    let others = probabilities.iter().enumerate().filter(|&(class, _)| class != leader);
    probabilities[leader] - others.fold(0.0, |largest, (_, &value)| value.max(largest))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2, array};

    use super::*;

    fn sizes(views_min: usize, views_max: usize) -> Vec<usize> {
        RoundSettings { views_min, ..RoundSettings::UNCALIBRATED }.sizes(views_max)
    }

    #[test]
    fn rounds_double_from_eight_to_the_most() {
        assert_eq!(sizes(1, 64), [8, 16, 32, 64]);
        assert_eq!(sizes(1, 100), [8, 16, 32, 64, 100]);
        assert_eq!(sizes(1, 20), [8, 16, 20]);
        assert_eq!((sizes(1, 8), sizes(1, 5), sizes(1, 1)), (vec![8], vec![5], vec![1]));
        assert_eq!(
            (sizes(12, 64), sizes(16, 64), sizes(40, 64)),
            (vec![12, 16, 32, 64], vec![16, 32, 64], vec![40, 64])
        );
        // Where a frame is decided again with as many views as it had, there may be fewer than the least.
        assert_eq!(sizes(12, 8), [8]);
    }

    /// Decision about views of equal features whose probabilities of three classes are these, the clean view first; the answer is `answer`.
    fn settling(probabilities: &[[f32; 3]], features: Array2<f32>, answer: usize) -> Option<Settling> {
        let logits = Array2::from_shape_fn((probabilities.len(), 3), |(view, class)| probabilities[view][class].ln());
        let prediction = Array1::from_shape_fn(3, |class| f32::from(u8::from(class == answer)));
        let decision = Decision::untuned(logits, Array1::zeros(probabilities.len()), prediction);
        Settling::of(features.view(), &decision)
    }

    fn alike(views: usize) -> Array2<f32> {
        Array2::from_shape_fn((views, 2), |(_, axis)| [1.0, 0.0][axis])
    }

    #[test]
    fn margins_are_told_in_standard_errors() {
        // Margins of the augmented views 0.5, 0.4, 0.2 and -0.2: mean 0.225, variance 0.071875, error sqrt(0.071875 / 3).
        let views = [[0.0, 0.0, 1.0], [0.7, 0.1, 0.2], [0.6, 0.2, 0.2], [0.5, 0.3, 0.2], [0.3, 0.5, 0.2]];
        let found = settling(&views, alike(5), 0).unwrap();
        let expected = 0.225 / (0.071_875_f32 / 3.0).sqrt();
        assert!((found.deviations - expected).abs() < 1e-4, "{found:?}, expected {expected}");
        assert!((found.agreement - 0.75).abs() < 1e-6, "{found:?}");
        assert!(StopRule { deviations: 1.4, agreement: 0.7 }.is_met_by(found));
        assert!(!StopRule { deviations: 1.5, agreement: 0.7 }.is_met_by(found));
        assert!(!StopRule { deviations: 1.4, agreement: 0.8 }.is_met_by(found));
    }

    #[test]
    fn a_confident_clean_view_decides_nothing() {
        let views = [[0.999, 0.0005, 0.0005], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1]];
        assert_eq!(settling(&views, alike(4), 0), None, "the others say something else than the answer");
        assert!(settling(&views, alike(4), 1).unwrap().deviations > 3.0);
        assert_eq!(settling(&views[..2], alike(2), 1), None, "one other view has no spread");
    }

    #[test]
    fn a_view_with_all_the_weight_is_no_majority() {
        // Three augmented views are alike and one is apart: at a temperature of 0.01 the three share the weight.
        let features = array![[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]];
        let views = [[0.8, 0.1, 0.1]; 5];
        let found = settling(&views, features, 0).unwrap();
        assert!(found.deviations > 1e3 && found.agreement > 0.99, "{found:?}");
        // Of three augmented views the middle one is nearest to both: alone it has the weight.
        let features = array![[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.96, -0.28]];
        assert_eq!(settling(&[[0.8, 0.1, 0.1]; 4], features, 0), None);
    }

    #[test]
    fn the_gate_wants_likeness_and_the_same_label() {
        let rule = GateRule { bound: 0.8, answers_from: Some(0.3) };
        let (sure, unsure, other) = (array![2.0_f32, 0.0], array![0.5_f32, 0.0], array![0.0_f32, 2.0]);
        let judge = |cosine, low_pass: &Array1<f32>| rule.judge(cosine, [sure.view(), low_pass.view()]);
        let passed = judge(0.8, &sure);
        assert!(passed.passed && rule.answers(passed), "{passed:?}");
        // tanh(1): the probabilities of two logits 2 apart.
        assert!((passed.margin - 1.0_f32.tanh()).abs() < 1e-6, "{passed:?}");
        let faint = judge(0.9, &unsure);
        assert!(faint.passed && !rule.answers(faint), "{faint:?}");
        assert!(!judge(0.79, &sure).passed && !judge(0.9, &other).passed && !judge(0.9, &other).agrees);
        assert!(!GateRule::UNCALIBRATED.answers(judge(0.99, &sure)), "nobody knows whether it may");
    }
}
