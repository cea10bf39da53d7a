//! An open file that another program may write into: reading it is an error then, never other bytes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use memmap2::Mmap;

use super::open_regular;

/// A regular file, open since its content was looked at.
///
/// A file that takes its name later is not looked at. One that is written over in place, as `cp` and `rsync --inplace` do, or
/// is cut, is noticed at the next reading: the system keeps the time of every change.
#[derive(Debug)]
pub(crate) struct SteadyFile {
    path: PathBuf,
    file: File,
    size: u64,
    stamp: Mutex<Stamp>,
    digest: Option<blake3::Hash>,
}

/// State of a file that every change of its content changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    /// Times of the last change of the content and of the file (seconds and nanoseconds since 1970).
    times: [i64; 4],
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        Ok(Self { size: found.len(), times })
    }
}

impl SteadyFile {
    /// Opens a file.
    ///
    /// # Errors
    /// Error of the system, or it is no regular file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = open_regular(path)?;
        let stamp = Stamp::of(&file)?;
        Ok(Self { path: path.into(), file, size: stamp.size, stamp: Mutex::new(stamp), digest: None })
    }

    /// Path under which it was opened, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Size when it was opened (bytes).
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// BLAKE3 of the content. From then on a change of the file's attributes alone is told from one of its content.
    ///
    /// # Errors
    /// Error of the system, or the file was changed meanwhile.
    pub(crate) fn digest(&mut self) -> io::Result<blake3::Hash> {
        let found = hash(&self.file, self.size)?;
        self.digest = Some(found);
        self.check()?;
        Ok(found)
    }

    /// The file as memory.
    ///
    /// # Errors
    /// Error of the system.
    pub(crate) fn map(self) -> io::Result<MappedFile> {
        // What another program does to the file shows in the memory: the stamp tells of it, and files here are replaced, never written over.
        let map = unsafe { Mmap::map(&self.file) }?;
        if map.len() as u64 != self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(MappedFile { file: self, map, digest: None })
    }

    /// The user that the file belongs to, and its mode.
    ///
    /// # Errors
    /// Error of the system.
    pub(crate) fn owner_and_mode(&self) -> io::Result<(u32, u32)> {
        let found = self.file.metadata()?;
        Ok((found.uid(), found.mode()))
    }

    /// Some bytes of the file.
    ///
    /// # Errors
    /// Error of the system, or the file was changed since it was opened.
    pub(crate) fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        if offset.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        // At an offset of its own: readers on several threads share the file's.
        let read = self.file.read_exact_at(&mut bytes, offset);
        // Whatever the reading gave: a change explains an early end better than its own message.
        self.check()?;
        read.map(|()| bytes)
    }

    /// Checks that nobody has changed the content.
    ///
    /// # Errors
    /// Error of the system, or somebody has.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.check_by(|| Ok(self.digest.is_some() && self.digest == Some(hash(&self.file, self.size)?)))
    }

    /// As [`Self::check`]; where the file has another stamp and the same size, `is_same` tells whether its content is the same.
    fn check_by(&self, is_same: impl FnOnce() -> io::Result<bool>) -> io::Result<()> {
        let mut stamp = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Stamp::of(&self.file)?;
        if now == *stamp {
            return Ok(());
        }
        // A new link to the file or another mode sets its time as well.
        if now.size == self.size && is_same()? {
            *stamp = now;
            return Ok(());
        }
        Err(io::Error::other(
            "another program wrote into it after it was opened; put new files in the place of old ones",
        ))
    }
}

/// A file as memory, which is read when it is used.
#[derive(Debug)]
pub(crate) struct MappedFile {
    file: SteadyFile,
    map: Mmap,
    /// BLAKE3 of the content from a place on.
    digest: Option<(usize, blake3::Hash)>,
}

impl MappedFile {
    /// Checks that nobody has changed the content.
    ///
    /// # Errors
    /// Error of the system, or somebody has.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.file.check_by(|| Ok(self.digest.is_some_and(|(start, digest)| hash_from(&self.map, start) == digest)))
    }

    /// BLAKE3 of the content from `start` on, by all threads of the pool. From then on a change of the file's attributes alone, such as its
    /// removal, is told from one of that content.
    pub(crate) fn digest_from(&mut self, start: usize) -> blake3::Hash {
        let digest = hash_from(&self.map, start);
        self.digest = Some((start, digest));
        digest
    }

    /// Path under which it was opened, for messages.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

fn hash_from(bytes: &[u8], start: usize) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update_rayon(&bytes[start..]);
    hasher.finalize()
}

fn hash(file: &File, size: u64) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut file = file;
    file.seek(SeekFrom::Start(0))?;
    // Bounded, because the file may grow while it is read.
    hasher.update_reader(file.take(size))?;
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    use super::*;

    fn steady(folder: &Path) -> (PathBuf, SteadyFile) {
        let path = folder.join("weights");
        fs::write(&path, "0123456789").unwrap();
        // A change in the same instant as the writing could not be told from it.
        let earlier = SystemTime::now() - Duration::from_secs(60);
        File::options().write(true).open(&path).unwrap().set_modified(earlier).unwrap();
        let mut file = SteadyFile::open(&path).unwrap();
        assert_eq!(file.digest().unwrap(), blake3::hash(b"0123456789"));
        (path, file)
    }

    #[test]
    fn bytes_are_read_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let (_, file) = steady(folder.path());
        assert_eq!((file.size(), file.read_at(2, 3).unwrap()), (10, b"234".to_vec()));
        assert!(file.read_at(8, 3).is_err() && file.read_at(u64::MAX, 1).is_err());
    }

    #[test]
    fn a_mapped_file_is_its_bytes_and_tells_of_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (path, file) = steady(folder.path());
        let mapped = file.map().unwrap();
        assert_eq!(mapped.as_ref(), b"0123456789");
        mapped.check().unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().write_all(b"X").unwrap();
        assert!(mapped.check().unwrap_err().to_string().contains("another program wrote into it"));
        File::create(folder.path().join("empty")).unwrap();
        assert_eq!(SteadyFile::open(&folder.path().join("empty")).unwrap().map().unwrap().as_ref(), b"");
    }

    #[test]
    fn what_is_written_over_or_cut_is_not_read() {
        for change in ["over", "cut", "longer"] {
            let folder = tempfile::tempdir().unwrap();
            let (path, file) = steady(folder.path());
            let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
            match change {
                "over" => writer.write_all(b"X").unwrap(),
                "cut" => writer.set_len(4).unwrap(),
                _ => writer.set_len(11).unwrap(),
            }
            let error = file.read_at(0, 2).unwrap_err();
            assert!(error.to_string().contains("another program wrote into it"), "{change}: {error}");
        }
    }

    #[test]
    fn other_attributes_and_other_files_of_the_name_are_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let (path, file) = steady(folder.path());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        fs::hard_link(&path, folder.path().join("link")).unwrap();
        assert_eq!(file.read_at(0, 2).unwrap(), b"01");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another file").unwrap();
        assert_eq!(file.read_at(8, 2).unwrap(), b"89");
    }

    #[test]
    fn a_fifo_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [path.as_path(), Path::new("/dev/zero"), folder.path()] {
            let error = SteadyFile::open(path).unwrap_err();
            assert!(error.to_string().contains("expected a regular file"), "{}: {error}", path.display());
        }
    }
}
