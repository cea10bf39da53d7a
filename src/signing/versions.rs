//! The highest version of each signed bundle that was in force on this device: none older is opened again.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{SignedFacts, SigningError};
use crate::error::Result;
use crate::files::{FileError, read_up_to, write_file};
use crate::limits::CONFIG_BYTES_MAX;

/// Name of the file.
const NAME: &str = "bundle-versions.json";

/// The file in the folder of what outlasts a daemon.
#[derive(Clone, Debug)]
pub(crate) struct VersionMemory {
    path: PathBuf,
}

impl VersionMemory {
    /// The memory in a folder.
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join(NAME) }
    }

    fn read(&self) -> BTreeMap<String, u64> {
        let bytes = match read_up_to(&self.path, CONFIG_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return BTreeMap::new(),
            Err(error) => {
                log::warn!("cannot read {}: {error}; older bundles are not noticed", self.path.display());
                return BTreeMap::new();
            }
        };
        // A damaged memory must not keep a device from its model; the next version is remembered anew.
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            log::warn!("{} is damaged ({error}); older bundles are not noticed", self.path.display());
            BTreeMap::new()
        })
    }

    /// Checks that the bundle in a folder is not older than one that was in force.
    ///
    /// # Errors
    /// It is.
    pub(crate) fn check(&self, folder: &Path, signed: &SignedFacts) -> Result<()> {
        match self.read().get(&signed.name) {
            Some(&least) if signed.version < least => {
                let (path, name) = (folder.into(), signed.name.clone());
                Err(SigningError::Older { path, name, found: signed.version, least }.into())
            }
            _ => Ok(()),
        }
    }

    /// Forgets all versions: somebody goes back to an older one, whose version is remembered when it is in force.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(crate) fn forget(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(FileError::Unwritable { path: self.path.clone(), source }.into())
            }
            _ => Ok(()),
        }
    }

    /// Remembers a bundle that is in force; also one that is older, if it was chosen on purpose.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn remember(&self, signed: &SignedFacts) -> Result<()> {
        let mut versions = self.read();
        if versions.insert(signed.name.clone(), signed.version) == Some(signed.version) {
            return Ok(());
        }
        Ok(write_file(&self.path, &serde_json::to_vec(&versions).expect("a map of numbers is always JSON"))?)
    }
}
