//! `rtpt calibrate`, and what `classify` and `eval` make of its result.

use std::fs;

use serde_json::Value;

use crate::evaluating::photos;
use crate::goldens::Goldens;
use crate::program::{Bench, Run, demo};
use rtpt_edge::internal::views::{Pixels, encode_png};

/// Thirty different images in folders of the tiny bundle's classes.
fn many(bench: &Bench) -> String {
    let image = Goldens::open("corruptions.safetensors").pixels("image");
    for place in 0..30_u8 {
        let bytes =
            image.bytes().iter().map(|&byte| byte.wrapping_mul(1 + place / 3).wrapping_add(place * 5)).collect();
        let altered = Pixels::new(image.width(), image.height(), bytes);
        let class = ["red", "sea horse", "yin yang", "watch"][usize::from(place) % 4];
        bench.write(&format!("many/{class}/{place}.png"), &encode_png(&altered));
    }
    bench.path("many").to_str().unwrap().into()
}

pub struct Calibrated {
    pub bench: Bench,
    pub bundle: String,
    pub images: String,
}

impl Calibrated {
    pub fn new() -> Self {
        let bench = Bench::new();
        let bundle = bench.bundle().folder().to_string();
        let images = many(&bench);
        Self { bench, bundle, images }
    }

    pub fn rtpt(&self, command: &str, arguments: &[&str]) -> Run {
        self.bench.rtpt(&[&[command, "--bundle", &self.bundle], arguments].concat())
    }

    pub fn stored(&self) -> Value {
        let text = fs::read_to_string(format!("{}/calibration.json", self.bundle)).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

#[test]
fn a_threshold_marks_no_more_clean_images_than_asked() {
    let it = Calibrated::new();
    let dry = it.rtpt("calibrate", &["--dry-run", &it.images]);
    assert!(dry.code == 0 && dry.stdout.contains("nothing was kept"), "{}{}", dry.stdout, dry.stderr);
    assert!(it.rtpt("classify", &["--json", &it.images]).records()[0]["tamper"].get("suspicious").is_none());
    let run = it.rtpt("calibrate", &["--fpr", "0.2", &it.images]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("at most 20 % of 30 clean images"), "{}", run.stdout);
    let records = it.rtpt("classify", &["--json", &it.images]).records();
    let threshold = it.stored()["tamper"]["threshold"].as_f64().unwrap();
    let mut suspicious = 0;
    for record in &records {
        let tamper = &record["tamper"];
        assert_eq!(tamper["suspicious"], tamper["score"].as_f64().unwrap() > threshold, "{tamper}");
        suspicious += usize::from(tamper["suspicious"] == true);
    }
    assert_eq!(suspicious, 6);
    let table = it.rtpt("classify", &[&it.images]).stdout;
    assert_eq!(table.matches("tampered?").count(), suspicious, "{table}");
    assert_eq!(it.rtpt("bundle", &[]).code, 2, "the bundle command takes a folder");
    assert_eq!(it.bench.rtpt(&["bundle", "check", &it.bundle]).code, 0, "the bundle is whole as before");
}

#[test]
fn a_temperature_changes_probabilities_and_no_answer() {
    let it = Calibrated::new();
    let before = it.rtpt("classify", &["--json", "--top", "4", &it.images]).records();
    assert_eq!(it.rtpt("calibrate", &[&it.images]).code, 0);
    let temperature = it.stored()["temperature"]["temperature"].as_f64().unwrap();
    assert!((temperature - 1.0).abs() > 0.05, "{temperature}");
    let after = it.rtpt("classify", &["--json", "--top", "4", &it.images]).records();
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before["label"], after["label"]);
        assert!((after["temperature"].as_f64().unwrap() - temperature).abs() < 1e-5);
        // ln p differs from the calibrated by the temperature, up to the normalisation.
        let log = |record: &Value, place: usize| record["top"][place]["probability"].as_f64().unwrap().ln();
        let (gap_before, gap_after) = (log(before, 0) - log(before, 1), log(after, 0) - log(after, 1));
        assert!(
            (gap_before / temperature - gap_after).abs() < 2e-3 * (1.0 + gap_before.abs()),
            "{gap_before} {gap_after}"
        );
    }
    let out = it.bench.path("report").to_str().unwrap().to_string();
    let run = it.rtpt("eval", &[&it.images, "--report", &out]);
    assert!(run.stdout.contains("calibrated 0."), "{}", run.stdout);
    // For other heads, views or labels nothing was fitted.
    let labels = it.bench.write("labels.txt", b"red\nwatch\n");
    for other in [["--head", "none"], ["--views", "8"], ["--labels", &labels], ["--lr", "0.5"]] {
        let record = &it.rtpt("classify", &[&["--json", &it.images][..], &other].concat()).records()[0];
        assert!(record.get("temperature").is_none(), "{other:?}");
        assert_eq!(record["tamper"].get("threshold").is_some(), other[0] != "--views", "{other:?}");
    }
}

