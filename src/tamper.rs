//! The tamper score: how unlike a clean image the views of an image behave.
//!
//! An adversarial perturbation is made for the whole image. Crops of it fall back to what the image shows, so that the
//! whole image stands apart from its own crops, and differs from all of them in much the same direction. No attack is
//! needed to calibrate the score: a threshold is a quantile of what clean images get.

use ndarray::{ArrayView1, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use crate::directions::{effective_rank, residuals};
use crate::reliability::{ReliabilitySettings, reliability_weights};
use crate::rows::{dot, softmax, weighted_sum};

/// The score and its parts, each from 0 (as clean images) to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TamperScore {
    /// The mean of the parts.
    pub score: f32,
    /// Total variation between the clean view's prediction and that of the others, ensembled by reliability.
    pub disagreement: f32,
    /// Median likeness of the other views minus the clean view's (mean cosine to the nearest others), at least 0: the
    /// loss that takes the clean view's reliability weight.
    pub isolation: f32,
    /// One over the number of directions in which the views differ from the clean one (their effective rank).
    pub narrowness: f32,
}

/// The score of features F `[V, D]` (unit rows) with untuned logits Z `[V, C]`; `None` for a single view.
pub(crate) fn tamper_score(features: ArrayView2<f32>, logits: ArrayView2<f32>) -> Option<TamperScore> {
    if features.nrows() < 2 {
        return None;
    }
    let mut weights = reliability_weights(features, ReliabilitySettings::RTPT);
    // Without the clean view. Where it has all the weight, as with two views it may, the others share equally.
    weights[0] = 0.0;
    if weights.sum() <= 0.0 {
        weights.slice_mut(ndarray::s![1..]).fill(1.0);
    }
    weights /= weights.sum();
    let others = softmax(weighted_sum(weights.view(), logits).view());
    let clean = softmax(logits.row(0));
    let disagreement = 0.5 * others.iter().zip(&clean).map(|(a, b)| (a - b).abs()).sum::<f32>();
    let mut likeness: Vec<f32> = (0..features.nrows()).map(|view| likeness(features, view)).collect();
    let clean_likeness = likeness.remove(0);
    // A median, so that a few crops that are unlike all others do not move it.
    let isolation = (median(&mut likeness) - clean_likeness).clamp(0.0, 1.0);
    let narrowness = match effective_rank(residuals(features).view()) {
        // Views that do not differ at all differ in no direction.
        rank if rank < 1.0 => 0.0,
        rank => (1.0 / rank) as f32,
    };
    Some(TamperScore { score: (disagreement + isolation + narrowness) / 3.0, disagreement, isolation, narrowness })
}

/// Mean cosine of a view to its k nearest others, with R-TPT's k.
fn likeness(features: ArrayView2<f32>, view: usize) -> f32 {
    let one: ArrayView1<f32> = features.row(view);
    let others = features.axis_iter(Axis(0)).enumerate().filter(|&(other, _)| other != view);
    let mut cosines: Vec<f32> = others.map(|(_, row)| dot(one, row)).collect();
    cosines.sort_by(|a, b| b.total_cmp(a));
    cosines.truncate(ReliabilitySettings::RTPT.neighbours);
    cosines.iter().sum::<f32>() / cosines.len() as f32
}

fn median(values: &mut [f32]) -> f32 {
    values.sort_by(f32::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;
    use crate::products::scaled_products;
    use crate::rows::unit_rows;

    fn score_of(rows: Array2<f32>) -> TamperScore {
        let features = unit_rows(rows).rows;
        let classes = array![[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
        let logits = scaled_products(20.0, features.view(), classes.view());
        tamper_score(features.view(), logits.view()).unwrap()
    }

    #[test]
    fn a_clean_view_among_its_own_scores_low_and_one_apart_high() {
        let crops = [[1.0, 0.1, 0.2], [1.0, -0.1, 0.1], [1.0, 0.0, -0.2], [1.0, 0.15, 0.0]];
        let with_first = |first: [f32; 3]| {
            let rows: Vec<f32> = [first].iter().chain(&crops).flatten().copied().collect();
            score_of(Array2::from_shape_vec((5, 3), rows).unwrap())
        };
        let clean = with_first([1.0, 0.0, 0.0]);
        assert!(clean.disagreement < 0.01 && clean.isolation < 0.01 && clean.narrowness < 0.7, "{clean:?}");
        let apart = with_first([0.1, 1.0, 0.0]);
        assert!(apart.disagreement > 0.99 && apart.isolation > 0.5 && apart.narrowness > 0.8, "{apart:?}");
        assert!((apart.score - (apart.disagreement + apart.isolation + apart.narrowness) / 3.0).abs() < 1e-6);
    }

    #[test]
    fn equal_views_score_zero_and_one_view_has_no_score() {
        let same = score_of(Array2::from_shape_fn((6, 3), |(_, column)| [0.6, 0.8, 0.0][column]));
        assert!(same.score.abs() < 1e-6, "{same:?}");
        assert_eq!(tamper_score(array![[1.0, 0.0]].view(), array![[1.0, 2.0]].view()), None);
        assert!(score_of(array![[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).disagreement > 0.99);
    }
}
