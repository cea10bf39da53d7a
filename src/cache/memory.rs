//! The most recently used features, up to a number of bytes.

use std::sync::Arc;

use lru::LruCache;
use ndarray::Array2;

use super::CacheKey;

/// Features by key; what was not used for longest goes first.
pub(crate) struct MemoryCache {
    entries: LruCache<CacheKey, Arc<Array2<f32>>>,
    bytes: usize,
    bytes_max: usize,
}

impl MemoryCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        // Bounded by bytes, since features of 1,024 views take a thousand times those of one.
        Self { entries: LruCache::unbounded(), bytes: 0, bytes_max }
    }

    pub(crate) fn get(&mut self, key: &CacheKey) -> Option<Arc<Array2<f32>>> {
        self.entries.get(key).cloned()
    }

    pub(crate) fn put(&mut self, key: CacheKey, features: Arc<Array2<f32>>) {
        if let Some(old) = self.entries.pop(&key) {
            self.bytes -= size(&old);
        }
        // What is larger than the bound by itself would push out everything and then go as well.
        if size(&features) > self.bytes_max {
            return;
        }
        self.bytes += size(&features);
        self.entries.put(key, features);
        while self.bytes > self.bytes_max {
            let Some((_, oldest)) = self.entries.pop_lru() else { break };
            self.bytes -= size(&oldest);
        }
    }
}

fn size(features: &Array2<f32>) -> usize {
    features.len() * size_of::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_make_room() {
        let key = |number: u8| CacheKey([number; 32]);
        let features = |value: f32| Arc::new(Array2::from_elem((2, 4), value));
        let mut cache = MemoryCache::new(3 * 32);
        for number in 0..3 {
            cache.put(key(number), features(f32::from(number)));
        }
        assert_eq!(cache.get(&key(0)).unwrap()[[0, 0]], 0.0);
        cache.put(key(3), features(3.0));
        assert!(cache.get(&key(1)).is_none(), "used before 0 was");
        assert!([0, 2, 3].iter().all(|&number| cache.get(&key(number)).is_some()));
        cache.put(key(0), features(9.0));
        assert_eq!((cache.get(&key(0)).unwrap()[[0, 0]], cache.bytes), (9.0, 96), "a key is counted once");
        cache.put(key(4), Arc::new(Array2::zeros((100, 100))));
        assert!(
            cache.get(&key(4)).is_none() && cache.bytes == 96,
            "what is too large is not kept, and pushes nothing out"
        );
    }
}
