//! Decisions: the result of one method on one image's features.

use ndarray::{Array1, Array2, ArrayView2};

use crate::products::{Real, scaled_products};

/// A method prepared for one label set.
pub trait Decide<T>: Send + Sync {
    /// The decision about features F `[V, D]` among classes T `[C, D]` (unit rows both), with logit scale s.
    ///
    /// All state is local: the next image starts afresh, as R-TPT resets prompt and optimiser.
    fn decide(&self, features: ArrayView2<T>, classes: ArrayView2<T>, scale: T) -> Decision<T>;
}

/// The intermediate and final results of a method on one image.
pub struct Decision<T> {
    /// Z before tuning, `[V, C]`.
    pub logits: Array2<T>,
    /// The views that were selected for tuning or voting, `[S]`, most confident first; the same for every step.
    pub selected: Vec<usize>,
    /// The loss before each step (nats).
    pub losses: Vec<T>,
    /// The embeddings that tuning changed.
    pub tuned: Tuned<T>,
    /// The share of each view in the answer, `[V]`, summing to 1.
    pub weights: Array1<T>,
    /// The logits of the answer, `[C]`: their softmax are the probabilities.
    pub prediction: Array1<T>,
    /// Further quantities by name that the method computes on its way and that say something about the image.
    pub terms: Vec<(&'static str, T)>,
}

/// Embeddings after the last tuning step.
pub enum Tuned<T> {
    /// Neither classes nor features were changed.
    Nothing,
    /// T' `[C, D]`, unit rows.
    Classes(Array2<T>),
    /// F' `[V, D]`, unit rows.
    Features(Array2<T>),
}

impl<T: Real> Decision<T> {
    /// The decision of a method that tunes nothing and selects no views.
    pub fn untuned(logits: Array2<T>, weights: Array1<T>, prediction: Array1<T>) -> Self {
        let (selected, losses, terms) = (Vec::new(), Vec::new(), Vec::new());
        Self { logits, selected, losses, tuned: Tuned::Nothing, weights, prediction, terms }
    }

    /// Z after the last step, `[V, C]`, of the image's `features` `[V, D]`, the `classes` `[C, D]` and the logit scale.
    pub fn tuned_logits(&self, features: ArrayView2<T>, classes: ArrayView2<T>, scale: T) -> Array2<T> {
        match &self.tuned {
            Tuned::Nothing => self.logits.clone(),
            Tuned::Classes(tuned) => scaled_products(scale, features, tuned.view()),
            Tuned::Features(tuned) => scaled_products(scale, tuned.view(), classes),
        }
    }
}
