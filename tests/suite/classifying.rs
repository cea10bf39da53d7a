//! `rtpt classify` on good input: the records, the table, and the promise of equal bits.

use std::process::Stdio;

use serde_json::Value;

use crate::program::{Bench, Run, demo, image_bytes};

/// The records without what may differ from run to run.
fn results(run: &Run) -> Vec<Value> {
    let mut records = run.records();
    for record in &mut records {
        let fields = record.as_object_mut().unwrap();
        fields.remove("timings_ms").expect("every record has timings");
        fields.remove("path").expect("every record has a path");
    }
    records
}

#[test]
fn records_have_the_documented_fields() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    let run = bench.rtpt(&["classify", "--json", "--top", "3", "--seed", "5", &image]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let [record] = &run.records()[..] else { panic!("{}", run.stdout) };
    assert_eq!(record["schema"], 1);
    assert_eq!(record["path"], image);
    assert_eq!(record["digest"], blake3::hash(&image_bytes("rgb.png")).to_hex().to_string());
    assert!(record["bundle"].as_str().unwrap().starts_with("tiny@"));
    assert_eq!((&record["method"], &record["views"], &record["seed"]), (&"class-shift".into(), &16.into(), &5.into()));
    assert_eq!(record["head"], record["method"], "the name for earlier versions");
    let top = record["top"].as_array().unwrap();
    assert_eq!((top.len(), &top[0]["label"]), (3, &record["label"]));
    let probabilities: Vec<f64> = top.iter().map(|answer| answer["probability"].as_f64().unwrap()).collect();
    assert!(probabilities.is_sorted_by(|a, b| a >= b) && probabilities.iter().sum::<f64>() <= 1.000_01);
    assert!(record["zero_shot"]["label"].is_string() && record["zero_shot"]["probability"].is_f64());
    let timings = &record["timings_ms"];
    let parts: f64 = ["decode", "views", "encode", "tune"].map(|stage| timings[stage].as_f64().unwrap()).iter().sum();
    assert!(parts <= timings["total"].as_f64().unwrap() + 0.01, "{timings}");
    let tamper = &record["tamper"];
    let part = |name: &str| tamper[name].as_f64().unwrap();
    let mean = (part("disagreement") + part("isolation") + part("narrowness")) / 3.0;
    assert!((part("score") - mean).abs() < 1e-6 && (0.0..=1.0).contains(&mean), "{tamper}");
    assert!(tamper.get("suspicious").is_none(), "nothing was calibrated: {tamper}");
    assert_eq!(record["cached"], false);
    assert_eq!(record.as_object().unwrap().len(), 15);
}

#[test]
fn the_agreement_of_dbd_is_a_term_of_the_tamper_record_and_its_parameters_are_settings() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    let record = |more: &[&str]| {
        let run = bench.rtpt(&[&["classify", "--json", "--method", "dbd", &image], more].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.records().remove(0)
    };
    let first = record(&[]);
    let agreement = first["tamper"]["terms"]["direction_agreement"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&agreement), "{first}");
    let other = bench.rtpt(&["classify", "--json", "--method", "none", &image]).records().remove(0);
    assert_eq!(first["tamper"]["score"], other["tamper"]["score"], "the score itself stays");
    assert!(other["tamper"].get("terms").is_none());
    // Whatever the views agree on, these two make the step 1 and 50.
    let (near, far) = (record(&["--set", "bound=1"]), record(&["--set", "bound=-1", "--set", "lambda=50"]));
    assert_ne!(near["probability"], far["probability"]);
    bench
        .rtpt(&["classify", "--method", "dbd", "--set", "lambda=-1", &image])
        .fails_with(2, &["λ is -1, expected 0 to"]);
    bench
        .rtpt(&["classify", "--method", "dbd", "--set", "rank=1", &image])
        .fails_with(2, &["selection, lambda, bound"]);
    // The flag that was typed, and where it belongs.
    bench.rtpt(&["classify", "--method", "dbd", "--lr", "0.1", &image]).fails_with(
        2,
        &["--lr: dbd has no parameter learning_rate", "learning_rate is a parameter of class-shift, class-lowrank"],
    );
    let few = ["classify", "--method", "dbd", "--views", "7", &image];
    bench.rtpt(&few).fails_with(0, &["with 7 views dbd is less often right", "--views 8"]);
    let enough = bench.rtpt(&["classify", "--method", "dbd", "--views", "8", &image]);
    assert!(enough.code == 0 && !enough.stderr.contains("less often"), "{}", enough.stderr);
}

