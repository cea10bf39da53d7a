//! Classes by example: texts of a label list whose class embedding is the mean of a few photos' features, not the text tower's.
//!
//! Features mean nothing to another encoder, so that examples are kept by the encoder that saw the photos.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ndarray::{Array1, ArrayView1};
use serde::{Deserialize, Serialize};

use crate::files::{FileError, read_up_to, write_file};
use crate::limits::{EXAMPLE_PHOTOS_MAX, EXAMPLES_BYTES_MAX};
use crate::rows::length;
use crate::setting::SettingError;
use crate::wording::quoted;

type Result<T> = std::result::Result<T, ExamplesError>;

/// What is added to a labels file's name to name the file of its examples.
const SUFFIX: &str = ".examples";

/// Examples that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExamplesError {
    /// The examples of a labels file are not what they should be.
    #[error("the examples in {} {problem}; remove the file, and add the photos again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Problem found.
        problem: String,
    },
    /// An example of a class cannot be one.
    #[error("the example of the label {} {problem}", quoted(label))]
    Unusable {
        /// The label.
        label: String,
        /// Problem found.
        problem: String,
    },
    /// Some labels are given by example and some are not, and the bundle does not say how the two compare.
    #[error(
        "{} of the labels are by example and {} are not, and the bundle {bundle} does not say how photos compare with texts; give examples of all labels, or of none",
        count - words, words
    )]
    Mixed {
        /// The bundle's name.
        bundle: String,
        /// Number of all labels.
        count: usize,
        /// Number of those without examples.
        words: usize,
    },
    /// The method tunes words, and no label has any.
    #[error(
        "the method context tunes the words before the labels, and all labels are by example; choose another method"
    )]
    NoWords,
    /// The number of photos is out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The photos of one class, as one encoder sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Example {
    /// Number of photos.
    pub photos: usize,
    /// Sum `[D]` of their features, each of unit length.
    pub sum: Vec<f32>,
}

// Sums are finite: others are refused.
impl Eq for Example {}

impl Example {
    /// The class embedding `[D]`: the mean feature, of unit length.
    pub(crate) fn embedding(&self) -> Array1<f32> {
        let sum = ArrayView1::from(&self.sum);
        let norm = length(sum);
        sum.mapv(|value| value / norm)
    }
}

/// The examples of a list of labels: by encoder (64 hex digits of its digest), then by text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Examples(BTreeMap<String, BTreeMap<String, Example>>);

impl Examples {
    /// True if there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The example of a text that an encoder saw.
    pub(crate) fn of(&self, encoder: &blake3::Hash, text: &str) -> Option<&Example> {
        self.0.get(encoder.to_hex().as_str())?.get(text)
    }

    /// True if there is an example of a text, whichever encoder saw it.
    pub(crate) fn has(&self, text: &str) -> bool {
        self.0.values().any(|texts| texts.contains_key(text))
    }

    /// Number of photos of each text that an encoder saw.
    pub(crate) fn counts(&self, encoder: &blake3::Hash) -> BTreeMap<String, usize> {
        let texts = self.0.get(encoder.to_hex().as_str()).into_iter().flatten();
        texts.map(|(text, example)| (text.clone(), example.photos)).collect()
    }

    /// Adds a photo of a text: the feature `[D]` of its clean view, of unit length, by an encoder.
    ///
    /// # Errors
    /// There are too many of that text, or the photos have nothing in common.
    pub(crate) fn add(&mut self, text: &str, encoder: &blake3::Hash, feature: ArrayView1<f32>) -> Result<()> {
        let texts = self.0.entry(encoder.to_hex().to_string()).or_default();
        let example = texts.entry(text.into()).or_insert_with(|| Example { photos: 0, sum: vec![0.0; feature.len()] });
        if example.photos >= EXAMPLE_PHOTOS_MAX {
            let expected = format!("at most {EXAMPLE_PHOTOS_MAX}");
            let found = (example.photos + 1).to_string();
            return Err(SettingError { what: "the number of photos of a label", expected, found }.into());
        }
        example.photos += 1;
        for (sum, value) in example.sum.iter_mut().zip(feature) {
            *sum += value;
        }
        check(text, example)
    }

