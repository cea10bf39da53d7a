//! Features on disk, a file an image, each with a checksum.
//!
//! Files, and no database: whatever is wrong with one of them costs its image a run of the encoder and no more, and several
//! programs may use one folder at once. Nothing waits for the disk, since after a power cut the checksum tells what came
//! to it whole.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ndarray::Array2;

use super::CacheKey;
use crate::files::{Durability, Readers, read_up_to, write_file_as};
use crate::limits::{EMBEDDING_MAX, VIEWS_MAX};

/// Folder of the features in the cache folder. Its number is the version of what follows.
pub(crate) const FOLDER_NAME: &str = "features-2";
/// Database of earlier versions, which this one removes.
const EARLIER: &str = "features.redb";
/// Ending of the files' names.
const ENDING: &str = "features";
/// Age of a file under a temporary name that no process writes any more.
const ABANDONED: Duration = Duration::from_secs(3600);
/// Share of the room that is used once the oldest files have made room: they do not go one by one.
const FILLED_AGAIN: (u64, u64) = (9, 10);

/// Checksum (16 bytes of BLAKE3 over key and rest), V and D (u32 each), before the features (f32); all little-endian.
const HEADER: usize = 16 + 8;
/// Largest file (bytes).
const FILE_BYTES_MAX: u64 = HEADER as u64 + (VIEWS_MAX * EMBEDDING_MAX * 4) as u64;

/// The cache of one folder. What is put into it is written by [`DiskCache::flush`].
pub(crate) struct DiskCache {
    folder: PathBuf,
    /// Size of the files (bytes), as far as this process knows: others may write as well.
    bytes: u64,
    bytes_max: u64,
    pending: Vec<(CacheKey, Arc<Array2<f32>>)>,
}

/// Size of a cache on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskUsage {
    /// Images.
    pub entries: u64,
    /// Their files (bytes).
    pub bytes: u64,
}

/// A file of the cache.
struct Entry {
    written: SystemTime,
    path: PathBuf,
    bytes: u64,
}

impl DiskCache {
    /// Opens the cache in `folder`, or makes one.
    pub(crate) fn open(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        let own = folder.join(FOLDER_NAME);
        fs::create_dir_all(folder)?;
        // Others need not see them: features are about the pictures.
        match DirBuilder::new().mode(0o700).create(&own) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Features can be made anew; a file that nothing reads any more would stay for ever.
        let _ = fs::remove_file(folder.join(EARLIER));
        let bytes = entries(&own)?.iter().map(|entry| entry.bytes).sum();
        Ok(Self { folder: own, bytes, bytes_max, pending: Vec::new() })
    }

    /// The features under `key`; `None` if there are none, or they are damaged or cannot be read.
    pub(crate) fn get(&self, key: &CacheKey) -> Option<Array2<f32>> {
        if let Some((_, features)) = self.pending.iter().find(|(pending, _)| pending == key) {
            return Some(Array2::clone(features));
        }
        let path = self.file(key);
        match read_up_to(&path, FILE_BYTES_MAX) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                log::warn!("the features in {} cannot be read ({error}) and are computed again", path.display());
                None
            }
            Ok(bytes) => {
                let features = decode(key, &bytes);
                if features.is_none() {
                    log::warn!("the features in {} are damaged and computed again", path.display());
                }
                features
            }
        }
    }

    /// Keeps features until the next flush.
    pub(crate) fn put(&mut self, key: CacheKey, features: &Arc<Array2<f32>>) {
        self.pending.push((key, Arc::clone(features)));
    }

    /// Entries that are not on disk yet.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Writes what is pending, and removes the oldest entries where there are too many bytes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        for (key, features) in std::mem::take(&mut self.pending) {
            let (path, bytes) = (self.file(&key), encode(&key, &features));
            let before = path.metadata().map_or(0, |found| found.len());
            write_file_as(&path, &bytes, Readers::Owner, Durability::Unsynced).map_err(io::Error::other)?;
            self.bytes = (self.bytes + bytes.len() as u64).saturating_sub(before);
            if self.bytes > self.bytes_max {
                self.make_room()?;
            }
        }
        Ok(())
    }

    fn make_room(&mut self) -> io::Result<()> {
        let mut entries = entries(&self.folder)?;
        entries.sort_by(|a, b| (a.written, &a.path).cmp(&(b.written, &b.path)));
        self.bytes = entries.iter().map(|entry| entry.bytes).sum();
        // Another process may have made room already.
        if self.bytes <= self.bytes_max {
            return Ok(());
        }
        let (part, whole) = FILLED_AGAIN;
        let wanted = self.bytes_max / whole * part;
        for entry in entries {
            if self.bytes <= wanted {
                break;
            }
            // Another process may have been first.
            let _ = fs::remove_file(&entry.path);
            self.bytes -= entry.bytes;
        }
        Ok(())
    }

    fn file(&self, key: &CacheKey) -> PathBuf {
        self.folder.join(format!("{}.{ENDING}", blake3::Hash::from_bytes(key.0).to_hex()))
    }

    /// Folder of the files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The files of the cache, in no order; those that a process left under a temporary name are removed.
