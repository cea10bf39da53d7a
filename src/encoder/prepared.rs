//! Packed weights of an encoder, kept on disk from one start to the next and mapped then.
//!
//! A file is used if it was made for this very encoder by this version of the program on this kind of processor, belongs to this user, and is
//! whole: its digest is compared before anything in it is. Otherwise the weights are packed again, which costs time, not the run.
//!
//! The file: 16 bytes that name the format, the key (32), the BLAKE3 of all that follows (32), the file's size (8); the number of layers (8);
//! for each its name (its length in 4 bytes before it), the index of its weights (8), whether they are in int8 (1), K and N (8 each); then the
//! parts of each, from a cache line on. All numbers are little-endian.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;

use super::fused::{Kernels, Packed};
use crate::device::device_key;
use crate::files::{Durability, FileError, MappedFile, Readers, SteadyFile, folder_of, write_file_by};
use crate::kernels::{ALIGNMENT, FloatWeights, IntWeights, SharedBytes};
use crate::limits::PREPARED_REMEMBERED;

/// Name of the format. Its number changes with the layout of packed weights, too.
const FORMAT: [u8; 16] = *b"rtpt packed 1\0\0\0";
/// Places in the file of what its digest is over, and of the number of layers.
const DIGESTED: usize = 80;
/// Size of what comes before the layers (bytes).
const HEADER: usize = DIGESTED + 16;
/// Prefix and ending of the file names.
const NAME: (&str, &str) = ("encoder-", ".packed");

/// Place of an encoder's packed weights on disk.
#[derive(Clone, Debug)]
pub(crate) struct PreparedStore {
    path: PathBuf,
    key: blake3::Hash,
}

/// A layer whose weights are packed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LayerKey {
    /// Name of the node that they are packed for.
    pub name: String,
    /// Index of the weights in the model's file.
    pub index: usize,
    /// True if they are packed in int8.
    pub is_int8: bool,
    /// K, the terms of each sum.
    pub depth: usize,
    /// N, the sums of each row.
    pub columns: usize,
}

/// Packed weights by layer.
type Layers = HashMap<LayerKey, Arc<Packed>>;

/// The packed weights of a model that is loaded: those of an earlier start, and those that this one packs.
#[derive(Default)]
pub(super) struct Prepared {
    known: Layers,
    file: Option<Arc<MappedFile>>,
    layers: Vec<(LayerKey, Arc<Packed>)>,
    is_incomplete: bool,
}

