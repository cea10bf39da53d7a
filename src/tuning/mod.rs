//! The episode: what happens to one image's features between the encoder and the ensemble.

mod adamw;
mod entropy;
mod selection;

use ndarray::{Array1, Array2, ArrayView2, Axis};

pub use adamw::{AdamW, AdamWSettings};
pub use entropy::{
    EntropyTape, entropies, mean_entropy, mean_entropy_backward, weighted_entropy, weighted_entropy_backward,
};
pub use selection::select_confident;

use crate::ensemble::{ReliabilitySettings, mean_shift, reliability_weights, vote};
use crate::error::{Error, Result};
use crate::head::{ClassLowrank, ClassShift, Context, Head, HeadKind, HeadModel, ViewShift, view_basis};
use crate::limits::{CLASS_CUTOFF_MAX, EMBEDDING_MAX, LEARNING_RATE_MAX, TUNING_STEPS_MAX};
use crate::rows::{Real, scaled_products, softmax, weighted_sum};

/// How the prompt is tuned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TuningSettings {
    /// What is tuned.
    pub head: HeadKind,
    /// Optimiser steps (R-TPT: 1).
    pub steps: usize,
    /// Fraction of the views, 0–1, that the loss is computed over (R-TPT: 0.1) or that vote (ZERO: 0.3).
    pub selection: f64,
    /// Directions of `class-lowrank` (count).
    pub rank: usize,
    /// Classes whose probability (0–1) is below this in every view are left as they are; 0 for none.
    pub class_cutoff: f64,
    /// The optimiser.
    pub optimizer: AdamWSettings,
}

impl TuningSettings {
    /// The published settings of a head: one step, and R-TPT's tenth of the views or the head's own share.
    pub fn of(head: HeadKind) -> Self {
        let optimizer = AdamWSettings { learning_rate: head.learning_rate(), ..AdamWSettings::default() };
        Self { head, steps: 1, selection: head.selection(), rank: RANK, class_cutoff: 0.0, optimizer }
    }

    /// The same with another head: learning rate and selection belong to a head, and become the new one's own.
    pub fn with_head(mut self, head: HeadKind) -> Self {
        if head != self.head {
            self.head = head;
            self.selection = head.selection();
            self.optimizer.learning_rate = head.learning_rate();
        }
        self
    }
}

impl TuningSettings {
    /// Whether every setting is in its range.
    ///
    /// # Errors
    /// One is not.
    pub fn check(&self) -> Result<()> {
        let AdamWSettings { learning_rate, weight_decay, .. } = self.optimizer;
        let positive = |value: f64, most: f64| value > 0.0 && value <= most;
        let refused = |what, expected: String, found: String| Err(Error::Setting { what, expected, found });
        if !(1..=TUNING_STEPS_MAX).contains(&self.steps) {
            return refused("the number of tuning steps", format!("1 to {TUNING_STEPS_MAX}"), self.steps.to_string());
        }
        if !positive(learning_rate, LEARNING_RATE_MAX) {
            let expected = format!("above 0, up to {LEARNING_RATE_MAX}");
            return refused("the learning rate", expected, learning_rate.to_string());
        }
        if !positive(self.selection, 1.0) {
            let expected = "above 0, up to 1".to_string();
            return refused("the fraction of selected views", expected, self.selection.to_string());
        }
        if !(0.0..=1.0).contains(&weight_decay) {
            return refused("the weight decay", "0 to 1".into(), weight_decay.to_string());
        }
        if !(0.0..CLASS_CUTOFF_MAX).contains(&self.class_cutoff) {
            let expected = format!("0 for none, or less than {CLASS_CUTOFF_MAX}");
            return refused("the class cut-off", expected, self.class_cutoff.to_string());
        }
        if !(1..=EMBEDDING_MAX).contains(&self.rank) {
            return refused("the rank", format!("1 to {EMBEDDING_MAX}"), self.rank.to_string());
        }
        Ok(())
    }
}

/// Directions of `class-lowrank`, if nothing else is said (count).
const RANK: usize = 32;

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
    /// T' after the last step, `[C, D]`, unit rows; `None` where the classes stay as they are.
    pub tuned_classes: Option<Array2<T>>,
    /// F' after the last step, `[V, D]`, unit rows; `None` where the features stay as they are.
    pub tuned_features: Option<Array2<T>>,
    /// What each view contributes to the answer, `[V]`, summing to 1.
    pub weights: Array1<T>,
    /// The answer `[C]`: its softmax are the probabilities.
    pub prediction: Array1<T>,
}

impl<T: Real> Episode<T> {
    /// Z after the last step, `[V, C]`, of the episode's `features` `[V, D]`, `classes` `[C, D]` and logit scale.
    pub fn tuned_logits(&self, features: ArrayView2<T>, classes: ArrayView2<T>, scale: T) -> Array2<T> {
        match (&self.tuned_features, &self.tuned_classes) {
            (None, None) => self.logits.clone(),
            (moved, shifted) => {
                let features = moved.as_ref().map_or(features, |moved| moved.view());
                scaled_products(scale, features, shifted.as_ref().map_or(classes, |shifted| shifted.view()))
            }
        }
    }
}

