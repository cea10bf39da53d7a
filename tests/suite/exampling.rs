//! Classes by example: in files, at the daemon, in recordings and in evaluations.

use std::fs;

use ndarray::{Array1, Axis};
use serde_json::Value;

use crate::daemon::{Daemon, until};
use crate::goldens::Goldens;
use crate::program::{Bench, BrokenBundle, Run, demo, image_bytes};

const WEIGHT: f64 = 0.7;

/// The tiny bundle with a word on how photos compare with texts.
fn weighted(bench: &Bench) -> BrokenBundle {
    let bundle = bench.bundle();
    bundle.manifest(|manifest| manifest["examples"] = serde_json::json!({ "weight": WEIGHT }));
    bundle
}

/// Adds photos of a label to `my.txt`.
fn add(bench: &Bench, name: &str, photos: &[&str], more: &[&str]) -> Run {
    let photos: Vec<String> = photos.iter().map(|photo| bench.image(photo)).collect();
    let photos: Vec<&str> = photos.iter().map(String::as_str).collect();
    let file = bench.path("my.txt");
    bench.rtpt(&[&["labels", "add", name][..], &photos, &["--file", file.to_str().unwrap()], more].concat())
}

/// The trace of an image with the labels of `my.txt`.
fn trace(bench: &Bench, image: &str, more: &[&str]) -> Goldens {
    let (image, labels) = (bench.image(image), bench.path("my.txt"));
    let arguments = ["trace", "--labels", labels.to_str().unwrap(), "--views", "6", &image, "-o", "t"];
    let run = bench.rtpt(&[&arguments[..], more].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    Goldens::read(&bench.path("t"))
}

/// The clean view's feature of an image.
fn feature(bench: &Bench, image: &str) -> Array1<f64> {
    let image = bench.image(image);
    let run = bench.rtpt(&["trace", "--views", "2", &image, "-o", "f"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    Goldens::read(&bench.path("f")).matrix("features").row(0).to_owned()
}

#[track_caller]
fn assert_near<D: ndarray::Dimension>(a: &ndarray::Array<f64, D>, b: &ndarray::Array<f64, D>) {
    assert_eq!(a.raw_dim(), b.raw_dim());
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{a}\n{b}");
}

#[test]
fn a_class_by_example_is_the_mean_of_its_photos() {
    let bench = Bench::new();
    for (name, photos) in [("my mug", &["rgb.png", "grey.png"][..]), ("shed", &["progressive.jpg"])] {
        let run = add(&bench, name, photos, &[]);
        assert_eq!(
            (run.code, run.stdout),
            (0, format!("{name}: by {} photo{}\n", photos.len(), ["", "s"][photos.len() - 1]))
        );
    }
    // One at a time or together is the same.
    let run = add(&bench, "shed", &["rgb.jpg"], &["--json"]);
    assert_eq!(run.records()[0], serde_json::json!({ "label": "shed", "photos": 2, "failed": 0 }));
    assert_eq!(fs::read_to_string(bench.path("my.txt")).unwrap(), "my mug\nshed\n");

    let classes = trace(&bench, "rgb.png", &[]).matrix("classes");
    let mean = |one: &str, other: &str| {
        let sum = feature(&bench, one) + feature(&bench, other);
        &sum / sum.dot(&sum).sqrt()
    };
    assert_near(&classes.row(0).to_owned(), &mean("rgb.png", "grey.png"));
    assert_near(&classes.row(1).to_owned(), &mean("progressive.jpg", "rgb.jpg"));

    // With one photo each every photo is its own label's.
    let bench = Bench::new();
    for (name, photo) in [("a", "rgb.png"), ("b", "grey.png"), ("c", "progressive.jpg")] {
        assert_eq!(add(&bench, name, &[photo], &[]).code, 0);
        let (image, labels) = (bench.image(photo), bench.path("my.txt"));
        if name > "a" {
            let run = bench.rtpt(&[
                "classify",
                "--json",
                "--method",
                "zero-shot",
                "--labels",
                labels.to_str().unwrap(),
                &image,
            ]);
            assert_eq!(run.records()[0]["label"], name, "{}", run.stderr);
        }
    }
    let classes = trace(&bench, "rgb.png", &[]).matrix("classes");
    assert_near(&classes.row(1).to_owned(), &feature(&bench, "grey.png"));
}

#[test]
fn beside_texts_photos_count_less() {
    let bench = Bench::new();
    let bundle = weighted(&bench);
    fs::write(bench.path("my.txt"), "red\nwatch\n").unwrap();
    assert_eq!(add(&bench, "my mug", &["grey.png"], &[]).code, 0);
    let labels = bench.path("my.txt");
    let image = bench.image("rgb.png");
    // The tiny bundle itself does not say how the two compare.
    let classify = ["classify", "--labels", labels.to_str().unwrap(), &image];
    bench.rtpt(&classify).fails_with(2, &["1 of the labels are by example and 2 are not", "tiny", "or of none"]);

    let on = ["--bundle", bundle.folder(), "--method", "class-shift"];
    let found = trace(&bench, "rgb.png", &on);
    let (classes, features, logits) = (found.matrix("classes"), found.matrix("features"), found.matrix("logits"));
    assert_eq!((classes.dim(), features.dim()), ((3, 9), (6, 9)));
    let lengths = classes.map_axis(Axis(1), |row| row.dot(&row).sqrt());
    assert_near(&lengths, &Array1::ones(3));
    assert_near(&features.column(8).to_owned(), &Array1::zeros(6));
    let cosines: Array1<f64> = features.slice(ndarray::s![.., ..8]).dot(&feature(&bench, "grey.png"));
    assert_near(&logits.column(2).to_owned(), &(cosines * 20.0 * WEIGHT));
    let stored = Goldens::read(&bundle.file("classes.safetensors")).matrix("embeddings");
    assert_near(&classes.slice(ndarray::s![..1, ..8]).to_owned(), &stored.slice(ndarray::s![..1, ..]).to_owned());
    assert!((classes[[0, 8]]).abs() < 1e-9, "texts have nothing in the further column");

    // Every method takes such labels.
    for method in ["zero-shot", "none", "class-shift", "class-lowrank", "view-shift", "mta", "zero", "dbd"] {
        let run = bench.rtpt(&[&classify[..], &["--bundle", bundle.folder(), "--method", method]].concat());
        assert_eq!(run.code, 0, "{method}: {}", run.stderr);
    }
    for weight in [0.0, 1.5] {
        bundle.manifest(|manifest| manifest["examples"]["weight"] = weight.into());
        bench.rtpt(&["bundle", "info", bundle.folder()]).fails_with(3, &["examples.weight", "above 0, up to 1"]);
    }
}

#[test]
fn a_context_leaves_classes_by_example_as_they_are() {
    let bench = Bench::new();
    let folder = bench.path("demo");
    fs::create_dir_all(&folder).unwrap();
    for entry in fs::read_dir(demo()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let manifest = folder.join("manifest.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    value["examples"] = serde_json::json!({ "weight": WEIGHT });
    fs::write(&manifest, value.to_string()).unwrap();

    let on = ["--bundle", folder.to_str().unwrap()];
    fs::write(bench.path("my.txt"), "parrot\nmotorbike\n").unwrap();
    let photo = |name: &str| demo().join("../photos").join(name).to_str().unwrap().to_string();
    let labels = bench.path("my.txt").to_str().unwrap().to_string();
    let run = bench.rtpt(&[&["labels", "add", "my mug", &photo("cup.jpg"), "--file", &labels], &on[..]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    for more in [
        &["--method", "context", "--lr", "0.05"][..],
        &["--method", "context", "--lr", "0.05", "--class-cutoff", "0.05"],
    ] {
        let llama = photo("llama.jpg");
        let arguments = ["trace", "--labels", &labels, "--views", "6", &llama, "-o", "t"];
        let run = bench.rtpt(&[&arguments[..], &on, more].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        let found = Goldens::read(&bench.path("t"));
        let (before, after) = (found.matrix("logits"), found.matrix("tuned_logits"));
        let moved =
            |class: usize| (&after.column(class) - &before.column(class)).fold(0.0, |most: f64, d| most.max(d.abs()));
        assert!(moved(0) > 1e-3 && moved(1) > 1e-3, "the words were tuned: {} and {}", moved(0), moved(1));
        assert!(moved(2) < 1e-5, "the example moved by {}", moved(2));
    }

    // Without any words there is nothing to tune.
    fs::write(bench.path("my.txt"), "").unwrap();
    fs::remove_file(bench.path("my.txt.examples")).unwrap();
    for (name, photo) in [("a", "rgb.png"), ("b", "grey.png")] {
        assert_eq!(add(&bench, name, &[photo], &on).code, 0);
    }
    let (image, labels) = (bench.image("rgb.png"), bench.path("my.txt"));
    let context = ["classify", "--labels", labels.to_str().unwrap(), "--method", "context", &image];
    bench.rtpt(&[&context[..], &on].concat()).fails_with(2, &["all labels are by example", "another method"]);
}

#[test]
fn another_model_takes_the_name_for_a_text_and_says_so() {
    let bench = Bench::new();
    fs::write(bench.path("my.txt"), "parrot\n").unwrap();
    assert_eq!(add(&bench, "motorbike", &["grey.png"], &[]).code, 0);
    let (image, labels) = (bench.image("rgb.png"), bench.path("my.txt"));
    let demo = demo();
    let classify =
        ["classify", "--views", "2", "--labels", labels.to_str().unwrap(), "--bundle", demo.to_str().unwrap(), &image];
    let run = bench.rtpt(&classify);
    assert_eq!(run.code, 0, "{}", run.stderr);
    for part in ["\"motorbike\"", "another model than demo", "add the photos again"] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
}

#[test]
fn what_cannot_be_added_is_refused_and_nothing_is_lost() {
    let bench = Bench::new();
    let broken = bench.write("broken.jpg", b"no photo");
    let (photo, file) = (bench.image("rgb.png"), bench.path("my.txt"));
    let file = file.to_str().unwrap();
    let run = bench.rtpt(&["labels", "add", "mug", &broken, &photo, "--file", file]);
    run.fails_with(1, &["broken.jpg"]);
    assert_eq!(run.stdout, "mug: by 1 photo\n");
    let run = bench.rtpt(&["labels", "add", "cup", &broken, "--file", file]);
    run.fails_with(1, &["broken.jpg"]);
    assert_eq!(fs::read_to_string(file).unwrap(), "mug\n", "a label without a photo is not added");

    bench.rtpt(&["labels", "add", "../mug", &photo, "--file", file]).fails_with(2, &["is a path"]);
    bench.rtpt(&["labels", "add", "", &photo, "--file", file]).fails_with(2, &["the length of a label is 0"]);
    bench.rtpt(&["labels", "forget", "cup", "--file", file]).fails_with(2, &["\"cup\"", "no photos of such a label"]);
    let numbered = bench.write("numbered.txt", b"n1\tred\nn2\twatch\n");
    bench.rtpt(&["labels", "add", "mug", &photo, "--file", &numbered]).fails_with(2, &["have identifiers"]);
    // One that is there keeps its identifier.
    assert_eq!(bench.rtpt(&["labels", "add", "red", &photo, "--file", &numbered]).code, 0);
    assert_eq!(fs::read_to_string(&numbered).unwrap(), "n1\tred\nn2\twatch\n");

    fs::write(file, "mug\ncup\n").unwrap();
    fs::write(bench.path("my.txt.examples"), "{\"").unwrap();
    for arguments in [&["labels", "add", "mug", &photo, "--file", file][..], &["classify", "--labels", file, &photo]] {
        bench.rtpt(arguments).fails_with(2, &["my.txt.examples", "are damaged", "add the photos again"]);
    }
}

fn put(daemon: &Daemon, path: &str, body: &[u8]) -> crate::daemon::Reply {
    daemon.send("POST", path, &["content-type: image/png"], body)
}

#[test]
fn the_daemon_learns_a_label_from_photos_and_keeps_it() {
    let bench = Bench::new();
    let bundle = weighted(&bench);
    let start = |bench: &Bench| {
        let daemon = Daemon::launch(bench, &["--bundle", bundle.folder(), "--views", "4"], |command| command);
        daemon.wait_until_ready();
        daemon
    };
    let mut daemon = start(&bench);
    let before = daemon.get("/v1/labels");
    let shown = before.json();
    assert!(shown.get("examples").is_none(), "{shown}");
    let reply = put(&daemon, "/v1/labels/examples?label=my%20mug", &image_bytes("grey.png"));
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_ne!(reply.header("etag"), before.header("etag"));
    assert_eq!(reply.json()["examples"], serde_json::json!({ "my mug": 1 }));
    assert_eq!(reply.json()["labels"].as_array().unwrap().len(), shown["labels"].as_array().unwrap().len() + 1);
    let answer =
        |daemon: &Daemon| daemon.classify(&image_bytes("grey.png"), "?method=zero-shot").json()["label"].clone();
    assert_eq!(answer(&daemon), "my mug");

    // From the command line.
    let photo = bench.image("grey.png");
    let socket = ["--socket", daemon.socket.to_str().unwrap()];
    let run = bench.rtpt(&[&["labels", "add", "my mug", &photo, &photo][..], &socket].concat());
    assert_eq!((run.code, &*run.stdout), (0, "my mug: by 3 photos\n"), "{}", run.stderr);

    // Other labels do not take it away.
    let tag = daemon.get("/v1/labels").header("etag").unwrap().to_string();
    let listed = daemon.send("PUT", "/v1/labels", &[], b"red\nmy mug\nwatch\n").json();
    assert_eq!(listed["examples"], serde_json::json!({ "my mug": 3 }));
    let stale =
        daemon.send("POST", "/v1/labels/examples?label=x", &[&format!("if-match: {tag}")], &image_bytes("rgb.png"));
    stale.refused(412, "changed_meanwhile");
    // Nor does a power cut.
    daemon.kill();
    let mut daemon = start(&bench);
    assert_eq!(daemon.get("/v1/labels").json()["examples"], serde_json::json!({ "my mug": 3 }));
    assert_eq!(answer(&daemon), "my mug");

    // A file brings its own.
    assert_eq!(add(&bench, "shed", &["rgb.png"], &["--bundle", bundle.folder()]).code, 0);
    fs::write(bench.path("my.txt"), "shed\nwatch\n").unwrap();
    let run = bench.rtpt(&[
        "labels",
        "set",
        bench.path("my.txt").to_str().unwrap(),
        "--socket",
        daemon.socket.to_str().unwrap(),
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(daemon.get("/v1/labels").json()["examples"], serde_json::json!({ "shed": 1 }));

    let run = bench.rtpt(&[&["labels", "forget", "shed"][..], &["--socket", daemon.socket.to_str().unwrap()]].concat());
    // The tiny bundle has no text of that name.
    run.fails_with(2, &["shed"]);
    assert_eq!(daemon.get("/v1/labels").json()["examples"], serde_json::json!({ "shed": 1 }), "it stayed");
    put(&daemon, "/v1/labels/examples?label=watch", &image_bytes("rgb.jpg"));
    let reply = daemon.send("DELETE", "/v1/labels/examples?label=watch", &[], &[]);
    assert_eq!(reply.json()["examples"], serde_json::json!({ "shed": 1 }));
    daemon.send("DELETE", "/v1/labels/examples?label=watch", &[], &[]).refused(404, "no_examples");

    put(&daemon, "/v1/labels/examples", &image_bytes("rgb.png")).refused(400, "query");
    put(&daemon, "/v1/labels/examples?label=a&x=1", &image_bytes("rgb.png")).refused(400, "query");
    put(&daemon, "/v1/labels/examples?label=%2Fetc", &image_bytes("rgb.png")).refused(400, "label_not_words");
    put(&daemon, "/v1/labels/examples?label=cup", b"no photo").refused(415, "image_format_unknown");
    daemon.send("PUT", "/v1/labels/examples?label=cup", &[], b"").refused(405, "method_not_allowed");
    let forged = r#"{"labels": ["red", "x"], "examples": {"00": {"x": {"photos": 1, "sum": [0.0]}}}}"#;
    daemon
        .send("PUT", "/v1/labels", &["content-type: application/json"], forged.as_bytes())
        .refused(400, "example_unusable");

    let reset = daemon.send("DELETE", "/v1/labels", &[], &[]).json();
    assert!(reset.get("examples").is_none(), "{reset}");
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn a_recording_with_classes_by_example_is_reproduced() {
    let bench = Bench::new();
    let bundle = weighted(&bench);
    for name in ["rgb.png", "grey.png", "rgb.jpg"] {
        bench.write(&format!("photos/{name}"), &image_bytes(name));
    }
    fs::write(bench.path("my.txt"), "red\nwatch\n").unwrap();
    assert_eq!(add(&bench, "my mug", &["grey.png"], &["--bundle", bundle.folder()]).code, 0);
    let (source, folder, labels) =
        (format!("{}?every=0.01", bench.path("photos").display()), bench.path("rec"), bench.path("my.txt"));
    let flags = [
        "--source",
        &source,
        "--record",
        folder.to_str().unwrap(),
        "--labels",
        labels.to_str().unwrap(),
        "--views",
        "6",
    ];
    let mut daemon = Daemon::launch(&bench, &[&["--bundle", bundle.folder()], &flags[..]].concat(), |command| command);
    daemon.wait_until_ready();
    until("frames are on the disk", || (daemon.status()["recording"]["committed"].as_u64() >= Some(6)).then_some(()));
    assert_eq!(daemon.terminate(), Some(0));
    // The photos are in the recording, whatever becomes of the file.
    fs::remove_file(bench.path("my.txt.examples")).unwrap();
    let run = bench.rtpt(&["replay", "--json", folder.to_str().unwrap()]);
    let summary = run.records().pop().unwrap_or_else(|| panic!("{}", run.stderr));
    assert!(summary["frames"].as_u64() >= Some(6) && summary["same_bits"] == summary["frames"], "{summary}");
}

#[test]
fn an_evaluation_draws_its_examples() {
    let bench = Bench::new();
    // Two kinds of images: bright ones are "a", dark ones are "b".
    for (part, count) in [("train", 4), ("test", 6)] {
        for (class, base) in [("a", 200_u8), ("b", 20)] {
            for number in 0..count {
                let shade = base + 5 * number as u8 + u8::from(part == "test");
                let image =
                    image::RgbImage::from_fn(24, 20, |x, y| image::Rgb([shade, (x * 3) as u8 ^ shade, (y * 2) as u8]));
                let path = bench.path(&format!("{part}/{class}/{number}.png"));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                image.save(path).unwrap();
            }
        }
    }
    let eval = |report: &str, more: &[&str]| {
        bench.rtpt(
            &[
                &["eval", "test", "--views", "2", "--methods", "zero-shot", "--examples", "train", "--report", report],
                more,
            ]
            .concat(),
        )
    };
    let labels = bench.write("my.txt", b"a\nb\n");
    let run = eval("out", &["--shots", "1,4"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let summary: Value = serde_json::from_slice(&fs::read(bench.path("out/summary.json")).unwrap()).unwrap();
    let names: Vec<&str> =
        summary["conditions"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["test-1-shot", "test-4-shot"]);
    assert!(run.stdout.contains("test-4-shot: 12 images"), "{}", run.stdout);
    let all_are_right = |report: &str| {
        let lines = fs::read_to_string(bench.path(report)).unwrap();
        let right = lines.lines().skip(1).filter(|line| {
            let record: Value = serde_json::from_str(line).unwrap();
            record["truth"] == record["results"][0]["answer"]
        });
        assert_eq!(right.count(), 12, "{lines}");
    };
    all_are_right("out/test-1-shot.jsonl");
    all_are_right("out/test-4-shot.jsonl");
    // Examples that the labels have themselves do not count beside those that are drawn: these are each other's.
    for (name, class) in [("a", "b"), ("b", "a")] {
        let photos: Vec<String> = (0..6).map(|number| format!("test/{class}/{number}.png")).collect();
        let photos: Vec<&str> = photos.iter().map(String::as_str).collect();
        let run = bench.rtpt(&[&["labels", "add", name][..], &photos, &["--file", "swapped.txt"]].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
    }
    assert_eq!(eval("swapped", &["--labels", "swapped.txt", "--shots", "4"]).code, 0);
    all_are_right("swapped/test-4-shot.jsonl");
    // Another draw is another plan; the same one goes on with what is there.
    assert!(eval("out", &["--labels", &labels, "--shots", "1,4"]).stderr.contains("measured before"));
    eval("out", &["--shots", "1,4", "--draw", "1"]).fails_with(2, &["test-1-shot"]);
    eval("more", &["--labels", &labels, "--shots", "5"]).fails_with(2, &["has 4 photos of \"a\"", "5 are asked for"]);
    let grouped = bench.write("grouped.txt", b"a\ta\na\tc\nb\n");
    eval("more", &["--labels", &grouped, "--shots", "1"]).fails_with(2, &["groups"]);
    bench.rtpt(&["eval", "test", "--report", "x", "--shots", "1"]).fails_with(2, &["--examples"]);
}