#[test]
fn without_labels_fewer_views_are_fitted_to_all() {
    let it = Calibrated::new();
    let run = it.rtpt("calibrate", &["--unlabelled", "--views", "6", "--method", "view-shift", &it.images]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(!run.stderr.contains("XDG_CACHE_HOME"), "the reference has the same cache folder: {}", run.stderr);
    assert_eq!(it.stored()["temperature"]["target"], "full-views");
    assert_eq!((&it.stored()["views"], &it.stored()["temperature"]["images"]), (&6.into(), &30.into()));
    let run = it.rtpt("calibrate", &["--unlabelled", &it.images]);
    run.fails_with(0, &["no temperature is fitted"]);
    assert_eq!(it.stored()["temperature"], Value::Null, "that of six views is for six views");
}

#[test]
fn a_temperature_is_kept_where_it_helps_and_not_lost_where_none_can_be_fitted() {
    let it = Calibrated::new();
    assert_eq!(it.rtpt("calibrate", &[&it.images]).code, 0);
    let temperature = it.stored()["temperature"].clone();
    assert!(temperature["ece_after"].as_f64() < temperature["ece_before"].as_f64(), "{temperature}");
    let run = it.rtpt("calibrate", &["--unlabelled", "--fpr", "0.1", &it.images]);
    run.fails_with(0, &["no temperature is fitted"]);
    assert_eq!(
        (&it.stored()["temperature"], &it.stored()["tamper"]["false_positive_rate"]),
        (&temperature, &0.1.into())
    );
    // With six views class-shift's answers are further from those of all after it than before.
    let run = it.rtpt("calibrate", &["--unlabelled", "--views", "6", &it.images]);
    run.fails_with(0, &["no temperature is kept", "the calibration error (ECE) from"]);
    assert_eq!(it.stored()["temperature"], Value::Null);
}

#[test]
fn folders_name_the_labels_here_as_in_an_evaluation() {
    let bench = Bench::new();
    let photos = fs::read_dir(demo().join("../photos")).unwrap().map(|entry| entry.unwrap().path());
    let mut photos: Vec<_> =
        photos.filter(|path| path.extension().is_some_and(|end| end != "tsv" && end != "md")).collect();
    photos.sort();
    for (place, photo) in photos.iter().take(20).enumerate() {
        let class = ["quiet_things", "loud_things"][place % 2];
        let name = photo.file_name().unwrap().to_string_lossy();
        bench.write(&format!("own/{class}/{name}"), &fs::read(photo).unwrap());
    }
    let own = bench.path("own").to_str().unwrap().to_string();
    let out = bench.path("out").to_str().unwrap().to_string();
    let demo = demo().to_str().unwrap().to_string();
    let said = r#"the 2 labels are the names of the folders in"#;
    let names = r#""loud things", "quiet things"; choose others with --labels FILE"#;
    let common = ["--bundle", &demo, "--views", "2", &own];
    bench.rtpt(&[&["calibrate", "--dry-run"], &common[..]].concat()).fails_with(0, &[said, names]);
    let eval = ["eval", "--report", &out, "--methods", "zero-shot"];
    bench.rtpt(&[&eval[..], &common].concat()).fails_with(0, &[said, names]);
}

#[test]
fn what_cannot_be_calibrated_is_said() {
    let it = Calibrated::new();
    let few = photos(&it.bench);
    it.rtpt("calibrate", &[&few]).fails_with(2, &["at least 20 clean images, found 7"]);
    it.rtpt("calibrate", &["--fpr", "0.9", &it.images]).fails_with(2, &["--fpr"]);
    it.rtpt("calibrate", &["--views", "1", &it.images]).fails_with(2, &["--views is 1", "at least 2"]);
    it.rtpt("calibrate", &["nowhere"]).fails_with(2, &["nowhere"]);
    let file = format!("{}/calibration.json", it.bundle);
    for (content, problem) in [
        ("{", "not using"),
        (
            "{\"format\":2,\"bundle\":\"\",\"views\":1,\"augment\":\"crop\",\"tamper\":null,\"temperature\":null}",
            "format 2",
        ),
        (
            "{\"format\":1,\"bundle\":\"00\",\"views\":1,\"augment\":\"crop\",\"tamper\":null,\"temperature\":null}",
            "another bundle",
        ),
    ] {
        fs::write(&file, content).unwrap();
        it.rtpt("classify", &["--json", &few]).fails_with(0, &[problem, "calibrate again"]);
    }
}
