//! ZERO: the most confident views vote, each for its best class (Farina et al., "Frustratingly easy test-time
//! adaptation of vision-language models", NeurIPS 2024, section 4).

use ndarray::{Array1, ArrayView2};

use super::parameters::SELECTION;
use super::settings::MethodSettings;
use super::{Decide, Decision, Material};
use crate::products::{Real, scaled_products};
use crate::rows::argmax;
use crate::tuning::confident_views;

/// The method.
struct Zero {
    selection: f64,
}

/// The method; it needs nothing of the material.
pub fn prepare<T: Real>(_: Material<T>, settings: &MethodSettings) -> Box<dyn Decide<T>> {
    Box::new(Zero { selection: settings.number(&SELECTION) })
}

impl<T: Real> Decide<T> for Zero {
    fn decide(&self, features: ArrayView2<T>, classes: ArrayView2<T>, scale: T) -> Decision<T> {
        let logits = scaled_products(scale, features, classes);
        let selected = confident_views(logits.view(), self.selection);
        let order = confident_views(logits.view(), 1.0);
        let Vote { log_shares, weights } = vote(logits.view(), &order, selected.len());
        Decision { selected, ..Decision::untuned(logits, weights, log_shares) }
    }
}

/// The result of a vote.
pub struct Vote<T> {
    /// ln of each class's share of the votes, `[C]`; -∞ where it has none.
    pub log_shares: Array1<T>,
    /// The weight of each view, `[V]`: equal for those that voted, summing to 1.
    pub weights: Array1<T>,
}

/// The vote of the first `voters` of `order`, which lists the views of `logits` `[V, C]` by confidence.
///
/// A softmax at temperature 0 is one vote for the largest logit. Of classes with equally many votes that one wins for
/// which the most confident of the remaining views votes, and its vote is counted, as in the authors' code; if none of
/// them votes for any of the tied, the most confident remaining view's logits decide between these.
pub fn vote<T: Real>(logits: ArrayView2<T>, order: &[usize], voters: usize) -> Vote<T> {
    let (views, classes) = logits.dim();
    let mut votes = vec![0_usize; classes];
    let ballot = |view: usize| argmax(logits.row(view));
    order[..voters].iter().for_each(|&view| votes[ballot(view)] += 1);
    let most = votes.iter().copied().max().unwrap_or(0);
    let tied: Vec<usize> = (0..classes).filter(|&class| votes[class] == most).collect();
    // The view that breaks a tie has its vote counted like the others.
    let mut cast = voters;
    if tied.len() > 1 {
        let rest = &order[voters..];
        let decisive = rest.iter().map(|&view| ballot(view)).find(|class| tied.contains(class));
        let closest = || {
            // Where all views have voted, the most confident of them decides.
            let judge = logits.row(rest.first().copied().unwrap_or(order[0]));
            tied[argmax(tied.iter().map(|&class| judge[class]).collect::<Array1<T>>().view())]
        };
        votes[decisive.unwrap_or_else(closest)] += 1;
        cast += 1;
    }
    let real = |count: usize| T::from(count).expect("a view count fits in any float");
    let log_shares = votes.iter().map(|&count| (real(count) / real(cast)).ln()).collect();
    let mut weights = Array1::zeros(views);
    order[..voters].iter().for_each(|&view| weights[view] = T::one() / real(voters));
    Vote { log_shares, weights }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn shares(vote: &Vote<f64>) -> Vec<f64> {
        vote.log_shares.iter().map(|share| share.exp()).collect()
    }

    #[test]
    fn only_voters_count_and_each_has_one_vote() {
        let logits = array![[9.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 5.0]];
        let result = vote(logits.view(), &[0, 1, 2, 3], 3);
        assert_eq!(shares(&result), [1.0 / 3.0, (2.0_f64 / 3.0).ln().exp(), 0.0]);
        assert_eq!(result.weights, array![1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0]);
    }

    #[test]
    fn a_tie_is_broken_by_the_next_confident_view() {
        let logits = array![[9.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [0.0, 2.0, 0.0]];
        let result = vote(logits.view(), &[0, 1, 2, 3], 2);
        assert_eq!(argmax(result.log_shares.view()), 1, "view 2 votes for neither, view 3 for class 1");
        assert!((shares(&result)[1] - 2.0 / 3.0).abs() < 1e-12);
        let result = vote(logits.slice(ndarray::s![..3, ..]), &[0, 1, 2], 2);
        assert_eq!(argmax(result.log_shares.view()), 0, "view 2's logits are equal, so the first of the tied");
        let result = vote(array![[1.0, 4.0, 0.0], [4.0, 1.0, 0.0]].view(), &[0, 1], 2);
        assert_eq!(argmax(result.log_shares.view()), 1, "no view is left: the most confident one decides");
    }
}
