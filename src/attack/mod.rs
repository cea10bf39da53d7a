//! Attacks that need no gradient, and common corruptions: what a deployment can be tried with on the device itself.
//!
//! The attacker asks the target for its answer, logits and all, and changes no value by more than ε (L-infinity).
//! Attacks with gradients are made by `models/attack.py`.

pub(crate) mod corruptions;
mod draws;
mod queries;
mod spsa;
mod square;

use ndarray::Array1;

pub use corruptions::Corruption;
pub use draws::Draws;
pub(crate) use queries::{AttackOutcome, Budget, Query, random_signs};
pub(crate) use spsa::spsa;
pub(crate) use square::square;

use crate::classifier::Classifier;
use crate::error::Result;
use crate::views::{Pixels, encode_png};

/// The target's answer `[C]` to an image, as if it were read from the PNG file it will be written to: the digest of a file
/// decides its views.
///
/// # Errors
/// The encoder fails.
pub(crate) fn target_answer(target: &Classifier, image: &Pixels) -> Result<Array1<f32>> {
    let digest = match target.views().count {
        // The clean view does not depend on it.
        1 => blake3::hash(b""),
        _ => blake3::hash(&encode_png(image)),
    };
    Ok(target.decide_pixels(image, digest)?.prediction)
}
