//! Rounds of views: only as many as an image needs, and the bits of a run with as many.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::calibrating::Calibrated;
use crate::daemon::{Daemon, until};
use crate::program::{Bench, Run, demo, image_bytes};

/// Some of the demo photos and their attacked copies.
fn photos(bench: &Bench) -> String {
    let folder = bench.path("photos");
    if !folder.exists() {
        fs::create_dir(&folder).unwrap();
        let mut photos: Vec<_> =
            fs::read_dir(demo().with_file_name("photos")).unwrap().map(|file| file.unwrap().path()).collect();
        photos.retain(|photo| photo.extension().is_some_and(|extension| extension == "jpg" || extension == "png"));
        photos.sort();
        for photo in &photos[..12] {
            fs::copy(photo, folder.join(photo.file_name().unwrap())).unwrap();
        }
    }
    folder.to_str().unwrap().into()
}

/// The demo bundle without its calibration.
fn uncalibrated(bench: &Bench) -> String {
    let folder = bench.path("uncalibrated");
    if !folder.exists() {
        fs::create_dir(&folder).unwrap();
        for file in fs::read_dir(demo()).unwrap().map(|file| file.unwrap()) {
            fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
        fs::remove_file(folder.join("calibration.json")).unwrap();
    }
    folder.to_str().unwrap().into()
}

fn classify(bench: &Bench, more: &[&str]) -> Run {
    let run = bench.rtpt(&[&["classify", "--json", "--bundle", &uncalibrated(bench), &photos(bench)], more].concat());
    assert_eq!(run.code, 0, "{more:?}: {}", run.stderr);
    run
}

/// What does not depend on how views came together.
fn answer(record: &Value) -> [&Value; 5] {
    ["path", "label", "probability", "top", "tamper"].map(|key| &record[key])
}

#[test]
fn an_answer_in_rounds_has_the_bits_of_a_run_with_as_many_views() {
    let bench = Bench::new();
    for method in ["dbd", "view-shift"] {
        let more = ["--method", method, "--views-max", "32", "--cache", "off"];
        let rounds = classify(&bench, &more).records();
        let used: BTreeSet<u64> = rounds.iter().map(|record| record["views_used"].as_u64().unwrap()).collect();
        assert!(used.len() > 1 && used.iter().all(|views| [8, 16, 32].contains(views)), "{method}: {used:?}");
        for views in used {
            let fixed =
                classify(&bench, &["--method", method, "--views", &views.to_string(), "--cache", "off"]).records();
            for (record, same) in rounds.iter().zip(&fixed).filter(|(record, _)| record["views_used"] == views) {
                assert_eq!(answer(record), answer(same));
                assert!(same.get("views_used").is_none() && same.get("gate").is_none(), "{same}");
                assert_eq!((record["views"].as_u64(), same["views"].as_u64()), (Some(32), Some(views)));
            }
        }
        // From the cache, which was filled in rounds, and with other threads.
        for pass in ["miss", "hit"] {
            let cached = classify(&bench, &["--method", method, "--views-max", "32", "--threads", "1"]).records();
            for (one, other) in rounds.iter().zip(&cached) {
                assert_eq!(answer(one), answer(other), "{pass}");
                for key in ["views_used", "stopped_by", "gate"] {
                    assert_eq!(one[key], other[key], "{pass}");
                }
            }
        }
    }
}

#[test]
fn the_gate_and_the_end_are_told() {
    let bench = Bench::new();
    for record in classify(&bench, &["--views-max", "16"]).records() {
        let gate = &record["gate"];
        let cosine = gate["cosine"].as_f64().unwrap();
        assert!((0.0..=1.0001).contains(&cosine), "{gate}");
        assert_eq!(gate["passed"], gate["agrees"] == true && cosine >= gate["bound"].as_f64().unwrap());
        // CSR's bound where nothing was calibrated, and then the clean view does not answer.
        assert!((gate["bound"].as_f64().unwrap() - 0.85).abs() < 1e-6, "{gate}");
        let (used, by) = (record["views_used"].as_u64().unwrap(), record["stopped_by"].as_str().unwrap());
        assert!([(8, "settled"), (16, "settled"), (16, "views-max")].contains(&(used, by)), "{used} {by}");
    }
    for (more, least) in [(["--views-min", "12"], 12), (["--views-min", "16"], 16), (["--views-min", "1"], 8)] {
        let records = classify(&bench, &more).records();
        assert_eq!(records.iter().map(|record| record["views_used"].as_u64().unwrap()).min(), Some(least), "{more:?}");
        assert!(records.iter().all(|record| record["views"] == 64));
    }
    // A method that looks at one view has no rounds.
    let one = classify(&bench, &["--views-max", "16", "--method", "zero-shot"]).records();
    assert!(one.iter().all(|record| record["views"] == 1 && record.get("gate").is_none()));
}

#[test]
fn a_spent_budget_ends_the_rounds_after_the_first() {
    let bench = Bench::new();
    let records = classify(&bench, &["--budget-ms", "0.001", "--cache", "off"]).records();
    assert!(records.iter().all(|record| record["views_used"] == 8));
    assert!(records.iter().any(|record| record["stopped_by"] == "budget"));
    let records = classify(&bench, &["--budget-ms", "1e9", "--cache", "off"]).records();
    assert!(records.iter().all(|record| record["stopped_by"] != "budget"));
}

#[test]
fn what_rounds_cannot_be_is_refused() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    for (more, parts) in [
        (&["--views", "8", "--views-max", "16"][..], &["--views-max", "--views"][..]),
        (&["--views", "8", "--budget-ms", "50"], &["--budget-ms"]),
        (&["--views-max", "0"], &["1 to 1024"]),
        (&["--views-min", "20", "--views-max", "16"], &["least number of views", "1 to 16", "20"]),
        (&["--budget-ms", "0"], &["budget", "more than 0 ms"]),
        (&["--budget-ms", "nan"], &["budget", "more than 0 ms"]),
        (&["--budget-ms", "soon"], &["a number of milliseconds"]),
    ] {
        bench.rtpt(&[&["classify", &image], more].concat()).fails_with(2, parts);
    }
    for (more, parts) in [
        (&["--views-max", "8"][..], &["--views-max", "more than 8"][..]),
        (&["--views-max", "64", "--method", "zero-shot"], &["--views-max", "zero-shot"]),
        (&["--views-max", "64", "--budget-ms", "9"], &["--budget-ms"]),
        (&["--views-max", "64", "--loss", "0.6"], &["--loss", "0 to 0.5"]),
    ] {
        bench.rtpt(&[&["calibrate", &image, "--unlabelled"], more].concat()).fails_with(2, parts);
    }
}