impl PreparedStore {
    /// The place in `folder` for the encoder with this digest, for `batch` views at a time on this device.
    pub(crate) fn new(folder: &Path, encoder: &blake3::Hash, batch: usize) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(encoder.as_bytes());
        hasher.update(&(batch as u64).to_le_bytes());
        hasher.update(device_key().as_bytes());
        let key = hasher.finalize();
        let (prefix, ending) = NAME;
        Self { path: folder.join(format!("{prefix}{}{ending}", &key.to_hex()[..32])), key }
    }

    /// What is stored, if there is anything, and it is sound.
    fn open(&self, kernels: Kernels) -> Option<(Arc<MappedFile>, Layers)> {
        // The first start is the usual case, and deserves no warning.
        if !self.path.exists() {
            return None;
        }
        let found = self.mapped().and_then(|file| {
            let shared: SharedBytes = file.clone();
            let layers = layers_of(&shared, kernels).ok_or_else(|| io::Error::other("it is not as it was written"))?;
            Ok((file, layers))
        });
        found
            .map_err(|error| {
                log::warn!(
                    "cannot use the packed weights in {}: {error}; the weights are packed again",
                    self.path.display()
                );
            })
            .ok()
    }

    /// The file, after it was compared with its digest.
    fn mapped(&self) -> io::Result<Arc<MappedFile>> {
        let file = SteadyFile::open(&self.path)?;
        let (owner, mode) = file.owner_and_mode()?;
        if owner != geteuid().as_raw() || mode & 0o022 != 0 {
            return Err(io::Error::other("other users may write it"));
        }
        let mut file = file.map()?;
        let bytes: &[u8] = file.as_ref();
        let expected = [&FORMAT[..], self.key.as_bytes()].concat();
        if bytes.len() < HEADER || bytes[DIGESTED..][..8] != (bytes.len() as u64).to_le_bytes() {
            return Err(io::Error::other("it was cut short"));
        }
        if bytes[..48] != expected {
            return Err(io::Error::other("it was made for something else"));
        }
        let expected: [u8; 32] = bytes[48..DIGESTED].try_into().expect("32 bytes");
        if *file.digest_from(DIGESTED).as_bytes() != expected {
            return Err(io::Error::other("it is damaged"));
        }
        // What was read is what was compared.
        file.check()?;
        Ok(Arc::new(file))
    }

    /// Stores the layers, and removes the oldest files where there are too many.
    fn save(&self, layers: &[(LayerKey, Arc<Packed>)]) {
        let folder = folder_of(&self.path);
        let written = fs::create_dir_all(folder)
            .map_err(|source| FileError::Unwritable { path: folder.into(), source })
            .and_then(|()| self.write(layers));
        match written {
            Ok(()) => {
                log::info!(
                    "packed the encoder's weights for this processor and stored them in {}",
                    self.path.display()
                );
                remove_oldest(folder);
            }
            Err(error) => log::warn!("cannot store the packed weights, so that the next start packs them too: {error}"),
        }
    }

    fn write(&self, layers: &[(LayerKey, Arc<Packed>)]) -> Result<(), FileError> {
        let mut table = (layers.len() as u64).to_le_bytes().to_vec();
        for (LayerKey { name, index, is_int8, depth, columns }, _) in layers {
            table.extend((name.len() as u32).to_le_bytes());
            table.extend(name.as_bytes());
            table.extend((*index as u64).to_le_bytes());
            table.push(u8::from(*is_int8));
            table.extend([depth, columns].into_iter().flat_map(|&size| (size as u64).to_le_bytes()));
        }
        let parts = || layers.iter().flat_map(|(_, packed)| packed.parts());
        let size = parts().fold(DIGESTED + 8 + table.len(), |end, part| end.next_multiple_of(ALIGNMENT) + part.len());
        let unwritable = |source| FileError::Unwritable { path: self.path.clone(), source };
        // A cache is not what fills the disk.
        let room = statvfs(folder_of(&self.path)).map_err(|error| unwritable(error.into()))?;
        // Of the system's own types, which are narrower on 32 bits.
        let free = (room.blocks_available() as u64).saturating_mul(room.fragment_size() as u64);
        if free < 2 * size as u64 {
            return Err(unwritable(io::ErrorKind::StorageFull.into()));
        }
        let head = [&(size as u64).to_le_bytes()[..], &table].concat();
        // Twice the same pieces: what is hashed is what is written.
        let pieces = |visit: &mut dyn FnMut(&[u8]) -> io::Result<()>| {
            visit(&head)?;
            let mut end = DIGESTED + head.len();
            for part in parts() {
                visit(&[0; ALIGNMENT][..end.next_multiple_of(ALIGNMENT) - end])?;
                visit(part)?;
                end = end.next_multiple_of(ALIGNMENT) + part.len();
            }
            Ok(())
        };
        let mut hasher = blake3::Hasher::new();
        let hashed = pieces(&mut |piece| {
            hasher.update_rayon(piece);
            Ok(())
        });
        hashed.map_err(unwritable)?;
        write_file_by(&self.path, Readers::Owner, Durability::Unsynced, |writer| {
            writer.write_all(&FORMAT)?;
            writer.write_all(self.key.as_bytes())?;
            writer.write_all(hasher.finalize().as_bytes())?;
            pieces(&mut |piece| writer.write_all(piece))
        })
    }
}

impl Prepared {
    /// What `store` has, for a model that is loaded with these kernels.
    pub(super) fn open(store: &PreparedStore, kernels: Kernels) -> Self {
        let (file, known) = store.open(kernels).map_or((None, HashMap::new()), |(file, known)| (Some(file), known));
        Self { known, file, layers: Vec::new(), is_incomplete: false }
    }

    /// The packed weights of a layer from an earlier start, if it stored them.
    pub(super) fn known(&self, key: &LayerKey) -> Option<Arc<Packed>> {
        self.known.get(key).cloned()
    }

    /// Keeps the packed weights of a layer for the next start.
    pub(super) fn keep(&mut self, key: LayerKey, packed: Arc<Packed>) {
        self.is_incomplete |= !self.known.contains_key(&key);
        self.layers.push((key, packed));
    }