    /// Forgets what was seen of a text; false if there was nothing.
    pub(crate) fn forget(&mut self, text: &str) -> bool {
        let had = self.has(text);
        self.retain(|other| other != text);
        had
    }

    /// Forgets what was seen of texts that are not wanted.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        for texts in self.0.values_mut() {
            texts.retain(|text, _| wanted(text));
        }
        self.0.retain(|_, texts| !texts.is_empty());
    }

    /// Refuses examples that are none: of values that are no numbers, or that come from no photo.
    ///
    /// # Errors
    /// The first that is found.
    pub(crate) fn check(&self) -> Result<()> {
        self.0.values().flatten().try_for_each(|(text, example)| check(text, example))
    }

    /// The examples beside a labels file, if there are any.
    ///
    /// # Errors
    /// They cannot be read, or are none.
    pub(crate) fn beside(labels: &Path) -> Result<Self> {
        let path = file_beside(labels);
        let malformed = |problem: String| ExamplesError::Malformed { path: path.clone(), problem };
        let bytes = match read_up_to(&path, EXAMPLES_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            read => read.map_err(|source| FileError::Unreadable { path: path.clone(), source })?,
        };
        if bytes.len() as u64 > EXAMPLES_BYTES_MAX {
            return Err(malformed(format!("are more than {EXAMPLES_BYTES_MAX} bytes")));
        }
        let examples: Self =
            serde_json::from_slice(&bytes).map_err(|error| malformed(format!("are damaged ({error})")))?;
        examples.check().map_err(|error| malformed(format!("are damaged: {error}")))?;
        Ok(examples)
    }

    /// Writes the examples beside a labels file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write_beside(&self, labels: &Path) -> Result<()> {
        Ok(write_file(&file_beside(labels), &serde_json::to_vec(self).expect("numbers are always JSON"))?)
    }
}

fn file_beside(labels: &Path) -> PathBuf {
    let mut name = labels.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

fn check(text: &str, example: &Example) -> Result<()> {
    let unusable = |problem: String| ExamplesError::Unusable { label: text.into(), problem };
    if example.photos == 0 {
        return Err(unusable("is of no photo".into()));
    }
    let norm = length(ArrayView1::from(&example.sum));
    // Photos of which one is the other's opposite have no mean; no photos of one thing are.
    if !norm.is_finite() || norm < 1e-6 * example.photos as f32 {
        return Err(unusable(format!("has a mean feature of length {norm}, expected one of photos of one thing")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f32], photos: usize) -> Examples {
        let example = Example { photos, sum: values.to_vec() };
        Examples([("ab".to_string(), [("mug".to_string(), example)].into())].into())
    }

    #[test]
    fn files_bring_back_what_was_written_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let labels = folder.path().join("my.txt");
        assert_eq!(Examples::beside(&labels).unwrap(), Examples::default());
        let examples = of(&[0.1, -1.0 / 3.0, f32::MIN_POSITIVE], 3);
        examples.write_beside(&labels).unwrap();
        assert_eq!(Examples::beside(&labels).unwrap(), examples);
        assert!(folder.path().join("my.txt.examples").is_file());
    }

    #[test]
    fn what_is_no_example_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let labels = folder.path().join("my.txt");
        for (examples, problem) in [
            (of(&[1.0, 0.0], 0), "is of no photo"),
            (of(&[0.0, 0.0], 2), "length 0"),
            (of(&[f32::MAX, f32::MAX], 1), "inf"),
        ] {
            let error = examples.check().unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("\"mug\""), "{error}");
            examples.write_beside(&labels).unwrap();
            assert!(Examples::beside(&labels).unwrap_err().to_string().contains("are damaged"));
        }
        for damaged in [
            "",
            "{",
            "[]",
            "{\"ab\":{\"mug\":{\"photos\":1}}}",
            "{\"ab\":{\"mug\":{\"photos\":1,\"sum\":[1],\"x\":1}}}",
        ] {
            std::fs::write(file_beside(&labels), damaged).unwrap();
            assert!(Examples::beside(&labels).is_err(), "{damaged}");
        }
    }

    #[test]
    fn what_is_forgotten_leaves_nothing_behind() {
        let mut examples = of(&[1.0], 1);
        assert!(examples.has("mug") && !examples.forget("cup"));
        assert!(examples.forget("mug") && examples.is_empty() && !examples.forget("mug"));
    }
}
