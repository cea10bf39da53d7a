//! Features on disk, in a redb database: every write is a transaction, every value has a checksum.

use std::fs;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::Array2;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::CacheKey;
use crate::limits::{CACHE_PAGES_BYTES, EMBEDDING_MAX, VIEWS_MAX};

/// The database's name in its folder.
pub(crate) const FILE_NAME: &str = "features.redb";

/// Version of what follows.
const FORMAT: u64 = 1;
/// Key to a checksum (16 bytes of BLAKE3 over key and rest), V and D (u32 each) and the features (f32), little-endian.
const FEATURES: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("features");
/// Number of a write to the key it wrote, so that the oldest are found.
const ORDER: TableDefinition<u64, &[u8; 32]> = TableDefinition::new("order");
/// `format`, `bytes` (of all values) and `next` (number of the next write).
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");

const HEADER: usize = 16 + 8;

/// The cache of one folder. What is put into it is written by [`DiskCache::flush`].
pub(crate) struct DiskCache {
    pub folder: PathBuf,
    /// `None` once it is closed.
    database: Option<Database>,
    bytes_max: u64,
    pending: Vec<(CacheKey, Arc<Array2<f32>>)>,
}

/// Size of a cache on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskUsage {
    /// Images.
    pub entries: u64,
    /// Their features (bytes).
    pub bytes: u64,
    /// The file (bytes).
    pub file_bytes: u64,
}

impl DiskCache {
    /// Opens the cache in `folder`, or makes one.
    pub(crate) fn open(folder: &Path, bytes_max: u64) -> Result<Self, String> {
        fs::create_dir_all(folder).map_err(message_of)?;
        let path = folder.join(FILE_NAME);
        guarded(|| {
            let database = builder().create(&path).map_err(|error| opening(&error))?;
            let write = database.begin_write().map_err(message_of)?;
            {
                let mut numbers = write.open_table(NUMBERS).map_err(message_of)?;
                let found = numbers.get("format").map_err(message_of)?.map(|guard| guard.value());
                check_format(found.unwrap_or(FORMAT))?;
                if found.is_none() {
                    numbers.insert("format", FORMAT).map_err(message_of)?;
                    // Made now, because a transaction that only reads cannot make a table.
                    write.open_table(FEATURES).map_err(message_of)?;
                    write.open_table(ORDER).map_err(message_of)?;
                }
            }
            write.commit().map_err(message_of)?;
            Ok(Self { folder: folder.into(), database: Some(database), bytes_max, pending: Vec::new() })
        })
    }

    /// The features under `key`; `None` if there are none or they are damaged.
    pub(crate) fn get(&self, key: &CacheKey) -> Result<Option<Array2<f32>>, String> {
        // At most `CACHE_PENDING_MAX` entries, which need no index.
        if let Some((_, features)) = self.pending.iter().find(|(pending, _)| pending == key) {
            return Ok(Some(Array2::clone(features)));
        }
        guarded(|| {
            let read = self.database().begin_read().map_err(message_of)?;
            let table = read.open_table(FEATURES).map_err(message_of)?;
            let Some(value) = table.get(&key.0).map_err(message_of)? else { return Ok(None) };
            let features = decode(key, value.value());
            if features.is_none() {
                log::warn!("a damaged entry of the feature cache in {} is left alone", self.folder.display());
            }
            Ok(features)
        })
    }

    fn database(&self) -> &Database {
        self.database.as_ref().expect("only dropping closes it")
    }

    /// Keeps features until the next flush.
    pub(crate) fn put(&mut self, key: CacheKey, features: &Arc<Array2<f32>>) {
        self.pending.push((key, Arc::clone(features)));
    }

