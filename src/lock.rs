//! One daemon a socket, a folder, a recording.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Category, Class, ProgramLayer, Result};
use crate::files::FileError;

/// Resource that one daemon at a time may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Unix socket.
    Socket,
    /// Folder of the daemon's state.
    State,
    /// Folder of a recording.
    Recording,
}

impl Resource {
    fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::State => "folder",
            Self::Recording => "recording",
        }
    }
}

/// A resource that another daemon has.
#[derive(Debug, thiserror::Error)]
#[error("another daemon has {}{}; stop it, or give this one a {} of its own", path.display(), by(holder), resource.name())]
pub(crate) struct InUse {
    /// The socket or folder.
    pub path: PathBuf,
    /// The other's process.
    pub holder: Option<u32>,
    /// Kind of the resource.
    pub resource: Resource,
}

fn by(holder: &Option<u32>) -> String {
    holder.map_or(String::new(), |pid| format!(" (process {pid})"))
}

impl ProgramLayer for InUse {
    fn class(&self) -> Class {
        (Category::Daemon, "in_use")
    }
}

/// A lock that is held as long as this value, and given up by the kernel however the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock file `lock` for the resource at `path`.
    ///
    /// # Errors
    /// Another process has it, or the file cannot be made.
    pub(crate) fn take(lock: &Path, path: &Path, resource: Resource) -> Result<Self> {
        let failed = |source| FileError::Unwritable { path: lock.into(), source };
        // Not truncated: until the lock is taken, the number in the file is another process's.
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock);
        let mut file = open.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The number is for the message alone. Twenty bytes hold any, whatever else the file may be.
                let _ = (&file).take(20).read_to_string(&mut holder);
                let holder = holder.trim().parse().ok();
                return Err(InUse { path: path.into(), holder, resource }.into());
            }
            Err(TryLockError::Error(source)) => return Err(failed(source).into()),
        }
        // For whoever finds the lock taken.
        let written = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        written.map_err(failed)?;
        // The file stays when the lock is given up. Removed, its name could be made again while another process holds
        // the old one.
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (lock_file, path) = (folder.path().join("x.lock"), folder.path().join("x.sock"));
        let lock = Lock::take(&lock_file, &path, Resource::Socket).unwrap();
        let message = Lock::take(&lock_file, &path, Resource::Socket).unwrap_err().to_string();
        assert!(message.contains(&format!("x.sock (process {})", std::process::id())), "{message}");
        assert!(message.contains("a socket of its own"), "{message}");
        drop(lock);
        assert!(Lock::take(&lock_file, &path, Resource::Socket).is_ok(), "a lock file that is left over is no lock");
    }
}
