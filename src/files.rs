//! Files as this crate handles them: read up to a bound, written whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Writes a whole file or nothing: to a temporary beside it, then a rename.
///
/// # Errors
/// The folder cannot be written or the disk is full; an older file of that name is left as it was.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |source| Error::OutputUnwritable { path: path.into(), source };
    let name = path.file_name().ok_or_else(|| failed(io::Error::other("this is not a file name")))?;
    let temporary = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = File::create(&temporary).and_then(|file| {
        let mut writer = BufWriter::new(file);
        writer.write_all(bytes)?;
        writer.into_inner()?.sync_all()?;
        fs::rename(&temporary, path)
    });
    written.map_err(|source| {
        let _ = fs::remove_file(&temporary);
        failed(source)
    })
}

/// Reads at most `limit + 1` bytes of a file: one more than the limit says that there are more.
///
/// # Errors
/// What the system says.
pub fn read_up_to(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
