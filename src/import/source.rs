//! The folder a model is imported from.

use std::path::{Path, PathBuf};

use super::wrong;
use crate::error::Result;
use crate::files::{FileError, inside, read_up_to};
use crate::limits::IMPORT_SMALL_FILE_BYTES_MAX;

/// A folder; nothing outside it is read, by whatever name or link.
pub(crate) struct Source {
    folder: PathBuf,
}

impl Source {
    /// # Errors
    /// The path is no folder.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            let found = if folder.exists() { "a file" } else { "missing" };
            return Err(wrong(folder, "the source", "a folder with a model's files", found));
        }
        if folder.join("manifest.json").is_file() {
            return Err(wrong(folder, "the source", "a published model", "a bundle already"));
        }
        Ok(Self { folder: folder.into() })
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The first of `names` that is there.
    ///
    /// # Errors
    /// It is a link that leads out of the folder.
    pub(crate) fn find(&self, names: &[&str]) -> Result<Option<PathBuf>> {
        // A link to nowhere is there, and refused.
        let there = names.iter().find(|name| self.folder.join(name).symlink_metadata().is_ok());
        Ok(there.map(|name| inside(&self.folder, name)).transpose()?)
    }

    /// Path and bytes of a small file, if it is there.
    ///
    /// # Errors
    /// It cannot be read, or is not small.
    pub(crate) fn read(&self, name: &str) -> Result<Option<(PathBuf, Vec<u8>)>> {
        let Some(path) = self.find(&[name])? else { return Ok(None) };
        let bytes = read_up_to(&path, IMPORT_SMALL_FILE_BYTES_MAX)
            .map_err(|source| FileError::Unreadable { path: path.clone(), source })?;
        if bytes.len() as u64 > IMPORT_SMALL_FILE_BYTES_MAX {
            return Err(wrong(&path, "its size", &format!("at most {IMPORT_SMALL_FILE_BYTES_MAX} bytes"), "more"));
        }
        Ok(Some((path, bytes)))
    }
}
