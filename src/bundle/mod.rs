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
#[cfg(feature = "cli")]
mod writer;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use error::BundleError;
#[cfg(feature = "cli")]
pub(crate) use locate::locate_bundle;
pub(crate) use manifest::{
    ClassesSection, FORMAT, FileRecord, ImageSection, Interpolation, Manifest, PromptSection, TextSection,
};
pub(crate) use tensors::{ClassTable, GoldenTexts, Goldens};
pub(crate) use text_tower::open_text_model;
#[cfg(feature = "cli")]
pub(crate) use writer::BundleWriter;

use crate::encoder::EncoderModel;
use crate::labels::{Labels, parse_labels};
use crate::limits::{BUNDLE_FILE_BYTES_MAX, MANIFEST_BYTES_MAX};
use crate::text::TensorError;
use crate::text::{Prompt, TextModel};
use error::Result;
use tensors::TensorFile;

/// An open, verified bundle.
pub struct Bundle {
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// BLAKE3 of `manifest.json`; since that holds the digest of every other file, it identifies the whole bundle.
    pub(crate) digest: blake3::Hash,
    /// The manifest.
    pub(crate) manifest: Manifest,
    /// The classes it has embeddings of.
    pub(crate) classes: Option<ClassTable>,
    /// The default labels, all of them among the classes.
    pub(crate) labels: Option<Labels>,
    /// The image, the texts and the results it checks itself with.
    pub(crate) goldens: Goldens,
    /// The image encoder.
    pub(crate) encoder: EncoderModel,
    text: OnceLock<TextModel>,
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
        let mut loaded = Vec::new();
        let mut read = |name: &str| {
            loaded.push(name.to_string());
            read_verified(folder, name, &manifest.files[name])
        };
        let onnx = read(&manifest.image.file)?;
        let projection = manifest.image.projection.as_deref().map(&mut read).transpose()?;
        let golden_bytes = read(&manifest.goldens)?;
        let section = manifest.classes.as_ref();
        let class_bytes = section.map(|section| read(&section.file)).transpose()?;
        let label_bytes = section.map(|section| read(&section.default_labels)).transpose()?;
        for (name, record) in manifest.files.iter().filter(|(name, _)| !loaded.contains(name)) {
            verify(folder, name, record)?;
        }
        let mut classes = None;
        let mut labels = None;
        if let (Some(section), Some(class_bytes), Some(label_bytes)) = (section, class_bytes, label_bytes) {
            let table = TensorFile::parse(&section.file, &class_bytes)?.classes(manifest.embedding)?;
            labels = Some(default_labels(section, &table, &label_bytes)?);
            classes = Some(table);
        }
        let golden_file = TensorFile::parse(&manifest.goldens, &golden_bytes)?;
        let class_count = labels.as_ref().map(|labels| labels.names().len());
        let goldens = golden_file.goldens(manifest.image.resolution, manifest.embedding, class_count)?;
        let encoder = EncoderModel {
            onnx,
            output: manifest.image.output.clone(),
            projection: projection
                .map(|bytes| TensorFile::parse("the projection", &bytes)?.projection(manifest.embedding))
                .transpose()?,
        };
        let text = OnceLock::new();
        Ok(Self { folder: folder.into(), digest, manifest, classes, labels, goldens, encoder, text })
    }

    /// The short name of the model.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// The default labels, if it has any.
    pub fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()
    }

    /// Whether it has a text tower, so that labels may be any words.
    pub fn has_text_tower(&self) -> bool {
        self.manifest.text.is_some()
    }

    /// The prompt that its classes were embedded with.
    pub fn prompt(&self) -> Prompt {
        Prompt::Context(self.manifest.prompt.context.clone())
    }

    /// Its text tower, read when it is first asked for.
    ///
    /// # Errors
    /// It has none, or a file is not what the manifest says.
    pub(crate) fn text_model(&self) -> Result<TextModel> {
        if let Some(model) = self.text.get() {
            return Ok(model.clone());
        }
        let model = open_text_model(&self.folder, &self.manifest)?;
        Ok(self.text.get_or_init(|| model).clone())
    }

    /// Lets go of the encoder's bytes, once an encoder is loaded: they are as large as the encoder.
    pub(crate) fn forget_encoder(&mut self) {
        self.encoder.onnx = Vec::new();
    }

    /// BLAKE3 of everything that decides an image's features: preprocessing, and the files of the encoder.
    ///
    /// Bundles that differ in labels, text tower or defaults alone have it in common.
    pub(crate) fn encoder_digest(&self) -> blake3::Hash {
        let image = &self.manifest.image;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&serde_json::to_vec(image).expect("a section of a manifest is always JSON"));
        for name in std::iter::once(&image.file).chain(&image.projection) {
            hasher.update(self.manifest.files[name].blake3.as_bytes());
        }
        hasher.finalize()
    }

    /// The name in results: `name@` and the first 16 hex digits of the digest.
    pub fn id(&self) -> String {
        format!("{}@{}", self.manifest.name, &self.digest.to_hex()[..16])
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
    match list.names().iter().find(|&name| !table.names.contains(name)) {
        Some(unknown) => Err(contradiction(format!("a list with {unknown:?}")).into()),
        None => Ok(list),
    }
}

