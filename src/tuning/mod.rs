//! The episode: what happens to one image's features between the encoder and the ensemble.

mod adamw;
mod entropy;
mod selection;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, NdFloat};

pub use adamw::{AdamW, AdamWSettings};
pub use entropy::{EntropyTape, entropies, mean_entropy, mean_entropy_backward};
pub use selection::select_confident;

use crate::head::{ClassShift, HeadKind};
use crate::rows::{scaled_products, weighted_sum};

/// How the prompt is tuned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TuningSettings {
    /// What is tuned.
    pub head: HeadKind,
    /// Optimiser steps (R-TPT: 1).
    pub steps: usize,
    /// Fraction of the views, 0–1, that the loss is computed over (R-TPT: 0.1).
    pub selection: f64,
    /// The optimiser.
    pub optimizer: AdamWSettings,
}

/// What one image's tuning started from and led to.
pub struct Episode<T> {
    /// Z at the start, `[V, C]`.
    pub logits: Array2<T>,
    /// Entropy (nats) of each view at the start, `[V]`.
    pub entropies: Array1<T>,
    /// The selected views `[S]`, most confident first; the same for every step.
    pub selected: Vec<usize>,
    /// The loss before each step (nats).
    pub losses: Vec<T>,
    /// T' after the last step, `[C, D]`, unit rows; `None` where the head tunes nothing.
    pub tuned_classes: Option<Array2<T>>,
}

impl<T: NdFloat> Episode<T> {
    /// Z after the last step, `[V, C]`, of the episode's `features` `[V, D]` and logit scale.
    pub fn tuned_logits(&self, features: ArrayView2<T>, scale: T) -> Array2<T> {
        match &self.tuned_classes {
            Some(classes) => scaled_products(scale, features, classes.view()),
            None => self.logits.clone(),
        }
    }

    /// The answer: the ensembled logits `w · Z_tuned`, `[C]`, for reliability weights w `[V]`.
    ///
    /// Logits are linear in the features, so `w · (s F T'ᵀ) = s (w · F) T'ᵀ`: the views are added up before they meet
    /// the classes, and the V rows of Z_tuned are never computed.
    pub fn prediction(&self, weights: ArrayView1<T>, features: ArrayView2<T>, scale: T) -> Array1<T> {
        match &self.tuned_classes {
            Some(classes) => {
                let pooled = weighted_sum(weights, features).insert_axis(Axis(0));
                scaled_products(scale, pooled.view(), classes.view()).remove_axis(Axis(0))
            }
            None => weighted_sum(weights, self.logits.view()),
        }
    }
}

/// Runs one episode: select the confident views, minimise their mean entropy.
///
/// `features` F `[V, D]` and `classes` T `[C, D]` have unit rows, `scale` is s. All state is local: the next image
/// starts afresh, as R-TPT resets prompt and optimiser.
pub fn tune<T: NdFloat>(
    features: ArrayView2<T>,
    classes: ArrayView2<T>,
    scale: T,
    settings: &TuningSettings,
) -> Episode<T> {
    let logits = scaled_products(scale, features, classes);
    let entropies = entropies(logits.view());
    let as_f64: Vec<f64> = entropies.iter().map(|value| value.to_f64().unwrap_or(f64::NAN)).collect();
    let selected = select_confident(&as_f64, settings.selection);
    let mut losses = Vec::with_capacity(settings.steps);
    let tuned_classes = match settings.head {
        HeadKind::None => None,
        HeadKind::ClassShift => {
            let head = ClassShift { classes, scale };
            let chosen = features.select(Axis(0), &selected);
            // At θ = 0 the selected views' logits are rows of those above.
            let first = logits.select(Axis(0), &selected);
            Some(tune_class_shift(&head, chosen.view(), first, settings, &mut losses))
        }
    };
    Episode { logits, entropies, selected, losses, tuned_classes }
}

/// The steps for `class-shift`, over the `chosen` features `[S, D]`; gives the shifted classes T' `[C, D]`.
fn tune_class_shift<T: NdFloat>(
    head: &ClassShift<T>,
    chosen: ArrayView2<T>,
    first: Array2<T>,
    settings: &TuningSettings,
    losses: &mut Vec<T>,
) -> Array2<T> {
    let shape = head.classes.dim();
    let (mut theta, mut dtheta) = (Array2::zeros(shape), Array2::zeros(shape));
    let mut optimizer = AdamW::new(settings.optimizer, settings.steps);
    let (mut tape, mut logits) = (head.unshifted(), first);
    for step in 0..settings.steps {
        if step > 0 {
            tape = head.shift(theta.clone());
            logits = head.logits(chosen, &tape);
        }
        let (loss, entropy_tape) = mean_entropy(&logits);
        losses.push(loss);
        let dlogits = mean_entropy_backward(entropy_tape);
        head.backward(chosen, &tape, dlogits.view(), &mut dtheta);
        optimizer.step(&mut theta, &dtheta);
    }
    head.shift(theta).into_classes()
}