    /// Entries that are not on disk yet.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Writes what is pending in one transaction, and removes the oldest entries where there are too many bytes.
    pub(crate) fn flush(&mut self) -> Result<(), String> {
        // Taken whatever comes: after an error the cache is given up.
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(());
        }
        guarded(|| {
            let mut write = self.database().begin_write().map_err(message_of)?;
            // After a crash the next start then need not walk the whole file.
            write.set_quick_repair(true);
            {
                let mut features = write.open_table(FEATURES).map_err(message_of)?;
                let mut order = write.open_table(ORDER).map_err(message_of)?;
                let mut numbers = write.open_table(NUMBERS).map_err(message_of)?;
                let number = |name: &str, numbers: &redb::Table<&str, u64>| {
                    numbers.get(name).map(|guard| guard.map_or(0, |guard| guard.value())).map_err(message_of)
                };
                let mut bytes = number("bytes", &numbers)?;
                let mut next = number("next", &numbers)?;
                for (key, value) in &pending {
                    let encoded = encode(key, value);
                    let old = features.insert(&key.0, encoded.as_slice()).map_err(message_of)?;
                    bytes += encoded.len() as u64;
                    match old {
                        // A damaged entry was written anew; its place in the order stays.
                        Some(old) => bytes = bytes.saturating_sub(old.value().len() as u64),
                        None => {
                            order.insert(next, &key.0).map_err(message_of)?;
                            next += 1;
                        }
                    }
                }
                // In the same transaction as the new entries, so that bytes and entries agree after a crash. The oldest
                // by writing, not by use: a hit writes nothing.
                while bytes > self.bytes_max {
                    let Some((_, oldest)) = order.pop_first().map_err(message_of)? else { break };
                    if let Some(old) = features.remove(oldest.value()).map_err(message_of)? {
                        bytes = bytes.saturating_sub(old.value().len() as u64);
                    }
                }
                numbers.insert("bytes", bytes).map_err(message_of)?;
                numbers.insert("next", next).map_err(message_of)?;
            }
            write.commit().map_err(message_of)
        })
    }
}

impl Drop for DiskCache {
    fn drop(&mut self) {
        // Closing a damaged database may panic as well as using it.
        let closed = guarded(|| {
            drop(self.database.take());
            Ok(())
        });
        if let Err(problem) = closed {
            log::warn!("the feature cache in {} is not closed as it should be: {problem}", self.folder.display());
        }
    }
}

/// Size of the cache in `folder`; `None` if there is none.
pub(crate) fn usage(folder: &Path) -> Result<Option<DiskUsage>, String> {
    let path = folder.join(FILE_NAME);
    let file_bytes = match path.metadata() {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(message_of(error)),
    };
    guarded(|| {
        let database = builder().open(&path).map_err(|error| opening(&error))?;
        let read = database.begin_read().map_err(message_of)?;
        let numbers = match read.open_table(NUMBERS) {
            Ok(numbers) => numbers,
            Err(TableError::TableDoesNotExist(_)) => return Err("it is a database of another program".into()),
            Err(error) => return Err(message_of(error)),
        };
        let number = |name: &str| numbers.get(name).map(|guard| guard.map_or(0, |guard| guard.value()));
        check_format(number("format").map_err(message_of)?)?;
        let features = read.open_table(FEATURES).map_err(message_of)?;
        let entries = redb::ReadableTableMetadata::len(&features).map_err(message_of)?;
        Ok(Some(DiskUsage { entries, bytes: number("bytes").map_err(message_of)?, file_bytes }))
    })
}

/// Removes the cache in `folder`, whatever is in it, unless another program has it open.
pub(crate) fn clear(folder: &Path) -> Result<u64, String> {
    let path = folder.join(FILE_NAME);
    let bytes = match path.metadata() {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(message_of(error)),
    };
    // A panic over a damaged file is no reason to keep it.
    let in_use =
        guarded(|| Ok(builder().open(&path).err().filter(|e| matches!(e, DatabaseError::DatabaseAlreadyOpen))));
    if let Ok(Some(error)) = in_use {
        return Err(opening(&error));
    }
    fs::remove_file(&path).map_err(message_of)?;
    Ok(bytes)
}

const IN_USE: &str = "another program has it open";

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_PAGES_BYTES);
    builder
}

fn opening(error: &DatabaseError) -> String {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            format!("{IN_USE}; give each of several programs a cache folder of its own")
        }
        DatabaseError::UpgradeRequired(_) => format!("it was made by another version ({error}); {ADVICE}"),
        // Clearing the cache helps against damage, not against permissions or a full disk.
        DatabaseError::Storage(redb::StorageError::Io(source)) if source.kind() != ErrorKind::InvalidData => {
            message_of(source)
        }
        _ => format!("{error}; {ADVICE}"),
    }
}

const ADVICE: &str = "clear the cache";

fn check_format(found: u64) -> Result<(), String> {
    if found == FORMAT {
        return Ok(());
    }
    Err(format!("it has format {found}, expected {FORMAT}; {ADVICE}"))
}

