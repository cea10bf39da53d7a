//! `preprocessor_config.json`: how `transformers` prepares images.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::fields::{Understood, check_fields};
use super::{CLIP_MEAN, CLIP_STD, ImageConfig, read};
use crate::bundle::Interpolation;
use crate::error::Result;
use crate::import::source::Source;
use crate::import::wrong;
use crate::views::{Arithmetic, Squaring};

/// Pillow's numbers for its filters.
const BILINEAR: u64 = 2;
const BICUBIC: u64 = 3;

/// Processors that prepare images as CLIP's or SigLIP's does.
const PROCESSORS: Understood = Understood::Words(&[
    "CLIPFeatureExtractor",
    "CLIPImageProcessor",
    "CLIPImageProcessorFast",
    "SiglipImageProcessor",
    "SiglipImageProcessorFast",
]);

/// What the names of processors end in that resize tensors.
const FAST: &str = "Fast";

/// Fields of `preprocessor_config.json` besides those that are computed with (`CLIPImageProcessor` and its fast form of transformers 4.57.1).
const PREPROCESSOR_FIELDS: &[(&str, Understood)] = &[
    ("_valid_processor_keys", Understood::Any),
    ("data_format", Understood::Any),
    // The size itself says it.
    ("default_to_square", Understood::Any),
    ("device", Understood::Any),
    ("disable_grouping", Understood::Any),
    ("do_convert_rgb", Understood::Any),
    ("do_pad", Understood::False),
    ("do_rescale", Understood::True),
    ("input_data_format", Understood::Any),
    ("pad_size", Understood::Nothing),
    ("processor_class", Understood::Any),
    ("return_tensors", Understood::Any),
    ("use_fast", Understood::Any),
    ("use_square_size", Understood::False),
];

/// `preprocessor_config.json`.
#[derive(Deserialize)]
struct PreprocessorConfig {
    size: Option<ImageSize>,
    crop_size: Option<ImageSize>,
    resample: Option<u64>,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
    rescale_factor: Option<f64>,
    do_center_crop: Option<bool>,
    do_resize: Option<bool>,
    do_normalize: Option<bool>,
    image_processor_type: Option<Value>,
    feature_extractor_type: Option<Value>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum ImageSize {
    Side(usize),
    Shortest { shortest_edge: usize },
    Both { height: usize, width: usize },
}

/// Preprocessing from `preprocessor_config.json`, or CLIP's where there is none.
///
/// # Errors
/// The file asks for something else than resizing the short side and cropping a square, or squashing into one.
pub(crate) fn image_config(source: &Source, declared: Option<usize>) -> Result<ImageConfig> {
    let clip = ImageConfig {
        resolution: declared,
        mean: CLIP_MEAN,
        std: CLIP_STD,
        interpolation: Interpolation::Bicubic,
        arithmetic: Arithmetic::Pillow,
        squaring: Squaring::Crop,
    };
    let Some((path, config)) = read::<PreprocessorConfig>(source, "preprocessor_config.json")? else {
        log::warn!("no preprocessor_config.json: images are prepared as for OpenAI's CLIP");
        return Ok(clip);
    };
    check_fields(&path, "", &config.others, PREPROCESSOR_FIELDS)?;
    let processor = config.image_processor_type.as_ref().or(config.feature_extractor_type.as_ref());
    if let Some(processor) = processor.filter(|processor| !PROCESSORS.takes(processor)) {
        return Err(wrong(&path, "image_processor_type", &PROCESSORS.expected(), processor));
    }
    let is_fast = processor.and_then(Value::as_str).is_some_and(|name| name.ends_with(FAST));
    let interpolation = match config.resample {
        None | Some(BICUBIC) => Interpolation::Bicubic,
        Some(BILINEAR) => Interpolation::Bilinear,
        Some(other) => return Err(wrong(&path, "resample", "2, bilinear, or 3, bicubic", other)),
    };
    // Left out, it is true.
    if config.do_resize == Some(false) {
        return Err(wrong(&path, "do_resize", "true", "false"));
    }
    if let Some(factor) = config.rescale_factor.filter(|factor| (factor * 255.0 - 1.0).abs() > 1e-6) {
        return Err(wrong(&path, "rescale_factor", "1/255", factor));
    }
    let (resolution, squaring) = square_of(&path, &config, declared)?;
    let (mean, std) = match config.do_normalize {
        Some(false) => ([0.0; 3], [1.0; 3]),
        _ => (config.image_mean.unwrap_or(CLIP_MEAN), config.image_std.unwrap_or(CLIP_STD)),
    };
    let arithmetic = if is_fast { Arithmetic::Torchvision } else { Arithmetic::Pillow };
    Ok(ImageConfig { resolution: Some(resolution), mean, std, interpolation, arithmetic, squaring })
}

/// The side of the square that images become, and how.
fn square_of(path: &Path, config: &PreprocessorConfig, declared: Option<usize>) -> Result<(usize, Squaring)> {
    let side = |size: ImageSize| match size {
        ImageSize::Side(side) | ImageSize::Shortest { shortest_edge: side } => Some(side),
        ImageSize::Both { height, width } => (height == width).then_some(height),
    };
    let refused = || {
        let expected = "a shortest edge equal to the side of a square crop, or the height and width of a square";
        wrong(path, "size", expected, "something else")
    };
    let is_cropped = config.do_center_crop != Some(false);
    let crop = config.crop_size.filter(|_| is_cropped);
    let resized = config.size.or(crop).map_or(declared, side);
    // A crop that is smaller than what is resized would cut something off.
    let side = resized.filter(|_| crop.map_or(resized, side) == resized).ok_or_else(refused)?;
    match config.size {
        // A height and a width squash the image.
        Some(ImageSize::Both { .. }) => Ok((side, Squaring::Squash)),
        _ if is_cropped => Ok((side, Squaring::Crop)),
        _ => Err(wrong(path, "do_center_crop", "true, where the shorter side alone is resized", "false")),
    }
}
