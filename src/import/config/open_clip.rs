//! `open_clip_config.json`: models as OpenCLIP keeps them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::fields::{Understood, check_fields};
use super::hugging_face::padding_token;
use super::{CLIP_MEAN, CLIP_STD, ImageConfig, Padding, TextConfig, WholeConfig, present};
use crate::bundle::Interpolation;
use crate::error::Result;
use crate::import::source::Source;
use crate::import::wrong;
use crate::text::{Activation, CLIP_EPSILON, Cleaning, Pooling};
use crate::views::{Arithmetic, Squaring};

/// `open_clip_config.json` of an OpenCLIP model.
#[derive(Deserialize)]
pub(super) struct OpenClipConfig {
    model_cfg: OpenClipModel,
    #[serde(default)]
    preprocess_cfg: OpenClipPreprocessing,
}

#[derive(Deserialize)]
struct OpenClipModel {
    embed_dim: usize,
    #[serde(default)]
    quick_gelu: bool,
    vision_cfg: OpenClipVision,
    text_cfg: OpenClipText,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct OpenClipVision {
    image_size: Option<usize>,
}

#[derive(Deserialize)]
struct OpenClipText {
    context_length: Option<usize>,
    vocab_size: Option<usize>,
    width: Option<usize>,
    heads: Option<usize>,
    layers: Option<usize>,
    hf_model_name: Option<String>,
    hf_tokenizer_name: Option<String>,
    mlp_ratio: Option<f64>,
    no_causal_mask: Option<bool>,
    pool_type: Option<String>,
    pad_id: Option<u32>,
    proj_bias: Option<bool>,
    norm_kwargs: Option<NormArguments>,
    act_kwargs: Option<ActivationArguments>,
    tokenizer_kwargs: Option<TokenizerArguments>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// What PyTorch's `LayerNorm` is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NormArguments {
    eps: Option<f64>,
}

/// What PyTorch's `GELU` is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActivationArguments {
    approximate: Option<String>,
}

/// What open_clip's tokenizers are given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenizerArguments {
    clean: Option<String>,
}

