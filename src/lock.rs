//! One daemon per socket, folder and recording.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

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
    /// Folder of bundle slots, while they are changed.
    Slots,
}

impl Resource {
    fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::State => "folder",
            Self::Recording => "recording",
            Self::Slots => "folder of bundle slots",
        }
    }
}

/// A resource that another daemon has.
#[derive(Debug, thiserror::Error)]
#[error("another daemon{} uses {}; stop it, or choose another {}", by(holder), path.display(), resource.name())]
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
        // Whoever may write the folder could have put a link here, to a file that this process would write over.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags.bits());
        let mut file = options.open(lock).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::other("it is not a regular file")).into());
        }
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
    fn a_link_in_the_place_of_a_lock_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (lock, victim) = (folder.path().join("x.lock"), folder.path().join("precious"));
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &lock).unwrap();
        assert!(Lock::take(&lock, folder.path(), Resource::State).is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
        std::fs::remove_file(&lock).unwrap();
        nix::unistd::mkfifo(&lock, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(Lock::take(&lock, folder.path(), Resource::State).is_err(), "a FIFO is not waited for");
    }

    #[test]
    fn a_lock_is_held_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (lock_file, path) = (folder.path().join("x.lock"), folder.path().join("x.sock"));
        let lock = Lock::take(&lock_file, &path, Resource::Socket).unwrap();
        let message = Lock::take(&lock_file, &path, Resource::Socket).unwrap_err().to_string();
        assert!(message.contains(&format!("another daemon (process {}) uses", std::process::id())), "{message}");
        assert!(message.contains("choose another socket"), "{message}");
        drop(lock);
        assert!(Lock::take(&lock_file, &path, Resource::Socket).is_ok(), "a lock file that is left over is no lock");
    }
}
