//! The configuration files that come with published CLIP models.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::source::Source;
use super::wrong;
use crate::bundle::Interpolation;
use crate::error::Result;
use crate::text::{Activation, CLIP_EPSILON, Cleaning, Pooling};
use crate::views::{Arithmetic, Squaring};

/// CLIP's mean of each channel (values in 0–1).
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// CLIP's standard deviation of each channel (values in 0–1).
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];
/// SigLIP's ε in layer norms.
const SIGLIP_EPSILON: f64 = 1e-6;
/// Pillow's numbers for its filters.
const BILINEAR: u64 = 2;
const BICUBIC: u64 = 3;

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

/// `config.json` of a Hugging Face CLIP model.
#[derive(Deserialize)]
struct HuggingFaceConfig {
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

/// `open_clip_config.json` of an OpenCLIP model.
#[derive(Deserialize)]
struct OpenClipConfig {
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

/// The only value of a field that this program's tower computes.
#[derive(Clone, Copy)]
enum Understood {
    /// Any: it does not change what is computed.
    Any,
    False,
    /// Nothing, or an empty table.
    Nothing,
    Word(&'static str),
    /// One of these.
    Words(&'static [&'static str]),
    True,
}

impl Understood {
    fn takes(self, value: &Value) -> bool {
        // `null` is a field that was left out: the default, which these are.
        value.is_null()
            || match self {
                Self::Any => true,
                Self::False => value == &Value::Bool(false),
                Self::Nothing => value.as_object().is_some_and(serde_json::Map::is_empty),
                Self::Word(word) => value.as_str() == Some(word),
                Self::Words(words) => value.as_str().is_some_and(|word| words.contains(&word)),
                Self::True => value == &Value::Bool(true),
            }
    }

    fn expected(self) -> String {
        match self {
            Self::Any => "anything".into(),
            Self::False => "false".into(),
            Self::Nothing => "nothing".into(),
            Self::Word(word) => word.into(),
            Self::Words(words) => words.join(" or "),
            Self::True => "true".into(),
        }
    }
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

/// Fields of `preprocess_cfg` besides those that are computed with (`PreprocessCfg` of open_clip 3.3.0).
const PREPROCESS_FIELDS: &[(&str, Understood)] = &[
    // Of images that are padded, which they are not where the shorter side is resized.
    ("fill_color", Understood::Any),
    ("mode", Understood::Word("RGB")),
];

/// Refuses fields that are not known, or whose value asks for what is not computed here: such a model would be imported, and be wrong.
fn check_fields(
    path: &Path,
    section: &str,
    found: &BTreeMap<String, Value>,
    known: &[(&str, Understood)],
) -> Result<()> {
    for (name, value) in found {
        let understood = known.iter().find(|(known, _)| known == name).map(|&(_, understood)| understood);
        if !understood.is_some_and(|understood| understood.takes(value)) {
            let expected =
                understood.map_or("no such field, which this version does not know".into(), Understood::expected);
            let field = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            return Err(wrong(path, &field, &expected, value));
        }
    }
    Ok(())
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

/// Text tower and preprocessing of the model in `source`, by whichever configuration it has.
///
/// # Errors
/// There is none, it is of another kind of model, or it asks for something this program does not do.
pub(crate) fn read_configs(source: &Source) -> Result<(TextConfig, ImageConfig)> {
    if let Some((path, config)) = read::<OpenClipConfig>(source, "open_clip_config.json")? {
        return open_clip(source, &path, config);
    }
    let Some((path, config)) = read::<HuggingFaceConfig>(source, "config.json")? else {
        return Err(wrong(source.folder(), "config.json", "config.json or open_clip_config.json", "missing"));
    };
    let kind = match config.model_type.as_str() {
        "clip" | "clip_text_model" => Kind::Clip,
        "siglip" => Kind::Siglip,
        other => return Err(wrong(&path, "model_type", "clip or siglip", format!("{other:?}"))),
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
            return Err(wrong(&path, "hidden_act", "quick_gelu, gelu or gelu_pytorch_tanh", other));
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

/// Families of models in `transformers`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Clip,
    Siglip,
}

/// Length of every text (tokens) by a folder's `tokenizer_config.json`.
///
/// # Errors
/// It does not say it.
pub(super) fn length_of_texts(source: &Source) -> Result<usize> {
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
pub(super) fn closed_cleaning(source: &Source) -> Result<Cleaning> {
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

fn open_clip(source: &Source, path: &Path, config: OpenClipConfig) -> Result<(TextConfig, ImageConfig)> {
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

/// The token that a folder's tokenizer fills texts up with.
///
/// # Errors
/// Nothing says it.
pub(super) fn padding_token(source: &Source) -> Result<Padding> {
    let name = "tokenizer_config.json";
    let config = read::<TokenizerConfig>(source, name)?;
    let token = config.and_then(|(_, config)| config.pad_token).ok_or_else(|| {
        wrong(source.folder(), &format!("pad_token in {name}"), "the token that fills texts up", "missing")
    })?;
    Ok(Padding::Text(match token {
        TokenName::Plain(content) | TokenName::Described { content } => content,
    }))
}

fn present<const N: usize>(sizes: [(&'static str, Option<usize>); N]) -> Vec<(&'static str, usize)> {
    sizes.into_iter().filter_map(|(name, size)| Some((name, size?))).collect()
}

fn read<C: DeserializeOwned>(source: &Source, name: &str) -> Result<Option<(std::path::PathBuf, C)>> {
    let Some((path, bytes)) = source.read(name)? else { return Ok(None) };
    match serde_json::from_slice(&bytes) {
        Ok(config) => Ok(Some((path, config))),
        Err(error) => Err(wrong(&path, "the content", "the JSON of a CLIP model", error)),
    }
}
