//! `context`: θ are the token embeddings ctx `[M, W]` of the words before the class name; T' are all classes, encoded
//! anew by the text tower. This is R-TPT as it is published.

use std::borrow::Cow;
use std::sync::Arc;

use ndarray::{Array2, ArrayView2, Axis, s};

use super::class_tuning::{ClassTuning, Head};
use super::settings::MethodSettings;
use super::{Decide, Decision, Material};
use crate::products::Real;
use crate::text::{Prefix, Prompts, TextTower};

/// The method for one label set.
struct Prepared<T: Real> {
    tuning: ClassTuning,
    model: Arc<ContextModel<T>>,
}

/// The method, over the material's text tower.
pub fn prepare<T: Real>(material: Material<T>, settings: &MethodSettings) -> Box<dyn Decide<T>> {
    let model = material.context.expect("a method whose row needs a text tower is given one");
    Box::new(Prepared { tuning: ClassTuning::of(settings), model })
}

impl<T: Real> Decide<T> for Prepared<T> {
    fn decide(&self, features: ArrayView2<T>, classes: ArrayView2<T>, scale: T) -> Decision<T> {
        self.tuning.decide(features, classes, scale, |descent, classes| {
            // Copied, because `run` borrows the descent mutably while the head looks at the list.
            let chosen = descent.chosen().map(<[usize]>::to_vec);
            descent.run(&Context::new(&self.model, classes, chosen.as_deref()))
        })
    }
}

/// A text tower with the prompts of one label set.
pub struct ContextModel<T: Real> {
    tower: Arc<TextTower<T>>,
    prompts: Prompts<T>,
    /// The class of each prompt, rising, where not every class has one.
    places: Option<Vec<usize>>,
    /// The shared beginning as the words of the context have it.
    start: Prefix<T>,
}

impl<T: Real> ContextModel<T> {
    /// Runs the shared beginning of `prompts` once; it must have at least one token of context.
    pub fn new(tower: Arc<TextTower<T>>, prompts: Prompts<T>) -> Self {
        Self { start: tower.prefix(prompts.shared()), tower, prompts, places: None }
    }

    /// The same where the prompts are those of the classes at `places`, which rise; the other classes stay as they are.
    pub fn at(self, places: Vec<usize>) -> Self {
        Self { places: Some(places), ..self }
    }
}

/// The head for one image.
pub struct Context<'a, T: Real> {
    /// Class embeddings T `[C, D]` at the start, unit rows.
    classes: ArrayView2<'a, T>,
    model: &'a ContextModel<T>,
    prompts: Cow<'a, Prompts<T>>,
    /// The row of `classes` of each prompt, where not every class has one.
    rows: Option<Vec<usize>>,
}

/// Intermediates of the forward pass that [`Context::backward`] needs.
pub struct ContextTape<'a, T> {
    /// The shared beginning at θ; that of the start is kept with the model.
    prefix: Option<Prefix<T>>,
    classes: ndarray::CowArray<'a, T, ndarray::Ix2>,
}

impl<'a, T: Real> Context<'a, T> {
    /// The head over the classes that `chosen` lists, all of them if it is `None`; `classes` `[C, D]` are theirs.
    pub fn new(model: &'a ContextModel<T>, classes: ArrayView2<'a, T>, chosen: Option<&[usize]>) -> Self {
        let (prompts, rows) = match (&model.places, chosen) {
            (None, Some(chosen)) => (Cow::Owned(model.prompts.select(chosen)), None),
            (Some(places), Some(chosen)) => {
                let found = chosen.iter().enumerate();
                let found = found.filter_map(|(row, class)| Some((row, places.binary_search(class).ok()?)));
                let (rows, prompts): (Vec<usize>, Vec<usize>) = found.unzip();
                (Cow::Owned(model.prompts.select(&prompts)), Some(rows))
            }
            (places, None) => (Cow::Borrowed(&model.prompts), places.clone()),
        };
        Self { classes, model, prompts, rows }
    }

    /// The token embeddings of the shared beginning `[P, W]` with `theta` `[M, W]` in place of the context.
    fn shared(&self, theta: &Array2<T>) -> Array2<T> {
        let mut shared = self.prompts.shared().to_owned();
        shared.slice_mut(s![self.prompts.fixed().., ..]).assign(theta);
        shared
    }
}

impl<'a, T: Real> Head<T> for Context<'a, T> {
    type Tape = ContextTape<'a, T>;

    fn start(&self) -> Array2<T> {
        self.prompts.shared().slice(s![self.prompts.fixed().., ..]).to_owned()
    }

    /// At the start the class embeddings are known.
    fn forward_start(&self, _theta: &Array2<T>) -> ContextTape<'a, T> {
        ContextTape { prefix: None, classes: self.classes.into() }
    }

    fn forward(&self, theta: &Array2<T>) -> ContextTape<'a, T> {
        let prefix = self.model.tower.prefix(self.shared(theta).view());
        let encoded = self.model.tower.encode(&prefix, &self.prompts);
        let Some(rows) = &self.rows else { return ContextTape { prefix: Some(prefix), classes: encoded.into() } };
        let mut classes = self.classes.to_owned();
        for (&row, embedding) in rows.iter().zip(encoded.rows()) {
            // Beside classes by example, those of words have a further 0.
            classes.slice_mut(s![row, ..embedding.len()]).assign(&embedding);
        }
        ContextTape { prefix: Some(prefix), classes: classes.into() }
    }

    fn classes<'b>(tape: &'b ContextTape<'a, T>) -> ArrayView2<'b, T> {
        tape.classes.view()
    }

    fn backward(&self, tape: &ContextTape<'a, T>, dclasses: Array2<T>) -> Array2<T> {
        let prefix = tape.prefix.as_ref().unwrap_or(&self.model.start);
        let dclasses = match &self.rows {
            Some(rows) => dclasses.select(Axis(0), rows).slice_move(s![.., ..self.model.tower.shape().embedding]),
            None => dclasses,
        };
        let dshared = self.model.tower.backward(prefix, &self.prompts, dclasses.view());
        // The start token is fixed.
        dshared.slice(s![self.prompts.fixed().., ..]).to_owned()
    }

    fn into_classes(tape: ContextTape<'a, T>) -> Array2<T> {
        tape.classes.into_owned()
    }
}
