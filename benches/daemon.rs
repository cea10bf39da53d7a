//! What a daemon adds to a classification, and what a camera's frames cost before they are classified.
//!
//! The real program is started on the demo bundle and asked over its Unix socket, on a connection that stays open, as a
//! client in a loop would. Its cache answers, so that HTTP, queue and head are what is timed.

use std::fs;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rtpt_edge::internal::source::JpegSplitter;
use rtpt_edge::internal::views::{Pixels, encode_jpeg, yuyv_pixels};
use rtpt_edge::{Bundle, Classifier};

/// A running daemon and an open connection to it.
struct Daemon {
    child: Child,
    connection: BufReader<UnixStream>,
}

impl Daemon {
    fn start(folder: &Path) -> Self {
        let socket = folder.join("rtpt.sock");
        let child = Command::new(env!("CARGO_BIN_EXE_rtpt"))
            .args(["serve", "--bundle", "models/demo/bundle", "--socket"])
            .arg(&socket)
            .env("XDG_CACHE_HOME", folder)
            .env("XDG_STATE_HOME", folder)
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        let connection = loop {
            if let Ok(stream) = UnixStream::connect(&socket) {
                break BufReader::new(stream);
            }
            sleep(Duration::from_millis(10));
        };
        let mut this = Self { child, connection };
        while this.ask("GET", "/readyz", &[]) != 200 {
            sleep(Duration::from_millis(10));
        }
        this
    }

    /// Sends a request, reads the whole answer and gives its status.
    fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> u16 {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        let stream = self.connection.get_mut();
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("the daemon reads");
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.connection.read_line(&mut line).expect("the daemon answers");
            if line == "\r\n" {
                break;
            }
            if let Some(code) = line.strip_prefix("HTTP/1.1 ") {
                status = code[..3].parse().expect("a status");
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut answer = vec![0; length];
        self.connection.read_exact(&mut answer).expect("the whole answer");
        status
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn requests(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let photo = fs::read("models/demo/photos/accordion.jpg").expect("a demo photo");
    let mut daemon = Daemon::start(folder.path());
    let mut group = criterion.benchmark_group("request");
    group.bench_function("healthz", |bench| bench.iter(|| assert_eq!(daemon.ask("GET", "/healthz", &[]), 200)));
    group.bench_function("metrics", |bench| bench.iter(|| assert_eq!(daemon.ask("GET", "/metrics", &[]), 200)));
    group.bench_function("classify, cached", |bench| {
        bench.iter(|| assert_eq!(daemon.ask("POST", "/v1/classify", &photo), 200));
    });
    let bundle = Bundle::open("models/demo/bundle").expect("the demo bundle");
    let cache = rtpt_edge::FeatureCache::in_memory(1 << 20);
    let builder = Classifier::builder(&bundle).cache(cache.into()).cache_folder(folder.path().join("rtpt"));
    let classifier = builder.build().expect("a classifier");
    group.bench_function("the same in this process", |bench| {
        bench.iter(|| black_box(classifier.classify(&photo).expect("a photo").digest()));
    });
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let (width, height) = (640, 480);
    let noise = |at: usize| blake3::hash(&(at as u64).to_le_bytes()).as_bytes()[0];
    let yuyv: Vec<u8> = (0..width * height * 2).map(|at| 64 + noise(at / 64) / 2).collect();
    let pixels: Pixels = yuyv_pixels(width, height, width * 2, &yuyv).expect("whole rows");
    let jpeg = encode_jpeg(&pixels, 85);
    let mut group = criterion.benchmark_group("frame, 640×480");
    group.bench_function("YUYV to RGB", |bench| bench.iter(|| yuyv_pixels(width, height, width * 2, black_box(&yuyv))));
    group.bench_function("RGB to JPEG, quality 95", |bench| bench.iter(|| encode_jpeg(black_box(&pixels), 95)));
    group.throughput(Throughput::Bytes(jpeg.len() as u64));
    group.bench_function("MJPEG cut", |bench| {
        let mut splitter = JpegSplitter::default();
        bench.iter(|| {
            splitter.push(black_box(&jpeg));
            splitter.next_jpeg().expect("a whole frame").len()
        });
    });
    group.finish();
}

criterion_group!(benches, requests, frames);
criterion_main!(benches);
