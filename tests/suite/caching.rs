//! Features on disk as a user meets them: hits, their bits, and every way a cache can be unusable.

use std::fs;

use serde_json::Value;

use crate::evaluating::photos;
use crate::program::{Bench, Run};

/// Records without what a clock or the cache decides.
fn answers(run: &Run) -> Vec<Value> {
    let mut records = run.records();
    for record in &mut records {
        let record = record.as_object_mut().unwrap();
        record.remove("timings_ms");
        record.remove("cached");
    }
    records
}

fn cached(run: &Run) -> usize {
    run.records().iter().filter(|record| record["cached"] == true).count()
}

#[test]
fn a_hit_has_the_bits_of_a_miss_for_any_labels_and_head() {
    let bench = Bench::new();
    let photos = photos(&bench);
    let off = |more: &[&str]| bench.rtpt(&[&["classify", "--json", "--cache", "off", &photos], more].concat());
    let on = |more: &[&str]| bench.rtpt(&[&["classify", "--json", &photos], more].concat());
    let (first, second) = (on(&[]), on(&[]));
    assert_eq!((first.code, cached(&first), cached(&second)), (0, 0, 7), "folders are remembered on disk");
    assert_eq!(answers(&first), answers(&off(&[])));
    assert_eq!(answers(&second), answers(&first));
    let labels = bench.write("labels.txt", b"watch\nyin yang\n");
    for more in [&["--labels", &labels][..], &["--head", "mta"], &["--threads", "1", "--head", "zero"]] {
        let run = on(more);
        assert_eq!(cached(&run), 7, "{more:?}: {}", run.stderr);
        assert_eq!(answers(&run), answers(&off(more)), "{more:?}");
    }
    for more in [["--seed", "1"], ["--augment", "crop"], ["--batch", "3"]] {
        assert_eq!(cached(&on(&more)), 0, "{more:?} makes other features");
    }
    let one = format!("{photos}/red/rgb.png");
    assert_eq!(cached(&bench.rtpt(&["classify", "--json", &one])), 0, "a single file is not looked up");
    assert_eq!(cached(&bench.rtpt(&["classify", "--json", "--cache", "disk", &one])), 1);
    let twice = bench.rtpt(&["classify", "--json", "--cache", "memory", "--seed", "5", &one, &one]);
    assert_eq!(cached(&twice), 1, "memory lasts for one run");
    let report = bench.path("report");
    assert_eq!(bench.rtpt(&["eval", &photos, "--report", report.to_str().unwrap()]).code, 0);
    let results = fs::read_to_string(report.join("photos.jsonl")).unwrap();
    assert_eq!(results.matches("\"cached\":true").count(), 7, "an evaluation asks the same cache");
}

#[test]
fn fewer_views_are_the_first_of_those_that_are_kept_and_more_are_added() {
    let bench = Bench::new();
    let photos = photos(&bench);
    // Batches that the numbers of views are no multiples of: what is added is cut as if all came at once.
    for batch in ["1", "3"] {
        for (views, hits) in [("4", 0), ("9", 0), ("4", 7), ("9", 7), ("20", 0), ("16", 7)] {
            let arguments = ["classify", "--json", "--batch", batch, "--views", views, &photos];
            let run = bench.rtpt(&arguments);
            assert_eq!((run.code, cached(&run)), (0, hits), "{views} views in batches of {batch}: {}", run.stderr);
            let anew = bench.rtpt(&[&arguments[..], &["--cache", "off"]].concat());
            assert_eq!(answers(&run), answers(&anew), "{views} views in batches of {batch}");
        }
    }
}

#[test]
fn the_cache_is_shown_bounded_and_cleared() {
    let bench = Bench::new();
    let photos = photos(&bench);
    let folder = bench.path("features").to_str().unwrap().to_string();
    let classify =
        |more: &[&str]| bench.rtpt(&[&["classify", "--json", "--cache-dir", &folder, &photos], more].concat());
    let info = || bench.rtpt(&["cache", "info", "--cache-dir", &folder]).stdout;
    assert!(info().contains("no features are cached"), "{}", info());
    classify(&[]);
    assert!(info().contains("7 images"), "{}", info());
    // 16 views of 8 numbers are 512 bytes an image, so that 0 MiB keep none.
    classify(&["--seed", "1", "--cache-max-mb", "0"]);
    assert!(info().contains("0 images"), "{}", info());
    let cleared = bench.rtpt(&["cache", "clear", "--cache-dir", &folder]);
    assert!(cleared.code == 0 && cleared.stdout.contains("bytes freed"), "{}", cleared.stdout);
    assert!(info().contains("no features are cached"));
    assert_eq!(bench.rtpt(&["cache", "clear"]).code, 0, "nothing to clear is no failure");
}

