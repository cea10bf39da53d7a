//! The configuration files that come with published CLIP models.
mod fields;
mod hugging_face;
mod open_clip;
mod preprocessor;

use std::path::PathBuf;

use serde::de::DeserializeOwned;

use self::hugging_face::HuggingFaceConfig;
pub(super) use self::hugging_face::{closed_cleaning, length_of_texts, padding_token};
use self::open_clip::OpenClipConfig;
pub(super) use self::preprocessor::image_config;
use super::source::Source;
use super::wrong;
use crate::bundle::Interpolation;
use crate::error::Result;
use crate::text::{Activation, Cleaning, Pooling};
use crate::views::{Arithmetic, Squaring};

/// CLIP's mean of each channel (values in 0–1).
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// CLIP's standard deviation of each channel (values in 0–1).
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Configuration of the text tower. Values it leaves out are left to the tensors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TextConfig {
    /// Attention heads.
    pub heads: usize,
    /// Width of the MLPs between their layers, in widths of the tower.
    pub mlp_ratio: f64,
    /// Activation of the MLPs.
    pub activation: Activation,
    /// How texts are filled up, where every row sees every other.
    pub whole: Option<WholeConfig>,
    /// Added to the variance in layer norms.
    pub epsilon: f64,
    /// How texts are cleaned.
    pub cleaning: Cleaning,
    /// True if a bias follows the projection.
    pub has_projection_bias: bool,
    /// Sizes that the tensors must agree with, by name.
    pub sizes: Vec<(&'static str, usize)>,
}

/// How a tower sees texts whole.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WholeConfig {
    /// The token that fills texts up.
    pub padding: Padding,
    /// The row whose state is the text's.
    pub pooling: Pooling,
}

/// A token, as a configuration names it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Padding {
    /// Its number.
    Number(u32),
    /// Its text.
    Text(String),
}

/// Preprocessing of images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ImageConfig {
    /// Input side R (pixels), where a file says it.
    pub resolution: Option<usize>,
    /// Channel means (values in 0–1).
    pub mean: [f32; 3],
    /// Channel deviations (values in 0–1).
    pub std: [f32; 3],
    /// Filter of the clean view.
    pub interpolation: Interpolation,
    /// Its arithmetic.
    pub arithmetic: Arithmetic,
    /// How an image becomes a square.
    pub squaring: Squaring,
}

/// Text tower and preprocessing of the model in `source`, by whichever configuration it has.
///
/// # Errors
/// There is none, it is of another kind of model, or it asks for something this program does not do.
pub(crate) fn read_configs(source: &Source) -> Result<(TextConfig, ImageConfig)> {
    if let Some((path, config)) = read::<OpenClipConfig>(source, "open_clip_config.json")? {
        return open_clip::open_clip(source, &path, config);
    }
    let Some((path, config)) = read::<HuggingFaceConfig>(source, "config.json")? else {
        return Err(wrong(source.folder(), "config.json", "config.json or open_clip_config.json", "missing"));
    };
    hugging_face::hugging_face(source, &path, config)
}

fn present<const N: usize>(sizes: [(&'static str, Option<usize>); N]) -> Vec<(&'static str, usize)> {
    sizes.into_iter().filter_map(|(name, size)| Some((name, size?))).collect()
}

fn read<C: DeserializeOwned>(source: &Source, name: &str) -> Result<Option<(PathBuf, C)>> {
    let Some((path, bytes)) = source.read(name)? else { return Ok(None) };
    match serde_json::from_slice(&bytes) {
        Ok(config) => Ok(Some((path, config))),
        Err(error) => Err(wrong(&path, "the content", "the JSON of a CLIP model", error)),
    }
}
