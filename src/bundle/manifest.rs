//! `manifest.json`: the content of a bundle and the settings of its model.
//!
//! These types are the file format: after a release, a field added, renamed or given another meaning needs a new
//! [`FORMAT`].

use std::collections::BTreeMap;
use std::path::Path;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::error::{BundleError, Result};
use crate::limits::{
    CONTEXT_LENGTH_MAX, EMBEDDING_MAX, RESOLUTION_RANGE, TEXT_LAYERS_MAX, TEXT_WIDTH_MAX, VIEWS_MAX, VOCABULARY_MAX,
};
use crate::method::{Method, MethodSettings, Needs, serialize_as};
use crate::text::{Activation, CLIP_EPSILON, Cleaning, Pooling, TowerStyle, WholeTexts};
use crate::views::{Arithmetic, Filter, Preprocessing, Resampling, Squaring, ViewSettings};

/// Version of the bundle format that this program reads.
pub(crate) const FORMAT: u64 = 1;

/// The whole manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Format version; [`FORMAT`].
    pub format: u64,
    /// Short name of the model, for people.
    pub name: String,
    /// One sentence about the model.
    pub description: String,
    /// Licence of the weights.
    pub license: String,
    /// Embedding width D.
    pub embedding: usize,
    /// Logit scale s, already exponentiated.
    pub logit_scale: f32,
    /// What is added to logits before the sigmoid, of a model that was trained with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<f32>,
    /// The image side.
    pub image: ImageSection,
    /// The text tower, if the bundle has one.
    pub text: Option<TextSection>,
    /// A text tower in ONNX, if the bundle has one of those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_onnx: Option<TextOnnxSection>,
    /// The words around a class name.
    pub prompt: PromptSection,
    /// The precomputed classes, if there are any: a text tower can do without.
    pub classes: Option<ClassesSection>,
    /// How classes by example compare with texts, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<ExamplesSection>,
    /// Default views.
    #[serde(serialize_with = "views_section")]
    pub views: ViewSettings,
    /// Default method and its parameters.
    // Methods were called heads when the format was fixed.
    #[serde(rename = "head", serialize_with = "method_section")]
    pub method: MethodSettings,
    /// File with the expected results of one image.
    pub goldens: String,
    /// Size and digest of every file but the manifest.
    pub files: BTreeMap<String, FileRecord>,
}

/// The image encoder and its preprocessing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageSection {
    /// ONNX file: `[N, 3, R, R]` f32 to `[N, D]` f32.
    pub file: String,
    /// Input side R (pixels).
    pub resolution: usize,
    /// Channel means (values in 0–1).
    pub mean: [f32; 3],
    /// Channel standard deviations (values in 0–1).
    pub std: [f32; 3],
    /// Filter of the clean view.
    pub interpolation: Interpolation,
    /// Arithmetic of that filter; Pillow's if nothing is said.
    #[serde(default, skip_serializing_if = "is_default")]
    pub arithmetic: Arithmetic,
    /// How an image becomes a square; by cropping if nothing is said.
    #[serde(default, skip_serializing_if = "is_default")]
    pub squaring: Squaring,
    /// The model's output to use; the first if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Tensor file with the projection that the ONNX model leaves out: `projection` `[D, X]`, for an output `[N, X]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection: Option<String>,
}

/// Filters a clean view can be resized with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Interpolation {
    /// Antialiased bicubic, a = -0.5.
    Bicubic,
    /// Antialiased bilinear.
    Bilinear,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Shape of the text tower and where its weights are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TextSection {
    /// Weights, named as in Hugging Face's `CLIPTextModelWithProjection` or as in OpenAI's CLIP.
    pub file: String,
    /// Hugging Face's `tokenizer.json`, or a list of merges in the layout of OpenAI's.
    pub tokenizer: String,
    /// Transformer layers.
    pub layers: usize,
    /// Width W.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Longest text (tokens, start and end included).
    pub context_length: usize,
    /// Rows of the token embedding.
    pub vocabulary: usize,
    /// Activation of the MLPs.
    pub activation: Activation,
    /// Width of the MLPs between their layers; 4 W if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<usize>,
    /// How texts are filled up, where every row sees every other; nothing where the tower is causal, as CLIP's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<WholeSection>,
    /// Added to the variance in layer norms; 1e-5 if nothing is said.
    #[serde(default = "clip_epsilon", skip_serializing_if = "is_clip_epsilon")]
    pub epsilon: f64,
    /// How texts are cleaned before they are tokenised; as by OpenAI if nothing is said.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cleaning: Cleaning,
}

