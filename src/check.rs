//! The bundle's check of itself: its golden image through the same stages, against the results it was shipped with.

#[cfg(feature = "cli")]
use ndarray::{Array2, ArrayView2, ArrayView4};
use ndarray::{ArrayD, Axis};

use crate::bundle::{Bundle, GoldenFeatures, GoldenTexts};
#[cfg(feature = "cli")]
use crate::bundle::{GOLDEN_NAMES, GOLDEN_NAMES_IN_F32};
use crate::encoder::{Encoder, EncoderShape, Operators};
#[cfg(feature = "cli")]
use crate::encoder::{EncoderModel, Layers};
use crate::error::{Category, Class, ProgramLayer, Result};
use crate::label_set::LabelSet;
use crate::products::scaled_products;
use crate::text::{Prompt, embed};
use crate::views::clean_view_array;

/// Deviation of one stage's result from its golden.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Deviation {
    /// `view`, `features`, `logits`, `tokens` or `texts`.
    pub stage: &'static str,
    /// Largest absolute difference, NaN if a value was NaN; of `tokens` the number of texts that differ.
    pub difference: f32,
    /// Largest difference allowed.
    pub tolerance: f32,
}

impl Deviation {
    /// True if it is within the tolerance; NaN is not.
    pub(crate) fn passes(&self) -> bool {
        self.difference <= self.tolerance
    }
}

/// The bundle's own goldens, not reproduced on this device.
#[derive(Debug, thiserror::Error)]
#[error(
    "the bundle's goldens are not reproduced: {stage} differs by {difference:e}, tolerance {tolerance:e}; do not trust this bundle on this device"
)]
pub(crate) struct GoldenMismatch {
    /// First stage that is off.
    stage: &'static str,
    /// Largest absolute difference.
    difference: f32,
    /// Largest difference allowed.
    tolerance: f32,
}

impl ProgramLayer for GoldenMismatch {
    fn class(&self) -> Class {
        (Category::Bundle, "golden_mismatch")
    }
}

/// Tolerance of the normalised view: the pixels must be the same, the division may round differently.
const VIEW_TOLERANCE: f32 = 1e-5;
/// Tolerance of the unit-length features.
const FEATURE_TOLERANCE: f32 = 1e-4;
/// Tolerance of the logits.
// The features' tolerance at CLIP's logit scale of 100.
const LOGIT_TOLERANCE: f32 = 1e-2;

/// Runs the golden image through view, encoder and logits and measures the deviation of each stage.
///
/// # Errors
/// The encoder cannot be loaded or run. Deviation past the tolerance is no error here: see [`require_goldens`].
pub(crate) fn check_goldens(bundle: &Bundle) -> Result<Vec<Deviation>> {
    check_with(bundle, Operators::best())
}

fn check_with(bundle: &Bundle, operators: Operators) -> Result<Vec<Deviation>> {
    let goldens = &bundle.goldens;
    let in_f32 = goldens.encoded_in_f32.as_ref().filter(|_| !operators.multiplies_in_int8());
    let GoldenFeatures { features: golden_features, logits: golden_logits } = in_f32.unwrap_or(&goldens.encoded);
    let preprocessing = bundle.manifest.preprocessing();
    let shape = EncoderShape { resolution: preprocessing.resolution, embedding: bundle.manifest.embedding };
    let view = clean_view_array(&goldens.image, &preprocessing).insert_axis(Axis(0));
    let features = Encoder::load_with(&bundle.encoder, shape, 1, operators, None)?.encode(view.view())?;
    let view = view.index_axis_move(Axis(0), 0);
    let mut deviations = vec![
        deviation("view", &view.into_dyn(), &goldens.view, VIEW_TOLERANCE),
        deviation("features", &features.clone().into_dyn(), golden_features, FEATURE_TOLERANCE),
    ];
    if let (Some(logits), Some(_)) = (golden_logits, &bundle.labels) {
        let labels = LabelSet::of(bundle)?;
        let found = scaled_products(bundle.manifest.logit_scale, features.view(), labels.embeddings.view());
        deviations.push(deviation("logits", &found.into_dyn(), logits, LOGIT_TOLERANCE));
    }
    if let Some(golden) = goldens.texts.as_ref().filter(|_| bundle.manifest.has_text_tower()) {
        deviations.extend(check_texts(bundle, golden)?);
    }
    Ok(deviations)
}

