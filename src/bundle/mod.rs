//! The model package: a folder with a manifest, weights, classes and goldens.
//!
//! Opening a bundle reads every file once and compares size and digest with the manifest, so that a model that was
//! copied badly is refused before it gives a wrong answer.

mod error;
#[cfg(feature = "cli")]
mod locate;
mod manifest;
mod tensors;
mod text_tower;
mod verified;
#[cfg(feature = "cli")]
mod writer;

use std::io::ErrorKind;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

pub use error::BundleError;
#[cfg(feature = "cli")]
pub(crate) use locate::locate_bundle;
pub(crate) use manifest::{
    ClassesSection, FORMAT, ImageSection, Interpolation, Manifest, PromptSection, TextOnnxSection, TextSection,
    WholeSection,
};
pub(crate) use tensors::{ClassTable, GoldenFeatures, GoldenTexts, Goldens, TensorFile};
#[cfg(feature = "cli")]
pub(crate) use tensors::{GOLDEN_NAMES, GOLDEN_NAMES_IN_F32};
pub(crate) use text_tower::TextFiles;
#[cfg(feature = "cli")]
pub(crate) use writer::BundleWriter;

use crate::encoder::EncoderModel;
use crate::labels::{Labels, parse_labels};
use crate::limits::MANIFEST_BYTES_MAX;
use crate::text::{Prompt, TensorError, TextModel, WeightsFile};
use error::Result;
use verified::{open_verified, read_bounded, read_verified};

/// An open, verified bundle.
pub struct Bundle {
    /// The image encoder, whose weights stay in its file until it is loaded.
    pub(crate) encoder: EncoderModel,
    contents: Arc<BundleContents>,
}

/// Contents of a bundle without its image encoder: all that other labels and methods need once an encoder is loaded.
///
/// A bundle is one of these with an encoder, and is used like one.
pub struct BundleContents {
    /// Folder it was opened in.
    pub(crate) folder: PathBuf,
    /// BLAKE3 of `manifest.json`; since that holds the digest of every other file, it identifies the whole bundle.
    pub(crate) digest: blake3::Hash,
    /// The manifest.
    pub(crate) manifest: Manifest,
    /// Classes with stored embeddings.
    pub(crate) classes: Option<ClassTable>,
    /// The default labels, all of them among the classes.
    pub(crate) labels: Option<Labels>,
    /// Image, texts and results that it checks itself with.
    pub(crate) goldens: Goldens,
    /// The calibration beside it that may be used.
    pub(crate) calibration: TrustedCalibration,
    text: Option<TextFiles>,
    text_model: OnceLock<TextModel>,
}

/// Which calibration beside a bundle may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrustedCalibration {
    /// Whichever is there.
    Any,
    /// The one with this BLAKE3, which was signed.
    Of(blake3::Hash),
    /// None.
    None,
}

impl Deref for Bundle {
    type Target = BundleContents;

    fn deref(&self) -> &BundleContents {
        &self.contents
    }
}

impl Bundle {
    /// Opens the bundle in `folder` and verifies all of it.
    ///
    /// # Errors
    /// The path is no folder with a manifest, the format version is unknown, a file is missing or differs from its
    /// record, or a tensor has the wrong type, shape or values.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let (manifest, digest) = open_manifest(folder)?;
        let onnx = open_verified(folder, &manifest.image.file, &manifest.files[&manifest.image.file])?;
        let mut loaded = vec![manifest.image.file.clone()];
        let mut read = |name: &str| {
            loaded.push(name.to_string());
            read_verified(folder, name, &manifest.files[name])
        };
        let projection = manifest.image.projection.as_deref().map(&mut read).transpose()?;
        let golden_bytes = read(&manifest.goldens)?;
        let section = manifest.classes.as_ref();
        let class_bytes = section.map(|section| read(&section.file)).transpose()?;
        let label_bytes = section.map(|section| read(&section.default_labels)).transpose()?;
        let text = TextFiles::of(folder, &manifest)?;
        loaded.extend(manifest.text.iter().flat_map(|text| [text.file.clone(), text.tokenizer.clone()]));
        loaded.extend(manifest.text_onnx.iter().flat_map(|text| [text.file.clone(), text.tokenizer.clone()]));
        // Files that nothing reads are verified as well: a bundle is whole or it is refused.
        for (name, record) in manifest.files.iter().filter(|(name, _)| !loaded.contains(name)) {
            open_verified(folder, name, record)?;
        }
        let mut classes = None;
        let mut labels = None;
        if let (Some(section), Some(class_bytes), Some(label_bytes)) = (section, class_bytes, label_bytes) {
            let table = TensorFile::parse(&section.file, &class_bytes)?.classes(manifest.embedding)?;
            labels = Some(default_labels(section, &table, &label_bytes)?);
            classes = Some(table);
        }
        let golden_file = TensorFile::parse(&manifest.goldens, &golden_bytes)?;
        let class_count = labels.as_ref().map(|labels| labels.texts().len());
        let goldens = golden_file.goldens(manifest.image.resolution, manifest.embedding, class_count)?;
        let encoder = EncoderModel {
            onnx: onnx.into(),
            output: manifest.image.output.clone(),
            projection: projection
                .map(|bytes| {
                    let name = manifest.image.projection.as_deref().unwrap_or_default();
                    TensorFile::parse(name, &bytes)?.projection(manifest.embedding)
                })
                .transpose()?,
        };
        let (folder, text_model) = (folder.into(), OnceLock::new());
        let calibration = TrustedCalibration::Any;
        let contents =
            BundleContents { folder, digest, manifest, classes, labels, goldens, calibration, text, text_model };
        Ok(Self { encoder, contents: Arc::new(contents) })
    }

    /// Says which calibration may be used.
    #[cfg(feature = "cli")]
    pub(crate) fn trust_calibration(&mut self, calibration: TrustedCalibration) {
        let contents = Arc::get_mut(&mut self.contents).expect("a bundle that was just opened is shared with nobody");
        contents.calibration = calibration;
    }

    /// The short name of the model.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// The default labels, if it has any.
    pub fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()
    }

    /// True if it has a text tower, so that labels may be any words.
    pub fn has_text_tower(&self) -> bool {
        self.manifest.has_text_tower()
    }

    /// The prompt that its classes were embedded with.
    pub fn prompt(&self) -> Prompt {
        self.contents.prompt()
    }

    /// The contents without the encoder, whose bytes are freed with this value.
    pub(crate) fn into_contents(self) -> Arc<BundleContents> {
        self.contents
    }

    /// The name in results: `name@` and the first 16 hex digits of the digest.
    pub fn id(&self) -> String {
        format!("{}@{}", self.manifest.name, &self.digest.to_hex()[..16])
    }
}

