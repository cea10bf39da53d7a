//! Image features that were computed before: in memory, and on disk between runs.
//!
//! A hit gives the same bits as a miss: the key holds everything the features depend on, and a value that does not
//! match its checksum is no hit. A cache that cannot be used costs time, not the run: what is wrong with it is
//! logged as a warning, once, and the classifier goes on without.

mod disk;
mod memory;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::Array2;

pub(crate) use disk::{DiskUsage, FOLDER_NAME};

use crate::limits::CACHE_PENDING_MAX;
use crate::views::{Augment, ViewSettings};
use disk::DiskCache;
use memory::MemoryCache;

/// Key of one image's features: made of its content, and of everything else that decides their bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey([u8; 32]);

/// Inputs that the features depend on besides the image and the number of views: the first of many views are the same as those of few.
#[derive(Clone, Debug)]
pub struct CacheScope(blake3::Hasher);

impl CacheScope {
    /// Scope of an encoder's digest, the views, the encoder's batch, and the device's key.
    pub fn new(encoder: &blake3::Hash, views: &ViewSettings, batch: usize, device: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"rtpt-edge features 2");
        hasher.update(encoder.as_bytes());
        // Written out: keys on disk must not change with the order of the variants.
        let augment = match views.augment {
            Augment::Crop => 0,
            Augment::Augmix => 1,
        };
        // The length before the text keeps two parts from running into each other.
        for number in [augment, views.seed, batch as u64, device.len() as u64] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(device.as_bytes());
        Self(hasher)
    }

    /// The key of the views of an image file with the BLAKE3 digest `image`.
    pub fn key(&self, image: &blake3::Hash) -> CacheKey {
        let mut hasher = self.0.clone();
        hasher.update(image.as_bytes());
        CacheKey(*hasher.finalize().as_bytes())
    }

    /// The key of the low-passed clean view of an image file.
    pub(crate) fn low_pass_key(&self, image: &blake3::Hash) -> CacheKey {
        let mut hasher = self.0.clone();
        hasher.update(image.as_bytes());
        hasher.update(b"low-pass");
        CacheKey(*hasher.finalize().as_bytes())
    }
}

/// Features F `[V, D]` by image. Usable from several threads.
pub struct FeatureCache {
    memory: Mutex<MemoryCache>,
    disk: Mutex<Option<DiskCache>>,
}

impl FeatureCache {
    /// Cache that keeps at most `memory_bytes` of features in memory, and none on disk.
    pub fn in_memory(memory_bytes: usize) -> Self {
        Self { memory: Mutex::new(MemoryCache::new(memory_bytes)), disk: Mutex::new(None) }
    }

    /// Also keeps features in `folder`, at most `disk_bytes` of them; the oldest make room for new ones.
    ///
    /// If that is not possible a warning says why, and there is no cache on disk.
    pub fn with_disk(mut self, folder: impl AsRef<Path>, disk_bytes: u64) -> Self {
        let folder = folder.as_ref();
        let opened = DiskCache::open(folder, disk_bytes);
        self.disk = Mutex::new(opened.map_err(|problem| warn(folder, &problem)).ok());
        self
    }

    /// The features remembered under `key`.
    pub(crate) fn get(&self, key: &CacheKey) -> Option<Arc<Array2<f32>>> {
        if let Some(found) = self.memory().get(key) {
            return Some(found);
        }
        let slot = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let found = Arc::new(slot.as_ref()?.get(key)?);
        self.memory().put(*key, Arc::clone(&found));
        Some(found)
    }

    /// Remembers features under `key`.
    pub(crate) fn put(&self, key: &CacheKey, features: &Arc<Array2<f32>>) {
        self.memory().put(*key, Arc::clone(features));
        self.with_disk_cache(|disk| {
            disk.put(*key, features);
            if disk.pending() >= CACHE_PENDING_MAX { disk.flush() } else { Ok(()) }
        });
    }

    /// Writes what is not on disk yet. Also happens when the cache is dropped.
    pub(crate) fn flush(&self) {
        self.with_disk_cache(DiskCache::flush);
    }

    fn with_disk_cache(&self, act: impl FnOnce(&mut DiskCache) -> io::Result<()>) {
        let mut slot = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(disk) = slot.as_mut() else { return };
        if let Err(problem) = act(disk) {
            warn(disk.folder(), &problem);
            *slot = None;
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, MemoryCache> {
        // A thread that panicked cannot have left half an entry: they are put in whole.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FeatureCache {
    fn drop(&mut self) {
        self.flush();
    }
}

fn warn(folder: &Path, problem: &io::Error) {
    log::warn!("going on without the feature cache in {}: {problem}", folder.display());
}

/// Size of the cache in `folder`; `None` if there is none.
///
/// # Errors
/// Error of the system.
pub(crate) fn disk_usage(folder: &Path) -> io::Result<Option<DiskUsage>> {
    disk::usage(folder)
}

/// Removes the cache in `folder` and returns its size (bytes); 0 if there was none.
///
/// # Errors
/// Error of the system.
pub(crate) fn clear(folder: &Path) -> io::Result<u64> {
    disk::clear(folder)
}
