//! The heads: what a "prompt" is when it is tuned.
//!
//! Most heads make class embeddings T' `[C, D]` of parameters θ, and a gradient of θ of one of T'; `view-shift` makes
//! features F' `[V, D]`. Logits are the same for all: `Z = s F' T'ᵀ`. Forward and backward of each head stand side by side in a file of its own.

mod class_lowrank;
mod class_shift;
mod context;
mod view_shift;

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

pub use class_lowrank::{ClassLowrank, class_basis};
pub use class_shift::{ClassShift, ClassShiftTape};
pub use context::{Context, ContextModel, ContextTape};
pub use view_shift::{ViewShift, residuals, view_basis};

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
    /// A shift of every view's features within the directions in which the views differ: T-VSS.
    ViewShift,
    /// The context's token embeddings, through the text tower: R-TPT as it is published.
    Context,
    /// Nothing is tuned; the answer is that of the features' mode.
    Mta,
    /// Nothing is tuned; the most confident views vote.
    Zero,
}

impl HeadKind {
    /// The name used on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ClassShift => "class-shift",
            Self::ClassLowrank => "class-lowrank",
            Self::ViewShift => "view-shift",
            Self::Context => "context",
            Self::Mta => "mta",
            Self::Zero => "zero",
        }
    }

    /// Every head, in the order they are listed in.
    pub const ALL: [Self; 7] =
        [Self::None, Self::ClassShift, Self::ClassLowrank, Self::ViewShift, Self::Context, Self::Mta, Self::Zero];

    /// The learning rate a head is tuned with if nothing else is said.
    ///
    /// A first AdamW step moves every parameter by the learning rate, so a head's rate belongs to its parameters.
    /// R-TPT's is 5e-3. `class-lowrank` has fewer parameters a class than `class-shift` and moves further with each.
    /// T-VSS's, for `view-shift`, is 0.1.
    pub fn learning_rate(self) -> f64 {
        match self {
            Self::None | Self::ClassShift | Self::Context | Self::Mta | Self::Zero => 5e-3,
            Self::ClassLowrank => 2e-2,
            Self::ViewShift => 1e-1,
        }
    }

    /// The fraction of the views, those of least entropy, that a head looks at if nothing else is said.
    ///
    /// R-TPT's is a tenth; ZERO lets three tenths vote; `view-shift` and MTA look at all.
    pub fn selection(self) -> f64 {
        match self {
            Self::None | Self::ClassShift | Self::ClassLowrank | Self::Context => 0.1,
            Self::Zero => 0.3,
            Self::ViewShift | Self::Mta => 1.0,
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
    /// Nothing more is needed: the basis is made of the image.
    ViewShift,
    /// The text tower and the prompts.
    Context(Box<ContextModel<T>>),
    /// Nothing more is needed.
    Mta,
    /// Nothing more is needed.
    Zero,
}

impl<T> HeadModel<T> {
    /// Which head it is.
    pub fn kind(&self) -> HeadKind {
        match self {
            Self::None => HeadKind::None,
            Self::ClassShift => HeadKind::ClassShift,
            Self::ClassLowrank(_) => HeadKind::ClassLowrank,
            Self::ViewShift => HeadKind::ViewShift,
            Self::Context(_) => HeadKind::Context,
            Self::Mta => HeadKind::Mta,
            Self::Zero => HeadKind::Zero,
        }
    }
}

/// A head that tunes class embeddings.
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