/// Runs one episode: select the confident views, minimise their mean entropy, ensemble all views.
///
/// `features` F `[V, D]` and `classes` T `[C, D]` have unit rows, `scale` is s. All state is local: the next image
/// starts afresh, as R-TPT resets prompt and optimiser. What is tuned is `model`; `settings.head` is not looked at.
///
/// With a [`TuningSettings::class_cutoff`] ε the classes below ε in every view keep their embedding, though they stay
/// in the loss. What is left out of the gradient is bounded: with p < ε ≤ 1/e, a view's entropy has a slope of at most
/// `p |ln p + H| ≤ ε max(|ln ε|, ln C)` in that class's logit, and the embedding would have moved by one learning
/// rate a parameter.
pub fn tune<T: Real>(
    features: ArrayView2<T>,
    classes: ArrayView2<T>,
    scale: T,
    model: &HeadModel<T>,
    settings: &TuningSettings,
) -> Episode<T> {
    let logits = scaled_products(scale, features, classes);
    let entropies = entropies(logits.view());
    let as_f64: Vec<f64> = entropies.iter().map(|value| value.to_f64().unwrap_or(f64::NAN)).collect();
    let selected = select_confident(&as_f64, settings.selection);
    let mut episode = Episode {
        logits,
        entropies,
        selected,
        losses: Vec::new(),
        tuned_classes: None,
        tuned_features: None,
        weights: Array1::zeros(0),
        prediction: Array1::zeros(0),
    };
    match model {
        HeadModel::Mta => {
            let mode = mean_shift(features, episode.logits.view());
            episode.prediction = mode.logits(classes, scale);
            episode.weights = mode.weights;
        }
        HeadModel::Zero => {
            let order = select_confident(&as_f64, 1.0);
            let result = vote(episode.logits.view(), &order, episode.selected.len());
            episode.prediction = result.log_shares;
            episode.weights = result.weights;
        }
        HeadModel::ViewShift => shift_views(&mut episode, features, classes, scale, settings),
        HeadModel::None | HeadModel::ClassShift | HeadModel::ClassLowrank(_) | HeadModel::Context(_) => {
            tune_classes(&mut episode, features, classes, scale, model, settings);
            episode.weights = reliability_weights(features, ReliabilitySettings::RTPT);
            episode.prediction = match &episode.tuned_classes {
                // Logits are linear in the features, so `w · (s F T'ᵀ) = s (w · F) T'ᵀ`: the views are added up before
                // they meet the classes, and the V rows of Z_tuned are never computed.
                Some(classes) => {
                    let pooled = weighted_sum(episode.weights.view(), features).insert_axis(Axis(0));
                    scaled_products(scale, pooled.view(), classes.view()).remove_axis(Axis(0))
                }
                None => weighted_sum(episode.weights.view(), episode.logits.view()),
            };
        }
    }
    episode
}

/// Tunes the classes, if the head does and any may be touched.
fn tune_classes<T: Real>(
    episode: &mut Episode<T>,
    features: ArrayView2<T>,
    classes: ArrayView2<T>,
    scale: T,
    model: &HeadModel<T>,
    settings: &TuningSettings,
) {
    if model.kind() == HeadKind::None {
        return;
    }
    let chosen = likely_classes(episode.logits.view(), settings.class_cutoff);
    if chosen.as_ref().is_some_and(Vec::is_empty) {
        return;
    }
    let picked = chosen.as_ref().map(|chosen| classes.select(Axis(0), chosen));
    let mut descent = Descent {
        features: features.select(Axis(0), &episode.selected),
        // At the start the selected views' logits are rows of those above.
        logits: episode.logits.select(Axis(0), &episode.selected),
        chosen: chosen.as_deref(),
        scale,
        losses: Vec::with_capacity(settings.steps),
    };
    let of_chosen = picked.as_ref().map_or(classes, |picked| picked.view());
    let tuned = match model {
        HeadModel::ClassShift => descent.run(&ClassShift { classes: of_chosen }, settings),
        HeadModel::ClassLowrank(basis) => {
            descent.run(&ClassLowrank { classes: of_chosen, basis: basis.view() }, settings)
        }
        HeadModel::Context(model) => descent.run(&Context::new(model, of_chosen, chosen.as_deref()), settings),
        HeadModel::None | HeadModel::ViewShift | HeadModel::Mta | HeadModel::Zero => return,
    };
    episode.losses = descent.losses;
    episode.tuned_classes = Some(match &chosen {
        None => tuned,
        Some(chosen) => {
            let mut all = classes.to_owned();
            chosen.iter().zip(tuned.rows()).for_each(|(&class, row)| all.row_mut(class).assign(&row));
            all
        }
    });
}