/// The golden texts through tokenizer and text tower.
fn check_texts(bundle: &Bundle, golden: &GoldenTexts) -> Result<[Deviation; 2]> {
    let model = bundle.text_model()?;
    let mut tokens = Vec::with_capacity(golden.texts.len());
    for text in &golden.texts {
        let row = model.tokenizer.encode_whole(text)?;
        tokens.push(row.into_iter().map(i64::from).collect::<Vec<i64>>());
    }
    let wrong = tokens.iter().zip(&golden.tokens).filter(|(found, expected)| found != expected).count();
    // Whole texts in the place of the label: what the tower makes of them does not depend on how they are cut.
    let features = embed(&model, &golden.texts, &Prompt::Templates(vec!["{}".into()]))?;
    Ok([
        Deviation { stage: "tokens", difference: wrong as f32, tolerance: 0.0 },
        deviation("texts", &features.into_dyn(), &golden.features, FEATURE_TOLERANCE),
    ])
}

/// The first deviation past its tolerance, as an error.
///
/// # Errors
/// A stage deviates past its tolerance.
pub(crate) fn require_goldens(deviations: &[Deviation]) -> Result<()> {
    match deviations.iter().find(|deviation| !deviation.passes()) {
        None => Ok(()),
        Some(&Deviation { stage, difference, tolerance }) => {
            Err(GoldenMismatch { stage, difference, tolerance }.into())
        }
    }
}

/// Golden features `[1, D]` and logits `[1, C]` of a clean view `[1, 3, R, R]`, with the names of their tensors. A model with weights in int8 has
/// them twice: multiplied in int8, and in f32 as on a processor without kernels of ours.
///
/// # Errors
/// The model cannot be read, loaded or run.
#[cfg(feature = "cli")]
pub(crate) fn golden_features(
    model: &EncoderModel,
    shape: EncoderShape,
    view: ArrayView4<f32>,
    logit_scale: f32,
    classes: Option<ArrayView2<f32>>,
) -> Result<Vec<(&'static str, Array2<f32>)>> {
    let mut ways = vec![(GOLDEN_NAMES, Operators::best())];
    if Layers::of(&model.onnx)?.in_int8 > 0 {
        ways = vec![(GOLDEN_NAMES, Operators::own()), (GOLDEN_NAMES_IN_F32, Operators::Engine)];
    }
    let mut results = Vec::new();
    for ([features_name, logits_name], operators) in ways {
        // With the batch that the check of the bundle uses.
        let features = Encoder::load_with(model, shape, 1, operators, None)?.encode(view)?;
        let logits = classes.map(|classes| scaled_products(logit_scale, features.view(), classes));
        results.push((features_name, features));
        results.extend(logits.map(|logits| (logits_name, logits)));
    }
    Ok(results)
}

fn deviation(stage: &'static str, found: &ArrayD<f32>, expected: &ArrayD<f32>, tolerance: f32) -> Deviation {
    // Shapes were compared with the manifest when the bundle was opened.
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let difference = differences.fold(0.0_f32, |largest, difference| {
        // `max` would pass over NaN.
        if difference.is_nan() || largest.is_nan() { f32::NAN } else { largest.max(difference) }
    });
    Deviation { stage, difference, tolerance }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ndarray::arr1;

    use super::*;

    #[test]
    fn a_model_in_int8_has_goldens_for_processors_that_bring_it_to_f32() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/everyday/bundle");
        let bundle = Bundle::open(folder).unwrap();
        for operators in [Operators::own(), Operators::Engine] {
            require_goldens(&check_with(&bundle, operators).unwrap()).unwrap();
        }
        // Those of the one are not those of the other.
        let (int8, in_f32) = (&bundle.goldens.encoded, bundle.goldens.encoded_in_f32.as_ref().unwrap());
        let apart = deviation("features", &in_f32.features, &int8.features, FEATURE_TOLERANCE);
        assert!(!apart.passes(), "{apart:?}");
    }

    #[test]
    fn one_nan_fails_the_stage() {
        let (expected, found) = (arr1(&[1.0, 2.0, 3.0]).into_dyn(), arr1(&[1.0, f32::NAN, 3.0]).into_dyn());
        let deviation = deviation("features", &found, &expected, 1.0);
        assert!(!deviation.passes());
        assert!(require_goldens(&[deviation]).is_err());
    }

    #[test]
    fn the_largest_difference_counts() {
        let (expected, found) = (arr1(&[1.0, 2.0]).into_dyn(), arr1(&[1.5, 2.25]).into_dyn());
        assert_eq!(deviation("view", &found, &expected, 1.0).difference, 0.5);
        assert!(deviation("view", &found, &expected, 0.5).passes());
        assert!(!deviation("view", &found, &expected, 0.4).passes());
    }
}