impl BundleContents {
    /// BLAKE3 of everything that decides an image's features: preprocessing, and the files of the encoder.
    ///
    /// Bundles that differ in labels, text tower or defaults alone have it in common.
    pub(crate) fn encoder_digest(&self) -> blake3::Hash {
        let image = &self.manifest.image;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&serde_json::to_vec(image).expect("a section of a manifest is always JSON"));
        for name in std::iter::once(&image.file).chain(&image.projection) {
            // The manifest's digests will do: opening the bundle compared them with the files.
            hasher.update(self.manifest.files[name].blake3.as_bytes());
        }
        hasher.finalize()
    }

    /// The prompt that the classes were embedded with.
    pub(crate) fn prompt(&self) -> Prompt {
        Prompt::Context(self.manifest.prompt.context.clone())
    }

    /// The weights of the text tower, if there is one.
    ///
    /// # Errors
    /// The file was changed since the bundle was opened, or is no safetensors file.
    pub(crate) fn text_weights(&self) -> Result<Option<WeightsFile>> {
        Ok(self.text.as_ref().map(TextFiles::weights).transpose()?.flatten())
    }

    /// The text tower, loaded when it is first asked for.
    ///
    /// # Errors
    /// There is none, or a file is not what the manifest says.
    pub(crate) fn text_model(&self) -> Result<TextModel> {
        let Some(files) = &self.text else {
            return Err(BundleError::NoTextTower { bundle: self.manifest.name.clone() });
        };
        // The standard library's fallible `get_or_init` is not stable. Two threads may load at once; both then use the
        // model that was stored first.
        if let Some(model) = self.text_model.get() {
            return Ok(model.clone());
        }
        let model = files.load(self.manifest.embedding)?;
        Ok(self.text_model.get_or_init(|| model).clone())
    }
}

fn default_labels(section: &ClassesSection, table: &ClassTable, bytes: &[u8]) -> Result<Labels> {
    // A bad label is the user's mistake anywhere else; here the bundle contradicts itself.
    let contradiction = |found: String| TensorError {
        file: section.default_labels.clone(),
        what: "the list of default labels".into(),
        expected: format!("names from {}", section.file),
        found,
    };
    let list = parse_labels(bytes, Path::new(&section.default_labels)).map_err(|e| contradiction(e.to_string()))?;
    match list.texts().iter().find(|&name| !table.names.contains(name)) {
        Some(unknown) => Err(contradiction(format!("a list with {unknown:?}")).into()),
        None => Ok(list),
    }
}

fn open_manifest(folder: &Path) -> Result<(Manifest, blake3::Hash)> {
    let not_folder = |reason: &str| BundleError::NotFolder { path: folder.into(), reason: reason.into() };
    match folder.metadata() {
        Ok(found) if !found.is_dir() => return Err(not_folder("it is a file")),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(not_folder(error::MISSING)),
        Err(error) => return Err(not_folder(&error.to_string())),
        Ok(_) => {}
    }
    let path = folder.join("manifest.json");
    if !path.exists() {
        return Err(not_folder("it has no manifest.json"));
    }
    let bytes = read_bounded(&path, MANIFEST_BYTES_MAX)?;
    Ok((Manifest::parse(&bytes, &path)?, blake3::hash(&bytes)))
}