    /// Stores what was packed, and gives the file that what was not lies in.
    pub(super) fn finish(self, store: &PreparedStore) -> Option<Arc<MappedFile>> {
        if self.is_incomplete {
            store.save(&self.layers);
        }
        self.file
    }
}

/// The layers in a file; none if it is not as this program writes it.
fn layers_of(bytes: &SharedBytes, kernels: Kernels) -> Option<Layers> {
    let content: &[u8] = (**bytes).as_ref();
    let mut at = DIGESTED + 8;
    let mut take = |count: usize| {
        let found = content.get(at..at.checked_add(count)?)?;
        at += count;
        Some(found)
    };
    let number = |bytes: &[u8]| usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok();
    let count = number(take(8)?)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        let length = u32::from_le_bytes(take(4)?.try_into().ok()?) as usize;
        let name = String::from_utf8(take(length)?.to_vec()).ok()?;
        let index = number(take(8)?)?;
        let is_int8 = take(1)? == [1];
        let (depth, columns) = (number(take(8)?)?, number(take(8)?)?);
        keys.push(LayerKey { name, index, is_int8, depth, columns });
    }
    let mut next = |size: usize| {
        let start = at.checked_next_multiple_of(ALIGNMENT)?;
        at = start.checked_add(size)?;
        Some(start)
    };
    let mut layers = HashMap::new();
    for key in keys {
        if key.depth == 0 || key.columns == 0 {
            return None;
        }
        let packed = if key.is_int8 {
            Packed::Int(IntWeights::of_parts(kernels.int8, key.depth, key.columns, bytes, &mut next)?)
        } else {
            Packed::Float(FloatWeights::of_parts(kernels.float, key.depth, key.columns, bytes, &mut next)?)
        };
        layers.insert(key, Arc::new(packed));
    }
    (at == content.len()).then_some(layers)
}

/// Number and size (bytes) of the files of packed weights in `folder`.
///
/// # Errors
/// Error of the system.
#[cfg(feature = "cli")]
pub(crate) fn usage(folder: &Path) -> io::Result<(usize, u64)> {
    let files = files(folder)?;
    Ok((files.len(), files.iter().map(|(.., bytes)| bytes).sum()))
}

/// Removes the packed weights in `folder` and returns their size (bytes).
///
/// # Errors
/// Error of the system.
#[cfg(feature = "cli")]
pub(crate) fn clear(folder: &Path) -> io::Result<u64> {
    let mut freed = 0;
    for (_, path, bytes) in files(folder)? {
        fs::remove_file(path)?;
        freed += bytes;
    }
    Ok(freed)
}

/// The files of this kind in a folder, the oldest first, with when they were written and their sizes (bytes).
fn files(folder: &Path) -> io::Result<Vec<(SystemTime, PathBuf, u64)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let (prefix, ending) = NAME;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with(prefix) || !name.ends_with(ending) {
            continue;
        }
        // Gone between the listing and the look at it: another process made room.
        let Ok(metadata) = entry.metadata() else { continue };
        found.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), entry.path(), metadata.len()));
    }
    found.sort();
    Ok(found)
}