/// A text tower that is a model in ONNX: `[1, L]` token numbers (i64) to `[1, D]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TextOnnxSection {
    /// ONNX file.
    pub file: String,
    /// As [`TextSection::tokenizer`].
    pub tokenizer: String,
    /// Length of every text L (tokens, start and end included).
    pub context_length: usize,
    /// Numbers of tokens that it takes: those below.
    pub vocabulary: usize,
    /// The token that fills texts up to that length.
    pub padding: u32,
    /// The model's output to use; the first if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// As [`TextSection::cleaning`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub cleaning: Cleaning,
}

/// Texts that a tower without a causal mask sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WholeSection {
    /// The token that fills texts up to the context length.
    pub padding: u32,
    /// The row whose state is the text's.
    pub pooling: Pooling,
}

fn clip_epsilon() -> f64 {
    CLIP_EPSILON
}

// By reference, as serde calls it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_clip_epsilon(epsilon: &f64) -> bool {
    *epsilon == CLIP_EPSILON
}

/// The prompt of a class: `"{context} {class}."`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PromptSection {
    /// The context, for example "a photo of a".
    pub context: String,
}

/// Precomputed class embeddings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassesSection {
    /// Tensor file: `embeddings` `[C, D]` in f32 or f16, and metadata `names`, a JSON list of C strings.
    pub file: String,
    /// Text file: the names classified into by default, one a line.
    pub default_labels: String,
}

/// How classes by example stand beside those of texts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExamplesSection {
    /// What the cosine of a photo and a class by example counts beside cosines with texts (above 0, up to 1): photos of a
    /// thing are more like one another than like its text.
    pub weight: f32,
}

/// Default views as the manifest has them: their number is called `count`, and they have no seed.
fn views_section<S: Serializer>(views: &ViewSettings, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(2))?;
    map.serialize_entry("count", &views.count)?;
    map.serialize_entry("augment", &views.augment)?;
    map.end()
}

/// The default method as the manifest has it: under the key `default`.
fn method_section<S: Serializer>(method: &MethodSettings, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serialize_as(method, "default", serializer)
}

/// Record of a file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileRecord {
    /// Size (bytes).
    pub size: u64,
    /// BLAKE3 digest, 64 hex digits.
    pub blake3: String,
}

impl Manifest {
    /// Parses and checks the bytes of the manifest at `path` (which is only named in errors).
    ///
    /// # Errors
    /// No JSON of this shape, another format version, a value out of its range, or a file that is named but has no
    /// record.
    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: u64,
        }
        let syntax = |source| BundleError::ManifestSyntax { path: path.to_path_buf(), source };
        // The version first: a later format may differ in everything else.
        let Version { format } = serde_json::from_slice(bytes).map_err(syntax)?;
        if format != FORMAT {
            return Err(BundleError::ManifestVersion { found: format, supported: FORMAT });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(syntax)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// True if there is a text tower, of whichever kind: labels may be any words.
    pub(crate) fn has_text_tower(&self) -> bool {
        self.text.is_some() || self.text_onnx.is_some()
    }

    /// Preprocessing of the encoder's input.
    pub(crate) fn preprocessing(&self) -> Preprocessing {
        self.image.preprocessing()
    }

    /// The settings of a method if nothing else is chosen: the bundle's for its own method, else the published ones.
    pub(crate) fn settings_of(&self, method: Method) -> MethodSettings {
        if method == self.method.method() { self.method } else { MethodSettings::of(method) }
    }

    fn check(&self) -> Result<()> {
        let (resolution_min, resolution_max) = RESOLUTION_RANGE;
        within("image.resolution", self.image.resolution, resolution_min, resolution_max)?;
        within("embedding", self.embedding, 1, EMBEDDING_MAX)?;
        // Not `ViewSettings::check`, whose error would be the user's and not the bundle's.
        within("views.count", self.views.count, 1, VIEWS_MAX)?;
        positive("logit_scale", self.logit_scale.into(), 1e4)?;
        let bias = self.logit_bias.unwrap_or_default();
        ensure(bias.is_finite(), "logit_bias", "a finite number", bias)?;
        self.examples.map_or(Ok(()), |examples| positive("examples.weight", examples.weight.into(), 1.0))?;
        for channel in 0..3 {
            positive("image.std", self.image.std[channel].into(), 1e3)?;
            let mean = self.image.mean[channel];
            ensure(mean.is_finite(), "image.mean", "finite numbers", mean)?;
        }
        self.text.as_ref().map_or(Ok(()), TextSection::check)?;
        if let Some(text) = &self.text_onnx {
            ensure(self.text.is_none(), "text_onnx", "nothing beside another text tower", "one")?;
            within("text_onnx.context_length", text.context_length, 3, CONTEXT_LENGTH_MAX)?;
            within("text_onnx.vocabulary", text.vocabulary, 3, VOCABULARY_MAX)?;
            within("text_onnx.padding", text.padding as usize, 0, text.vocabulary - 1)?;
        }
        if self.text.is_none() {
            let can_name = self.classes.is_some() || self.text_onnx.is_some();
            ensure(can_name, "classes", "present where there is no text tower", "nothing")?;
            let method = self.method.method();
            let can_run = method.needs() != Needs::TextTower;
            ensure(can_run, "head.default", "a method that needs no text tower that can be tuned", method)?;
        }
        for name in self.files.keys() {
            ensure(is_plain_name(name), "files", "names without folders", name)?;
        }
        for name in self.named_files() {
            ensure(self.files.contains_key(name), "files", "a record of every file that is named", name)?;
        }
        Ok(())
    }

    fn named_files(&self) -> Vec<&str> {
        let mut names: Vec<&str> = vec![&self.image.file, &self.goldens];
        names.extend(self.image.projection.as_deref());
        names.extend(self.classes.iter().flat_map(|classes| [classes.file.as_str(), classes.default_labels.as_str()]));
        names.extend(self.text.iter().flat_map(|text| [text.file.as_str(), text.tokenizer.as_str()]));
        names.extend(self.text_onnx.iter().flat_map(|text| [text.file.as_str(), text.tokenizer.as_str()]));
        names
    }
}

