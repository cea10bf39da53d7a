//! `rtpt attack` as a user drives it.

use std::fs;

use rtpt_edge::internal::views::decode;
use serde_json::Value;

use crate::evaluating::photos;
use crate::program::Bench;

/// The photos in folders of what zero-shot says of them, so that there is something to mislead.
fn believed(bench: &Bench) -> String {
    for record in bench.rtpt(&["classify", "--json", &photos(bench)]).records() {
        let path = record["path"].as_str().unwrap();
        let name = path.rsplit('/').next().unwrap();
        let class = record["zero_shot"]["label"].as_str().unwrap();
        bench.write(&format!("believed/{class}/{name}"), &fs::read(path).unwrap());
    }
    bench.path("believed").to_str().unwrap().into()
}

/// The photos with the bytes of their altered copies.
fn copies<'a>(bench: &'a Bench, photos: &str, out: &'a str) -> impl Iterator<Item = (String, Vec<u8>)> + 'a {
    let names = bench.rtpt(&["classify", "--json", "--views", "1", photos]).records();
    names.into_iter().map(move |record| {
        let path = record["path"].as_str().unwrap().to_string();
        let (class, name) = path.rsplit_once("/believed/").unwrap().1.split_once('/').unwrap();
        let stem = name.rsplit_once('.').unwrap().0;
        let copy = [format!("{out}/{class}/{stem}.png"), format!("{out}/{class}/{name}.png")];
        let copy = copy.iter().find_map(|path| fs::read(path).ok()).unwrap_or_else(|| panic!("no copy of {path}"));
        (path.clone(), copy)
    })
}

fn json(bench: &Bench, path: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(bench.path(path)).unwrap()).unwrap()
}

