//! The bundle's text tower, opened when it is needed: many uses get by with stored class embeddings.

use std::path::Path;
use std::sync::Arc;

use super::error::{BundleError, Result};
use super::manifest::{Manifest, TextSection};
use crate::files::read_up_to;
use crate::limits::TOKENIZER_BYTES_MAX;
use crate::text::{TextModel, TextTower, Tokenizer, TowerShape, WeightsFile};

/// Opens the text tower of the bundle in `folder`, whose files were verified when the bundle was opened.
///
/// # Errors
/// The bundle has none, or a file is not what the manifest says.
pub(crate) fn open_text_model(folder: &Path, manifest: &Manifest) -> Result<TextModel> {
    let Some(section) = &manifest.text else {
        return Err(BundleError::NoTextTower { bundle: manifest.name.clone() });
    };
    let weights = WeightsFile::open(&folder.join(&section.file))?;
    let path = folder.join(&section.tokenizer);
    let bytes = read_up_to(&path, TOKENIZER_BYTES_MAX)
        .map_err(|source| BundleError::FileUnreadable { path: path.clone(), source })?;
    Ok(TextModel {
        tokenizer: Arc::new(Tokenizer::parse(&section.tokenizer, &bytes, section.vocabulary)?),
        tower: Arc::new(TextTower::load(weights, tower_shape(section, manifest.embedding))?),
    })
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
        activation: section.activation,
    }
}
