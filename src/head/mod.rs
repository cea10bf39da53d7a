//! The heads: what a "prompt" is when it is tuned.
//!
//! A head makes class embeddings T' `[C, D]` of parameters θ, and a gradient of θ of one of T'. Logits are the same
//! for all: `Z = s F T'ᵀ`. Forward and backward of each head stand side by side in a file of its own.

mod class_lowrank;
mod class_shift;
mod context;

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

pub use class_lowrank::{ClassLowrank, class_basis};
pub use class_shift::{ClassShift, ClassShiftTape};
pub use context::{Context, ContextModel, ContextTape};

/// Which head is tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadKind {
    /// Nothing is tuned; the views are only ensembled by their reliability.
    None,
    /// A shift of every class embedding before it is brought to unit length.
    ClassShift,
    /// The same, within the few directions in which the classes differ most.
    ClassLowrank,
    /// The context's token embeddings, through the text tower: R-TPT as it is published.
    Context,
}

impl HeadKind {
    /// The name used on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ClassShift => "class-shift",
            Self::ClassLowrank => "class-lowrank",
            Self::Context => "context",
        }
    }

    /// The learning rate a head is tuned with if nothing else is said.
    ///
    /// A first AdamW step moves every parameter by the learning rate, so a head's rate belongs to its parameters.
    /// R-TPT's is 5e-3. `class-lowrank` has fewer parameters a class than `class-shift` and moves further with each.
    pub fn learning_rate(self) -> f64 {
        match self {
            Self::None | Self::ClassShift | Self::Context => 5e-3,
            Self::ClassLowrank => 2e-2,
        }
    }
}

/// What a head needs beyond the class embeddings; made once per label set.
pub enum HeadModel<T> {
    /// Nothing is tuned.
    None,
    /// Nothing more is needed.
    ClassShift,
    /// The basis B `[D, r]`.
    ClassLowrank(Array2<T>),
    /// The text tower and the prompts.
    Context(Box<ContextModel<T>>),
}

impl<T> HeadModel<T> {
    /// Which head it is.
    pub fn kind(&self) -> HeadKind {
        match self {
            Self::None => HeadKind::None,
            Self::ClassShift => HeadKind::ClassShift,
            Self::ClassLowrank(_) => HeadKind::ClassLowrank,
            Self::Context(_) => HeadKind::Context,
        }
    }
}

/// A head that can be tuned.
pub trait Head<T> {
    /// What backward needs from the forward pass; T' among it.
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
