//! Classes by example for an evaluation: a few photos of every label, drawn from a data set.

use super::dataset::{DataSet, Item};
use super::error::EvalError;
use crate::error::Result;
use crate::extractor::{CacheUse, Extractor, Features};
use crate::files::{FileError, read_up_to};
use crate::labels::Labels;
use crate::limits::IMAGE_BYTES_MAX;
use crate::views::ViewSettings;

/// The photos of every label that were drawn, encoded.
pub(crate) struct Shots {
    list: Labels,
    /// Features of each label's photos, in the order they were drawn.
    features: Vec<Vec<Features>>,
}

impl Shots {
    /// Draws `most` photos of every label of `list` from `set`, whose images show the labels `truths`, and encodes them.
    ///
    /// The order of a label's photos is that of digests of their names with the number of the `draw`: it depends on nothing else, and
    /// fewer photos are the first of more.
    ///
    /// # Errors
    /// A label is a group, or has fewer photos; or one cannot be read or encoded.
    pub(crate) fn draw(
        extractor: &Extractor,
        list: &Labels,
        (set, truths): (&DataSet, &[usize]),
        (draw, most): (u64, usize),
        mut advance: impl FnMut(),
    ) -> Result<Self> {
        if list.groups().is_some() {
            return Err(EvalError::Shots {
                problem: "groups have no photos of their own: name labels without groups".into(),
            }
            .into());
        }
        let mut of_label: Vec<Vec<&Item>> = vec![Vec::new(); list.names().len()];
        for (item, &truth) in set.items.iter().zip(truths) {
            of_label[truth].push(item);
        }
        let clean = ViewSettings { count: 1, ..extractor.settings().views };
        let mut features = Vec::with_capacity(of_label.len());
        for (label, mut items) in list.names().iter().zip(of_label) {
            if items.len() < most {
                let problem =
                    format!("{} has {} photos of {label:?}, and {most} are asked for", set.path.display(), items.len());
                return Err(EvalError::Shots { problem }.into());
            }
            items.sort_by_cached_key(|item| {
                let mut hasher = blake3::Hasher::new();
                hasher.update(&draw.to_le_bytes()).update(item.name.as_bytes());
                *hasher.finalize().as_bytes()
            });
            let mut seen = Vec::with_capacity(most);
            for item in &items[..most] {
                let bytes = read_up_to(&item.path, IMAGE_BYTES_MAX)
                    .map_err(|source| FileError::Unreadable { path: item.path.clone(), source })?;
                seen.push(extractor.features_in(&bytes, &clean, CacheUse::LookUp, &Default::default())?);
                advance();
            }
            features.push(seen);
        }
        Ok(Self { list: list.clone(), features })
    }

    /// The labels by the first `count` photos of each; by their texts, if it is 0.
    ///
    /// # Errors
    /// The photos of a label have nothing in common.
    pub(crate) fn labels(&self, count: usize) -> Result<Labels> {
        let mut examples = self.list.examples().clone();
        for (text, features) in self.list.texts().iter().zip(&self.features) {
            examples.forget(text);
            for one in &features[..count] {
                examples.add(text, &one.encoder, one.matrix.row(0))?;
            }
        }
        Ok(self.list.clone().with_examples(&examples))
    }
}
