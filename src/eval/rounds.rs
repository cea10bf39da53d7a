//! Fitting of the rounds of views: the gate's bound, whether it answers, and when an answer counts as settled.

use ndarray::{Array1, s};

use super::fitting::{Answered, fit_threshold};
use crate::extractor::Features;
use crate::predictor::Predictor;
use crate::rounds::{Course, Gate, GateRule, RoundSettings, Settling, StopRule};
use crate::rows::argmax;

/// Standard errors that are tried, the cheapest first.
const DEVIATIONS: [f32; 5] = [1.0, 1.5, 2.0, 2.5, 3.0];

/// Margins that are tried, the cheapest first.
const MARGINS: [f32; 6] = [0.0, 0.1, 0.2, 0.3, 0.5, 0.7];

/// What one clean image would come to in rounds, whatever the rules.
pub(crate) struct Observed {
    gate: Gate,
    /// The method's answer `[C]` from the clean view alone.
    clean: Array1<f32>,
    rounds: Vec<Round>,
    wanted: usize,
}

struct Round {
    views: usize,
    prediction: Array1<f32>,
    settling: Option<Settling>,
}

/// Rules that were fitted, and what they come to on the images they were fitted to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FittedRounds {
    /// The gate.
    pub gate: GateRule,
    /// The end of the rounds.
    pub stop: StopRule,
    /// Mean number of encoder runs an image.
    pub mean_encodes: f64,
    /// Share of images (0–1) whose answer is the wanted one.
    pub right: f64,
    /// The same with all views.
    pub right_with_all: f64,
    /// The same with the clean view alone.
    pub right_with_one: f64,
}

impl Observed {
    /// What an image with these features, the low-passed view's among them, would come to; its answer should be `wanted`, or what all its views
    /// give. Runs on the current rayon pool.
    pub(crate) fn of(predictor: &Predictor, features: &Features, wanted: Option<usize>) -> Self {
        let first = |views: usize| features.matrix.slice(s![..views, ..]);
        let gate = predictor.gate(GateRule::UNCALIBRATED, features.pair());
        let round = |views: usize| {
            let decision = predictor.decide(first(views));
            let settling = Settling::of(first(views), &decision);
            Round { views, prediction: decision.prediction, settling }
        };
        let rounds: Vec<Round> =
            RoundSettings::UNCALIBRATED.sizes(features.views.count).into_iter().map(round).collect();
        let clean = predictor.decide(first(1)).prediction;
        let with_all = &rounds[rounds.len() - 1].prediction;
        let wanted = wanted.unwrap_or_else(|| argmax(with_all.view()));
        Self { gate, clean, rounds, wanted }
    }

    /// The answer by these rules, and the encoder runs it takes.
    fn by(&self, gate: GateRule, stop: StopRule) -> (&Array1<f32>, usize) {
        let found = gate.rejudge(self.gate);
        if gate.answers(found) {
            return (&self.clean, 2);
        }
        let mut course = Course::new(stop, found);
        let settled =
            self.rounds.iter().find(|round| course.ends_with(argmax(round.prediction.view()), round.settling));
        let round = settled.unwrap_or(&self.rounds[self.rounds.len() - 1]);
        (&round.prediction, round.views + 1)
    }

    /// The answer by these rules, and the class that it should be.
    pub(crate) fn answered(&self, fitted: &FittedRounds) -> Answered {
        (self.by(fitted.gate, fitted.stop).0.clone(), self.wanted)
    }

    fn is_right(&self, prediction: &Array1<f32>) -> bool {
        argmax(prediction.view()) == self.wanted
    }
}

