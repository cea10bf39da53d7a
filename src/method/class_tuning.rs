//! Tuning of class embeddings: R-TPT's steps over the confident views, for whatever makes classes of parameters.

use ndarray::{Array1, Array2, ArrayView2, Axis};

use super::decision::{Decision, Tuned};
use super::parameters::{CLASS_CUTOFF, SELECTION, STEPS};
use super::settings::MethodSettings;
use crate::products::{Real, scaled_products};
use crate::reliability::{ReliabilitySettings, reliability_weights};
use crate::rows::{softmax, weighted_sum};
use crate::tuning::{AdamW, AdamWSettings, confident_views, mean_entropy, mean_entropy_backward};

/// A head: class embeddings T' `[C, D]` as a function of parameters θ, and its gradient.
pub trait Head<T> {
    /// The values that backward needs from the forward pass; T' among them.
    type Tape;

    /// θ before the first step.
    fn start(&self) -> Array2<T>;

    /// T' at the start, where a head may know it already.
    fn forward_start(&self, theta: &Array2<T>) -> Self::Tape {
        self.forward(theta)
    }

    /// T' at `theta`.
    fn forward(&self, theta: &Array2<T>) -> Self::Tape;

    /// T' `[C, D]`, unit rows.
    fn classes(tape: &Self::Tape) -> ArrayView2<'_, T>;

    /// Gradient of θ from that of T', `[C, D]`.
    fn backward(&self, tape: &Self::Tape, dclasses: Array2<T>) -> Array2<T>;

    /// T' at the last `theta`, which is not needed any more.
    fn finish(&self, theta: Array2<T>) -> Array2<T> {
        Self::into_classes(self.forward(&theta))
    }

    /// T' `[C, D]` of a tape that is not needed any more.
    fn into_classes(tape: Self::Tape) -> Array2<T>;
}

/// Settings that all methods which tune classes have in common.
#[derive(Clone, Copy)]
pub(crate) struct ClassTuning {
    steps: usize,
    selection: f64,
    class_cutoff: f64,
    optimizer: AdamWSettings,
}

impl ClassTuning {
    /// The settings of a method whose row lists them.
    pub(crate) fn of(settings: &MethodSettings) -> Self {
        Self {
            steps: settings.count(&STEPS),
            selection: settings.number(&SELECTION),
            class_cutoff: settings.number(&CLASS_CUTOFF),
            optimizer: settings.optimizer(),
        }
    }

    /// Selects the confident views, minimises their mean entropy, and ensembles all views by their reliability.
    ///
    /// `run` takes the steps with a head over the classes it is given, which are those that are tuned.
    ///
    /// With a class cut-off ε the classes below ε in every view keep their embedding, though they stay in the loss.
    /// What is left out of the gradient is bounded: with p < ε ≤ 1/e, a view's entropy has a slope of at most
    /// `p |ln p + H| ≤ ε max(|ln ε|, ln C)` in that class's logit, and the embedding would have moved by one learning
    /// rate a parameter.
    pub(crate) fn decide<T: Real>(
        &self,
        features: ArrayView2<T>,
        classes: ArrayView2<T>,
        scale: T,
        run: impl FnOnce(&mut Descent<T>, ArrayView2<T>) -> Array2<T>,
    ) -> Decision<T> {
        let logits = scaled_products(scale, features, classes);
        let selected = confident_views(logits.view(), self.selection);
        let chosen = likely_classes(logits.view(), self.class_cutoff);
        let mut losses = Vec::new();
        let mut tuned = None;
        // Where no class reaches the cut-off there is nothing to tune.
        if chosen.as_ref().is_none_or(|chosen| !chosen.is_empty()) {
            let mut descent = Descent {
                features: features.select(Axis(0), &selected),
                // At the start the selected views' logits are rows of those above.
                logits: logits.select(Axis(0), &selected),
                chosen: chosen.as_deref(),
                scale,
                settings: *self,
                losses: Vec::with_capacity(self.steps),
            };
            let picked = chosen.as_ref().map(|chosen| classes.select(Axis(0), chosen));
            let moved = run(&mut descent, picked.as_ref().map_or(classes, |picked| picked.view()));
            losses = descent.losses;
            tuned = Some(match &chosen {
                None => moved,
                Some(chosen) => {
                    let mut all = classes.to_owned();
                    chosen.iter().zip(moved.rows()).for_each(|(&class, row)| all.row_mut(class).assign(&row));
                    all
                }
            });
        }
        let weights = reliability_weights(features, ReliabilitySettings::RTPT);
        let prediction = match &tuned {
            // Logits are linear in the features, so `w · (s F T'ᵀ) = s (w · F) T'ᵀ`: the views are added up before they
            // meet the classes, and the V rows of Z_tuned are never computed.
            Some(classes) => {
                let pooled = weighted_sum(weights.view(), features).insert_axis(Axis(0));
                scaled_products(scale, pooled.view(), classes.view()).remove_axis(Axis(0))
            }
            None => weighted_sum(weights.view(), logits.view()),
        };
        let tuned = tuned.map_or(Tuned::Nothing, Tuned::Classes);
        Decision { selected, losses, tuned, ..Decision::untuned(logits, weights, prediction) }
    }
}

/// The classes whose probability reaches `cutoff` in some view; `None` for all of them.
fn likely_classes<T: Real>(logits: ArrayView2<T>, cutoff: f64) -> Option<Vec<usize>> {
    // The default. A list of all classes would be the same, and have every embedding copied.
    if cutoff <= 0.0 {
        return None;
    }
    let cutoff = T::from(cutoff).expect("a probability fits in any float");
    let mut likely = vec![false; logits.ncols()];
    for view in logits.rows() {
        let probabilities: Array1<T> = softmax(view);
        for (likely, &probability) in likely.iter_mut().zip(&probabilities) {
            // NaN counts as likely: it must not be hidden.
            *likely |= probability >= cutoff || probability.is_nan();
        }
    }
    Some((0..likely.len()).filter(|&class| likely[class]).collect())
}

/// The steps of one image over the selected views.
pub(crate) struct Descent<'a, T> {
    /// `[S, D]`.
    features: Array2<T>,
    /// `[S, C]`, of the present classes.
    logits: Array2<T>,
    /// The classes that are tuned, all if `None`.
    chosen: Option<&'a [usize]>,
    scale: T,
    settings: ClassTuning,
    losses: Vec<T>,
}

impl<T: Real> Descent<'_, T> {
    /// The classes that are tuned, all if `None`.
    pub(crate) fn chosen(&self) -> Option<&[usize]> {
        self.chosen
    }

    /// T' of the tuned classes after the steps.
    pub(crate) fn run<H: Head<T>>(&mut self, head: &H) -> Array2<T> {
        let steps = self.settings.steps;
        let mut theta = head.start();
        let mut tape = head.forward_start(&theta);
        let mut optimizer = AdamW::new(self.settings.optimizer, steps);
        for step in 0..steps {
            // The logits of the first step came with the start: the views were selected by them.
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
            // The other classes stand still, but their logits stay in the loss.
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
