//! Class embeddings T `[C, D]` of a list of labels.
//!
//! Those of labels by example are the mean features of their photos. The others come from the bundle's table where it has
//! all of them under the prompt asked for; else from this device's cache folder; else from the text tower, and are then
//! stored there.
//!
//! Photos of a thing are more like one another than like its text, so that a class by example would draw photos of other
//! things to itself. Where a list has both kinds, there is a further column: texts have `[t, 0]`, classes by example
//! `[w e, √(1 - w²)]` with the bundle's weight w, and features `[f, 0]`. All rows stay of length 1, and the cosines of
//! photos with e count w times.

mod store;

use std::collections::HashMap;
use std::path::Path;

use ndarray::{Array2, ArrayView2, Axis, CowArray, Ix2, s};

use crate::bundle::{BundleContents, BundleError, ClassTable};
use crate::error::{Error, Result};
use crate::examples::ExamplesError;
use crate::labels::{Labels, nearest};
use crate::text::{Prompt, embed};
use crate::wording::quoted;
pub(crate) use store::{load as load_remembered, save as save_remembered};

/// The labels of one run and their embeddings.
#[derive(Clone, Debug)]
pub(crate) struct LabelSet {
    /// The labels, in the order given, whose texts are C.
    pub list: Labels,
    /// Prompt around a label.
    pub prompt: Prompt,
    /// T `[C, D]`, or `[C, D + 1]` where some classes are by example and some are texts; unit rows.
    pub embeddings: Array2<f32>,
    /// Origin of the texts' embeddings.
    pub origin: EmbeddingOrigin,
    /// The places of the classes that are texts, rising.
    pub words: Vec<usize>,
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
    /// Nowhere: all classes are by example.
    Examples,
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
        let encoder = bundle.encoder_digest();
        let texts = list.texts();
        let words: Vec<usize> =
            (0..texts.len()).filter(|&place| list.examples().of(&encoder, &texts[place]).is_none()).collect();
        warn_of_unseen(bundle, &list, &words);
        if words.len() == texts.len() {
            let (embeddings, origin) = embeddings_of(bundle, texts, &prompt, cache_folder)?;
            return Ok(Self { list, prompt, embeddings, origin, words });
        }
        let (embeddings, origin) = with_examples(bundle, &list, &words, &prompt, cache_folder)?;
        Ok(Self { list, prompt, embeddings, origin, words })
    }

    /// True if the names do not say what images are compared with: labels are groups, or some are by example.
    pub(crate) fn is_more_than_names(&self) -> bool {
        self.list.groups().is_some() || self.words.len() < self.list.texts().len()
    }

    /// Features `[V, D]` as wide as the class embeddings.
    pub(crate) fn widened<'a>(&self, features: ArrayView2<'a, f32>) -> CowArray<'a, f32, Ix2> {
        if features.ncols() == self.embeddings.ncols() {
            return features.into();
        }
        let mut wide = Array2::zeros((features.nrows(), self.embeddings.ncols()));
        wide.slice_mut(s![.., ..features.ncols()]).assign(&features);
        wide.into()
    }

    /// The labels that are answered.
    pub(crate) fn names(&self) -> &[String] {
        self.list.names()
    }
}