/// T-VSS: minimises the weighted entropy of the selected views by a shift of all, then averages their probabilities.
///
/// With every view selected, as is the default, the loss is the paper's `Σ w_i H_i`.
fn shift_views<T: Real>(
    episode: &mut Episode<T>,
    features: ArrayView2<T>,
    classes: ArrayView2<T>,
    scale: T,
    settings: &TuningSettings,
) {
    episode.weights = reliability_weights(features, ReliabilitySettings::TVSS);
    let basis = view_basis(features);
    let mut logits = episode.logits.clone();
    if basis.ncols() > 0 {
        let picked = features.select(Axis(0), &episode.selected);
        let weights: Array1<T> = episode.selected.iter().map(|&view| episode.weights[view]).collect();
        let head = ViewShift { features: picked.view(), basis: basis.view() };
        let mut theta = head.start();
        let mut optimizer = AdamW::new(settings.optimizer, settings.steps);
        for _ in 0..settings.steps {
            let tape = head.forward(&theta);
            let (loss, entropy_tape) =
                weighted_entropy(&scaled_products(scale, tape.rows.view(), classes), weights.view());
            episode.losses.push(loss);
            let dlogits = weighted_entropy_backward(entropy_tape, weights.view());
            // dF' = s dZ T.
            let dfeatures = scaled_products(scale, dlogits.view(), classes.t());
            let dtheta = head.backward(&tape, dfeatures);
            optimizer.step(&mut theta, &dtheta);
        }
        let moved = ViewShift { features, basis: basis.view() }.forward(&theta).rows;
        logits = scaled_products(scale, moved.view(), classes);
        episode.tuned_features = Some(moved);
    }
    let mut mixed = Array1::zeros(logits.ncols());
    for (row, &weight) in logits.rows().into_iter().zip(&episode.weights) {
        mixed.scaled_add(weight, &softmax(row));
    }
    episode.prediction = mixed.mapv(T::ln);
}

/// The classes whose probability reaches `cutoff` in some view; `None` for all of them.
fn likely_classes<T: Real>(logits: ArrayView2<T>, cutoff: f64) -> Option<Vec<usize>> {
    if cutoff <= 0.0 {
        return None;
    }
    let cutoff = T::from(cutoff).expect("a probability fits in any float");
    let mut likely = vec![false; logits.ncols()];
    for view in logits.rows() {
        for (likely, &probability) in likely.iter_mut().zip(&softmax(view)) {
            // NaN counts as likely: it must not be hidden.
            *likely |= probability >= cutoff || probability.is_nan();
        }
    }
    Some((0..likely.len()).filter(|&class| likely[class]).collect())
}

/// The steps of one episode over the selected views.
struct Descent<'a, T> {
    /// `[S, D]`.
    features: Array2<T>,
    /// `[S, C]`, of the present classes.
    logits: Array2<T>,
    /// The classes that are tuned, all if `None`.
    chosen: Option<&'a [usize]>,
    scale: T,
    losses: Vec<T>,
}

impl<T: Real> Descent<'_, T> {
    /// Takes the steps and gives T' of the tuned classes.
    fn run<H: Head<T>>(&mut self, head: &H, settings: &TuningSettings) -> Array2<T> {
        let mut theta = head.start();
        let mut tape = head.forward_start(&theta);
        let mut optimizer = AdamW::new(settings.optimizer, settings.steps);
        for step in 0..settings.steps {
            if step > 0 {
                tape = head.forward(&theta);
                self.update_logits(H::classes(&tape));
            }
            let (loss, entropy_tape) = mean_entropy(&self.logits);
            self.losses.push(loss);
            let dclasses = self.class_gradient(mean_entropy_backward(entropy_tape).view());
            let dtheta = head.backward(&tape, dclasses);
            optimizer.step(&mut theta, &dtheta);
        }
        head.finish(theta)
    }

    fn update_logits(&mut self, classes: ArrayView2<T>) {
        let logits = scaled_products(self.scale, self.features.view(), classes);
        match self.chosen {
            None => self.logits = logits,
            Some(chosen) => chosen.iter().zip(logits.columns()).for_each(|(&class, column)| {
                self.logits.column_mut(class).assign(&column);
            }),
        }
    }

    /// `dT' = s dZᵀ F` of the tuned classes.
    fn class_gradient(&self, dlogits: ArrayView2<T>) -> Array2<T> {
        let count = self.chosen.map_or(dlogits.ncols(), <[usize]>::len);
        let mut dclasses = Array2::zeros((count, self.features.ncols()));
        // A sum over few views: row by row it stays in the cache, and a general product is slower.
        for (index, mut row) in dclasses.rows_mut().into_iter().enumerate() {
            let class = self.chosen.map_or(index, |chosen| chosen[index]);
            for (&dlogit, feature) in dlogits.column(class).iter().zip(self.features.rows()) {
                row.scaled_add(self.scale * dlogit, &feature);
            }
        }
        dclasses
    }
}