impl ImageSection {
    /// Preprocessing of the encoder's input.
    pub(crate) fn preprocessing(&self) -> Preprocessing {
        let filter = match self.interpolation {
            Interpolation::Bicubic => Filter::Bicubic,
            Interpolation::Bilinear => Filter::Bilinear,
        };
        let resampling = Resampling { filter, arithmetic: self.arithmetic };
        let &Self { resolution, mean, std, squaring, .. } = self;
        Preprocessing { resolution, mean, std, squaring, resampling }
    }
}

impl TextSection {
    /// What the tower does otherwise than CLIP's.
    pub(crate) fn style(&self) -> TowerStyle {
        let whole = self.whole.map(|WholeSection { padding, pooling }| WholeTexts { padding, pooling });
        TowerStyle { whole, epsilon: self.epsilon }
    }

    fn check(&self) -> Result<()> {
        positive("text.epsilon", self.epsilon, 1.0)?;
        self.hidden.map_or(Ok(()), |hidden| within("text.hidden", hidden, 1, 8 * TEXT_WIDTH_MAX))?;
        if let Some(whole) = self.whole {
            within("text.whole.padding", whole.padding as usize, 0, self.vocabulary.saturating_sub(1))?;
        }
        within("text.layers", self.layers, 1, TEXT_LAYERS_MAX)?;
        within("text.width", self.width, 1, TEXT_WIDTH_MAX)?;
        // A text has at least a start, one token and an end.
        within("text.context_length", self.context_length, 3, CONTEXT_LENGTH_MAX)?;
        within("text.vocabulary", self.vocabulary, 3, VOCABULARY_MAX)?;
        let divides = self.heads > 0 && self.width.is_multiple_of(self.heads);
        ensure(divides, "text.heads", &format!("a divisor of the width {}", self.width), self.heads)
    }
}

/// A bundle must not reach outside its own folder.
fn is_plain_name(name: &str) -> bool {
    // The dot excludes `..` and the names of temporary files.
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

fn within(field: &str, value: usize, min: usize, max: usize) -> Result<()> {
    ensure((min..=max).contains(&value), field, &format!("{min} to {max}"), value)
}

fn positive(field: &str, value: f64, max: f64) -> Result<()> {
    // NaN fails both comparisons.
    ensure(value > 0.0 && value <= max, field, &format!("above 0, up to {max}"), value)
}

fn ensure(holds: bool, field: &str, expected: &str, found: impl ToString) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(BundleError::ManifestValue { field: field.into(), expected: expected.into(), found: found.to_string() })
}
