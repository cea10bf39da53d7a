//! `dbd`: the clean view's feature is moved along the mean difference of the confident views from it, further where
//! they agree on the direction ("DBD", arXiv 2606.06186). Forward only: no gradient and no further views.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

use super::parameters::{Parameter, Range, SELECTION};
use super::settings::MethodSettings;
use super::{Decide, Decision, Material};
use crate::directions::residuals;
use crate::products::{Real, scaled_products};
use crate::rows::{dot, length};
use crate::tuning::confident_views;

/// λ where the views agree on the direction; elsewhere it is 1.
pub(super) const LAMBDA: Parameter = Parameter {
    name: "lambda",
    short: "",
    what: "the step λ",
    default: 2.5,
    range: Range::Closed(0.0, 100.0),
    whole: false,
};

/// Mean cosine above which the views agree on the direction.
pub(super) const BOUND: Parameter = Parameter {
    name: "bound",
    short: "",
    what: "the bound of the views' agreement",
    default: 0.8,
    range: Range::Closed(-1.0, 1.0),
    whole: false,
};

/// Number of views that the published bound is for: a quarter of the 63 beside the clean one.
const BOUND_VIEWS: f64 = 16.0;

/// Name of the mean cosine s among a decision's terms.
const AGREEMENT: &str = "direction_agreement";

/// The method.
struct Dbd {
    selection: f64,
    lambda: f64,
    bound: f64,
}

/// The method; it needs nothing of the material.
pub fn prepare<T: Real>(_: Material<T>, settings: &MethodSettings) -> Box<dyn Decide<T>> {
    let [selection, lambda, bound] = [&SELECTION, &LAMBDA, &BOUND].map(|parameter| settings.number(parameter));
    Box::new(Dbd { selection, lambda, bound })
}

impl<T: Real> Decide<T> for Dbd {
    /// With `d_i = f_i - f_0`, the mean `d̄` over the selected views and `s = mean cos(d_i, d̄)`, the answer's feature
    /// is the unit vector along `f_0 + λ d̄`, where λ is 1 unless s is above [`bound_of`] their number.
    fn decide(&self, features: ArrayView2<T>, classes: ArrayView2<T>, scale: T) -> Decision<T> {
        let logits = scaled_products(scale, features, classes);
        let mut weights = Array1::zeros(features.nrows());
        let selected = self.select(logits.view());
        if selected.is_empty() {
            weights[0] = T::one();
            let prediction = logits.row(0).to_owned();
            return Decision::untuned(logits, weights, prediction);
        }
        let real = |value: f64| T::from(value).expect("settings and counts fit in any float");
        // Row i of the residuals belongs to view i + 1.
        let places: Vec<usize> = selected.iter().map(|view| view - 1).collect();
        let differences = residuals(features).select(Axis(0), &places);
        let share = T::one() / real(selected.len() as f64);
        let mean = differences.sum_axis(Axis(0)) * share;
        let agreement = mean_cosine(&differences, &mean);
        let lambda = if agreement > real(bound_of(self.bound, selected.len())) { real(self.lambda) } else { T::one() };
        let moved = &features.row(0) + &(mean * lambda);
        let norm = length(moved.view());
        // A shift that takes all of the feature away leaves no direction: then the clean view stays as it is.
        let unit = if norm > T::zero() { moved / norm } else { features.row(0).to_owned() };
        let prediction = scaled_products(scale, unit.view().insert_axis(Axis(0)), classes).remove_axis(Axis(0));
        // The views that the direction is made of have equal shares; the clean view is only where it starts.
        selected.iter().for_each(|&view| weights[view] = share);
        let terms = vec![(AGREEMENT, agreement)];
        Decision { selected, terms, ..Decision::untuned(logits, weights, prediction) }
    }
}

impl Dbd {
    /// The views of least entropy among all but the clean one: the fraction, rounded, and at least one if there is any.
    fn select<T: Real>(&self, logits: ArrayView2<T>) -> Vec<usize> {
        let others = logits.slice(s![1.., ..]);
        if others.is_empty() {
            // A single view has no others to be moved towards.
            return Vec::new();
        }
        let count = ((others.nrows() as f64 * self.selection).round() as usize).max(1);
        confident_views(others, 1.0).into_iter().take(count).map(|place| place + 1).collect()
    }
}

