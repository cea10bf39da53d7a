//! Asking the target: a budget of queries, the best image so far, and the simplest attack.

use ndarray::ArrayView1;

use super::draws::Draws;
use crate::error::Result;
use crate::views::Pixels;

/// Limits of an attack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Budget {
    /// Largest change of a value, in levels of 255.
    pub levels: f64,
    /// Answers that may be asked for.
    pub queries: usize,
}

/// Result of an attack on one image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AttackOutcome {
    /// The image that comes nearest to misleading the target.
    pub image: Pixels,
    /// Queries that were made, the one for the clean image included.
    pub queries: usize,
    /// True if the target's answer to `image` is wrong.
    pub misled: bool,
    /// True if its answer to the clean image was wrong already; nothing is changed then.
    pub wrong_before: bool,
}

/// One image under attack.
pub(crate) struct Query<'a, F> {
    clean: &'a Pixels,
    truth: usize,
    budget: Budget,
    ask: F,
    best: Pixels,
    best_margin: f32,
    clean_margin: f32,
    asked: usize,
}

impl<'a, F: FnMut(&Pixels) -> Result<ndarray::Array1<f32>>> Query<'a, F> {
    /// Begins with the clean image, which costs a query; `ask` gives the target's answer `[C]`.
    ///
    /// # Errors
    /// The target fails.
    pub(crate) fn new(clean: &'a Pixels, truth: usize, budget: Budget, mut ask: F) -> Result<Self> {
        let margin = margin(ask(clean)?.view(), truth);
        Ok(Self { clean, truth, budget, ask, best: clean.clone(), best_margin: margin, clean_margin: margin, asked: 1 })
    }

    /// True if the target is misled, or no query is left.
    pub(crate) fn is_over(&self) -> bool {
        self.best_margin < 0.0 || self.asked >= self.budget.queries
    }

    /// The margin of `image`, below 0 if the answer is wrong; it is kept if it is the smallest so far.
    ///
    /// # Errors
    /// The target fails.
    pub(crate) fn margin(&mut self, image: Pixels) -> Result<f32> {
        self.asked += 1;
        let margin = margin((self.ask)(&image)?.view(), self.truth);
        if margin < self.best_margin {
            (self.best, self.best_margin) = (image, margin);
        }
        Ok(margin)
    }

    /// The clean image.
    pub(crate) fn clean(&self) -> &'a Pixels {
        self.clean
    }

    /// Queries made.
    pub(crate) fn asked(&self) -> usize {
        self.asked
    }

    /// The budget.
    pub(crate) fn budget(&self) -> Budget {
        self.budget
    }

    /// The whole level nearest to `value` (levels) that is within ε of the clean `byte`.
    pub(crate) fn projected(&self, byte: u8, value: f64) -> u8 {
        let (low, high) =
            ((f64::from(byte) - self.budget.levels).ceil(), (f64::from(byte) + self.budget.levels).floor());
        value.round().clamp(low.max(0.0), high.min(255.0)) as u8
    }

    /// Result of the attack.
    pub(crate) fn outcome(self) -> AttackOutcome {
        AttackOutcome {
            image: self.best,
            queries: self.asked,
            misled: self.best_margin < 0.0,
            wrong_before: self.clean_margin < 0.0,
        }
    }
}

/// The truth's logit less the largest other. It is below 0 where the answer is wrong; NaN counts as right.
fn margin(answer: ArrayView1<f32>, truth: usize) -> f32 {
    let others = answer.iter().enumerate().filter(|&(class, _)| class != truth);
    let largest = others.fold(f32::NEG_INFINITY, |largest, (_, &value)| largest.max(value));
    match answer[truth] - largest {
        // Of two classes without votes neither is ahead.
        difference if difference.is_nan() => 0.0,
        // What is equal goes to the class that comes first, as an answer does.
        0.0 if answer.iter().position(|&value| value == largest).is_some_and(|first| first < truth) => {
            -f32::MIN_POSITIVE
        }
        difference => difference,
    }
}

