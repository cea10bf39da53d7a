//! `class-shift`: θ is a shift Δ `[C, D]` of the class embeddings, at first 0; `T' = unit rows of (T + Δ)`.

use ndarray::{Array1, Array2, ArrayView2, CowArray, Ix2};

use super::class_tuning::{ClassTuning, Head};
use super::settings::MethodSettings;
use super::{Decide, Decision, Material};
use crate::products::Real;
use crate::rows::{UnitRows, unit_rows, unit_rows_backward};

/// The method.
struct Prepared(ClassTuning);

/// The method; it needs nothing of the material.
pub fn prepare<T: Real>(_: Material<T>, settings: &MethodSettings) -> Box<dyn Decide<T>> {
    Box::new(Prepared(ClassTuning::of(settings)))
}

impl<T: Real> Decide<T> for Prepared {
    fn decide(&self, features: ArrayView2<T>, classes: ArrayView2<T>, scale: T) -> Decision<T> {
        self.0.decide(features, classes, scale, |descent, classes| descent.run(&ClassShift { classes }))
    }
}

/// The head over the classes that are tuned.
pub struct ClassShift<'a, T> {
    /// Class embeddings T `[C, D]`, unit rows.
    pub classes: ArrayView2<'a, T>,
}

/// Intermediates of the forward pass that [`ClassShift::backward`] needs.
pub struct ClassShiftTape<'a, T> {
    /// The shifted classes T' `[C, D]`, unit rows.
    shifted: CowArray<'a, T, Ix2>,
    /// The lengths `[C]` of T + Δ.
    lengths: Array1<T>,
}

impl<'a, T: Real> Head<T> for ClassShift<'a, T> {
    type Tape = ClassShiftTape<'a, T>;

    fn start(&self) -> Array2<T> {
        Array2::zeros(self.classes.dim())
    }

    /// At θ = 0 the shifted classes are the classes themselves: no copy is made.
    fn forward_start(&self, _theta: &Array2<T>) -> ClassShiftTape<'a, T> {
        // Class embeddings are unit rows, so that their lengths are 1.
        ClassShiftTape { shifted: self.classes.into(), lengths: Array1::ones(self.classes.nrows()) }
    }

    fn forward(&self, theta: &Array2<T>) -> ClassShiftTape<'a, T> {
        let UnitRows { rows, lengths } = unit_rows(theta + &self.classes);
        ClassShiftTape { shifted: rows.into(), lengths }
    }

    fn classes<'b>(tape: &'b ClassShiftTape<'a, T>) -> ArrayView2<'b, T> {
        tape.shifted.view()
    }

    /// Back through the row normalisation.
    fn backward(&self, tape: &ClassShiftTape<'a, T>, mut dclasses: Array2<T>) -> Array2<T> {
        unit_rows_backward(tape.shifted.view(), tape.lengths.view(), &mut dclasses);
        dclasses
    }

    /// Takes over the memory of θ.
    fn finish(&self, theta: Array2<T>) -> Array2<T> {
        unit_rows(theta + self.classes).rows
    }

    fn into_classes(tape: ClassShiftTape<'a, T>) -> Array2<T> {
        tape.shifted.into_owned()
    }
}