/// The bound for `count` vectors, where `bound` is that for 16: the fewer there are, the more they agree with their own mean, whatever
/// they are. For a mean cosine c of each to each other one, unit vectors have the cosine `√((1 + (n - 1) c) / n)` with their mean; c is
/// that of 16 with `bound`. One vector alone is never above it. A negative `bound` is below any agreement.
fn bound_of(bound: f64, count: usize) -> f64 {
    if bound < 0.0 {
        return bound;
    }
    if count == 1 {
        return f64::INFINITY;
    }
    let to_each_other = (BOUND_VIEWS * bound * bound - 1.0) / (BOUND_VIEWS - 1.0);
    let count = count as f64;
    ((1.0 + (count - 1.0) * to_each_other) / count).max(0.0).sqrt()
}

/// Mean cosine of the rows with `mean`; a vector without direction agrees with nothing.
fn mean_cosine<T: Real>(rows: &Array2<T>, mean: &Array1<T>) -> T {
    let norm = length(mean.view());
    let cosine = |row: ArrayView1<T>| {
        let product = length(row) * norm;
        if product > T::zero() { dot(row, mean.view()) / product } else { T::zero() }
    };
    let sum = rows.rows().into_iter().fold(T::zero(), |sum, row| sum + cosine(row));
    sum / T::from(rows.nrows()).expect("a view count fits in any float")
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::method::Method;

    fn decide(features: &Array2<f64>, bound: f64) -> Decision<f64> {
        let mut settings = MethodSettings::of(Method::named("dbd").unwrap());
        settings.set("selection", 1.0).unwrap();
        settings.set("bound", bound).unwrap();
        let classes = array![[1.0, 0.0], [0.0, 1.0]];
        let method = prepare(Material { classes: classes.view(), context: None }, &settings);
        method.decide(features.view(), classes.view(), 10.0)
    }

    #[test]
    fn views_that_agree_move_the_answer_further() {
        // Two views that differ from the clean one alike, by about (-0.4, 0.8).
        let features = array![[1.0, 0.0], [0.6, 0.8], [0.6, 0.8]];
        let [agreed, doubted] = [0.8, 1.0].map(|bound| decide(&features, bound));
        assert!((agreed.terms[0].1 - 1.0).abs() < 1e-12, "equal differences have cosine 1");
        let angle = |decision: &Decision<f64>| decision.prediction[1].atan2(decision.prediction[0]);
        assert!((angle(&agreed) - (2.0_f64).atan2(0.0)).abs() < 1e-12, "1 - 2.5 · 0.4 = 0");
        assert!((angle(&doubted) - 0.8_f64.atan2(0.6)).abs() < 1e-12, "λ is 1 where s is not above the bound");
        assert_eq!(agreed.weights, array![0.0, 0.5, 0.5]);
    }

    #[test]
    fn few_views_have_to_agree_more() {
        assert!((bound_of(0.8, 16) - 0.8).abs() < 1e-12, "as published");
        let bounds = [2, 3, 8, 16, 64].map(|count| bound_of(0.8, count));
        assert!(bounds.is_sorted_by(|few, many| few > many), "{bounds:?}");
        // A mean cosine of 0.616 to each other.
        assert!((bounds[0] - 0.808_f64.sqrt()).abs() < 1e-12, "{bounds:?}");
        // One difference is its own mean, and agrees with nothing else.
        let one = array![[1.0, 0.0], [0.6, 0.8]];
        let prediction = decide(&one, 0.8).prediction;
        assert!((prediction[1].atan2(prediction[0]) - 0.8_f64.atan2(0.6)).abs() < 1e-12);
        // 1 - 2.5 · 0.4 = 0: a negative bound always takes the long step.
        assert!(decide(&one, -1.0).prediction[0].abs() < 1e-12);
        assert_eq!(bound_of(0.1, 64), 0.0);
    }

    #[test]
    fn one_view_answers_alone_and_equal_views_agree_on_nothing() {
        let alone = decide(&array![[0.6, 0.8]], 0.8);
        assert_eq!((alone.prediction, alone.weights), (array![6.0, 8.0], array![1.0]));
        assert!(alone.terms.is_empty() && alone.selected.is_empty());
        let equal = decide(&array![[0.6, 0.8], [0.6, 0.8]], 0.8);
        assert_eq!(equal.terms[0].1, 0.0);
        assert!((equal.prediction[0] - 6.0).abs() < 1e-12);
    }
}