#[derive(Default, Deserialize)]
struct OpenClipPreprocessing {
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
    interpolation: Option<String>,
    resize_mode: Option<String>,
    size: Option<Value>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// Fields of `text_cfg` besides sizes (`CLIPTextCfg` of open_clip 3.3.0).
const TEXT_FIELDS: &[(&str, Understood)] = &[
    ("block_type", Understood::Word("default")),
    ("embed_cls", Understood::False),
    // Texts end where their end token is, and have no padding.
    ("eos_id", Understood::Any),
    ("final_ln_after_pool", Understood::False),
    // These three are of towers from `transformers`, which are refused by name.
    ("hf_model_pretrained", Understood::Any),
    ("hf_pooler_type", Understood::Any),
    ("hf_proj_type", Understood::Any),
    ("ls_init_value", Understood::Nothing),
    ("output_tokens", Understood::Any),
    ("proj_type", Understood::Word("linear")),
    ("qk_norm", Understood::False),
    ("scale_attn", Understood::False),
    ("scale_attn_inner", Understood::False),
    ("scale_fc", Understood::False),
    ("scale_heads", Understood::False),
    ("scaled_cosine_attn", Understood::False),
    ("tokenizer_mode", Understood::Nothing),
];

/// Fields of `model_cfg` besides its towers and their common width.
const MODEL_FIELDS: &[(&str, Understood)] = &[
    ("cast_dtype", Understood::Any),
    ("custom_text", Understood::Any),
    // The checkpoint has it.
    ("init_logit_bias", Understood::Any),
    ("init_logit_scale", Understood::Any),
    ("multimodal_cfg", Understood::Nothing),
    ("nonscalar_logit_scale", Understood::False),
    ("output_dict", Understood::Any),
];

/// Fields of `preprocess_cfg` besides those that are computed with (`PreprocessCfg` of open_clip 3.3.0).
const PREPROCESS_FIELDS: &[(&str, Understood)] = &[
    // Of images that are padded, which they are not where the shorter side is resized.
    ("fill_color", Understood::Any),
    ("mode", Understood::Word("RGB")),
];

/// Text tower and preprocessing of a model of OpenCLIP.
pub(super) fn open_clip(source: &Source, path: &Path, config: OpenClipConfig) -> Result<(TextConfig, ImageConfig)> {
    let OpenClipConfig { model_cfg: model, preprocess_cfg: preprocessing } = config;
    let text = model.text_cfg;
    check_fields(path, "model_cfg", &model.others, MODEL_FIELDS)?;
    check_fields(path, "text_cfg", &text.others, TEXT_FIELDS)?;
    check_fields(path, "preprocess_cfg", &preprocessing.others, PREPROCESS_FIELDS)?;
    if let Some(size) = preprocessing.size.filter(|size| !size.is_null()) {
        let sides: Vec<&Value> = size.as_array().map_or_else(|| vec![&size], |sides| sides.iter().collect());
        let side = model.vision_cfg.image_size;
        if side.is_some_and(|side| sides.iter().any(|found| found.as_u64() != Some(side as u64))) {
            let expected = format!("{}, the image_size", side.unwrap_or_default());
            return Err(wrong(path, "preprocess_cfg.size", &expected, &size));
        }
    }
    if let Some(name) = &text.hf_model_name {
        return Err(wrong(path, "text_cfg.hf_model_name", "CLIP's own text tower", name));
    }
    let interpolation = match preprocessing.interpolation.as_deref() {
        None | Some("bicubic") => Interpolation::Bicubic,
        Some("bilinear") => Interpolation::Bilinear,
        Some(other) => return Err(wrong(path, "interpolation", "bicubic or bilinear", other)),
    };
    let squaring = match preprocessing.resize_mode.as_deref() {
        None | Some("shortest") => Squaring::Crop,
        Some("squash") => Squaring::Squash,
        Some(other) => return Err(wrong(path, "resize_mode", "shortest or squash", other)),
    };
    let sizes = [
        ("width", text.width),
        ("layers", text.layers),
        ("context length", text.context_length),
        ("vocabulary", text.vocab_size),
        ("embedding width", Some(model.embed_dim)),
    ];
    let image = ImageConfig {
        resolution: model.vision_cfg.image_size,
        mean: preprocessing.mean.unwrap_or(CLIP_MEAN),
        std: preprocessing.std.unwrap_or(CLIP_STD),
        interpolation,
        // OpenCLIP resizes images, not tensors.
        arithmetic: Arithmetic::Pillow,
        squaring,
    };
    Ok((open_clip_text(source, path, &text, model.quick_gelu, present(sizes))?, image))
}

/// The text tower of an OpenCLIP model: `TextTransformer` of open_clip 3.3.0.
fn open_clip_text(
    source: &Source,
    path: &Path,
    text: &OpenClipText,
    is_quick: bool,
    sizes: Vec<(&'static str, usize)>,
) -> Result<TextConfig> {
    let approximate = text.act_kwargs.as_ref().and_then(|given| given.approximate.as_deref()).unwrap_or("none");
    // OpenCLIP's defaults, where a file leaves them out: the exact GELU, and 8 heads.
    let activation = match (is_quick, approximate) {
        (true, "none") => Activation::QuickGelu,
        (false, "none") => Activation::Gelu,
        (false, "tanh") => Activation::GeluTanh,
        _ => {
            return Err(wrong(
                path,
                "text_cfg.act_kwargs.approximate",
                "none, or tanh without quick_gelu",
                approximate,
            ));
        }
    };
    let pool = text.pool_type.as_deref().unwrap_or("argmax");
    let pooling = match pool {
        "argmax" => Pooling::End,
        "last" => Pooling::Last,
        other => return Err(wrong(path, "text_cfg.pool_type", "argmax or last", other)),
    };
    let whole = text.no_causal_mask.unwrap_or(false);
    if !whole && pooling == Pooling::Last {
        return Err(wrong(path, "text_cfg.pool_type", "argmax, where the tower is causal", pool));
    }
    let whole = if whole {
        let padding = match (&text.hf_tokenizer_name, text.pad_id) {
            // A tokenizer of Hugging Face's fills texts up with its own token, whatever the tower is told.
            (Some(_), _) => padding_token(source)?,
            (None, number) => Padding::Number(number.unwrap_or(0)),
        };
        Some(WholeConfig { padding, pooling })
    } else {
        None
    };
    let clean = text.tokenizer_kwargs.as_ref().and_then(|given| given.clean.as_deref());
    let cleaning = match clean {
        Some("canonicalize") => Cleaning::Canonical,
        Some("lower") => Cleaning::Lower,
        // CLIP's tokenizer has its own lower case; another one's texts keep theirs.
        None | Some("whitespace") => Cleaning::Clip,
        Some(other) => {
            return Err(wrong(path, "text_cfg.tokenizer_kwargs.clean", "canonicalize, lower or whitespace", other));
        }
    };
    Ok(TextConfig {
        heads: text.heads.unwrap_or(8),
        mlp_ratio: text.mlp_ratio.unwrap_or(4.0),
        activation,
        whole,
        epsilon: text.norm_kwargs.as_ref().and_then(|given| given.eps).unwrap_or(CLIP_EPSILON),
        cleaning,
        has_projection_bias: text.proj_bias.unwrap_or(false),
        sizes,
    })
}
