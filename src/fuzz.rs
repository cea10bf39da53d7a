//! The readers of foreign bytes, each behind one function: a fuzzer calls them with bytes of its own making, and a test
//! with the committed ones.
//!
//! Bytes may be refused. A panic, an endless loop, memory past all bounds or a broken promise of a reader is an error.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use axum::http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ndarray::{Array2, Array4};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bundle::{Manifest, TensorFile};
use crate::cache::{CacheScope, FOLDER_NAME, FeatureCache};
use crate::daemon::{ClientStream, Peer, Token, check_head, check_peer, classify_query};
use crate::encoder::{Encoder, EncoderModel, EncoderShape, OnnxFile};
use crate::eval::dataset::{DataSet, DataSetOptions};
use crate::import::{ImportSource, read_classes, read_configs};
use crate::label_set::{load_remembered, save_remembered};
use crate::labels::parse_labels;
use crate::limits::{HEAD_HARD_MAX, IMAGE_PIXELS_MAX};
use crate::recording::Recording;
use crate::signing::{TrustedKeys, check_signature};
use crate::slots::{Slots, unpack};
use crate::source::{CameraFormat, JpegSplitter, Layout, SourceSpec};
use crate::text::{Cleaning, Tokenizer, WeightsFile, template_tokens};
use crate::views::{Augment, DamagedImages, Decoded, ViewSettings, decode_as};

/// A reader of foreign bytes.
pub struct Target {
    /// Name of the reader, and of the folder of its seeds.
    pub name: &'static str,
    /// The reader, given bytes and a folder that is its own.
    pub run: fn(&[u8], &Path),
    /// True if it contains the panics of a library: those are no finding.
    pub contains_panics: bool,
}

const fn target(name: &'static str, run: fn(&[u8], &Path)) -> Target {
    Target { name, run, contains_panics: false }
}

const fn containing(name: &'static str, run: fn(&[u8], &Path)) -> Target {
    Target { name, run, contains_panics: true }
}

/// All readers.
pub const TARGETS: [Target; 22] = [
    target("archive", archive),
    target("config", config),
    target("data_set", data_set),
    target("decode", decode_image),
    target("disk_cache", disk_cache),
    target("http_head", http_head),
    target("hugging_face_config", hugging_face_config),
    target("jpeg_splitter", jpeg_splitter),
    target("label_memory", label_memory),
    target("labels_file", labels_file),
    target("manifest", manifest),
    target("npy", npy),
    containing("onnx_load", onnx_load),
    target("open_clip_config", open_clip_config),
    target("recording", recording),
    target("signature", signature),
    target("slots_state", slots_state),
    target("source_spec", source_spec),
    target("tensor_file", tensor_file),
    containing("tokenizer", tokenizer),
    target("v4l2_frame", v4l2_frame),
    target("weights_file", weights_file),
];

/// An archive of a bundle: whatever it says, nothing is outside of the folder.
fn archive(bytes: &[u8], folder: &Path) {
    let (inner, path) = (folder.join("outer/inner"), folder.join("archive"));
    fs::create_dir_all(&inner).expect("the folder is the target's own");
    fs::write(&path, bytes).expect("the folder is the target's own");
    let _ = unpack(&path, "the archive", &inner);
    let names = |folder: &Path| fs::read_dir(folder).expect("it was just made").count();
    assert_eq!((names(folder), names(&folder.join("outer"))), (2, 1), "something is outside of the folder");
}

/// A signature over some bytes, by a key that is trusted.
fn signature(bytes: &[u8], folder: &Path) {
    written(folder, "maker.pub", b"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3");
    let keys = TrustedKeys::in_folder(folder).expect("there is a key");
    assert!(check_signature(Path::new("signature"), bytes, b"test", &keys).is_err(), "nobody has the secret key");
    // The bytes as a key.
    written(folder, "maker.pub", bytes);
    let _ = TrustedKeys::in_folder(folder);
}

fn slots_state(bytes: &[u8], folder: &Path) {
    written(folder, "state.json", bytes);
    let slots = Slots::in_folder(folder).expect("it is a folder");
    let _ = slots.state();
    let _ = slots.count_start(1);
    let _ = slots.go_back("of the fuzzer", 1);
}

fn config(bytes: &[u8], folder: &Path) {
    let path = written(folder, "rtpt.toml", bytes);
    let line = ["rtpt", "serve", "--config", &path];
    let _ = crate::cli::parse_line(line.map(Into::into).to_vec());
}

/// A split file, a CSV file or a list of aircraft, by the first byte; images are not there.
fn data_set(bytes: &[u8], folder: &Path) {
    let Some((kind, content)) = bytes.split_first() else { return };
    let name = ["split.json", "list.csv", "images_variant_test.txt"][usize::from(*kind) % 3];
    let path = written(folder, name, content);
    let _ = DataSet::open(Path::new(&path), &DataSetOptions { images: None, split: "test".into() });
}