/// The embeddings where some or all classes are by example; `words` are the places of those that are not.
fn with_examples(
    bundle: &BundleContents,
    list: &Labels,
    words: &[usize],
    prompt: &Prompt,
    cache_folder: Option<&Path>,
) -> Result<(Array2<f32>, EmbeddingOrigin)> {
    let (width, encoder, texts) = (bundle.manifest.embedding, bundle.encoder_digest(), list.texts());
    let weight = match bundle.manifest.examples {
        _ if words.is_empty() => 1.0,
        Some(section) => section.weight,
        None => {
            let (bundle, count, words) = (bundle.manifest.name.clone(), texts.len(), words.len());
            return Err(ExamplesError::Mixed { bundle, count, words }.into());
        }
    };
    let columns = if words.is_empty() { width } else { width + 1 };
    let mut embeddings = Array2::zeros((texts.len(), columns));
    for (mut row, text) in embeddings.rows_mut().into_iter().zip(texts) {
        let Some(example) = list.examples().of(&encoder, text) else { continue };
        if example.sum.len() != width {
            let problem = format!("has {} numbers, expected {width}; add its photos again", example.sum.len());
            return Err(ExamplesError::Unusable { label: text.clone(), problem }.into());
        }
        row.slice_mut(s![..width]).assign(&(example.embedding() * weight));
        if columns > width {
            row[width] = (1.0 - weight * weight).sqrt();
        }
    }
    if words.is_empty() {
        return Ok((embeddings, EmbeddingOrigin::Examples));
    }
    let worded: Vec<String> = words.iter().map(|&place| texts[place].clone()).collect();
    let (rows, origin) = embeddings_of(bundle, &worded, prompt, cache_folder)?;
    for (&place, row) in words.iter().zip(rows.rows()) {
        embeddings.slice_mut(s![place, ..width]).assign(&row);
    }
    Ok((embeddings, origin))
}

/// Warns of labels whose photos another encoder saw: their names are no more than names now.
fn warn_of_unseen(bundle: &BundleContents, list: &Labels, words: &[usize]) {
    for text in words.iter().map(|&place| &list.texts()[place]).filter(|text| list.examples().has(text)) {
        log::warn!(
            "the label {} is by example, but its photos were added with another model than {}: its name is used; add the photos again",
            quoted(text),
            bundle.manifest.name
        );
    }
}

fn embeddings_of(
    bundle: &BundleContents,
    texts: &[String],
    prompt: &Prompt,
    cache_folder: Option<&Path>,
) -> Result<(Array2<f32>, EmbeddingOrigin)> {
    // The table's rows were embedded under the bundle's own prompt.
    let fits_table = *prompt == bundle.prompt();
    if let Some(rows) = bundle.classes.as_ref().filter(|_| fits_table).and_then(|table| rows_of(table, texts)) {
        return Ok((rows, EmbeddingOrigin::Bundle));
    }
    if !bundle.manifest.has_text_tower() {
        return Err(without_tower(bundle, texts, fits_table));
    }
    let key = store::key(bundle, texts, prompt);
    let shape = (texts.len(), bundle.manifest.embedding);
    if let Some(remembered) = cache_folder.and_then(|folder| store::load(folder, &key, shape)) {
        return Ok((remembered, EmbeddingOrigin::Remembered));
    }
    let computed = embed(&bundle.text_model()?, texts, prompt)?;
    log::info!("{} labels went through the text tower", shape.0);
    if let Some(folder) = cache_folder {
        store::save(folder, &key, &computed);
    }
    Ok((computed, EmbeddingOrigin::Computed))
}

/// The table's rows of all labels, if it has them all.
fn rows_of(table: &ClassTable, texts: &[String]) -> Option<Array2<f32>> {
    // Indexed, since both lists may have 100,000 names.
    let rows: HashMap<&str, usize> = table.names.iter().map(String::as_str).zip(0..).collect();
    let chosen: Option<Vec<usize>> = texts.iter().map(|name| rows.get(name.as_str()).copied()).collect();
    Some(table.embeddings.select(Axis(0), &chosen?))
}

/// Error for labels that cannot be embedded without a text tower.
fn without_tower(bundle: &BundleContents, texts: &[String], fits_table: bool) -> Error {
    // Under another prompt the table has no label at all, so that none is to blame.
    let unknown = bundle.classes.as_ref().filter(|_| fits_table).and_then(|table| {
        let label = texts.iter().find(|&name| !table.names.contains(name))?;
        Some(BundleError::UnknownLabel { label: label.clone(), nearest: nearest(&table.names, label) })
    });
    unknown.unwrap_or_else(|| BundleError::NoTextTower { bundle: bundle.manifest.name.clone() }).into()
}