#[test]
fn bits_are_the_same_for_any_number_of_threads() {
    let bench = Bench::new();
    let (png, jpg) = (bench.image("rgb.png"), bench.image("progressive.jpg"));
    // 13 views leave the last batch short.
    let with =
        |threads| results(&bench.rtpt(&["classify", "--json", "--views", "13", "--threads", threads, &png, &jpg]));
    let one = with("1");
    assert_eq!(one.len(), 2);
    assert_eq!(one, with("2"));
    assert_eq!(one, with("3"));
    assert_eq!(one, with("16"));
}

#[test]
fn bits_are_the_same_in_any_order_and_from_standard_input() {
    let bench = Bench::new();
    let (png, jpg) = (bench.image("rgb.png"), bench.image("progressive.jpg"));
    let forth = results(&bench.rtpt(&["classify", "--json", &png, &jpg]));
    let back = results(&bench.rtpt(&["classify", "--json", &jpg, &png]));
    assert_eq!(forth.iter().rev().collect::<Vec<_>>(), back.iter().collect::<Vec<_>>());
    let piped = bench.rtpt_with(&["classify", "--json", "-"], &image_bytes("rgb.png"));
    assert_eq!(piped.records()[0]["path"], "-");
    assert_eq!(results(&piped), forth[..1]);
}

#[test]
fn seed_head_augmentation_and_views_change_the_result() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    let with = |extra: &[&str]| {
        let mut arguments = vec!["classify", "--json", "--top", "4", &image];
        arguments.extend(extra);
        results(&bench.rtpt(&arguments))[0]["top"].clone()
    };
    let plain = with(&[]);
    assert_eq!(plain, with(&["--seed", "0", "--views", "16", "--head", "class-shift", "--augment", "augmix"]));
    for extra in [
        ["--seed", "1"],
        ["--head", "none"],
        ["--head", "class-lowrank"],
        ["--augment", "crop"],
        ["--views", "15"],
        ["--tta-steps", "2"],
        ["--lr", "0.01"],
        ["--selection", "0.5"],
    ] {
        assert_ne!(plain, with(&extra), "{extra:?}");
    }
}

#[test]
fn one_view_and_two_views_work() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    let one = bench.rtpt(&["classify", "--json", "--views", "1", "--head", "none", &image]);
    assert_eq!(one.code, 0, "{}", one.stderr);
    assert!(one.stderr.contains("nothing to ensemble"), "{}", one.stderr);
    let record = &one.records()[0];
    assert_eq!(record["probability"], record["zero_shot"]["probability"]);
    for (views, head) in [("1", "class-shift"), ("2", "none"), ("2", "class-shift")] {
        let run = bench.rtpt(&["classify", "--json", "--views", views, "--head", head, &image]);
        assert_eq!(run.code, 0, "{views} {head}: {}", run.stderr);
    }
}

#[test]
fn folders_are_walked_in_order_of_name() {
    let bench = Bench::new();
    for name in ["photos/b.png", "photos/a/z.PNG", "photos/c.txt", "photos/.hidden.png", "photos/a/deep/d.png"] {
        bench.write(name, &image_bytes("rgb.png"));
    }
    let run = bench.rtpt(&["classify", "--json", "photos"]);
    let paths: Vec<Value> = run.records().iter().map(|record| record["path"].clone()).collect();
    assert_eq!(paths, ["photos/a/deep/d.png", "photos/a/z.PNG", "photos/b.png"], "{}", run.stderr);
    assert_eq!(run.code, 0);
}