fn open_manifest(folder: &Path) -> Result<(Manifest, blake3::Hash)> {
    let not_folder = |reason: &str| BundleError::NotFolder { path: folder.into(), reason: reason.into() };
    match folder.metadata() {
        Ok(found) if !found.is_dir() => return Err(not_folder("it is a file")),
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

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let failed = |source| file_error(path, source);
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut bytes = Vec::new();
    if size <= limit {
        bytes.reserve_exact(size as usize + 1);
        file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    let found = size.max(bytes.len() as u64);
    if found > limit {
        return Err(BundleError::FileTooLarge { path: path.into(), found, limit });
    }
    Ok(bytes)
}

fn read_verified(folder: &Path, name: &str, record: &FileRecord) -> Result<Vec<u8>> {
    let path = folder.join(name);
    check_size(&path, record)?;
    let bytes = read_bounded(&path, BUNDLE_FILE_BYTES_MAX)?;
    check_digest(&path, record, blake3::hash(&bytes))?;
    Ok(bytes)
}

/// Like [`read_verified`] without keeping the bytes.
fn verify(folder: &Path, name: &str, record: &FileRecord) -> Result<()> {
    let path = folder.join(name);
    check_size(&path, record)?;
    let mut hasher = blake3::Hasher::new();
    let file = File::open(&path).map_err(|source| file_error(&path, source))?;
    hasher.update_reader(file.take(BUNDLE_FILE_BYTES_MAX)).map_err(|source| file_error(&path, source))?;
    check_digest(&path, record, hasher.finalize())
}

fn check_size(path: &Path, record: &FileRecord) -> Result<()> {
    let found = path.metadata().map_err(|source| file_error(path, source))?.len();
    if found != record.size {
        return Err(differs(path, "size", record.size.to_string(), found.to_string()));
    }
    Ok(())
}

fn check_digest(path: &Path, record: &FileRecord, found: blake3::Hash) -> Result<()> {
    let found = found.to_hex().to_string();
    if found != record.blake3 {
        return Err(differs(path, "BLAKE3 digest", record.blake3.clone(), found));
    }
    Ok(())
}

fn differs(path: &Path, what: &'static str, expected: String, found: String) -> BundleError {
    BundleError::FileDiffers { path: path.into(), what, expected, found }
}

fn file_error(path: &Path, source: std::io::Error) -> BundleError {
    match source.kind() {
        ErrorKind::NotFound => BundleError::FileMissing { path: path.into() },
        _ => BundleError::FileUnreadable { path: path.into(), source },
    }
}
