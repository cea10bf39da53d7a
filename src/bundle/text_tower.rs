//! The bundle's text tower, loaded when it is needed: many uses get by with stored class embeddings.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::error::Result;
use super::manifest::{FileRecord, TextSection};
use super::verified::{file_error, open_verified};
use crate::files::SteadyFile;
use crate::limits::TOKENIZER_BYTES_MAX;
use crate::text::{TextModel, TextTower, Tokenizer, TowerShape, WeightsFile};

/// The files of a text tower, open since they were verified.
#[derive(Debug)]
pub(crate) struct TextFiles {
    section: TextSection,
    weights: Arc<SteadyFile>,
    tokenizer: SteadyFile,
}

impl TextFiles {
    /// Opens and verifies the files that a section names, which have records among `files`.
    ///
    /// # Errors
    /// A file is missing, or differs from its record.
    pub(crate) fn open(folder: &Path, section: &TextSection, files: &BTreeMap<String, FileRecord>) -> Result<Self> {
        let verified = |name: &String| open_verified(folder, name, &files[name]);
        Ok(Self {
            section: section.clone(),
            weights: Arc::new(verified(&section.file)?),
            tokenizer: verified(&section.tokenizer)?,
        })
    }

    /// The weights.
    ///
    /// # Errors
    /// The file was changed since it was opened, or is no safetensors file.
    pub(crate) fn weights(&self) -> Result<WeightsFile> {
        Ok(WeightsFile::of(Arc::clone(&self.weights))?)
    }

    /// The text model in them, with embeddings of this width.
    ///
    /// # Errors
    /// A file was changed since it was opened, or is not what the section says.
    pub(crate) fn load(&self, embedding: usize) -> Result<TextModel> {
        // The open file, and not its path, under which another file may stand by now.
        let weights = self.weights()?;
        // One that is longer than the limit is cut after one byte more, which tells the tokenizer so.
        let length = self.tokenizer.size().min(TOKENIZER_BYTES_MAX + 1) as usize;
        let bytes = self.tokenizer.read_at(0, length).map_err(|source| file_error(self.tokenizer.path(), source))?;
        let tokenizer =
            Tokenizer::parse(&self.section.tokenizer, &bytes, self.section.vocabulary, self.section.cleaning)?;
        let tower = TextTower::load(weights, tower_shape(&self.section, embedding))?;
        Ok(TextModel { tokenizer: Arc::new(tokenizer), tower: Arc::new(tower) })
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