/// Every value moved by ε up or down at random, again and again: the baseline that any attack should beat.
///
/// # Errors
/// The target fails.
pub(crate) fn random_signs<F>(query: &mut Query<F>, draws: &mut impl Draws) -> Result<()>
where
    F: FnMut(&Pixels) -> Result<ndarray::Array1<f32>>,
{
    while !query.is_over() {
        let mut image = query.clean().clone();
        let levels = query.budget().levels;
        for byte in image.bytes_mut() {
            let sign = if draws.below(2) == 0 { -1.0 } else { 1.0 };
            *byte = query.projected(*byte, f64::from(*byte) + sign * levels);
        }
        query.margin(image)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, array};

    use super::super::{spsa, square};
    use super::*;
    use crate::views::Sampler;

    #[test]
    fn margins_agree_with_answers() {
        assert_eq!(margin(array![1.0, 3.0, 2.0].view(), 1), 1.0);
        assert_eq!(margin(array![1.0, 3.0, 2.0].view(), 0), -2.0);
        assert!(margin(array![2.0, 2.0].view(), 0) >= 0.0 && margin(array![2.0, 2.0].view(), 1) < 0.0);
        assert!(margin(array![0.0, f32::NEG_INFINITY].view(), 1) < 0.0);
        assert_eq!(margin(array![f32::NAN, 1.0].view(), 0), 0.0);
    }

    /// A target that is sure of class 0 as long as the left half is not brighter than the right by much.
    fn ask(image: &Pixels) -> Result<Array1<f32>> {
        let (mut left, mut right) = (0.0, 0.0);
        for y in 0..image.height() {
            for x in 0..image.width() {
                let sum: f32 = image.at(x, y).iter().map(|&byte| f32::from(byte)).sum();
                *if x < image.width() / 2 { &mut left } else { &mut right } += sum;
            }
        }
        let count = (image.width() * image.height() * 3) as f32 / 2.0;
        Ok(array![0.0, (left - right) / count - 3.0])
    }

    fn attacked(
        levels: f64,
        attack: impl Fn(&mut Query<fn(&Pixels) -> Result<Array1<f32>>>, &mut Sampler),
    ) -> AttackOutcome {
        let clean = Pixels::new(12, 12, (0..432_u32).map(|place| (60 + place * 7 % 100) as u8).collect());
        let target: fn(&Pixels) -> Result<Array1<f32>> = ask;
        let mut query = Query::new(&clean, 0, Budget { levels, queries: 600 }, target).unwrap();
        attack(&mut query, &mut Sampler::new(&[1; 32], 0, 0));
        let outcome = query.outcome();
        let largest = clean.bytes().iter().zip(outcome.image.bytes()).map(|(&a, &b)| a.abs_diff(b)).max().unwrap();
        assert!(f64::from(largest) <= levels, "{largest} levels");
        assert!(outcome.queries <= 600 && !outcome.wrong_before);
        assert_eq!(outcome.misled, ask(&outcome.image).unwrap()[1] > 0.0);
        outcome
    }

    #[test]
    fn attacks_mislead_within_their_ball_and_budget() {
        let run_square = |levels| attacked(levels, |query, draws| square(query, draws).unwrap());
        let run_spsa = |levels| attacked(levels, |query, draws| spsa(query, draws).unwrap());
        let run_noise = |levels| attacked(levels, |query, draws| random_signs(query, draws).unwrap());
        assert!(run_square(4.0).misled && run_spsa(4.5).misled);
        // Noise hardly moves the mean of a half, and one level cannot move it far enough.
        for outcome in [run_noise(4.0), run_square(1.0), run_spsa(1.0)] {
            assert!(!outcome.misled && outcome.queries == 600, "{}", outcome.queries);
        }
    }

    #[test]
    fn an_image_that_is_wrong_already_is_left_alone() {
        let clean = Pixels::black(4, 4);
        let mut query = Query::new(&clean, 1, Budget { levels: 4.0, queries: 100 }, ask).unwrap();
        let mut draws = Sampler::new(&[1; 32], 0, 0);
        assert!(draws.below(2) < 2);
        square(&mut query, &mut draws).unwrap();
        let outcome = query.outcome();
        assert!(outcome.wrong_before && outcome.misled && outcome.queries == 1 && outcome.image == clean);
    }
}
