//! Files as the manifest records them: nothing is used before its size and digest were compared.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::error::{BundleError, Result};
use super::manifest::FileRecord;
use crate::limits::BUNDLE_FILE_BYTES_MAX;

/// A file that had its recorded size and digest, open since they were compared.
///
/// Another file that takes its name later is not looked at.
#[derive(Debug)]
pub(crate) struct VerifiedFile {
    path: PathBuf,
    file: File,
    record: FileRecord,
}

impl VerifiedFile {
    /// Opens the file `name` of a folder and compares it with its record.
    ///
    /// # Errors
    /// It is missing, cannot be read, or has another size or digest.
    pub(crate) fn open(folder: &Path, name: &str, record: &FileRecord) -> Result<Self> {
        let path = folder.join(name);
        let file = File::open(&path).map_err(|source| file_error(&path, source))?;
        let this = Self { path, file, record: record.clone() };
        this.check_size()?;
        let mut hasher = blake3::Hasher::new();
        hasher
            // Bounded, because the file may grow while it is read.
            .update_reader((&this.file).take(BUNDLE_FILE_BYTES_MAX))
            .map_err(|source| file_error(&this.path, source))?;
        check_digest(&this.path, record, hasher.finalize())?;
        Ok(this)
    }

    /// Path under which it was opened, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, if it still has its size. Only a change of size shows here that another program wrote into it.
    ///
    /// # Errors
    /// It has another size by now.
    pub(crate) fn file(&self) -> Result<&File> {
        self.check_size()?;
        Ok(&self.file)
    }

    /// The content, compared once more. One that is longer than `limit` is cut after one byte more, and not compared.
    ///
    /// # Errors
    /// It cannot be read, or has changed.
    pub(crate) fn read_up_to(&self, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.record.size.min(limit + 1) as usize];
        // At an offset of its own: readers on several threads share the file's.
        self.file()?.read_exact_at(&mut bytes, 0).map_err(|source| file_error(&self.path, source))?;
        if bytes.len() as u64 == self.record.size {
            check_digest(&self.path, &self.record, blake3::hash(&bytes))?;
        }
        Ok(bytes)
    }

    fn check_size(&self) -> Result<()> {
        let found = self.file.metadata().map_err(|source| file_error(&self.path, source))?.len();
        compare_size(&self.path, &self.record, found)
    }
}

/// The content of the file `name` of a folder.
///
/// # Errors
/// As [`VerifiedFile::open`].
pub(super) fn read_verified(folder: &Path, name: &str, record: &FileRecord) -> Result<Vec<u8>> {
    let path = folder.join(name);
    // The size first: a file that was cut short needs no reading.
    let found = path.metadata().map_err(|source| file_error(&path, source))?.len();
    compare_size(&path, record, found)?;
    let bytes = read_bounded(&path, BUNDLE_FILE_BYTES_MAX)?;
    check_digest(&path, record, blake3::hash(&bytes))?;
    Ok(bytes)
}

/// The content of a file of at most `limit` bytes.
///
/// # Errors
/// It is missing, cannot be read, or is longer.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let failed = |source| file_error(path, source);
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut bytes = Vec::new();
    if size <= limit {
        bytes.reserve_exact(size as usize + 1);
        file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    // The size that the system gives may be 0 for a file that is none, or old by now. What was read counts.
    let found = size.max(bytes.len() as u64);
    if found > limit {
        return Err(BundleError::FileTooLarge { path: path.into(), found, limit });
    }
    Ok(bytes)
}

fn compare_size(path: &Path, record: &FileRecord, found: u64) -> Result<()> {
    if found != record.size {
        return Err(differs(path, "size", record.size.to_string(), found.to_string()));
    }
    Ok(())
}

fn check_digest(path: &Path, record: &FileRecord, found: blake3::Hash) -> Result<()> {
    let found = found.to_hex().to_string();
    if found != record.blake3 {
        return Err(differs(path, "BLAKE3 digest", record.blake3.clone(), found));
    }
    Ok(())
}

fn differs(path: &Path, what: &'static str, expected: String, found: String) -> BundleError {
    BundleError::FileDiffers { path: path.into(), what, expected, found }
}

fn file_error(path: &Path, source: std::io::Error) -> BundleError {
    match source.kind() {
        ErrorKind::NotFound => BundleError::FileMissing { path: path.into() },
        _ => BundleError::FileUnreadable { path: path.into(), source },
    }
}