fn message_of(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Runs `act`; a panic of the database, which a damaged file may lead to, becomes an error.
fn guarded<R>(act: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    // Nothing sees what a panic left behind: callers give the database up after an error.
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Err(format!("the file is damaged; {ADVICE}")))
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
    use super::*;

    fn key(number: u32) -> CacheKey {
        CacheKey(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn features(value: f32) -> Arc<Array2<f32>> {
        Arc::new(Array2::from_shape_fn((3, 5), |(view, column)| value + (view * 5 + column) as f32 * 0.1))
    }

    fn filled(folder: &Path, count: u32, bytes_max: u64) -> DiskCache {
        let mut cache = DiskCache::open(folder, bytes_max).unwrap();
        for number in 0..count {
            cache.put(key(number), &features(number as f32));
            cache.flush().unwrap();
        }
        cache
    }

    #[test]
    fn what_was_flushed_is_there_after_a_restart_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = filled(folder.path(), 5, 1 << 20);
        cache.put(key(9), &features(f32::MIN_POSITIVE));
        assert_eq!(cache.get(&key(9)).unwrap().unwrap(), *features(f32::MIN_POSITIVE), "pending ones are found too");
        drop(cache);
        let cache = DiskCache::open(folder.path(), 1 << 20).unwrap();
        for number in 0..5 {
            assert_eq!(cache.get(&key(number)).unwrap().unwrap(), *features(number as f32));
        }
        assert!(cache.get(&key(9)).unwrap().is_none(), "it was not flushed");
        drop(cache);
        let usage = usage(folder.path()).unwrap().unwrap();
        assert_eq!((usage.entries, usage.bytes), (5, 5 * (HEADER as u64 + 60)));
    }

    #[test]
    fn the_oldest_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = filled(folder.path(), 6, 4 * (HEADER as u64 + 60));
        let found: Vec<bool> = (0..6).map(|number| cache.get(&key(number)).unwrap().is_some()).collect();
        assert_eq!(found, [false, false, true, true, true, true]);
    }

    #[test]
    fn a_damaged_value_is_no_hit_and_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = filled(folder.path(), 1, 1 << 20);
        let mut bytes = encode(&key(0), &features(0.0));
        let tamper = |bytes: &[u8], cache: &DiskCache| {
            let write = cache.database().begin_write().unwrap();
            write.open_table(FEATURES).unwrap().insert(&key(0).0, bytes).unwrap();
            write.commit().unwrap();
        };
        bytes[HEADER + 7] ^= 1;
        tamper(&bytes, &cache);
        assert!(cache.get(&key(0)).unwrap().is_none());
        tamper(&encode(&key(1), &features(0.0)), &cache);
        assert!(cache.get(&key(0)).unwrap().is_none(), "another key's value");
        tamper(&[], &cache);
        assert!(cache.get(&key(0)).unwrap().is_none());
        cache.put(key(0), &features(0.0));
        cache.flush().unwrap();
        assert!(cache.get(&key(0)).unwrap().is_some());
    }

    #[test]
    fn files_that_are_no_such_database_are_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        fs::write(&path, "this is not a database at all, though it is long enough to be looked at").unwrap();
        let problem = DiskCache::open(folder.path(), 1).err().unwrap();
        assert!(problem.contains("clear the cache"), "{problem}");
        assert!(usage(folder.path()).is_err());
        assert!(clear(folder.path()).unwrap() > 0 && !path.exists());

        drop(filled(folder.path(), 1, 1 << 20));
        let open = filled(folder.path(), 0, 1 << 20);
        assert!(DiskCache::open(folder.path(), 1).err().unwrap().contains(IN_USE));
        assert!(clear(folder.path()).unwrap_err().contains(IN_USE));
        let write = open.database().begin_write().unwrap();
        write.open_table(NUMBERS).unwrap().insert("format", 7).unwrap();
        write.commit().unwrap();
        drop(open);
        let problem = DiskCache::open(folder.path(), 1).err().unwrap();
        assert!(problem.contains("format 7"), "{problem}");
        assert!(usage(folder.path()).unwrap_err().contains("format 7"));

        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(DiskCache::open(folder.path(), 1).is_err(), "a folder is in the way");
        assert_eq!(clear(&folder.path().join("nowhere")).unwrap(), 0);
        assert_eq!(usage(&folder.path().join("nowhere")).unwrap(), None);
    }

    /// A byte flips in 150 places, one at a time: opening and reading end with the right features, none, or an error.
    #[test]
    fn a_damaged_file_is_an_error_or_the_right_features() {
        let folder = tempfile::tempdir().unwrap();
        drop(filled(folder.path(), 20, 1 << 20));
        let path = folder.path().join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        let used = whole.len() - whole.iter().rev().take_while(|&&byte| byte == 0).count();
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        for place in (0..used).step_by(used / 150) {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x55;
            fs::write(&path, &damaged).unwrap();
            let Ok(cache) = DiskCache::open(folder.path(), 1 << 20) else { continue };
            for number in 0..20 {
                if let Ok(Some(found)) = cache.get(&key(number)) {
                    assert_eq!(found, *features(number as f32), "byte {place}");
                }
            }
            drop(cache);
        }
        std::panic::set_hook(quiet);
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(DiskCache::open(folder.path(), 1 << 20).is_err(), "cut short");
    }
}
