//! The goldens of an imported bundle: this device's results for one image and a few texts.

use ndarray::{Array2, Axis};
use safetensors::tensor::{Dtype, TensorView, serialize};

use super::GOLDENS;
use crate::bundle::BundleWriter;
use crate::check::golden_features;
use crate::encoder::{EncoderModel, EncoderShape};
use crate::error::Result;
use crate::text::{Prompt, TextModel, embed};
use crate::views::{Pixels, Preprocessing, clean_view_array};

/// Stages of the future bundle that make its goldens.
pub(crate) struct Stages<'a> {
    /// The image encoder.
    pub encoder: &'a EncoderModel,
    /// Sizes of the encoder.
    pub shape: EncoderShape,
    /// Preprocessing before the encoder.
    pub preprocessing: Preprocessing,
    /// Logit scale s.
    pub logit_scale: f32,
    /// T `[C, D]` of the default labels, if there are any.
    pub classes: Option<&'a Array2<f32>>,
    /// The text tower, if there is one.
    pub text: Option<&'a TextModel>,
}

/// Runs both towers and writes what they give.
///
/// # Errors
/// A tower cannot be run, or the file cannot be written.
pub(crate) fn write(image: Option<&Pixels>, stages: &Stages, writer: &mut BundleWriter) -> Result<()> {
    let drawn = image.cloned().unwrap_or_else(drawn_image);
    let view = clean_view_array(&drawn, &stages.preprocessing);
    let views = view.clone().insert_axis(Axis(0));
    let floats =
        |values: &mut dyn Iterator<Item = &f32>| values.flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let mut tensors = vec![
        ("image", Dtype::U8, vec![drawn.height(), drawn.width(), 3], drawn.bytes().to_vec()),
        ("view", Dtype::F32, view.shape().to_vec(), floats(&mut view.iter())),
    ];
    let classes = stages.classes.map(|classes| classes.view());
    for (name, values) in golden_features(stages.encoder, stages.shape, views.view(), stages.logit_scale, classes)? {
        tensors.push((name, Dtype::F32, values.shape().to_vec(), floats(&mut values.iter())));
    }
    let mut metadata = None;
    if let Some(model) = stages.text {
        let texts = ["a photo of a dog.", "a photo of two red cars, at night.", "x"].map(String::from).to_vec();
        let features = embed(model, &texts, &Prompt::Templates(vec!["{}".into()]))?;
        let rows: Vec<Vec<i64>> = texts.iter().map(|text| golden_tokens(model, text)).collect::<Result<_>>()?;
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        // A tensor is a rectangle; -1 is no token.
        let padded = rows.iter().flat_map(|row| row.iter().copied().chain(std::iter::repeat(-1)).take(longest));
        let tokens = padded.flat_map(i64::to_le_bytes).collect();
        tensors.push(("text_tokens", Dtype::I64, vec![texts.len(), longest], tokens));
        tensors.push(("text_features", Dtype::F32, features.shape().to_vec(), floats(&mut features.iter())));
        metadata = Some([("texts".to_string(), serde_json::to_string(&texts).expect("strings are JSON"))].into());
    }
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("the bytes fill the shape"))
    });
    Ok(writer.add(GOLDENS, &serialize(views, metadata).expect("names differ and sizes fit their shapes"))?)
}

/// The tokens of a whole text, start and end included.
fn golden_tokens(model: &TextModel, text: &str) -> Result<Vec<i64>> {
    Ok(model.tokenizer.encode_whole(text)?.into_iter().map(i64::from).collect())
}

/// A drawn image that is not square, so that a wrong crop shows: waves of colour and a few edges.
fn drawn_image() -> Pixels {
    let (width, height) = (300_usize, 220_usize);
    let wave = |position: usize, period: usize| (position % (2 * period)).abs_diff(period) * 255 / period;
    let pixel = |y: usize, x: usize| {
        let edge = if (x / 40 + y / 55).is_multiple_of(3) { 60 } else { 0 };
        [wave(x + y / 2, 61), wave(2 * y + x, 83), wave(x * y / 64, 47)].map(|value| (value * 3 / 4 + edge) as u8)
    };
    let bytes = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(y, x))).collect();
    Pixels::new(width, height, bytes)
}
