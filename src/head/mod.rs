//! The heads: what a "prompt" is when it is tuned.
//!
//! A head turns features and class embeddings into logits through parameters θ, and a gradient of the logits into a
//! gradient of θ. Forward and backward of each head stand side by side in a file of its own.

mod class_shift;

use serde::{Deserialize, Serialize};

pub use class_shift::{ClassShift, ClassShiftTape};

/// Which head is tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadKind {
    /// Nothing is tuned; the views are only ensembled by their reliability.
    None,
    /// A shift of every class embedding before it is brought to unit length.
    ClassShift,
}

impl HeadKind {
    /// The name used on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ClassShift => "class-shift",
        }
    }
}
