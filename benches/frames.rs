//! A camera's frame of 640×480 to its answer, on the everyday bundle and one thread: from MJPEG, and from YUYV, which the daemon
//! turns into a JPEG first. Recorded results are in `benches/results/`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rtpt_edge::internal::views::{Filter, Pixels, Region, decode, encode_jpeg, resize, yuyv_pixels};
use rtpt_edge::{Bundle, Classifier};

const WIDTH: usize = 640;
const HEIGHT: usize = 480;
/// Quality that the daemon gives raw frames.
const QUALITY: u8 = 95;
const PHOTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/everyday/photos/dog.jpg");

/// The photo in the size of a frame.
fn frame() -> Pixels {
    let photo = decode(&std::fs::read(PHOTO).expect("it is in the repository")).expect("a whole photo");
    let whole = Region { left: 0, top: 0, width: photo.width(), height: photo.height() };
    resize(&photo, whole, WIDTH, HEIGHT, Filter::Bicubic)
}

/// The frame as a camera sends it raw: BT.601 in limited range, two pixels of a row sharing their colour.
fn yuyv(frame: &Pixels) -> Vec<u8> {
    let luma = |[r, g, b]: [f32; 3]| 16.0 + 0.257 * r + 0.504 * g + 0.098 * b;
    let pair = |pair: &[u8]| {
        let of = |place: usize| [0, 1, 2].map(|channel| f32::from(pair[3 * place + channel]));
        let [a, b] = [of(0), of(1)];
        let [r, g, blue] = [0, 1, 2].map(|channel| f32::midpoint(a[channel], b[channel]));
        let u = 128.0 - 0.148 * r - 0.291 * g + 0.439 * blue;
        let v = 128.0 + 0.439 * r - 0.368 * g - 0.071 * blue;
        [luma(a), u, luma(b), v].map(|value| value.round() as u8)
    };
    frame.bytes().chunks_exact(6).flat_map(pair).collect()
}

fn frames(criterion: &mut Criterion) {
    let bundle = Bundle::open(concat!(env!("CARGO_MANIFEST_DIR"), "/models/everyday/bundle")).expect("it is whole");
    let frame = frame();
    let (mjpeg, raw) = (encode_jpeg(&frame, QUALITY), yuyv(&frame));
    let mut group = criterion.benchmark_group("frame-640x480");
    group.sample_size(20);
    group.bench_function("yuyv to jpeg", |b| {
        b.iter(|| {
            let pixels = yuyv_pixels(WIDTH, HEIGHT, 2 * WIDTH, black_box(&raw)).expect("a whole frame");
            encode_jpeg(&pixels, QUALITY)
        })
    });
    for views in [1, 4, 8, 16, 64] {
        let classifier = Classifier::builder(&bundle).views(views).threads(1).build().expect("the bundle's own labels");
        group.bench_function(BenchmarkId::new("mjpeg", views), |b| {
            b.iter(|| classifier.classify(black_box(&mjpeg)).expect("a whole frame"))
        });
        group.bench_function(BenchmarkId::new("yuyv", views), |b| {
            b.iter(|| {
                let pixels = yuyv_pixels(WIDTH, HEIGHT, 2 * WIDTH, black_box(&raw)).expect("a whole frame");
                classifier.classify(&encode_jpeg(&pixels, QUALITY)).expect("a whole frame")
            })
        });
    }
    group.finish();
}

criterion_group!(benches, frames);
criterion_main!(benches);
