//! The public keys whose bundles are trusted.

use std::fs;
use std::path::{Path, PathBuf};

use minisign_verify::{Error, PublicKey, Signature};

use super::SigningError;
use crate::files::read_up_to;
use crate::limits::{SIGNATURE_BYTES_MAX, TRUSTED_KEYS_MAX};

/// The public keys of a folder, by name. Whoever takes a key out of it revokes what the key has signed.
#[derive(Clone, Debug)]
pub(crate) struct TrustedKeys {
    folder: PathBuf,
    keys: Vec<(String, PublicKey)>,
}

impl TrustedKeys {
    /// Reads the files `NAME.pub` of a folder.
    ///
    /// # Errors
    /// The folder cannot be listed, has no key, has too many, or has a file of that name that is no key.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self, SigningError> {
        let problem = |problem: String| SigningError::Keys { folder: folder.into(), problem };
        let entries = fs::read_dir(folder).map_err(|error| problem(error.to_string()))?;
        let mut keys = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| problem(error.to_string()))?.path();
            if path.extension().is_none_or(|extension| extension != "pub") {
                continue;
            }
            if keys.len() == TRUSTED_KEYS_MAX {
                return Err(problem(format!("there are more than {TRUSTED_KEYS_MAX}")));
            }
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            // A key that cannot be read is no reason to trust nobody silently, nor to go on without it.
            let bytes =
                read_up_to(&path, SIGNATURE_BYTES_MAX).map_err(|error| problem(format!("{name}.pub: {error}")))?;
            let text = String::from_utf8_lossy(&bytes);
            let key = PublicKey::decode(&text).or_else(|_| PublicKey::from_base64(text.trim()));
            keys.push((name.clone(), key.map_err(|error| problem(format!("{name}.pub: {error}")))?));
        }
        // An empty folder is no permission: the last key may have been revoked.
        if keys.is_empty() {
            return Err(problem("there is none".into()));
        }
        keys.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(Self { folder: folder.into(), keys })
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Names of the keys.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(name, _)| name.as_str())
    }

    /// Name of the key that made a signature of some bytes.
    ///
    /// # Errors
    /// None of them did, or it is of other bytes.
    pub(super) fn maker_of(&self, path: &Path, bytes: &[u8], signature: &Signature) -> Result<String, SigningError> {
        let mut wrong = None;
        for (name, key) in &self.keys {
            // Prehashed signatures alone, which all versions of minisign since 2015 make.
            match key.verify(bytes, signature, false) {
                Ok(()) => return Ok(name.clone()),
                // The key has another identifier.
                Err(Error::UnexpectedKeyId) => {}
                Err(_) => wrong = Some(name.clone()),
            }
        }
        Err(match wrong {
            Some(key) => SigningError::Wrong { path: path.into(), key },
            None => SigningError::UnknownKey {
                path: path.into(),
                expected: self.names().collect::<Vec<_>>().join(" or "),
                keys: self.folder.clone(),
            },
        })
    }
}
