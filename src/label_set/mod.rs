//! Class embeddings T `[C, D]` of a list of labels.
//!
//! The embeddings come from the bundle's table where it has all of the labels under the prompt asked for; else from
//! this device's cache folder; else from the text tower, and are then stored there.

mod store;

use std::collections::HashMap;
use std::path::Path;

use ndarray::{Array2, Axis};

use crate::bundle::{BundleContents, BundleError, ClassTable};
use crate::error::{Error, Result};
use crate::labels::{Labels, nearest};
use crate::text::{Prompt, embed};
pub(crate) use store::{load as load_remembered, save as save_remembered};

/// The labels of one run and their embeddings.
#[derive(Clone, Debug)]
pub(crate) struct LabelSet {
    /// The labels, in the order given, whose texts are C.
    pub list: Labels,
    /// Prompt around a label.
    pub prompt: Prompt,
    /// T `[C, D]`, unit rows.
    pub embeddings: Array2<f32>,
    /// Origin of the embeddings.
    pub origin: EmbeddingOrigin,
}

/// Origin of class embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EmbeddingOrigin {
    /// The bundle's table.
    Bundle,
    /// The text tower, in an earlier run on this device.
    Remembered,
    /// The text tower, now.
    Computed,
}

impl LabelSet {
    /// The default labels of a bundle.
    ///
    /// # Errors
    /// The bundle has none.
    pub(crate) fn of(bundle: &BundleContents) -> Result<Self> {
        let list =
            bundle.labels.clone().ok_or_else(|| BundleError::NoLabels { bundle: bundle.manifest.name.clone() })?;
        Self::new(bundle, list, bundle.prompt(), None)
    }

    /// The labels of `list` with `prompt` around them; `cache_folder` is the folder where embeddings are remembered.
    ///
    /// Runs the text tower, where it must, on the current rayon pool.
    ///
    /// # Errors
    /// The prompt cannot be filled in, a label does not fit the tower's context, or the bundle has no text tower and
    /// not all of the labels.
    pub(crate) fn new(
        bundle: &BundleContents,
        list: Labels,
        prompt: Prompt,
        cache_folder: Option<&Path>,
    ) -> Result<Self> {
        prompt.check()?;
        let (embeddings, origin) = embeddings_of(bundle, &list, &prompt, cache_folder)?;
        Ok(Self { list, prompt, embeddings, origin })
    }

    /// The labels that are answered.
    pub(crate) fn names(&self) -> &[String] {
        self.list.names()
    }
}

fn embeddings_of(
    bundle: &BundleContents,
    list: &Labels,
    prompt: &Prompt,
    cache_folder: Option<&Path>,
) -> Result<(Array2<f32>, EmbeddingOrigin)> {
    // The table's rows were embedded under the bundle's own prompt.
    let fits_table = *prompt == bundle.prompt();
    if let Some(rows) = bundle.classes.as_ref().filter(|_| fits_table).and_then(|table| rows_of(table, list)) {
        return Ok((rows, EmbeddingOrigin::Bundle));
    }
    if bundle.manifest.text.is_none() {
        return Err(without_tower(bundle, list, fits_table));
    }
    let key = store::key(bundle, list, prompt);
    let shape = (list.texts().len(), bundle.manifest.embedding);
    if let Some(remembered) = cache_folder.and_then(|folder| store::load(folder, &key, shape)) {
        return Ok((remembered, EmbeddingOrigin::Remembered));
    }
    let computed = embed(&bundle.text_model()?, list.texts(), prompt)?;
    log::info!("{} labels went through the text tower", shape.0);
    if let Some(folder) = cache_folder {
        store::save(folder, &key, &computed);
    }
    Ok((computed, EmbeddingOrigin::Computed))
}

/// The table's rows of all labels, if it has them all.
fn rows_of(table: &ClassTable, list: &Labels) -> Option<Array2<f32>> {
    // Indexed, since both lists may have 100,000 names.
    let rows: HashMap<&str, usize> = table.names.iter().map(String::as_str).zip(0..).collect();
    let chosen: Option<Vec<usize>> = list.texts().iter().map(|name| rows.get(name.as_str()).copied()).collect();
    Some(table.embeddings.select(Axis(0), &chosen?))
}

/// Error for labels that cannot be embedded without a text tower.
fn without_tower(bundle: &BundleContents, list: &Labels, fits_table: bool) -> Error {
    // Under another prompt the table has no label at all, so that none is to blame.
    let unknown = bundle.classes.as_ref().filter(|_| fits_table).and_then(|table| {
        let label = list.texts().iter().find(|&name| !table.names.contains(name))?;
        Some(BundleError::UnknownLabel { label: label.clone(), nearest: nearest(&table.names, label) })
    });
    unknown.unwrap_or_else(|| BundleError::NoTextTower { bundle: bundle.manifest.name.clone() }).into()
}
