//! The feature cache: a hit in memory and on disk, with head and ensemble, and opening a large one.

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use ndarray::Array2;
use rtpt_edge::FeatureCache;
use rtpt_edge::internal::cache::{CacheKey, CacheScope, get, put};
use rtpt_edge::internal::method::{Material, prepare};
use rtpt_edge::internal::rows::unit_rows;
use rtpt_edge::internal::views::{Augment, ViewSettings};
use rtpt_edge::{Method, MethodSettings};

const VIEWS: usize = 64;
const WIDTH: usize = 512;
const CLASSES: usize = 100;
const ENTRIES: u64 = 100_000;
const MEMORY: usize = 64 << 20;
const DISK: u64 = 4 << 30;

fn key(number: u64) -> CacheKey {
    let views = ViewSettings { count: VIEWS, augment: Augment::Crop, seed: 0 };
    CacheScope::new(&blake3::hash(b"bundle"), &views, 1, "device").key(&blake3::hash(&number.to_le_bytes()))
}

fn features(rows: usize, width: usize, seed: usize) -> Array2<f32> {
    let value = |(row, column): (usize, usize)| (((row * 31 + column * 17 + seed * 7) % 101) as f32 - 50.0) / 50.0;
    unit_rows(Array2::from_shape_fn((rows, width), value)).rows
}

fn hits(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stored = Arc::new(features(VIEWS, WIDTH, 1));
    let classes = features(CLASSES, WIDTH, 2);
    let settings = MethodSettings::of(Method::named("class-shift").expect("a row of the table"));
    let method = prepare(&settings, Material { classes: classes.view(), context: None });
    let answer = |features: &Array2<f32>| method.decide(features.view(), classes.view(), 100.0).prediction;
    let writer = FeatureCache::in_memory(MEMORY).with_disk(folder.path(), DISK);
    for number in 0..64 {
        put(&writer, &key(number), &stored);
    }
    drop(writer);
    let mut group = criterion.benchmark_group("cache-64x512");
    let cache = FeatureCache::in_memory(MEMORY).with_disk(folder.path(), DISK);
    get(&cache, &key(0)).expect("it was stored");
    group.bench_function("memory-hit-and-answer", |b| {
        b.iter(|| answer(&get(&cache, &key(0)).expect("it is in memory")));
    });
    drop(cache);
    // Nothing stays in memory, so that every hit is one on disk.
    let cache = FeatureCache::in_memory(0).with_disk(folder.path(), DISK);
    let mut number = 0;
    group.bench_function("disk-hit-and-answer", |b| {
        b.iter(|| {
            number = (number + 1) % 64;
            answer(&get(&cache, &key(number)).expect("it is on disk"))
        });
    });
    group.finish();
}

fn opening(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let small = Arc::new(features(VIEWS, 8, 3));
    let writer = FeatureCache::in_memory(0).with_disk(folder.path(), DISK);
    for number in 0..ENTRIES {
        put(&writer, &key(number), &small);
    }
    drop(writer);
    let mut group = criterion.benchmark_group("cache-100000-entries");
    group.sample_size(20);
    group.bench_function("open", |b| b.iter(|| FeatureCache::in_memory(0).with_disk(folder.path(), DISK)));
    let cache = FeatureCache::in_memory(0).with_disk(folder.path(), DISK);
    assert!(get(&cache, &key(ENTRIES - 1)).is_some(), "the cache holds them all");
    group.finish();
}

criterion_group!(benches, hits, opening);
criterion_main!(benches);