#[test]
fn rounds_are_calibrated_with_labels_or_without() {
    let it = Calibrated::new();
    assert_eq!(it.rtpt("calibrate", &[&it.images]).code, 0);
    let threshold = it.stored()["tamper"].clone();
    for more in [&[][..], &["--unlabelled"]] {
        let run = it.rtpt("calibrate", &[&["--views-max", "32", "--fpr", "0.2", &it.images], more].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        let stored = it.stored();
        let rounds = &stored["rounds"];
        assert_eq!(stored["tamper"], threshold, "the rest is kept");
        assert_eq!((&rounds["images"], &rounds["views_max"]), (&30.into(), &32.into()), "{rounds}");
        assert_eq!(rounds["target"], if more.is_empty() { "truth" } else { "full-views" });
        let encodes = rounds["mean_encodes"].as_f64().unwrap();
        assert!(run.stdout.contains(&format!("{encodes:.1} encoder runs")), "{}", run.stdout);
        // What was promised is what comes.
        let records = it.rtpt("classify", &["--json", "--views-max", "32", &it.images]).records();
        let bound = rounds["gate"]["bound"].as_f64().unwrap();
        let below = records.iter().filter(|record| record["gate"]["cosine"].as_f64().unwrap() < bound).count();
        assert!(below <= 6, "{below} of 30");
        assert!(records.iter().all(|record| record["gate"]["bound"] == rounds["gate"]["bound"]));
        let total: u64 = records.iter().map(|record| record["views_used"].as_u64().unwrap() + 1).sum();
        assert!((total as f64 / 30.0 - encodes).abs() < 1e-9, "{total} {encodes}");
        let table = it.rtpt("classify", &["--views-max", "32", &it.images]).stdout;
        assert_eq!(table.matches("tampered?").count(), below, "{table}");
        if more.is_empty() {
            let file = it.bench.path("kept.json");
            fs::copy(format!("{}/calibration.json", it.bundle), &file).unwrap();
        }
    }
    // The other way round, too: a threshold anew leaves the rounds.
    let rounds = it.stored()["rounds"].clone();
    assert_eq!(it.rtpt("calibrate", &["--fpr", "0.1", &it.images]).code, 0);
    assert_eq!(it.stored()["rounds"], rounds);
    let shown = it.bench.rtpt(&["bundle", "info", &it.bundle]).stdout;
    assert!(shown.contains("rounds of up to 32 views"), "{shown}");
}

#[test]
fn an_evaluation_has_a_row_for_rounds() {
    let it = Calibrated::new();
    let report = it.bench.path("report");
    let report = report.to_str().unwrap();
    let run = it.rtpt("eval", &["--views-max", "32", "--methods", "zero-shot,dbd", "--report", report, &it.images]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let summary: Value = serde_json::from_str(&fs::read_to_string(format!("{report}/summary.json")).unwrap()).unwrap();
    let methods = summary["conditions"][0]["methods"].as_array().unwrap();
    let names: Vec<&str> = methods.iter().map(|method| method["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["zero-shot", "dbd", "dbd, in rounds"]);
    assert_eq!((methods[0]["encodes"].as_f64(), methods[1]["encodes"].as_f64()), (Some(1.0), Some(32.0)));
    let records = it.rtpt("classify", &["--json", "--views-max", "32", "--method", "dbd", &it.images]).records();
    let total: u64 = records.iter().map(|record| record["views_used"].as_u64().unwrap() + 1).sum();
    assert!((methods[2]["encodes"].as_f64().unwrap() - total as f64 / 30.0).abs() < 1e-9, "{methods:?} {total}");
    assert!(run.stdout.contains("dbd, in rounds"), "{}", run.stdout);
    // Results with other rules are not mixed.
    let other = it.rtpt("eval", &["--views", "32", "--methods", "zero-shot,dbd", "--report", report, &it.images]);
    assert_ne!(other.code, 0, "{}", other.stdout);
}

#[test]
fn a_daemon_sees_frames_in_rounds_and_its_recording_is_reproduced() {
    let bench = Bench::new();
    for name in ["rgb.png", "rgb.jpg", "grey.png", "progressive.jpg"] {
        bench.write(&format!("photos/{name}"), &image_bytes(name));
    }
    let source = format!("{}?every=0.01", bench.path("photos").display());
    for more in [&["--views-max", "32"][..], &["--views-max", "32", "--budget-ms", "0.001"]] {
        let folder = bench.path(&format!("recording-{}", more.len()));
        let folder = folder.to_str().unwrap();
        let mut daemon =
            Daemon::start(&bench, &[&["--source", &source, "--record", folder, "--cache", "off"], more].concat());
        let committed = || daemon.status()["recording"]["committed"].as_u64().unwrap();
        until("frames are on the disk", || (committed() >= 8).then_some(()));
        assert_eq!(daemon.terminate(), Some(0));
        let run = bench.rtpt(&["replay", "--json", folder]);
        let summary = run.records().pop().unwrap();
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(summary["same_bits"] == summary["frames"] && summary["frames"].as_u64() >= Some(8), "{summary}");
        let decisions = fs::read_to_string(format!("{folder}/part-00000001/decisions.jsonl")).unwrap();
        assert!(decisions.contains("\"views_used\":") && decisions.contains("\"rounds\":{"), "{decisions}");
        assert!(decisions.starts_with("{\"format\":3,"), "{decisions}");
    }
}

#[test]
fn a_request_that_names_a_number_of_views_has_exactly_that() {
    let bench = Bench::new();
    let daemon = Daemon::start(&bench, &["--views-max", "16"]);
    let socket = daemon.socket.to_str().unwrap();
    let image = bench.image("rgb.png");
    let ask = |more: &[&str]| {
        bench.rtpt(&[&["ask", "--json", "--socket", socket, &image], more].concat()).records().remove(0)
    };
    let rounds = ask(&[]);
    assert!(rounds["views"] == 16 && rounds["gate"]["cosine"].is_number(), "{rounds}");
    let fixed = ask(&["--views", "4"]);
    assert!(fixed["views"] == 4 && fixed.get("gate").is_none(), "{fixed}");
}
