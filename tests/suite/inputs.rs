//! Images that cannot be classified: each is refused by name, and the run goes on.

use serde_json::Value;

use crate::program::{Bench, demo, image_bytes};

/// A PNG header that claims `side`×`side` pixels, with nothing behind it.
fn claimed_png(side: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(side.to_be_bytes());
    header.extend(side.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut bytes = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d".to_vec();
    bytes.extend(&header);
    bytes.extend(crc32(&header).to_be_bytes());
    bytes.extend(b"\x00\x00\x00\x08IDAT");
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// Classifies `path` between two good images and gives its error record.
fn refused(bench: &Bench, path: &str) -> Value {
    let good = bench.image("rgb.png");
    let run = bench.rtpt(&["classify", "--json", &good, path, &good]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    let records = run.records();
    assert_eq!(records.len(), 3, "{}", run.stdout);
    assert!(records[0]["label"].is_string() && records[2]["label"].is_string());
    assert_eq!((&records[1]["schema"], &records[1]["path"]), (&1.into(), &path.into()));
    records[1]["error"].clone()
}

fn assert_refused(name: &str, bytes: &[u8], kind: &str, advice: &str) {
    let bench = Bench::new();
    let path = bench.write(name, bytes);
    let error = refused(&bench, &path);
    assert_eq!(error["kind"], kind, "{error}");
    assert!(error["message"].as_str().unwrap().contains(advice), "{error}");
}

#[test]
fn an_empty_file() {
    assert_refused("empty.jpg", b"", "image_empty", "was it copied whole?");
}

#[test]
fn truncated_images() {
    for name in ["rgb.jpg", "progressive.jpg", "rgb.png", "rgb.bmp", "lossless.webp"] {
        let bytes = image_bytes(name);
        for length in [bytes.len() / 2, bytes.len() * 9 / 10, bytes.len() - 10] {
            // Cut in its header it cannot be decoded; cut in its data a decoder might make up the rest.
            let bench = Bench::new();
            let error = refused(&bench, &bench.write(&format!("cut-{name}"), &bytes[..length]));
            assert!(["image_corrupt", "image_damaged"].iter().any(|kind| error["kind"] == *kind), "{error}");
        }
        assert_refused(&format!("cut-{name}"), &bytes[..20], "image_corrupt", "damaged or cut short");
    }
}

#[test]
fn a_jpeg_with_something_behind_its_end_is_whole() {
    let bench = Bench::new();
    for name in ["rgb.jpg", "progressive.jpg", "grey.jpg"] {
        let mut bytes = image_bytes(name);
        bytes.extend(b"\xff\xd8 a preview, cut off");
        let path = bench.write(name, &bytes);
        assert_eq!(bench.rtpt(&["classify", &path]).code, 0, "{name}");
        bytes.truncate(image_bytes(name).len() - 2);
        assert_refused(name, &bytes, "image_damaged", "its end is missing");
    }
}

/// A photo with a hole of half a KiB in its data, which no decoder reports.
fn holed_photo() -> Vec<u8> {
    let mut bytes = std::fs::read(demo().join("../photos/llama.jpg")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 512].fill(0);
    bytes
}

#[test]
fn a_jpeg_with_a_hole_or_without_data() {
    assert_refused("hole.jpg", &holed_photo(), "image_damaged", "the image is damaged");
    let whole = std::fs::read(demo().join("../photos/llama.jpg")).unwrap();
    let scan = whole.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
    for (name, end) in [("no-data.jpg", scan + 14), ("half.jpg", (scan + whole.len()) / 2)] {
        let cut = [&whole[..end], b"\xff\xd9"].concat();
        assert_refused(name, &cut, "image_damaged", "its data ends before the last block");
    }
}

#[test]
fn a_png_with_a_wrong_checksum() {
    let whole = image_bytes("rgb.png");
    let data = whole.windows(4).position(|kind| kind == b"IDAT").unwrap();
    let length = u32::from_be_bytes(whole[data - 4..data].try_into().unwrap()) as usize;
    let mut bytes = whole.clone();
    bytes[data + 4 + length / 2] ^= 1;
    assert_refused("crc.png", &bytes, "image_damaged", "a part of it has the wrong checksum");
    // The last four bytes of the pixels are their Adler-32, which no decoder here looks at.
    let mut bytes = whole.clone();
    bytes[data + 4 + length - 1] ^= 1;
    let crc = crc32(&bytes[data..data + 4 + length]);
    bytes[data + 4 + length..data + 8 + length].copy_from_slice(&crc.to_be_bytes());
    assert_refused("adler.png", &bytes, "image_damaged", "its pixels have the wrong checksum");
}

#[test]
fn damaged_images_are_answered_where_that_is_asked_for_and_never_remembered() {
    let bench = Bench::new();
    let (path, cache) = (bench.write("hole.jpg", &holed_photo()), bench.path("cache").to_str().unwrap().to_string());
    let with = |damaged: &str| {
        bench.rtpt(&["classify", "--json", "--cache", "disk", "--cache-dir", &cache, "--damaged", damaged, &path])
    };
    for _ in 0..2 {
        let run = with("answer");
        assert_eq!(run.code, 0, "{}", run.stderr);
        let record = &run.records()[0];
        assert!(record["label"].is_string() && record["damage"].is_string(), "{record}");
        assert_eq!(record["cached"], false, "whoever found it in the cache would take it for whole");
    }
    let run = with("refuse");
    assert_eq!((run.code, &run.records()[0]["error"]["kind"]), (1, &"image_damaged".into()));
    let table = bench.rtpt(&["classify", "--damaged", "answer", &path]).stdout;
    assert!(table.contains("damaged file"), "{table}");
    let sheet = bench.path("why.png").to_str().unwrap().to_string();
    assert_eq!(bench.rtpt(&["classify", "--damaged", "answer", "--explain", &sheet, &path]).code, 0);
    bench.rtpt(&["classify", &path]).fails_with(1, &["--damaged answer"]);
    // Nothing is left of a damaged PNG, and nobody is told that there is.
    let mut png = image_bytes("rgb.png");
    let middle = png.len() / 2;
    png[middle] ^= 1;
    let png = bench.write("flipped.png", &png);
    for damaged in ["answer", "refuse"] {
        let run = bench.rtpt(&["classify", "--damaged", damaged, &png]);
        run.fails_with(1, &["the image is damaged: a part of it has the wrong checksum; get the file again"]);
        assert!(!run.stderr.contains("--damaged"), "{}", run.stderr);
    }
}

#[test]
fn a_png_that_claims_to_be_huge() {
    assert_refused("huge.png", &claimed_png(60_000), "image_size", "60000×60000");
    assert_refused("area.png", &claimed_png(16_000), "image_size", "at most 50000000 pixels");
    assert_refused("none.png", &claimed_png(0), "image_corrupt", "damaged");
}

#[test]
fn text_named_as_an_image() {
    assert_refused("notes.jpg", b"these are my notes, not a photo", "image_format_unknown", "whatever its name says");
    assert_refused("film.jpg", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "image_format_unknown", "convert it");
}

#[test]
fn images_of_other_kinds_are_named_by_their_content() {
    for (kind, bytes) in [
        ("a GIF image", &b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"[..]),
        ("a HEIC image", b"\0\0\0\x14ftypheic\0\0\0\0heic"),
        ("a HEIC image", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"),
        ("an AVIF image", b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif"),
        ("a TIFF or raw image", b"II*\0\x08\0\0\0"),
        ("a JPEG XL image", b"\xff\x0a\0\0"),
        ("something else", b"these are my notes, not a photo"),
    ] {
        assert_refused("photo.jpg", bytes, "image_format_unknown", &format!("this is {kind}, not a JPEG"));
    }
}

#[test]
fn files_of_kinds_that_are_not_read_are_counted() {
    let bench = Bench::new();
    for name in ["a/1.HEIC", "a/deep/2.heif", "a/3.gif", "a/.4.gif", "a/notes.txt"] {
        bench.write(&format!("photos/{name}"), b"anything");
    }
    bench.write("photos/a/red.png", &image_bytes("rgb.png"));
    let said = "photos: 3 files of kinds that are not read were left out: 2 HEIC, 1 GIF; convert them to JPEG, as with heif-convert";
    bench.rtpt(&["classify", "photos"]).fails_with(0, &[said]);
    // A data set has its images in the folders of classes alone.
    bench.write("set/red/1.avif", b"anything");
    bench.write("set/red/2.png", &image_bytes("rgb.png"));
    bench.write("set/loose.png", &image_bytes("rgb.png"));
    let run = bench.rtpt(&["eval", "set", "--report", "out", "--methods", "zero-shot"]);
    run.fails_with(0, &["set: 1 file of a kind that is not read was left out: 1 AVIF"]);
    run.fails_with(0, &["rtpt: warning: set: 1 image is in no class folder and was left out"]);
}

#[test]
fn a_file_over_the_limit() {
    let bytes = vec![0xff; (64 << 20) + 1];
    assert_refused("large.jpg", &bytes, "image_file_too_large", "67108864 bytes");
}

#[test]
fn an_image_named_as_another_format_is_read_by_its_content() {
    let bench = Bench::new();
    let path = bench.write("photo.bmp", &image_bytes("rgb.jpg"));
    assert_eq!(bench.rtpt(&["classify", &path]).code, 0);
}

#[test]
fn a_folder_without_images() {
    let bench = Bench::new();
    bench.write("photos/readme.txt", b"none here");
    let error = refused(&bench, "photos");
    assert_eq!(error["kind"], "folder_without_images", "{error}");
    assert!(error["message"].as_str().unwrap().contains(".webp"), "{error}");
}

#[test]
fn files_that_cannot_be_read() {
    let bench = Bench::new();
    // The second exists and opens, but reading it fails for everybody.
    for path in ["missing.jpg", "/proc/self/mem"] {
        let error = refused(&bench, path);
        assert_eq!(error["kind"], "input_unreadable", "{error}");
        assert!(error["message"].as_str().unwrap().contains(path), "{error}");
    }
}

#[test]
fn nothing_on_standard_input() {
    let run = Bench::new().rtpt(&["classify", "--json", "-"]);
    assert_eq!((run.code, &run.records()[0]["error"]["kind"]), (1, &"image_empty".into()));
}

#[test]
fn images_of_one_pixel_and_extreme_shape_are_classified() {
    let bench = Bench::new();
    for (width, height) in [(1, 1), (3000, 1), (1, 3000)] {
        let pixels = rtpt_edge::internal::views::Pixels::black(width, height);
        let path = bench.write("odd.png", &rtpt_edge::internal::report::png_bytes(&pixels));
        let run = bench.rtpt(&["classify", &path]);
        assert_eq!(run.code, 0, "{width}×{height}: {}", run.stderr);
    }
}

#[test]
fn the_table_says_what_failed_and_goes_on() {
    let bench = Bench::new();
    let (good, bad) = (bench.image("rgb.png"), bench.write("bad.png", b"\x89PNG\r\n\x1a\n"));
    let run = bench.rtpt(&["classify", &bad, &good]);
    run.fails_with(1, &["bad.png", "damaged or cut short"]);
    assert!(run.stdout.contains("rgb.png") && run.stdout.contains("1 not classified"), "{}", run.stdout);
}

#[test]
fn control_characters_in_names_do_not_reach_the_terminal() {
    let bench = Bench::new();
    let path = bench.write("a\u{1b}[2Jb.png", &image_bytes("rgb.png"));
    let run = bench.rtpt(&["classify", &path]);
    assert_eq!(run.code, 0);
    assert!(!run.stdout.contains('\u{1b}') && run.stdout.contains("[2Jb.png"), "{}", run.stdout);
}
