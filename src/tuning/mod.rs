//! The episode: what happens to one image's features between the encoder and the ensemble.

mod adamw;
mod entropy;
mod selection;

use ndarray::{Array1, Array2, ArrayView2, Axis, NdFloat};

pub use adamw::{AdamW, AdamWSettings};
pub use entropy::{EntropyTape, entropies, mean_entropy, mean_entropy_backward};
pub use selection::select_confident;

use crate::head::{ClassShift, HeadKind};
use crate::rows::scaled_products;

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

/// Logits before and after tuning.
pub struct Episode<T> {
    /// Z at the start, `[V, C]`.
    pub logits: Array2<T>,
    /// Entropy (nats) of each view at the start, `[V]`.
    pub entropies: Array1<T>,
    /// The selected views `[S]`, most confident first; the same for every step.
    pub selected: Vec<usize>,
    /// The loss before each step (nats).
    pub losses: Vec<T>,
    /// Z after the last step, `[V, C]`; `None` where the head tunes nothing, so that it is [`Self::logits`].
    pub tuned: Option<Array2<T>>,
}

impl<T> Episode<T> {
    /// The logits the answer is made from, `[V, C]`.
    pub fn tuned_logits(&self) -> &Array2<T> {
        self.tuned.as_ref().unwrap_or(&self.logits)
    }
}

/// Runs one episode: select the confident views, minimise their mean entropy, recompute all logits.
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
    let tuned = match settings.head {
        HeadKind::None => None,
        HeadKind::ClassShift => {
            let head = ClassShift { classes, scale };
            let chosen = features.select(Axis(0), &selected);
            // At θ = 0 the selected views' logits are rows of those above.
            let first = logits.select(Axis(0), &selected);
            Some(tune_class_shift(&head, features, chosen.view(), first, settings, &mut losses))
        }
    };
    Episode { logits, entropies, selected, losses, tuned }
}

/// The steps for `class-shift`: only the selected rows go through the loss, all rows through the last forward.
fn tune_class_shift<T: NdFloat>(
    head: &ClassShift<T>,
    features: ArrayView2<T>,
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
    head.logits(features, &head.shift(theta))
}