#[test]
fn the_table_is_for_people() {
    let bench = Bench::new();
    let (png, jpg) = (bench.image("rgb.png"), bench.image("progressive.jpg"));
    let run = bench.rtpt(&["classify", "--top", "2", &png, &jpg]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 6, "{}", run.stdout);
    assert!(["image", "class-shift", "zero-shot", "time"].iter().all(|column| lines[0].contains(column)));
    assert!(lines[1].contains("rgb.png") && lines[1].contains(" %") && lines[1].ends_with(" ms"));
    assert!(lines[2].contains("2.") && lines[5].starts_with("2 images in "));
}

#[test]
fn a_label_file_limits_the_answers() {
    let bench = Bench::new();
    let (image, labels) = (bench.image("rgb.png"), bench.write("labels.txt", b"umbrella\nred\n"));
    let run = bench.rtpt(&["classify", "--json", "--labels", &labels, &image]);
    let record = &run.records()[0];
    let mut names: Vec<&str> = record["top"].as_array().unwrap().iter().map(|a| a["label"].as_str().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["red", "umbrella"]);
}

#[test]
fn a_reader_that_stops_reading_is_no_failure() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    let mut command = bench.command(&["classify", "--json", &image]);
    let mut child = command.env("RTPT_BUNDLE", crate::program::tiny()).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn bench_reports_every_stage() {
    let bench = Bench::new();
    let run = bench.rtpt(&["bench", "--json", "--repeat", "3", "--views", "4", "--threads", "1"]);
    let report = &run.records()[0];
    let stages: Vec<&str> =
        report["stages"].as_array().unwrap().iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["decode", "views", "encode", "tune", "total"]);
    for stage in report["stages"].as_array().unwrap() {
        let [min, median, max] = ["min_ms", "median_ms", "max_ms"].map(|name| stage[name].as_f64().unwrap());
        assert!(0.0 < min && min <= median && median <= max, "{stage}");
    }
    assert_eq!((&report["runs"], &report["views"], &report["threads"]), (&3.into(), &4.into(), &1.into()));
    assert!(report["rss_peak_bytes"].as_u64().unwrap() > 1 << 20);
    let table = bench.rtpt(&["bench", "--repeat", "1"]);
    assert!(table.stdout.contains("views per second") && table.stdout.contains("encode"), "{}", table.stdout);
}

#[test]
fn help_tells_the_exit_codes() {
    let help = Bench::new().rtpt(&["--help"]);
    assert_eq!(help.code, 0);
    for code in ["  0  everything", "  1  some inputs", "  2  the command line", "  3  the bundle"] {
        assert!(help.stdout.contains(code), "{}", help.stdout);
    }
}

#[test]
fn the_table_says_in_words_where_answers_differ() {
    let bench = Bench::new();
    let photo = |name: &str| demo().join("../photos").join(name).to_str().unwrap().to_string();
    let (clean, attacked, bundle) = (photo("accordion.jpg"), photo("accordion-attacked.png"), demo());
    let classify = ["classify", "--bundle", bundle.to_str().unwrap(), "--views", "16", &clean, &attacked];
    bench.rtpt(&classify);
    let table = bench.rtpt(&classify).stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].ends_with("  note") && !table.contains('≠'), "{table}");
    assert!(!lines[1].contains("differ") && lines[2].contains(" ms  answers differ"), "{table}");
    assert!(lines[3].starts_with("2 images in "), "{table}");
}

#[test]
fn one_of_a_thing_is_no_plural() {
    let bench = Bench::new();
    let run = bench.rtpt(&["bench", "--repeat", "1", "--views", "1", "--threads", "1", "--method", "none"]);
    assert!(run.stdout.contains(": 1 view, ") && run.stdout.contains(" 1 thread, ") && run.stdout.contains(" 1 run\n"));
}
