//! Writer of a bundle: files go into a folder beside the target, which gets the target's name when all are there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::Result;
use super::manifest::{FileRecord, Manifest};
use crate::files::{FileError, folder_of, open_regular, sync_folder, temporary_beside, write_file};

/// A bundle being written. Dropped before it is published it leaves nothing behind.
pub(crate) struct BundleWriter {
    target: PathBuf,
    folder: PathBuf,
    files: BTreeMap<String, FileRecord>,
}

impl BundleWriter {
    /// Begins a bundle that will be the folder `target`.
    ///
    /// # Errors
    /// The folder exists already, or none can be made beside it.
    pub(crate) fn new(target: &Path) -> Result<Self> {
        // A link to nowhere is there, too.
        if target.symlink_metadata().is_ok() {
            return Err(FileError::Exists { path: target.into() }.into());
        }
        let unwritable = |source| FileError::Unwritable { path: target.into(), source };
        let folder = temporary_beside(target).map_err(unwritable)?;
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent).map_err(unwritable)?;
        }
        // What a process of this number left behind when it crashed would become part of the bundle.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).map_err(unwritable)?;
        Ok(Self { target: target.into(), folder, files: BTreeMap::new() })
    }

    /// Folder of the files until the bundle is published.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn add(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        write_file(&self.folder.join(name), bytes)?;
        self.record(name)
    }

    /// Records a file that is in the folder already.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn record(&mut self, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        let unreadable = |source| FileError::Unreadable { path: path.clone(), source };
        let file = open_regular(&path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file).map_err(unreadable)?;
        let record = FileRecord { size, blake3: hasher.finalize().to_hex().to_string() };
        self.files.insert(name.into(), record);
        Ok(())
    }

    /// A record of every file so far.
    pub(crate) fn files(&self) -> &BTreeMap<String, FileRecord> {
        &self.files
    }

    /// Writes the manifest, which ends the list of files.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn seal(&self, manifest: &Manifest) -> Result<()> {
        let mut text = serde_json::to_string_pretty(manifest).expect("a manifest is always JSON");
        text.push('\n');
        Ok(write_file(&self.folder.join("manifest.json"), text.as_bytes())?)
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub(crate) fn publish(self) -> Result<PathBuf> {
        fs::rename(&self.folder, &self.target)
            .map_err(|source| FileError::Unwritable { path: self.target.clone(), source })?;
        // Some file systems cannot, and the bundle is there all the same.
        let _ = sync_folder(folder_of(&self.target));
        Ok(self.target.clone())
    }
}

impl Drop for BundleWriter {
    fn drop(&mut self) {
        // After publishing there is nothing of that name.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