fn decode_image(bytes: &[u8], _: &Path) {
    let Ok(Decoded { pixels, .. }) = decode_as(bytes, DamagedImages::Answer) else { return };
    let area = pixels.width() as u64 * pixels.height() as u64;
    assert!(area > 0 && area <= IMAGE_PIXELS_MAX, "{area} pixels");
    assert_eq!(pixels.bytes().len() as u64, area * 3);
}

/// A sound file of the cache with some bytes changed: two bytes of offset and one of value a change. Then the bytes as
/// they are.
fn disk_cache(bytes: &[u8], folder: &Path) {
    let views = ViewSettings { count: 2, augment: Augment::Crop, seed: 0 };
    let key = CacheScope::new(&blake3::hash(b"encoder"), &views, 1, "device").key(&blake3::hash(b"image"));
    let features = Arc::new(Array2::from_shape_fn((2, 4), |(view, column)| (view * 4 + column) as f32));
    let open = || FeatureCache::in_memory(0).with_disk(folder, 1 << 20);
    open().put(&key, &features);
    let files = fs::read_dir(folder.join(FOLDER_NAME)).expect("it was just written");
    let path = files.flatten().next().expect("there is one file").path();
    let mut content = fs::read(&path).expect("it was just written");
    for change in bytes.chunks_exact(3) {
        let offset = usize::from(u16::from_le_bytes([change[0], change[1]]));
        let length = content.len();
        content[offset % length] = change[2];
    }
    for content in [content, bytes.to_vec()] {
        fs::write(&path, content).expect("the folder is the target's own");
        if let Some(found) = open().get(&key) {
            assert_eq!(found, features, "damaged features were used");
        }
    }
}

/// What comes over a connection, as the daemon's own server reads it.
fn http_head(bytes: &[u8], _: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a thread is there");
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let service = service_fn(|request: Request<Incoming>| async move {
            let text = judged(request.method(), request.uri(), request.headers());
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(text))))
        });
        let (headers, head_bytes) = HEAD_HARD_MAX;
        let connection = http1::Builder::new()
            .max_headers(headers)
            .max_buf_size(head_bytes)
            .serve_connection(TokioIo::new(ClientStream::new(server)), service);
        let exchange = async {
            // The server may hang up before it has read everything.
            let _ = client.write_all(bytes).await;
            let _ = client.shutdown().await;
            let mut answers = Vec::new();
            let _ = client.read_to_end(&mut answers).await;
            assert!(answers.is_empty() || answers.starts_with(b"HTTP/1."), "the daemon answers in HTTP");
        };
        let _ = tokio::join!(connection, exchange);
    });
}

fn judged(method: &axum::http::Method, uri: &axum::http::Uri, headers: &HeaderMap) -> String {
    let peer = Peer::Remote(([192, 0, 2, 7], 5000).into());
    let token = Token::parse("0123456789abcdef").expect("it is a token");
    let verdicts = [
        check_head(uri, headers).is_ok(),
        check_peer(&peer, Some(&token), method, headers).is_ok(),
        check_peer(&peer, None, method, headers).is_ok(),
        classify_query(uri).is_ok(),
    ];
    format!("{verdicts:?}")
}

fn hugging_face_config(bytes: &[u8], folder: &Path) {
    // Two files in one: a zero byte is between them.
    let mut parts = bytes.splitn(2, |&byte| byte == 0);
    written(folder, "config.json", parts.next().unwrap_or_default());
    written(folder, "preprocessor_config.json", parts.next().unwrap_or(b"{}"));
    let source = ImportSource::open(folder).expect("it is a folder");
    let _ = read_configs(&source);
}

/// The first byte is the size of the pieces in which the rest comes.
fn jpeg_splitter(bytes: &[u8], _: &Path) {
    let Some((size, stream)) = bytes.split_first() else { return };
    let split = |size: usize| {
        let mut splitter = JpegSplitter::default();
        let mut found = Vec::new();
        for piece in stream.chunks(size) {
            splitter.push(piece);
            found.extend(std::iter::from_fn(|| splitter.next_jpeg()));
        }
        found
    };
    let whole = split(stream.len().max(1));
    assert_eq!(split(usize::from(*size) + 1), whole, "the pieces decide what a frame is");
    for jpeg in &whole {
        assert!(jpeg.starts_with(&[0xff, 0xd8]) && jpeg.ends_with(&[0xff, 0xd9]));
    }
}

