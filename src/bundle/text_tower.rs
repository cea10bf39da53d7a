//! The bundle's text tower, loaded when it is needed: many uses get by with stored class embeddings.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ndarray::{Array2, ArrayView2};

use super::error::Result;
use super::manifest::{FileRecord, Manifest, TextOnnxSection, TextSection};
use super::verified::{file_error, open_verified};
use crate::cause::Cause;
use crate::encoder::{ModelFile, OnnxTexts};
use crate::files::SteadyFile;
use crate::limits::TOKENIZER_BYTES_MAX;
use crate::text::{
    Cleaning, ClosedTower, TextError, TextModel, TextTower, TokenEncoder, Tokenizer, Tower, TowerShape, WeightsFile,
};

/// The files of a text tower, open since they were verified.
#[derive(Debug)]
pub(crate) struct TextFiles {
    tower: TowerFile,
    tokenizer: SteadyFile,
}

/// What computes texts.
#[derive(Debug)]
enum TowerFile {
    /// The weights of a tower whose layers are known.
    Weights(TextSection, Arc<SteadyFile>),
    /// A model.
    Onnx(TextOnnxSection, ModelFile),
}

impl TextFiles {
    /// Opens and verifies the files that a manifest's sections name, which have records among `files`; nothing if there is no text
    /// tower.
    ///
    /// # Errors
    /// A file is missing, or differs from its record.
    pub(crate) fn of(folder: &Path, manifest: &Manifest) -> Result<Option<Self>> {
        match (&manifest.text, &manifest.text_onnx) {
            (Some(section), _) => Self::open(folder, section, &manifest.files).map(Some),
            (None, Some(section)) => Self::open_onnx(folder, section, &manifest.files).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// As [`Self::of`], of a tower whose layers are known.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub(crate) fn open(folder: &Path, section: &TextSection, files: &BTreeMap<String, FileRecord>) -> Result<Self> {
        let verified = |name: &String| open_verified(folder, name, &files[name]);
        let tower = TowerFile::Weights(section.clone(), Arc::new(verified(&section.file)?));
        Ok(Self { tower, tokenizer: verified(&section.tokenizer)? })
    }

    /// As [`Self::of`], of a tower in ONNX.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub(crate) fn open_onnx(
        folder: &Path,
        section: &TextOnnxSection,
        files: &BTreeMap<String, FileRecord>,
    ) -> Result<Self> {
        let verified = |name: &String| open_verified(folder, name, &files[name]);
        let tower = TowerFile::Onnx(section.clone(), verified(&section.file)?.into());
        Ok(Self { tower, tokenizer: verified(&section.tokenizer)? })
    }

    /// The weights, of a tower whose layers are known.
    ///
    /// # Errors
    /// The file was changed since it was opened, or is no safetensors file.
    pub(crate) fn weights(&self) -> Result<Option<WeightsFile>> {
        match &self.tower {
            // The open file, and not its path, under which another file may stand by now.
            TowerFile::Weights(_, file) => Ok(Some(WeightsFile::of(Arc::clone(file))?)),
            TowerFile::Onnx(..) => Ok(None),
        }
    }

    /// The text model in them, with embeddings of this width.
    ///
    /// # Errors
    /// A file was changed since it was opened, or is not what the section says.
    pub(crate) fn load(&self, embedding: usize) -> Result<TextModel> {
        match &self.tower {
            TowerFile::Weights(section, file) => {
                let tokenizer = self.tokenizer(&section.tokenizer, section.vocabulary, section.cleaning)?;
                let weights = WeightsFile::of(Arc::clone(file))?;
                let tower = TextTower::load(weights, tower_shape(section, embedding))?;
                Ok(TextModel { tokenizer: Arc::new(tokenizer), tower: Tower::Known(Arc::new(tower)) })
            }
            TowerFile::Onnx(section, file) => {
                let tokenizer = self.tokenizer(&section.tokenizer, section.vocabulary, section.cleaning)?;
                let &TextOnnxSection { context_length, padding, .. } = section;
                let encoder = OnnxTexts::load(file, section.output.as_deref(), context_length, embedding)
                    .map_err(|source| TextError::Model { source })?;
                let tower = ClosedTower { encoder: Box::new(encoder), context_length, padding, embedding };
                Ok(TextModel { tokenizer: Arc::new(tokenizer), tower: Tower::Closed(Arc::new(tower)) })
            }
        }
    }

    fn tokenizer(&self, name: &str, vocabulary: usize, cleaning: Cleaning) -> Result<Tokenizer> {
        // One that is longer than the limit is cut after one byte more, which tells the tokenizer so.
        let length = self.tokenizer.size().min(TOKENIZER_BYTES_MAX + 1) as usize;
        let bytes = self.tokenizer.read_at(0, length).map_err(|source| file_error(self.tokenizer.path(), source))?;
        Ok(Tokenizer::parse(name, &bytes, vocabulary, cleaning)?)
    }
}

impl TokenEncoder for OnnxTexts {
    fn encode(&self, tokens: ArrayView2<i64>) -> std::result::Result<Array2<f32>, Cause> {
        OnnxTexts::encode(self, tokens)
    }
}

/// The tower's sizes as the manifest has them.
fn tower_shape(section: &TextSection, embedding: usize) -> TowerShape {
    TowerShape {
        layers: section.layers,
        width: section.width,
        heads: section.heads,
        context_length: section.context_length,
        vocabulary: section.vocabulary,
        embedding,
        hidden: section.hidden.unwrap_or(4 * section.width),
        activation: section.activation,
        style: section.style(),
    }
}
