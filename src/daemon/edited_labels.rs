//! Labels that were changed at the running daemon: kept, so that the next start has them.

use std::path::{Path, PathBuf};

use super::protocol::LabelsRequest;
use crate::error::{Error, Result};
use crate::files::{FileError, read_up_to, sync_folder, write_file};
use crate::labels::{Labels, LabelsError};
use crate::limits::LABELS_FILE_BYTES_MAX;

/// The labels' name in the daemon's folder.
// JSON and not the format of label files, where `# 1 brand` would be a comment.
const NAME: &str = "labels.json";

/// The labels in a client's JSON.
///
/// # Errors
/// [`Labels::with_ids`] refuses them, or the examples are none.
pub(crate) fn labels_of(request: LabelsRequest) -> Result<Labels> {
    let examples = request.examples.unwrap_or_default();
    examples.check()?;
    Ok(Labels::with_ids(request.labels, request.ids)?.with_examples(&examples))
}

/// Labels as a client's JSON.
pub(crate) fn request_of(list: &Labels) -> LabelsRequest {
    let (labels, ids) = list.rows();
    let examples = Some(list.examples()).filter(|examples| !examples.is_empty()).cloned();
    LabelsRequest { labels, ids, examples }
}

/// The file of the edited labels.
#[derive(Clone, Debug)]
pub(crate) struct EditedLabels {
    path: PathBuf,
}

impl EditedLabels {
    /// The file in the daemon's folder.
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join(NAME) }
    }

    /// The labels that were kept, if there are any. A file that cannot be used is a warning: the configured labels are
    /// better than none.
    pub(crate) fn read(&self) -> Option<Labels> {
        if !self.path.exists() {
            return None;
        }
        let malformed = |problem: String| LabelsError::Malformed { path: self.path.clone(), problem };
        // Twice the bound of a label file: JSON adds quotes, escapes and identifiers.
        let read = read_up_to(&self.path, 2 * LABELS_FILE_BYTES_MAX)
            .map_err(|source| LabelsError::Unreadable { path: self.path.clone(), source })
            .and_then(|bytes| {
                serde_json::from_slice(&bytes).map_err(|error| malformed(format!("is damaged ({error})")))
            })
            .map_err(Error::from)
            .and_then(labels_of);
        read.map_err(|error| log::warn!("going on with the configured labels: {error}")).ok()
    }

    /// Keeps labels.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn keep(&self, list: &Labels) -> Result<()> {
        let request = request_of(list);
        Ok(write_file(&self.path, &serde_json::to_vec_pretty(&request).expect("strings are always JSON"))?)
    }

    /// Forgets the labels that were kept.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(crate) fn forget(&self) -> Result<()> {
        let failed = |source| FileError::Unwritable { path: self.path.clone(), source };
        match std::fs::remove_file(&self.path) {
            // Labels that were never edited are forgotten already: a reset may be asked for at any time.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(error).into()),
            Ok(()) => Ok(sync_folder(self.path.parent().unwrap_or(Path::new("."))).map_err(failed)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::Examples;

    #[test]
    fn labels_survive_as_they_were_and_damage_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let kept = EditedLabels::in_folder(folder.path());
        assert!(kept.read().is_none());
        let request = |labels: &[&str], ids: Option<&[&str]>| {
            let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
            labels_of(LabelsRequest { labels: owned(labels), ids: ids.map(owned), examples: None })
        };
        let mut examples = Examples::default();
        examples.add("sea horse", &blake3::hash(b"encoder"), ndarray::aview1(&[0.6, 0.8])).unwrap();
        for list in [
            request(&["# 1 brand", " spaced ", "sea horse"], None).unwrap(),
            request(&["missile", "missile"], Some(&["n1", "n2"])).unwrap(),
            request(&["mug", "sea horse"], None).unwrap().with_examples(&examples),
        ] {
            kept.keep(&list).unwrap();
            assert_eq!(kept.read(), Some(list));
        }
        assert!(request(&["a", "b"], Some(&["n1"])).is_err());
        std::fs::write(folder.path().join(NAME), "{\"labels\":[\"a\",").unwrap();
        assert!(kept.read().is_none());
        kept.forget().unwrap();
        kept.forget().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
