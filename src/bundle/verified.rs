//! Files as the manifest records them: nothing is used before its size and digest were compared.

use std::io::{ErrorKind, Read};
use std::path::Path;

use super::error::{BundleError, Result};
use super::manifest::FileRecord;
use crate::files::{SteadyFile, open_regular};
use crate::limits::BUNDLE_FILE_BYTES_MAX;

/// Opens the file `name` of a folder and compares it with its record: from then on it has that content, or cannot be read.
///
/// # Errors
/// It is missing, cannot be read, or has another size or digest.
pub(super) fn open_verified(folder: &Path, name: &str, record: &FileRecord) -> Result<SteadyFile> {
    let path = folder.join(name);
    let failed = |source| file_error(&path, source);
    let mut file = SteadyFile::open(&path).map_err(failed)?;
    compare_size(&path, record, file.size())?;
    check_digest(&path, record, file.digest().map_err(failed)?)?;
    Ok(file)
}

/// The content of the file `name` of a folder.
///
/// # Errors
/// As [`open_verified`].
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
    let file = open_regular(path).map_err(failed)?;
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

pub(super) fn file_error(path: &Path, source: std::io::Error) -> BundleError {
    match source.kind() {
        ErrorKind::NotFound => BundleError::FileMissing { path: path.into() },
        _ => BundleError::FileUnreadable { path: path.into(), source },
    }
}