/// The rules with the fewest encoder runs that are as often right as all views or the clean view, whichever is more often: but for a share of
/// `loss` (0–1) of the images, or for one standard error of the difference on these images, if that is more (the rule of Breiman et al. 1984). If
/// none are, the rules that are most often right.
///
/// A share of at most `false_positive_rate` (0–1) of the images is below the gate's bound.
pub(crate) fn fit_rounds(images: &[Observed], false_positive_rate: f64, loss: f64) -> FittedRounds {
    // The threshold is one that larger values are above: of the negated cosines.
    let negated: Vec<f32> = images.iter().map(|image| -image.gate.cosine).collect();
    let bound = -fit_threshold(&negated, false_positive_rate);
    let share = |count: usize| count as f64 / images.len().max(1) as f64;
    let right = |answer: &dyn Fn(&Observed) -> bool| -> Vec<bool> { images.iter().map(answer).collect() };
    let with_all = right(&|image| image.is_right(&image.rounds[image.rounds.len() - 1].prediction));
    let with_one = right(&|image| image.is_right(&image.clean));
    let total = |right: &[bool]| right.iter().filter(|&&right| right).count();
    let reference = if total(&with_one) > total(&with_all) { &with_one } else { &with_all };
    let margins = MARGINS.into_iter().map(Some).chain([None]);
    let rules = margins.flat_map(|margin| DEVIATIONS.map(|deviations| (margin, deviations)));
    let (mut enough, mut best): (Option<FittedRounds>, Option<FittedRounds>) = (None, None);
    for (answers_from, deviations) in rules {
        let (gate, stop) = (GateRule { bound, answers_from }, StopRule { deviations, ..StopRule::UNCALIBRATED });
        let found = right(&|image| image.is_right(image.by(gate, stop).0));
        let mean_encodes = share(images.iter().map(|image| image.by(gate, stop).1).sum());
        let one = FittedRounds {
            gate,
            stop,
            mean_encodes,
            right: share(total(&found)),
            right_with_all: share(total(&with_all)),
            right_with_one: share(total(&with_one)),
        };
        let count = |first: bool| found.iter().zip(reference).filter(|&(&a, &b)| a != b && a == first).count() as f64;
        let (better, worse) = (count(true), count(false));
        let images = images.len().max(1) as f64;
        let error = (better + worse - (better - worse).powi(2) / images).sqrt() / images;
        let is_cheaper = |than: Option<FittedRounds>| than.is_none_or(|than| mean_encodes < than.mean_encodes);
        if (worse - better) / images <= loss.max(error) && is_cheaper(enough) {
            enough = Some(one);
        }
        if best.is_none_or(|than| one.right > than.right || (one.right == than.right && is_cheaper(Some(than)))) {
            best = Some(one);
        }
    }
    enough.or(best).expect("rules were tried")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image whose clean view and whose rounds of 8 and 16 views give these classes, of which the last is settled by so many standard errors.
    fn image(cosine: f32, clean: usize, rounds: [(usize, f32); 2], wanted: usize) -> Observed {
        let prediction = |class: usize| Array1::from_shape_fn(3, |place| f32::from(u8::from(place == class)));
        let round = |views: usize, (class, deviations): (usize, f32)| Round {
            views,
            prediction: prediction(class),
            settling: Some(Settling { deviations, agreement: 1.0 }),
        };
        let rounds = vec![round(8, rounds[0]), round(16, rounds[1])];
        let gate = Gate { cosine, bound: 0.0, agrees: true, margin: 1.0, passed: true };
        Observed { gate, clean: prediction(clean), rounds, wanted }
    }

    #[test]
    fn a_clean_view_that_is_as_good_answers_by_itself() {
        let images: Vec<Observed> =
            (0..40).map(|place| image(0.5 + place as f32 / 100.0, 0, [(0, 9.0); 2], 0)).collect();
        let fitted = fit_rounds(&images, 0.05, 0.003);
        assert_eq!(fitted.gate.answers_from, Some(0.0));
        // 2 of 40 are below the bound, and have two rounds.
        let below = images.iter().filter(|image| image.gate.cosine < fitted.gate.bound).count();
        assert_eq!(below, 2);
        assert!((fitted.mean_encodes - (38.0 * 2.0 + 2.0 * 17.0) / 40.0).abs() < 1e-9, "{fitted:?}");
        assert_eq!((fitted.right, fitted.stop.deviations), (1.0, 1.0));
    }

    #[test]
    fn views_that_help_have_a_first_round_and_early_ends_that_cost_answers_are_not_taken() {
        // The clean view errs on every other image; so does the round of 8 where it is settled by less than 2.
        let one = |place: usize| match place % 2 {
            0 => image(0.9, 0, [(0, 9.0), (0, 9.0)], 0),
            _ => image(0.9, 1, [(1, 1.8), (0, 9.0)], 0),
        };
        let mut images: Vec<Observed> = (0..40).map(one).collect();
        let fitted = fit_rounds(&images, 0.05, 0.003);
        assert_eq!(fitted.gate.answers_from, None);
        assert_eq!((fitted.stop.deviations, fitted.right, fitted.right_with_one), (2.0, 1.0, 0.5));
        assert!((fitted.mean_encodes - f64::midpoint(9.0, 17.0)).abs() < 1e-9, "{fitted:?}");
        // With half of the answers to lose it is as cheap as can be.
        assert_eq!(fit_rounds(&images, 0.05, 0.5).gate.answers_from, Some(0.0));
        // Where the clean view errs it is unsure: sure ones may answer.
        images.iter_mut().skip(1).step_by(2).for_each(|image| image.gate.margin = 0.25);
        assert_eq!(fit_rounds(&images, 0.05, 0.003).gate.answers_from, Some(0.3));
    }

    #[test]
    fn a_difference_within_one_standard_error_is_none() {
        // The clean view loses 3 of 100 and wins 2: a difference of 1 with an error of 2.2.
        let one = |place: usize| match place {
            0..3 => image(0.9, 1, [(0, 9.0); 2], 0),
            3..5 => image(0.9, 0, [(1, 9.0); 2], 0),
            _ => image(0.9, 0, [(0, 9.0); 2], 0),
        };
        let images: Vec<Observed> = (0..100).map(one).collect();
        assert_eq!(fit_rounds(&images, 0.05, 0.0).gate.answers_from, Some(0.0));
        // It loses 4 and wins none: 4 with an error of 2.
        let images: Vec<Observed> = (0..100).map(|place| one(if place < 4 { 0 } else { 9 })).collect();
        assert_eq!(fit_rounds(&images, 0.05, 0.0).gate.answers_from, None);
    }
}
