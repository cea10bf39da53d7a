//! Class embeddings that the text tower computed on this device, kept for the next start.
//!
//! A file that cannot be read or written costs time, not the run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ndarray::Array2;
use safetensors::tensor::{Dtype, TensorView, serialize};

use crate::bundle::{BundleContents, BundleError};
use crate::device::device_key;
use crate::error::Result;
use crate::files::{Durability, FileError, Readers, read_up_to, write_file_as};
use crate::limits::{LABEL_SET_BYTES_MAX, LABEL_SETS_REMEMBERED};
use crate::text::{Prompt, WeightsFile};

/// Prefix of the file names.
const NAME: &str = "labels-";
/// The entry of a file's metadata with the checksum.
const CHECKSUM: &str = "blake3";
/// The tensor in a file.
const TENSOR: &str = "embeddings";

/// Key of a label set on this device, made of bundle, prompt and texts in their order.
pub(crate) fn key(bundle: &BundleContents, texts: &[String], prompt: &Prompt) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bundle.digest.as_bytes());
    // A context has the key of the template that it stands for: the embeddings are the same.
    let templates = prompt.templates();
    for texts in [&templates[..], texts] {
        // Numbers and lengths come before texts, so that no other list gives the same bytes.
        hasher.update(&(texts.len() as u64).to_le_bytes());
        for text in texts {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
    }
    format!("{}-{}", &hasher.finalize().to_hex()[..32], device_key())
}

/// The embeddings `[C, D]` stored under `key`, if there are any and they are sound.
pub(crate) fn load(folder: &Path, key: &str, shape: (usize, usize)) -> Option<Array2<f32>> {
    let path = file(folder, key);
    // New labels are the usual case, and deserve no warning.
    if !path.exists() {
        return None;
    }
    match read(&path, key, shape) {
        Ok(table) => Some(table),
        Err(error) => {
            log::warn!("cannot use the stored label embeddings in {}: {error}; computing them again", path.display());
            None
        }
    }
}

/// Stores embeddings under `key`, and removes the oldest where there are too many.
pub(crate) fn save(folder: &Path, key: &str, table: &Array2<f32>) {
    let path = file(folder, key);
    let bytes: Vec<u8> = table.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, table.shape().to_vec(), &bytes).expect("the bytes fill the shape");
    let checksum = [(CHECKSUM.to_string(), checksum(key, table.dim(), &bytes))].into();
    let content = serialize([(TENSOR, view)], Some(checksum)).expect("one tensor of the right size");
    let written = fs::create_dir_all(folder)
        .map_err(|source| FileError::Unwritable { path: folder.into(), source })
        .and_then(|()| write_file_as(&path, &content, Readers::Owner, Durability::Unsynced));
    match written {
        Ok(()) => remove_oldest(folder),
        Err(error) => log::warn!("cannot store the labels' embeddings: {error}"),
    }
}

fn file(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("{NAME}{key}.safetensors"))
}

fn read(path: &Path, key: &str, (classes, embedding): (usize, usize)) -> Result<Array2<f32>> {
    let bytes = read_up_to(path, LABEL_SET_BYTES_MAX)
        .map_err(|source| BundleError::FileUnreadable { path: path.into(), source })?;
    let weights = WeightsFile::from_bytes(&path.display().to_string(), bytes)?;
    let table = weights.matrix::<f32>(TENSOR, [classes, embedding])?;
    let computed = checksum(key, table.dim(), &weights.stored(TENSOR)?.data);
    // Unit rows are no proof: a flipped bit of a small value, or two rows in each other's place, leaves them so.
    match weights.metadata(CHECKSUM) {
        Some(stored) if stored == computed => Ok(table),
        Some(stored) => Err(weights.wrong("the checksum", &computed, stored).into()),
        None => Err(weights.wrong("the checksum", "one, as this version writes it", "missing").into()),
    }
}

/// Checksum over the key and the embeddings: a file under another's name is no more to be used than a damaged one.
fn checksum(key: &str, (classes, embedding): (usize, usize), bytes: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    for number in [key.len(), classes, embedding] {
        hasher.update(&(number as u64).to_le_bytes());
    }
    hasher.update(key.as_bytes());
    hasher.update(bytes);
    hasher.finalize().to_hex().to_string()
}

fn remove_oldest(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut files: Vec<(SystemTime, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok().filter(|entry| entry.file_name().to_string_lossy().starts_with(NAME))?;
            Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
        })
        .collect();
    files.sort();
    let surplus = files.len().saturating_sub(LABEL_SETS_REMEMBERED);
    for (_, path) in &files[..surplus] {
        // One that another process has removed meanwhile, or that cannot be removed, costs room alone.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn only_sound_files_are_recalled() {
        let folder = tempfile::tempdir().unwrap();
        let folder = &folder.path().join("deep");
        let table = array![[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]];
        assert_eq!(load(folder, "x", (3, 2)), None);
        save(folder, "x", &table);
        assert_eq!(load(folder, "x", (3, 2)), Some(table.clone()));
        assert_eq!(load(folder, "x", (2, 3)), None, "another shape");
        fs::copy(file(folder, "x"), file(folder, "y")).unwrap();
        assert_eq!(load(folder, "y", (3, 2)), None, "another key's");
        let bytes = fs::read(file(folder, "x")).unwrap();
        fs::write(file(folder, "x"), &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(load(folder, "x", (3, 2)), None, "cut short");
    }

    #[test]
    fn a_flipped_byte_anywhere_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let table = array![[1.0, 0.0], [0.6, 0.8]];
        save(folder.path(), "x", &table);
        let path = file(folder.path(), "x");
        let whole = fs::read(&path).unwrap();
        for place in 0..whole.len() {
            for bit in [1, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[place] ^= bit;
                fs::write(&path, damaged).unwrap();
                let found = load(folder.path(), "x", (2, 2));
                assert!(found.is_none_or(|found| found == table), "byte {place} changed by {bit:#x}");
            }
        }
        let mut swapped = whole.clone();
        let start = whole.len() - 16;
        swapped[start..].rotate_left(8);
        fs::write(&path, swapped).unwrap();
        assert_eq!(load(folder.path(), "x", (2, 2)), None, "two labels in each other's place");
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let table = array![[1.0, 0.0]];
        for index in 0..LABEL_SETS_REMEMBERED + 2 {
            save(folder.path(), &format!("{index:04}"), &table);
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(index as u64);
            fs::File::open(file(folder.path(), &format!("{index:04}"))).unwrap().set_modified(time).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), LABEL_SETS_REMEMBERED);
        assert!(load(folder.path(), "0001", (1, 2)).is_none() && load(folder.path(), "0002", (1, 2)).is_some());
    }
}
