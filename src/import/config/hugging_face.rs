//! `config.json` and `tokenizer_config.json`: text towers as `transformers` keeps them.

use std::path::Path;

use serde::Deserialize;

use super::preprocessor::image_config;
use super::{ImageConfig, Padding, TextConfig, WholeConfig, present, read};
use crate::error::Result;
use crate::import::source::Source;
use crate::import::wrong;
use crate::text::{Activation, CLIP_EPSILON, Cleaning, Pooling};

/// SigLIP's ε in layer norms.
const SIGLIP_EPSILON: f64 = 1e-6;

/// `config.json` of a Hugging Face CLIP model.
#[derive(Deserialize)]
pub(super) struct HuggingFaceConfig {
    model_type: String,
    projection_dim: Option<usize>,
    #[serde(default)]
    text_config: HuggingFaceText,
    /// Text configuration of older files; where it is present it wins, as in `transformers`.
    text_config_dict: Option<HuggingFaceText>,
    #[serde(default)]
    vision_config: HuggingFaceVision,
    vision_config_dict: Option<HuggingFaceVision>,
}

#[derive(Default, Deserialize)]
struct HuggingFaceText {
    hidden_size: Option<usize>,
    num_attention_heads: Option<usize>,
    num_hidden_layers: Option<usize>,
    max_position_embeddings: Option<usize>,
    vocab_size: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    intermediate_size: Option<usize>,
    projection_size: Option<usize>,
}

#[derive(Default, Deserialize)]
struct HuggingFaceVision {
    image_size: Option<usize>,
}

/// `tokenizer_config.json`, of which little is needed.
#[derive(Deserialize)]
struct TokenizerConfig {
    pad_token: Option<TokenName>,
    tokenizer_class: Option<String>,
    model_max_length: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TokenName {
    Plain(String),
    Described { content: String },
}

/// Families of models in `transformers`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Clip,
    Siglip,
}

/// Text tower and preprocessing of a model of `transformers`, by its `config.json`.
pub(super) fn hugging_face(
    source: &Source,
    path: &Path,
    config: HuggingFaceConfig,
) -> Result<(TextConfig, ImageConfig)> {
    let kind = match config.model_type.as_str() {
        "clip" | "clip_text_model" => Kind::Clip,
        "siglip" => Kind::Siglip,
        other => return Err(wrong(path, "model_type", "clip or siglip", format!("{other:?}"))),
    };
    let vision = config.vision_config_dict.unwrap_or(config.vision_config);
    // `transformers` leaves out values that are its defaults.
    let side = vision.image_size.or((kind == Kind::Siglip).then_some(224));
    let image = image_config(source, side)?;
    let text = config.text_config_dict.unwrap_or(config.text_config);
    let activation = match (text.hidden_act.as_deref(), kind) {
        (None, Kind::Clip) | (Some("quick_gelu"), _) => Activation::QuickGelu,
        (Some("gelu"), _) => Activation::Gelu,
        (None, Kind::Siglip) | (Some("gelu_pytorch_tanh"), _) => Activation::GeluTanh,
        (Some(other), _) => {
            return Err(wrong(path, "hidden_act", "quick_gelu, gelu or gelu_pytorch_tanh", other));
        }
    };
    let heads = text.num_attention_heads.unwrap_or(if kind == Kind::Clip { 8 } else { 12 });
    let mlp_ratio = match (text.intermediate_size, text.hidden_size) {
        (Some(hidden), Some(width)) if width > 0 => hidden as f64 / width as f64,
        _ => 4.0,
    };
    let (whole, cleaning) = match kind {
        Kind::Clip => (None, Cleaning::Clip),
        Kind::Siglip => {
            let padding = padding_token(source)?;
            (Some(WholeConfig { padding, pooling: Pooling::Last }), siglip_cleaning(source)?)
        }
    };
    let sizes = [
        ("width", text.hidden_size),
        ("layers", text.num_hidden_layers),
        ("context length", text.max_position_embeddings),
        ("vocabulary", text.vocab_size),
        ("embedding width", config.projection_dim.or(text.projection_size)),
    ];
    let text = TextConfig {
        heads,
        mlp_ratio,
        activation,
        whole,
        epsilon: text.layer_norm_eps.unwrap_or(if kind == Kind::Clip { CLIP_EPSILON } else { SIGLIP_EPSILON }),
        cleaning,
        has_projection_bias: kind == Kind::Siglip,
        sizes: present(sizes),
    };
    Ok((text, image))
}

/// Length of every text (tokens) by a folder's `tokenizer_config.json`.
///
/// # Errors
/// It does not say it.
pub(crate) fn length_of_texts(source: &Source) -> Result<usize> {
    let name = "tokenizer_config.json";
    let length = read::<TokenizerConfig>(source, name)?.and_then(|(_, config)| config.model_max_length);
    // Where there is no limit, `transformers` writes a number that is none.
    length.filter(|&length| length < 1e6).map(|length| length as usize).ok_or_else(|| {
        let what = format!("model_max_length in {name}");
        wrong(source.folder(), &what, "the length of texts, which the model leaves open", "missing")
    })
}

/// How texts are cleaned for a tower in ONNX: as by SigLIP's tokenizers, if it has one of those.
///
/// # Errors
/// `tokenizer_config.json` is malformed.
pub(crate) fn closed_cleaning(source: &Source) -> Result<Cleaning> {
    let class =
        read::<TokenizerConfig>(source, "tokenizer_config.json")?.and_then(|(_, config)| config.tokenizer_class);
    let is_clips = class.is_none_or(|class| class.starts_with("CLIP"));
    if is_clips { Ok(Cleaning::Clip) } else { siglip_cleaning(source) }
}

/// How SigLIP's tokenizers clean texts: the first's takes punctuation away, the second's does not.
fn siglip_cleaning(source: &Source) -> Result<Cleaning> {
    let name = "tokenizer_config.json";
    let class = read::<TokenizerConfig>(source, name)?.and_then(|(_, config)| config.tokenizer_class);
    match class.as_deref() {
        Some("SiglipTokenizer") => Ok(Cleaning::Canonical),
        Some("GemmaTokenizer" | "GemmaTokenizerFast" | "Siglip2Tokenizer") => Ok(Cleaning::Lower),
        other => {
            let expected = "SiglipTokenizer, GemmaTokenizer or Siglip2Tokenizer";
            let found = other.unwrap_or("missing");
            Err(wrong(source.folder(), &format!("tokenizer_class in {name}"), expected, found))
        }
    }
}

/// The token that a folder's tokenizer fills texts up with.
///
/// # Errors
/// Nothing says it.
pub(crate) fn padding_token(source: &Source) -> Result<Padding> {
    let name = "tokenizer_config.json";
    let config = read::<TokenizerConfig>(source, name)?;
    let token = config.and_then(|(_, config)| config.pad_token).ok_or_else(|| {
        wrong(source.folder(), &format!("pad_token in {name}"), "the token that fills texts up", "missing")
    })?;
    Ok(Padding::Text(match token {
        TokenName::Plain(content) | TokenName::Described { content } => content,
    }))
}