fn entries(folder: &Path) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Gone between the listing and the look at it: another process made room.
        let Ok(metadata) = entry.metadata() else { continue };
        let written = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            found.push(Entry { written, path, bytes: metadata.len() });
        } else if written.elapsed().is_ok_and(|age| age > ABANDONED) {
            let _ = fs::remove_file(path);
        }
    }
    Ok(found)
}

/// Size of the cache in `folder`; `None` if there is none.
pub(crate) fn usage(folder: &Path) -> io::Result<Option<DiskUsage>> {
    match entries(&folder.join(FOLDER_NAME)) {
        Ok(entries) => {
            let bytes = entries.iter().map(|entry| entry.bytes).sum();
            Ok(Some(DiskUsage { entries: entries.len() as u64, bytes }))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the cache in `folder` and returns its size (bytes).
pub(crate) fn clear(folder: &Path) -> io::Result<u64> {
    let earlier = folder.join(EARLIER);
    let mut bytes = earlier.metadata().map_or(0, |found| found.len());
    let _ = fs::remove_file(earlier);
    bytes += usage(folder)?.map_or(0, |usage| usage.bytes);
    match fs::remove_dir_all(folder.join(FOLDER_NAME)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(bytes),
    }
}

fn encode(key: &CacheKey, features: &Array2<f32>) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[16..20].copy_from_slice(&(features.nrows() as u32).to_le_bytes());
    bytes[20..24].copy_from_slice(&(features.ncols() as u32).to_le_bytes());
    bytes.extend(features.iter().flat_map(|value| value.to_le_bytes()));
    let checksum = checksum(key, &bytes[16..]);
    bytes[..16].copy_from_slice(&checksum);
    bytes
}

fn decode(key: &CacheKey, bytes: &[u8]) -> Option<Array2<f32>> {
    let (stored, rest) = bytes.split_at_checked(16)?;
    if stored != checksum(key, rest) {
        return None;
    }
    let (shape, values) = rest.split_at_checked(8)?;
    let number = |range: std::ops::Range<usize>| u32::from_le_bytes(shape[range].try_into().expect("four bytes"));
    let (views, width) = (number(0..4) as usize, number(4..8) as usize);
    // The checksum has no secret: who can write the file can make it fit any size.
    if views > VIEWS_MAX || width > EMBEDDING_MAX {
        return None;
    }
    let floats = values.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes")));
    Array2::from_shape_vec((views, width), floats.collect()).ok()
}

fn checksum(key: &CacheKey, rest: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    // The key as well, so that a value under another key is no hit.
    hasher.update(&key.0);
    hasher.update(rest);
    *hasher.finalize().as_bytes().first_chunk().expect("a digest is longer")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(number: u32) -> CacheKey {
        CacheKey(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn features(value: f32) -> Arc<Array2<f32>> {
        Arc::new(Array2::from_shape_fn((3, 5), |(view, column)| value + (view * 5 + column) as f32 * 0.1))
    }

    /// Size of an entry (bytes).
    const SIZE: u64 = HEADER as u64 + 60;

    /// A cache with entries that were written a second apart.
    fn filled(folder: &Path, count: u32, bytes_max: u64) -> DiskCache {
        let mut cache = DiskCache::open(folder, bytes_max).unwrap();
        for number in 0..count {
            cache.put(key(number), &features(number as f32));
            cache.flush().unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(number.into());
            if let Ok(file) = fs::File::open(cache.file(&key(number))) {
                file.set_modified(time).unwrap();
            }
        }
        cache
    }

    #[test]
    fn what_was_flushed_is_there_after_a_restart_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = filled(folder.path(), 5, 1 << 20);
        cache.put(key(9), &features(f32::MIN_POSITIVE));
        assert_eq!(cache.get(&key(9)).unwrap(), *features(f32::MIN_POSITIVE), "pending ones are found too");
        drop(cache);
        let cache = DiskCache::open(folder.path(), 1 << 20).unwrap();
        for number in 0..5 {
            assert_eq!(cache.get(&key(number)).unwrap(), *features(number as f32));
        }
        assert!(cache.get(&key(9)).is_none(), "it was not flushed");
        assert_eq!(usage(folder.path()).unwrap(), Some(DiskUsage { entries: 5, bytes: 5 * SIZE }));
        assert_eq!(clear(folder.path()).unwrap(), 5 * SIZE);
        assert_eq!((usage(folder.path()).unwrap(), clear(folder.path()).unwrap()), (None, 0));
    }

    #[test]
    fn the_oldest_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = filled(folder.path(), 12, 10 * SIZE);
        let found: Vec<u32> = (0..12).filter(|&number| cache.get(&key(number)).is_some()).collect();
        assert_eq!(found, (2..12).collect::<Vec<u32>>(), "two went when the eleventh came");
        assert_eq!(cache.bytes, 10 * SIZE);
        cache.put(key(11), &features(11.0));
        cache.flush().unwrap();
        assert_eq!(cache.bytes, 10 * SIZE, "what is written anew takes no more room");
    }

    #[test]
    fn programs_may_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let one = filled(folder.path(), 1, 1 << 20);
        let mut other = DiskCache::open(folder.path(), 1 << 20).unwrap();
        other.put(key(7), &features(7.0));
        other.flush().unwrap();
        assert_eq!(one.get(&key(7)).unwrap(), *features(7.0));
    }

    /// Wherever a byte of an entry flips and wherever it is cut, reading ends with the right features or none.
    #[test]
    fn a_damaged_entry_is_no_hit_and_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = filled(folder.path(), 2, 1 << 20);
        let path = cache.file(&key(0));
        let whole = fs::read(&path).unwrap();
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x55;
            fs::write(&path, &damaged).unwrap();
            assert!(cache.get(&key(0)).is_none(), "byte {place}");
            fs::write(&path, &whole[..place]).unwrap();
            assert!(cache.get(&key(0)).is_none(), "cut at {place}");
        }
        fs::copy(cache.file(&key(1)), &path).unwrap();
        assert!(cache.get(&key(0)).is_none(), "another key's features");
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(cache.get(&key(0)).is_none(), "a FIFO is not waited for");
        cache.put(key(0), &features(0.0));
        cache.flush().unwrap();
        assert!(cache.get(&key(0)).is_some());
    }

    #[test]
    fn what_earlier_versions_and_crashed_programs_left_goes() {
        let folder = tempfile::tempdir().unwrap();
        drop(filled(folder.path(), 1, 1 << 20));
        let (earlier, own) = (folder.path().join(EARLIER), folder.path().join(FOLDER_NAME));
        fs::write(&earlier, "a database").unwrap();
        for (name, age) in [(".x.features.1.0", 2 * ABANDONED), (".y.features.2.0", Duration::ZERO)] {
            fs::write(own.join(name), "half").unwrap();
            fs::File::open(own.join(name)).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }
        drop(DiskCache::open(folder.path(), 1 << 20).unwrap());
        assert!(!earlier.exists() && !own.join(".x.features.1.0").exists());
        assert!(own.join(".y.features.2.0").exists(), "another program may be writing it");
    }

    #[test]
    fn others_cannot_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let cache = filled(folder.path(), 1, 1 << 20);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&cache.folder), mode(&cache.file(&key(0)))), (0o700, 0o600));
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FOLDER_NAME), "in the way").unwrap();
        assert!(DiskCache::open(folder.path(), 1).is_err() && usage(folder.path()).is_err());
        assert!(DiskCache::open(&folder.path().join(FOLDER_NAME).join("x"), 1).is_err());
    }
}
