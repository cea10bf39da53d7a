//! The bundle's check of itself: its golden image through the same stages, against the results it was shipped with.

use ndarray::{ArrayD, Axis};

use crate::bundle::Bundle;
use crate::encoder::{Encoder, EncoderShape};
use crate::error::{Error, Result};
use crate::rows::scaled_products;
use crate::views::clean_view_array;

/// How far one stage is from its golden.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// `view`, `features` or `logits`.
    pub stage: &'static str,
    /// Largest absolute difference; NaN if a value was NaN.
    pub difference: f32,
    /// Largest difference allowed.
    pub tolerance: f32,
}

impl Drift {
    /// Whether it is within the tolerance; NaN is not.
    pub fn passes(&self) -> bool {
        self.difference <= self.tolerance
    }
}

/// Tolerance of the normalised view: the pixels must be the same, the division may round differently.
const VIEW_TOLERANCE: f32 = 1e-5;
/// Tolerance of the unit-length features.
const FEATURE_TOLERANCE: f32 = 1e-4;
/// Tolerance of the logits.
const LOGIT_TOLERANCE: f32 = 1e-2;

/// Runs the golden image through view, encoder and logits and measures the drift of each stage.
///
/// # Errors
/// The encoder cannot be loaded or run. Drift past the tolerance is no error here: see [`require_goldens`].
pub fn check_goldens(bundle: &Bundle) -> Result<Vec<Drift>> {
    let goldens = &bundle.goldens;
    let preprocessing = bundle.manifest.preprocessing();
    let shape = EncoderShape { resolution: preprocessing.resolution, embedding: bundle.manifest.embedding };
    let view = clean_view_array(&goldens.image, &preprocessing).insert_axis(Axis(0));
    let features = Encoder::load(&bundle.encoder, shape, 1)?.encode(view.view())?;
    let logits = scaled_products(bundle.manifest.logit_scale, features.view(), bundle.labels.embeddings.view());
    let view = view.index_axis_move(Axis(0), 0);
    Ok(vec![
        drift("view", &view.into_dyn(), &goldens.view, VIEW_TOLERANCE),
        drift("features", &features.into_dyn(), &goldens.features, FEATURE_TOLERANCE),
        drift("logits", &logits.into_dyn(), &goldens.logits, LOGIT_TOLERANCE),
    ])
}

/// The first drift past its tolerance, as an error.
///
/// # Errors
/// A stage drifts past its tolerance.
pub fn require_goldens(drifts: &[Drift]) -> Result<()> {
    match drifts.iter().find(|drift| !drift.passes()) {
        None => Ok(()),
        Some(&Drift { stage, difference, tolerance }) => Err(Error::GoldenMismatch { stage, difference, tolerance }),
    }
}

fn drift(stage: &'static str, found: &ArrayD<f32>, expected: &ArrayD<f32>, tolerance: f32) -> Drift {
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let difference = differences.fold(0.0_f32, |largest, difference| {
        if difference.is_nan() || largest.is_nan() { f32::NAN } else { largest.max(difference) }
    });
    Drift { stage, difference, tolerance }
}

#[cfg(test)]
mod tests {
    use ndarray::arr1;

    use super::*;

    #[test]
    fn one_nan_fails_the_stage() {
        let (expected, found) = (arr1(&[1.0, 2.0, 3.0]).into_dyn(), arr1(&[1.0, f32::NAN, 3.0]).into_dyn());
        let drift = drift("features", &found, &expected, 1.0);
        assert!(!drift.passes());
        assert!(require_goldens(&[drift]).is_err());
    }

    #[test]
    fn the_largest_difference_counts() {
        let (expected, found) = (arr1(&[1.0, 2.0]).into_dyn(), arr1(&[1.5, 2.25]).into_dyn());
        assert_eq!(drift("view", &found, &expected, 1.0).difference, 0.5);
        assert!(drift("view", &found, &expected, 0.5).passes());
        assert!(!drift("view", &found, &expected, 0.4).passes());
    }
}