fn remove_oldest(folder: &Path) {
    let Ok(files) = files(folder) else { return };
    let surplus = files.len().saturating_sub(PREPARED_REMEMBERED);
    for (_, path, _) in &files[..surplus] {
        // One that another process has removed meanwhile, or that cannot be removed, costs room alone.
        let _ = fs::remove_file(path);
    }
}
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::kernels::{
        Activation, Epilogue, FloatKernel, IntKernel, IntRows, Rows, RowsMut, noise, quantise_weights,
    };

    const DEPTH: usize = 37;
    const COLUMNS: usize = 21;

    fn kernels() -> Kernels {
        Kernels { float: FloatKernel::best(), int8: IntKernel::available()[0] }
    }

    fn key(name: &str, is_int8: bool) -> LayerKey {
        LayerKey { name: name.into(), index: 3, is_int8, depth: DEPTH, columns: COLUMNS }
    }

    /// A layer in f32 and one in int8.
    fn layers() -> Vec<(LayerKey, Arc<Packed>)> {
        let weights = noise(1, DEPTH * COLUMNS);
        let Kernels { float, int8 } = kernels();
        let in_f32 = FloatWeights::pack(float, DEPTH, COLUMNS, |k, n| weights[k * COLUMNS + n]);
        let in_int8 = IntWeights::pack(int8, DEPTH, COLUMNS, |n, values| {
            quantise_weights(&weights[n * DEPTH..][..DEPTH], values)
        });
        vec![(key("a", false), Arc::new(Packed::Float(in_f32))), (key("b", true), Arc::new(Packed::Int(in_int8)))]
    }

    fn product(packed: &Packed) -> Vec<f32> {
        let input = noise(2, 5 * DEPTH);
        let mut out = vec![0.0; 5 * COLUMNS];
        let epilogue = Epilogue { bias: &[0.0; 32], residual: None, activation: Activation::None };
        packed.multiply(Rows::new(&input, DEPTH), epilogue, &mut IntRows::default(), RowsMut::new(&mut out, COLUMNS));
        out
    }

    fn stored(folder: &Path) -> PreparedStore {
        let store = PreparedStore::new(folder, &blake3::hash(b"an encoder"), 1);
        assert!(store.open(kernels()).is_none());
        store.save(&layers());
        store
    }

    #[test]
    fn layers_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let store = stored(&folder.path().join("deep"));
        let (_, found) = store.open(kernels()).unwrap();
        assert_eq!(found.len(), 2);
        for (key, expected) in layers() {
            assert_eq!(product(&found[&key]), product(&expected), "{key:?}");
        }
        let mode = store.path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = stored(folder.path());
        let whole = fs::read(&store.path).unwrap();
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x55;
            fs::write(&store.path, &damaged).unwrap();
            assert!(store.open(kernels()).is_none(), "byte {place}");
        }
        for length in (0..whole.len()).step_by(7) {
            fs::write(&store.path, &whole[..length]).unwrap();
            assert!(store.open(kernels()).is_none(), "cut at {length}");
        }
        fs::write(&store.path, &whole).unwrap();
        assert!(store.open(kernels()).is_some());
    }

    #[test]
    fn what_was_made_for_something_else_or_by_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = stored(folder.path());
        for (digest, batch) in [(&b"another"[..], 1), (b"an encoder", 2)] {
            let other = PreparedStore::new(folder.path(), &blake3::hash(digest), batch);
            assert_ne!(other.path, store.path);
            fs::copy(&store.path, &other.path).unwrap();
            assert!(other.open(kernels()).is_none(), "{digest:?} {batch}");
        }
        fs::set_permissions(&store.path, fs::Permissions::from_mode(0o620)).unwrap();
        assert!(store.open(kernels()).is_none(), "the group may write it");
        fs::remove_file(&store.path).unwrap();
        nix::unistd::mkfifo(&store.path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(store.open(kernels()).is_none(), "a FIFO is not waited for");
    }

    #[test]
    fn a_table_that_does_not_fit_is_refused_though_its_digest_does() {
        let folder = tempfile::tempdir().unwrap();
        let store = stored(folder.path());
        let whole = fs::read(&store.path).unwrap();
        // The number of layers, and N of the first.
        let first = HEADER + 4 + 1 + 8 + 1 + 8;
        for (place, number) in
            [(DIGESTED + 8, 3), (DIGESTED + 8, u64::MAX), (first, u64::MAX), (first, 1 << 40), (first, 33)]
        {
            let mut forged = whole.clone();
            forged[place..][..8].copy_from_slice(&number.to_le_bytes());
            let digest = blake3::hash(&forged[DIGESTED..]);
            forged[48..DIGESTED].copy_from_slice(digest.as_bytes());
            fs::write(&store.path, &forged).unwrap();
            assert!(store.mapped().is_ok() && store.open(kernels()).is_none(), "{number} at {place}");
        }
    }

    #[test]
    fn the_oldest_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let stores: Vec<PreparedStore> = (0..PREPARED_REMEMBERED as u64 + 2)
            .map(|number| {
                let store = PreparedStore::new(folder.path(), &blake3::hash(&number.to_le_bytes()), 1);
                store.save(&layers());
                let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number);
                fs::File::open(&store.path).unwrap().set_modified(time).unwrap();
                store
            })
            .collect();
        let there: Vec<bool> = stores.iter().map(|store| store.path.exists()).collect();
        assert_eq!(there, [false, false, true, true, true]);
        assert_eq!(usage(folder.path()).unwrap().0, 3);
        assert!(clear(folder.path()).unwrap() > 0);
        assert_eq!(usage(folder.path()).unwrap(), (0, 0));
    }
}