#[test]
fn altered_copies_stay_in_their_ball_and_are_a_data_set() {
    let bench = Bench::new();
    let photos = believed(&bench);
    for (attack, target) in [("square", "zero-shot"), ("spsa", "none"), ("noise", "zero-shot")] {
        let out = bench.path(attack).to_str().unwrap().to_string();
        let run = bench.rtpt(&[
            "attack",
            attack,
            &photos,
            "--out",
            &out,
            "--eps",
            "8/255",
            "--queries",
            "40",
            "--target",
            target,
            "--views",
            "4",
        ]);
        assert_eq!(run.code, 0, "{attack}: {}", run.stderr);
        let report = json(&bench, &format!("{attack}/attack.json"));
        assert_eq!(
            (&report["images"], &report["attack"], &report["target"]),
            (&7.into(), &attack.into(), &target.into())
        );
        let before = report["right_before"].as_u64().unwrap() as usize;
        let needed = report["queries_to_success"].as_array().unwrap();
        assert_eq!(needed.len(), before);
        let misled = needed.iter().filter(|queries| !queries.is_null()).count();
        assert_eq!(report["right_after"].as_u64().unwrap() as usize, before - misled);
        assert!(needed.iter().flat_map(Value::as_u64).all(|queries| (1..=40).contains(&queries)));
        assert!(fs::read_to_string(bench.path(attack).join("success.svg")).unwrap().contains("<svg"));
        let mut changed = 0;
        for (original, copy) in copies(&bench, &photos, &out) {
            let (original, altered) = (decode(&fs::read(original).unwrap()).unwrap(), decode(&copy).unwrap());
            let differences = original.bytes().iter().zip(altered.bytes()).map(|(&a, &b)| a.abs_diff(b));
            let largest = differences.max().unwrap();
            assert!(largest <= 8, "{attack}: {largest}");
            changed += usize::from(largest > 0);
        }
        assert!(before > 3 && changed > 0, "{attack} changed {changed} of {before}");
        // What was written misleads just as often when it is read again.
        let eval = bench.path("report").join(attack);
        let run = bench.rtpt(&["eval", &out, "--report", eval.to_str().unwrap(), "--methods", target, "--views", "4"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let summary: Value = serde_json::from_str(&fs::read_to_string(eval.join("summary.json")).unwrap()).unwrap();
        assert_eq!(summary["conditions"][0]["methods"][0]["right"], report["right_after"], "{attack}");
    }
}

#[test]
fn attacks_are_the_same_for_any_number_of_threads() {
    let bench = Bench::new();
    let photos = believed(&bench);
    let attacked = |name: &str, threads: &str, seed: &str| {
        let out = bench.path(name).to_str().unwrap().to_string();
        let arguments =
            ["attack", "square", &photos, "--out", &out, "--queries", "20", "--threads", threads, "--seed", seed];
        assert_eq!(bench.rtpt(&arguments).code, 0);
        copies(&bench, &photos, &out).map(|(_, copy)| blake3::hash(&copy)).collect::<Vec<_>>()
    };
    let one = attacked("one", "1", "0");
    assert_eq!(one, attacked("four", "4", "0"));
    assert_ne!(one, attacked("seeded", "1", "7"));
}

#[test]
fn corruptions_are_written_by_kind_and_severity() {
    let bench = Bench::new();
    let photos = photos(&bench);
    let out = bench.path("out").to_str().unwrap().to_string();
    let run =
        bench.rtpt(&["attack", "corruptions", &photos, "--out", &out, "--severities", "1,5", "--at-model-resolution"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let report = json(&bench, "out/corruptions.json");
    assert_eq!(report["corruptions"].as_array().unwrap().len(), 15);
    for row in report["corruptions"].as_array().unwrap() {
        let name = row["corruption"].as_str().unwrap();
        assert!(run.stdout.contains(name));
        for severity in ["1", "5"] {
            let image =
                decode(&fs::read(bench.path(&format!("out/{name}/{severity}/red/rgb.png.png"))).unwrap()).unwrap();
            assert_eq!((image.width(), image.height()), (16, 16), "as the model sees it");
        }
    }
    // A corruption's folder is a data set.
    let fog = format!("{out}/fog/5");
    let run = bench.rtpt(&["eval", &fog, "--report", bench.path("r").to_str().unwrap(), "--methods", "zero-shot"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let fewer = ["attack", "corruptions", &photos, "--kinds", "fog", "--count", "2", "--severities", "3", "--out"];
    bench
        .rtpt(&[&fewer[..], &[&out]].concat())
        .fails_with(2, &["--out is", "which is not empty, expected a new folder"]);
    let second = bench.path("second").to_str().unwrap().to_string();
    let run = bench.rtpt(&[&fewer[..], &[&second]].concat());
    assert!(run.code == 0 && run.stdout.contains("to 2 images"), "{}", run.stdout);
}

#[test]
fn noise_asks_less_than_a_search_and_says_how_much() {
    let bench = Bench::new();
    let photos = believed(&bench);
    let out = bench.path("out").to_str().unwrap().to_string();
    let run = bench.rtpt(&["attack", "noise", &photos, "--out", &out, "--eps", "1/255", "--count", "2"]);
    run.fails_with(0, &["2 images, at most 50 queries each; a query encodes 1 view\n"]);
    assert_eq!(json(&bench, "out/attack.json")["queries"], 50);
    assert!(bench.rtpt(&["attack", "noise", "--help"]).stdout.contains("50 for noise"));
}

#[test]
fn a_split_file_brings_its_own_labels() {
    let bench = Bench::new();
    photos(&bench);
    let split = b"{\"test\": [[\"red/rgb.png\", 0, \"umbrella\"], [\"sea_horse/grey.png\", 1, \"sea_horse\"]]}";
    let set = bench.write("split_zhou_Two.json", split);
    let out = bench.path("out").to_str().unwrap().to_string();
    let run = bench.rtpt(&["attack", "noise", &set, "--out", &out, "--queries", "2"]);
    assert_eq!(run.code, 0, "umbrella is a class of the bundle, though no label by default: {}", run.stderr);
}

#[test]
fn what_cannot_be_attacked_is_said() {
    let bench = Bench::new();
    let (photos, out) = (photos(&bench), bench.path("out").to_str().unwrap().to_string());
    for (arguments, expected) in [
        (["square", "--eps", "0"], "a fraction such as 4/255"),
        (["square", "--eps", "4/x"], "a fraction such as 4/255"),
        (["square", "--target", "magic"], "possible values: zero-shot"),
        (["square", "--queries", "0"], "--queries"),
        (["corruptions", "--severities", "6"], "from 1 to 5"),
        (["corruptions", "--kinds", "rain"], "gaussian-noise"),
    ] {
        let arguments = [&["attack", arguments[0], &photos, "--out", &out], &arguments[1..]].concat();
        bench.rtpt(&arguments).fails_with(2, &[expected]);
    }
    bench.rtpt(&["attack", "square", "nowhere", "--out", &out]).fails_with(2, &["nowhere"]);
    bench.rtpt(&["attack", "square", &photos, "--count", "0", "--out", &out]).fails_with(2, &["--count is 0"]);
    for own in [&photos, &format!("{photos}/altered")] {
        bench.rtpt(&["attack", "square", &photos, "--out", own]).fails_with(2, &["which is the data set"]);
    }
    assert!(!bench.path("out").exists());
}

#[test]
fn a_ball_of_less_than_a_level_ends_the_search() {
    let bench = Bench::new();
    let (photos, out) = (believed(&bench), bench.path("out").to_str().unwrap().to_string());
    let run = bench.rtpt(&["attack", "square", &photos, "--out", &out, "--eps", "0.4/255", "--queries", "50"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    for (path, copy) in copies(&bench, &photos, &out) {
        let clean = decode(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(decode(&copy).unwrap().bytes(), clean.bytes(), "{path}: nothing can be changed");
    }
}
