//! One daemon a socket, a folder, a recording.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::error::{Error, Result};
use crate::files::FileError;

/// A lock that is held as long as this value, and given up by the kernel however the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock file `lock` for `path`; `flag` names another path.
    ///
    /// # Errors
    /// Another process has it, or the file cannot be made.
    pub(crate) fn take(lock: &Path, path: &Path, flag: &'static str) -> Result<Self> {
        let failed = |source| FileError::Unwritable { path: lock.into(), source };
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock);
        let mut file = open.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = (&file).take(20).read_to_string(&mut holder);
                let holder = holder.trim().parse::<u32>().ok().map(|pid| format!("process {pid}"));
                return Err(Error::InUse { path: path.into(), holder, flag });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source).into()),
        }
        // For whoever finds the lock taken.
        let written = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        written.map_err(failed)?;
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
        let lock = Lock::take(&lock_file, &path, "--socket").unwrap();
        let message = Lock::take(&lock_file, &path, "--socket").unwrap_err().to_string();
        assert!(message.contains(&format!("x.sock (process {})", std::process::id())), "{message}");
        assert!(message.contains("--socket"), "{message}");
        drop(lock);
        assert!(Lock::take(&lock_file, &path, "--socket").is_ok(), "a lock file that is left over is no lock");
    }
}
