//! Each stage at V = 64: on the demo bundle, and head, tuning and reliability on synthetic arrays at D = 512.
//!
//! Single-threaded unless a name says otherwise. Recorded results are in `benches/results/`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ndarray::{Array2, Array4};
use rtpt_edge::Bundle;
use rtpt_edge::internal::bundle;
use rtpt_edge::internal::encoder::{Encoder, EncoderShape};
use rtpt_edge::internal::method::{Material, needs_text_tower, prepare};
use rtpt_edge::internal::reliability::{ReliabilitySettings, reliability_weights};
use rtpt_edge::internal::report::png_bytes;
use rtpt_edge::internal::rows::unit_rows;
use rtpt_edge::internal::views::{Augment, ViewSettings, decode, is_whole_jpeg, make_views};
use rtpt_edge::{Method, MethodSettings};

const VIEWS: usize = 64;

/// Runs rayon's work on one thread.
fn one_thread() -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread can be started")
}

fn demo_stages(criterion: &mut Criterion) {
    let bundle =
        Bundle::open(concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo/bundle")).expect("the demo bundle is whole");
    let (preprocessing, embedding) = bundle::shapes(&bundle);
    let side = preprocessing.resolution;
    let image = bundle::golden_image(&bundle);
    let file = png_bytes(image);
    let pool = one_thread();
    let mut views = Array4::zeros((VIEWS, 3, side, side));
    let mut group = criterion.benchmark_group("demo");
    group.sample_size(20);
    group.bench_function("decode", |b| b.iter(|| decode(black_box(&file)).expect("a whole image")));
    let photo = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo/photos/llama.jpg"))
        .expect("it is in the repository");
    group.bench_function("decode/jpeg", |b| b.iter(|| decode(black_box(&photo)).expect("a whole image")));
    group.bench_function("decode/jpeg, the check alone", |b| b.iter(|| assert!(is_whole_jpeg(black_box(&photo)))));
    for (name, augment) in [("views/crop", Augment::Crop), ("views/augmix", Augment::Augmix)] {
        let settings = ViewSettings { count: VIEWS, augment, seed: 0 };
        group.bench_function(name, |b| {
            b.iter(|| pool.install(|| make_views(image, &[1; 32], &preprocessing, &settings, views.view_mut())))
        });
    }
    for batch in [1, 2, 4, 8] {
        let shape = EncoderShape { resolution: side, embedding };
        let encoder = Encoder::load(bundle::encoder(&bundle), shape, batch).expect("the demo encoder loads");
        group.bench_function(BenchmarkId::new("encode/batch", batch), |b| {
            b.iter(|| pool.install(|| encoder.encode(views.view()).expect("finite features")))
        });
    }
    group.finish();
}

/// Unit rows that differ from one another, without randomness.
fn synthetic_rows(rows: usize, width: usize, seed: usize) -> Array2<f32> {
    let value = |(row, column): (usize, usize)| {
        let mixed = (row * 7919 + column * 104_729 + seed * 15_485_863) as u32;
        let mixed = mixed.wrapping_mul(2_654_435_761);
        (mixed >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    unit_rows(Array2::from_shape_fn((rows, width), value)).rows
}

fn episodes(criterion: &mut Criterion) {
    let width = 512;
    let mut group = criterion.benchmark_group("episode-d512-v64");
    group.sample_size(30);
    for classes in [10, 100, 1000, 10_000] {
        let table = synthetic_rows(classes, width, 1);
        // Views of one image: near one class, and near one another.
        let noise = synthetic_rows(VIEWS, width, 2);
        let features = unit_rows(&table.row(0) + &(noise * 0.8)).rows;
        for method in Method::all().filter(|&method| !needs_text_tower(method)) {
            let material = Material { classes: table.view(), context: None };
            let prepared = prepare(&MethodSettings::of(method), material);
            group.bench_function(BenchmarkId::new(method.name(), classes), |b| {
                b.iter(|| prepared.decide(features.view(), table.view(), 100.0).prediction)
            });
        }
    }
    group.bench_function("reliability", |b| {
        let features = synthetic_rows(VIEWS, width, 3);
        b.iter(|| reliability_weights(black_box(features.view()), ReliabilitySettings::RTPT))
    });
    group.finish();
}

criterion_group!(benches, demo_stages, episodes);
criterion_main!(benches);