/// A sound file with some bytes changed, as for the cache; it is refused, or it is what it was.
fn label_memory(bytes: &[u8], folder: &Path) {
    let table = Array2::from_shape_fn((3, 2), |(class, column)| f32::from(u8::from(class % 2 == column)));
    let path = folder.join("labels-key.safetensors");
    save_remembered(folder, "key", &table);
    let mut content = fs::read(&path).expect("it was just written");
    for change in bytes.chunks_exact(2) {
        let length = content.len();
        content[usize::from(change[0]) % length] = change[1];
    }
    fs::write(&path, content).expect("the folder is the target's own");
    if let Some(found) = load_remembered(folder, "key", (3, 2)) {
        assert_eq!(found, table, "damaged embeddings were used");
    }
    fs::write(&path, bytes).expect("the folder is the target's own");
    let _ = load_remembered(folder, "key", (3, 2));
}

fn labels_file(bytes: &[u8], _: &Path) {
    let Ok(labels) = parse_labels(bytes, Path::new("labels.txt")) else { return };
    let Ok(text) = labels.to_text() else { return };
    let again = parse_labels(text.as_bytes(), Path::new("labels.txt")).expect("what is written is read");
    assert_eq!(again, labels, "a label was lost or made up on the way");
}

fn manifest(bytes: &[u8], _: &Path) {
    let _ = Manifest::parse(bytes, Path::new("manifest.json"));
}

fn npy(bytes: &[u8], folder: &Path) {
    let path = written(folder, "classes.npy", bytes);
    let Ok((_, table)) = read_classes(Path::new(&path)) else { return };
    assert!(table.iter().all(|value| value.is_finite()));
}

fn onnx_load(bytes: &[u8], folder: &Path) {
    if let Ok(mut file) = OnnxFile::parse(bytes.to_vec()) {
        let _ = (file.inputs(), file.outputs(), file.bring_in(folder));
    }
    let model = EncoderModel { onnx: bytes.to_vec().into(), output: None, projection: None };
    let Ok(encoder) = Encoder::load(&model, EncoderShape { resolution: 16, embedding: 8 }, 1) else { return };
    let _ = encoder.encode(Array4::zeros((1, 3, 16, 16)).view());
}

fn open_clip_config(bytes: &[u8], folder: &Path) {
    written(folder, "open_clip_config.json", bytes);
    let source = ImportSource::open(folder).expect("it is a folder");
    let _ = read_configs(&source);
}

/// Lines, heads and images of one part, with zero bytes between them.
fn recording(bytes: &[u8], folder: &Path) {
    let part = folder.join("part-00000001");
    fs::create_dir_all(&part).expect("the folder is the target's own");
    let mut files = bytes.splitn(3, |&byte| byte == 0);
    for name in ["decisions.jsonl", "heads.jsonl", "frames.bin"] {
        written(&part, name, files.next().unwrap_or_default());
    }
    let Ok(recording) = Recording::open(folder) else { return };
    for part in &recording.parts {
        for frame in &part.frames {
            let _ = part.image(frame);
        }
    }
}

fn source_spec(bytes: &[u8], _: &Path) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = SourceSpec::parse(text);
}

fn tensor_file(bytes: &[u8], _: &Path) {
    let Ok(file) = TensorFile::parse("file", bytes) else { return };
    let _ = file.classes(2);
    let _ = file.projection(2);
    let _ = file.goldens(8, 2, Some(2));
}

fn tokenizer(bytes: &[u8], _: &Path) {
    let Ok(tokenizer) = Tokenizer::parse("tokenizer.json", bytes, 49_408, Cleaning::Clip) else { return };
    let names = ["llama", "café №5 &amp; 😀", ""].map(String::from);
    let Ok(prompts) = template_tokens(&tokenizer, "a photo of a {}.", &names, 77) else { return };
    for own in &prompts.own {
        assert!(prompts.shared.len() + own.len() <= 77 && own.iter().all(|&token| token < 49_408));
    }
}

/// Width, height and stride in a byte each, then the frame.
fn v4l2_frame(bytes: &[u8], _: &Path) {
    let Some((&[width, height, stride], frame)) = bytes.split_first_chunk() else { return };
    for format in [CameraFormat::Mjpg, CameraFormat::Yuyv] {
        let layout = Layout { format, width: width.into(), height: height.into(), stride: stride.into() };
        let Some(file) = layout.copy(frame).into_file() else { continue };
        let _ = decode_as(&file, DamagedImages::Answer);
    }
}

fn weights_file(bytes: &[u8], _: &Path) {
    let Ok(file) = WeightsFile::from_bytes("weights", bytes.to_vec()) else { return };
    for name in file.names() {
        let shape = file.shape(&name).expect("it was just listed");
        match shape[..] {
            [] => drop(file.number::<f32>(&name)),
            [length] => drop(file.vector::<f32>(&name, length)),
            [rows, columns] => {
                drop(file.matrix::<f64>(&name, [rows, columns]));
                drop((rows > 0).then(|| file.rows::<f32>(&name, [rows, columns], &[0, rows as u32 - 1])));
            }
            _ => {}
        }
    }
}

fn written(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    fs::write(&path, bytes).expect("the folder is the target's own");
    path.to_str().expect("the folder's name is UTF-8").into()
}