#[test]
fn a_cache_that_cannot_be_used_is_a_warning_and_a_working_classifier() {
    let bench = Bench::new();
    let photos = photos(&bench);
    let expected = answers(&bench.rtpt(&["classify", "--json", "--cache", "off", &photos]));
    let works_with = |name: &str, parts: &[&str]| {
        let folder = bench.path(name).to_str().unwrap().to_string();
        let run = bench.rtpt(&["classify", "--json", "--cache-dir", &folder, &photos]);
        run.fails_with(0, parts);
        assert_eq!(answers(&run), expected, "{name}");
        assert_eq!(run.stderr.matches("going on without").count(), 1, "one warning: {}", run.stderr);
    };
    bench.write("foreign/features-2", b"in the way");
    works_with("foreign", &["going on without the feature cache"]);
    bench.write("file", b"in the way");
    works_with("file", &["going on without the feature cache"]);
    works_with("../../../../../../proc/nowhere", &["going on without the feature cache"]);
}

#[test]
fn damaged_features_are_made_anew_and_one_folder_serves_several_programs() {
    let bench = Bench::new();
    let photos = photos(&bench);
    let folder = bench.path("features").to_str().unwrap().to_string();
    let classify = || bench.rtpt(&["classify", "--json", "--cache-dir", &folder, &photos]);
    bench.write("features/features.redb", b"of an earlier version");
    let expected = answers(&classify());
    assert!(!bench.path("features/features.redb").exists());
    for file in fs::read_dir(bench.path("features/features-2")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let run = classify();
    run.fails_with(0, &["are damaged and computed again"]);
    assert_eq!((answers(&run), cached(&run)), (expected.clone(), 0));
    assert_eq!((answers(&classify()), cached(&classify())), (expected.clone(), 7));
    let children: Vec<_> = (0..3)
        .map(|_| {
            let mut command =
                bench.command(&["classify", "--json", "--cache-dir", &folder, "--seed", "7", "--views", "4", &photos]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("going on without"), "{said}");
    }
}

#[test]
fn a_full_disk_is_a_warning() {
    // A file system of its own needs rights that a test may not have; a limit on file sizes does the same to a write.
    let bench = Bench::new();
    let photos = photos(&bench);
    let program = crate::program::program();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "ulimit -f 0; trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(program.get_program())
        .args(program.get_args())
        .args(["classify", "--json", "--batch", "1", &photos])
        .env("RTPT_BUNDLE", crate::program::tiny())
        .env("XDG_CACHE_HOME", bench.path("memory"));
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 7);
    assert!(stderr.contains("going on without the feature cache"), "{stderr}");
}

#[test]
fn bundles_share_features_as_far_as_their_encoders_are_the_same() {
    let bench = Bench::new();
    let photos = photos(&bench);
    let bundle = bench.bundle();
    let run = || bench.rtpt(&["classify", "--json", "--batch", "4", "--bundle", bundle.folder(), &photos]);
    assert_eq!((cached(&run()), cached(&run())), (0, 7));
    bundle.manifest(|manifest| manifest["description"] = "another sentence".into());
    assert_eq!(cached(&run()), 7, "what decides no feature may change");
    bundle.manifest(|manifest| manifest["image"]["mean"][0] = 0.25.into());
    assert_eq!(cached(&run()), 0, "the preprocessing decides");
    bundle.forge("image_encoder.onnx", |bytes| {
        // A comment of the exporter: the model computes the same, but only its bytes are known.
        let place = bytes.windows(7).position(|window| window == b"pytorch").unwrap();
        bytes[place] = b'P';
    });
    let run = run();
    assert_eq!((run.code, cached(&run)), (0, 0), "{}", run.stderr);
}

#[test]
fn packed_weights_are_kept_and_never_trusted() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    let memory = bench.path("memory/rtpt");
    let classify = |more: &[&str]| {
        let mut command = bench.command(&[&["classify", "--json", &image], more].concat());
        command.env("RTPT_BUNDLE", crate::program::tiny()).env("RUST_LOG", "info");
        crate::program::run(command, &[])
    };
    let packed = || -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(&memory).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|ending| ending == "packed")).collect()
    };
    let first = classify(&[]);
    first.fails_with(0, &["packed the encoder's weights for this processor and stored them in"]);
    let expected = answers(&first);
    let second = classify(&[]);
    assert!(!second.stderr.contains("packed"), "{}", second.stderr);
    assert_eq!(answers(&second), expected);
    let [path] = &packed()[..] else { panic!("{:?}", packed()) };
    let whole = fs::read(path).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (content, why) in
        [(&whole[..whole.len() / 2], "it was cut short"), (&flipped, "it is damaged"), (b"", "it was cut short")]
    {
        fs::write(path, content).unwrap();
        let run = classify(&[]);
        run.fails_with(0, &["cannot use the packed weights in", why, "the weights are packed again"]);
        assert_eq!((answers(&run), fs::read(path).unwrap() == whole), (expected.clone(), true), "{why}");
    }
    classify(&["--batch", "2"]);
    assert_eq!(packed().len(), 2, "another batch is another encoder");
    let info = bench.rtpt(&["cache", "info"]).stdout;
    assert!(info.contains("2 encoders, ") && info.contains("MiB of packed weights"), "{info}");
    assert_eq!(bench.rtpt(&["cache", "clear"]).code, 0);
    assert!(packed().is_empty());
    // Where nothing can be written, it is a warning.
    fs::remove_dir_all(&memory).unwrap();
    fs::write(&memory, "in the way").unwrap();
    let run = classify(&[]);
    run.fails_with(0, &["cannot store the packed weights, so that the next start packs them too"]);
    assert_eq!(answers(&run), expected);
}
