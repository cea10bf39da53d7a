//! Files as this crate handles them: read up to a bound, written whole or not at all.

mod steady;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::OFlag;
pub(crate) use steady::{MappedFile, SteadyFile};

type Result<T> = std::result::Result<T, FileError>;

/// A file that cannot be read, written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// An input could not be opened or read.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// The input.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("{}", unwritable(path, source))]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// A folder that should be made is there already.
    #[error("{} exists already; remove it or choose another folder", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A name leads out of the folder it belongs to.
    #[error("{name:?} is refused as a file of {}: {reason}", folder.display())]
    Outside {
        /// The folder.
        folder: PathBuf,
        /// The name.
        name: String,
        /// Reason for the refusal.
        reason: String,
    },
}

fn unwritable(path: &Path, source: &io::Error) -> String {
    // What is made in a file's place, or in a file, is a folder or in one.
    if matches!(source.kind(), ErrorKind::AlreadyExists | ErrorKind::NotADirectory)
        && let Some(file) = path.ancestors().find(|path| path.is_file())
    {
        return format!("{} is a file, expected a folder", file.display());
    }
    format!("cannot write {}: {source}; check the folder, its permissions and free space", path.display())
}

/// Opens a regular file to read. A FIFO would wait for its other end, and a device may have no end.
///
/// # Errors
/// Error of the system, or it is another kind of file.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    // Opening a FIFO waits unless it is told not to; regular files take no notice.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let kind = file.metadata()?.file_type();
    let found = match kind {
        kind if kind.is_file() => return Ok(file),
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(ErrorKind::InvalidInput, format!("it is {found}, expected a regular file")))
}

/// A name beside `path` that nobody else uses: a rename to `path` does not cross file systems then.
///
/// # Errors
/// The path names no file.
pub(crate) fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    // Two threads of a process may write the same file at once, as two processes may.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| io::Error::other("this is not a file name"))?.to_string_lossy();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Ok(path.with_file_name(format!(".{name}.{}.{number}", std::process::id())))
}

/// Readers of a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Whoever the process's mask lets read files.
    Everybody,
    /// This user alone.
    Owner,
}

/// Durability of a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It is on the disk when the call returns.
    Synced,
    /// It comes to the disk when the system sees fit: after a power cut it may be missing or have holes.
    Unsynced,
}

/// Writes a whole file or nothing: to a temporary beside it, then a rename.
///
/// # Errors
/// The folder cannot be written or the disk is full; an older file of that name is left as it was.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    write_file_as(path, bytes, Readers::Everybody, Durability::Synced)
}

/// As [`write_file`], for some readers, and on the disk at once or later.
///
/// # Errors
/// As [`write_file`].
pub(crate) fn write_file_as(path: &Path, bytes: &[u8], readers: Readers, durability: Durability) -> Result<()> {
    write_file_by(path, readers, durability, |writer| writer.write_all(bytes))
}

/// As [`write_file_as`], of what `write` gives piece by piece.
///
/// # Errors
/// As [`write_file`].
pub(crate) fn write_file_by(
    path: &Path,
    readers: Readers,
    durability: Durability,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let failed = |source| FileError::Unwritable { path: path.into(), source };
    let temporary = temporary_beside(path).map_err(failed)?;
    let mode = if readers == Readers::Owner { 0o600 } else { 0o666 };
    let created = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary);
    let written = created.and_then(|file| {
        let mut writer = BufWriter::new(file);
        write(&mut writer)?;
        let file = writer.into_inner()?;
        if durability == Durability::Synced {
            // Before the rename: a power cut could otherwise leave the new name on an empty file.
            file.sync_all()?;
        }
        fs::rename(&temporary, path)?;
        if durability == Durability::Synced {
            // Some file systems cannot, and the file is there all the same.
            let _ = sync_folder(folder_of(path));
        }
        Ok(())
    });
    written.map_err(|source| {
        let _ = fs::remove_file(&temporary);
        failed(source)
    })
}

/// Folder that a path's last part is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Has the system write a folder's list of files to disk. A new name survives a power cut only after that.
///
/// # Errors
/// Error of the system.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Reads at most `limit + 1` bytes of a file. A result longer than `limit` means that the file is too large.
///
/// # Errors
/// Error of the system.
pub(crate) fn read_up_to(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads `length` bytes from `offset` on, or all that follow, at most `limit`.
///
/// # Errors
/// Error of the system; the file ends before, or there is more than `limit`.
pub(crate) fn read_range(path: &Path, offset: u64, length: Option<u64>, limit: u64) -> io::Result<Vec<u8>> {
    let more = || io::Error::other(format!("there are more than {limit} bytes from offset {offset} on"));
    if length.is_some_and(|length| length > limit) {
        return Err(more());
    }
    let mut file = open_regular(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(length.unwrap_or(limit + 1)).read_to_end(&mut bytes)?;
    let found = bytes.len() as u64;
    if length.is_some_and(|length| found < length) {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, format!("it ends {found} bytes after offset {offset}")));
    }
    if found > limit {
        return Err(more());
    }
    Ok(bytes)
}

/// The path of `name` below `folder`, which neither the name nor a symbolic link may lead out of.
///
/// # Errors
/// The name is absolute or has `..` in it, the file is not there, or a link leads elsewhere.
pub(crate) fn inside(folder: &Path, name: &str) -> Result<PathBuf> {
    let refused = |reason: &str| FileError::Outside { folder: folder.into(), name: name.into(), reason: reason.into() };
    let relative = Path::new(name);
    if name.is_empty() || !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(refused("expected a path below the folder, without \"..\""));
    }
    let path = folder.join(relative);
    let unreadable = |source| FileError::Unreadable { path: path.clone(), source };
    // Both are resolved, since the folder itself may be reached through a link.
    let real = path.canonicalize().map_err(unreadable)?;
    if !real.starts_with(folder.canonicalize().map_err(unreadable)?) {
        return Err(refused("a symbolic link leads out of the folder; copy the files themselves, as `cp -rL` does"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_links_do_not_lead_out_of_the_folder() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("inner");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a"), "a").unwrap();
        fs::write(outer.path().join("secret"), "b").unwrap();
        std::os::unix::fs::symlink(folder.join("a"), folder.join("within")).unwrap();
        std::os::unix::fs::symlink(outer.path().join("secret"), folder.join("without")).unwrap();
        for name in ["a", "./a", "within"] {
            assert!(inside(&folder, name).is_ok(), "{name}");
        }
        let absolute = outer.path().join("secret");
        for name in ["", "..", "../secret", "x/../../secret", absolute.to_str().unwrap(), "without"] {
            let error = inside(&folder, name).unwrap_err();
            assert!(matches!(error, FileError::Outside { .. }), "{name}: {error}");
        }
        assert!(matches!(inside(&folder, "missing"), Err(FileError::Unreadable { .. })));
    }

    #[test]
    fn ranges_are_whole_or_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        fs::write(&path, "0123456789").unwrap();
        assert_eq!(read_range(&path, 2, Some(3), 100).unwrap(), b"234");
        assert_eq!(read_range(&path, 7, None, 100).unwrap(), b"789");
        assert_eq!(read_range(&path, 7, None, 3).unwrap(), b"789");
        assert!(read_range(&path, 7, None, 2).is_err());
        assert!(read_range(&path, 8, Some(3), 100).is_err());
    }
}
