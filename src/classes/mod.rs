//! From labels to the classes an image is told apart by: T `[C, D]`.
//!
//! The embeddings come from the bundle's table where it has all of the labels under the prompt asked for; else from
//! this device's memory of earlier runs; else from the text tower, and are then remembered.

mod list;
mod memory;

use std::collections::HashMap;
use std::path::Path;

use ndarray::{Array2, Axis};

pub use list::{LabelList, nearest, parse_labels, read_labels};

use crate::bundle::{Bundle, ClassTable, TextModel};
use crate::error::{Error, Result};
use crate::rows::unit_rows;
use crate::text::{Prompting, Prompts, context_tokens, template_tokens};

/// The labels of one run and their embeddings.
#[derive(Clone, Debug)]
pub struct LabelSet {
    /// The labels C, in the order given.
    pub list: LabelList,
    /// What is written around a label.
    pub prompting: Prompting,
    /// T `[C, D]`, unit rows.
    pub embeddings: Array2<f32>,
    /// Where the embeddings came from.
    pub origin: EmbeddingOrigin,
}

/// Where class embeddings came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingOrigin {
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
    pub fn of(bundle: &Bundle) -> Result<Self> {
        let list = bundle.labels.clone().ok_or_else(|| Error::NoLabels { bundle: bundle.manifest.name.clone() })?;
        Self::new(bundle, list, bundle.prompting(), None)
    }

    /// The labels of `list` with `prompting` around them; `memory` is the folder where embeddings are remembered.
    ///
    /// Runs the text tower, where it must, on the current rayon pool.
    ///
    /// # Errors
    /// The prompt cannot be filled in, a label does not fit the tower's context, or the bundle has no text tower and not
    /// all of the labels.
    pub fn new(bundle: &Bundle, list: LabelList, prompting: Prompting, memory: Option<&Path>) -> Result<Self> {
        prompting.check()?;
        let (embeddings, origin) = embeddings_of(bundle, &list, &prompting, memory)?;
        Ok(Self { list, prompting, embeddings, origin })
    }

    /// The labels.
    pub fn names(&self) -> &[String] {
        self.list.names()
    }
}

fn embeddings_of(
    bundle: &Bundle,
    list: &LabelList,
    prompting: &Prompting,
    memory: Option<&Path>,
) -> Result<(Array2<f32>, EmbeddingOrigin)> {
    let fits_table = *prompting == bundle.prompting();
    if let Some(rows) = bundle.classes.as_ref().filter(|_| fits_table).and_then(|table| rows_of(table, list)) {
        return Ok((rows, EmbeddingOrigin::Bundle));
    }
    if bundle.manifest.text.is_none() {
        return Err(without_tower(bundle, list, fits_table));
    }
    let key = memory::key(bundle, list, prompting);
    let shape = (list.names().len(), bundle.manifest.embedding);
    if let Some(remembered) = memory.and_then(|folder| memory::recall(folder, &key, shape)) {
        return Ok((remembered, EmbeddingOrigin::Remembered));
    }
    let computed = embed(&bundle.text_model()?, list.names(), prompting)?;
    log::info!("{} labels went through the text tower", shape.0);
    if let Some(folder) = memory {
        memory::remember(folder, &key, &computed);
    }
    Ok((computed, EmbeddingOrigin::Computed))
}

/// The table's rows of all labels, if it has them all.
fn rows_of(table: &ClassTable, list: &LabelList) -> Option<Array2<f32>> {
    let rows: HashMap<&str, usize> = table.names.iter().map(String::as_str).zip(0..).collect();
    let chosen: Option<Vec<usize>> = list.names().iter().map(|name| rows.get(name.as_str()).copied()).collect();
    Some(table.embeddings.select(Axis(0), &chosen?))
}

/// Why labels cannot be embedded without a text tower.
fn without_tower(bundle: &Bundle, list: &LabelList, fits_table: bool) -> Error {
    let unknown = bundle.classes.as_ref().filter(|_| fits_table).and_then(|table| {
        let label = list.names().iter().find(|&name| !table.names.contains(name))?;
        Some(Error::LabelUnknown { label: label.clone(), nearest: nearest(&table.names, label) })
    });
    unknown.unwrap_or_else(|| Error::NoTextTower { bundle: bundle.manifest.name.clone() })
}

/// The unit embeddings `[C, D]` of labels: of one prompt each, or the unit mean over templates.
///
/// # Errors
/// A label cannot be tokenised or does not fit, or the tower gives it an embedding without direction.
pub fn embed(model: &TextModel, names: &[String], prompting: &Prompting) -> Result<Array2<f32>> {
    let mut sum = Array2::zeros((names.len(), model.tower.shape().embedding));
    for template in prompting.templates() {
        let length = model.tower.shape().context_length;
        let tokens = template_tokens(&model.tokenizer, &template, names, length)?;
        let prompts = Prompts::read(&model.tower, &tokens)?;
        sum += &model.tower.encode(&model.tower.prefix(prompts.shared()), &prompts);
    }
    let embeddings = unit_rows(sum).rows;
    match embeddings.rows().into_iter().zip(names).find(|(row, _)| !row.iter().all(|value| value.is_finite())) {
        Some((_, name)) => Err(Error::EmbeddingNotFinite { label: name.clone() }),
        None => Ok(embeddings),
    }
}

/// The prompts of labels under a context, for the head that tunes it.
///
/// # Errors
/// The prompt is an ensemble of templates, the context is empty, or a label cannot be tokenised or does not fit.
pub fn context_prompts(model: &TextModel, names: &[String], prompting: &Prompting) -> Result<Prompts<f32>> {
    let refused = |found: &str| Error::Setting {
        what: "the prompt",
        expected: "one context of at least one word, which the head context tunes; use --context, or another --head"
            .into(),
        found: found.into(),
    };
    let Prompting::Context(context) = prompting else { return Err(refused("an ensemble of templates")) };
    let tokens = context_tokens(&model.tokenizer, context, names, model.tower.shape().context_length)?;
    if tokens.shared.len() < 2 {
        return Err(refused("empty"));
    }
    Prompts::read(&model.tower, &tokens)
}
