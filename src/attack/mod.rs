//! Attacks that need no gradient, and common corruptions: what a deployment can be tried with on the device itself.
//!
//! The attacker asks the target for its answer, logits and all, and changes no value by more than ε (L-infinity).
//! Attacks with gradients are made by `models/attack.py`.

pub mod corruptions;
mod draws;
mod queries;
mod spsa;
mod square;

use ndarray::Array1;

pub use draws::Draws;
pub use queries::{AttackOutcome, Budget, Query, random_signs};
pub use spsa::spsa;
pub use square::square;

use crate::classes::LabelSet;
use crate::error::Result;
use crate::eval::MethodRunner;
use crate::extractor::Extractor;
use crate::views::{Pixels, encode_png};

/// What is attacked: a method behind its views and its encoder.
pub struct Target {
    /// Makes features; for zero-shot of the clean view alone.
    pub extractor: Extractor,
    /// The method.
    pub method: MethodRunner,
    /// The labels.
    pub labels: LabelSet,
    /// The logit scale.
    pub scale: f32,
}

impl Target {
    /// The answer `[C]` to an image, as if it were read from the PNG file it will be written to: a file's digest decides
    /// its views.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn answer(&self, image: &Pixels) -> Result<Array1<f32>> {
        let digest = match self.extractor.settings().views.count {
            // The clean view does not depend on it.
            1 => blake3::hash(b""),
            _ => blake3::hash(&encode_png(image)),
        };
        let features = self.extractor.features(image, &digest)?;
        Ok(self.method.answer(features.view(), self.labels.embeddings.view(), self.scale))
    }
}
