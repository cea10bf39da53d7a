//! Labels nobody precomputed: the demo bundle's text tower, prompts, identifiers, and the device's memory of them.

use std::fs;

use ndarray::Array2;
use rtpt_edge::internal::rows::unit_rows;

use crate::goldens::Goldens;
use crate::program::{Bench, Run, demo};

const LABELS: &str = "parrot\nthe grand piano\na red accordion\nmotorbike\n";

/// Runs `rtpt` on the demo bundle.
fn on_demo(bench: &Bench, arguments: &[&str]) -> Run {
    bench.rtpt(&[arguments, &["--bundle", demo().to_str().unwrap()]].concat())
}

fn photo() -> String {
    demo().join("../photos/accordion.jpg").to_str().unwrap().to_string()
}

/// The class embeddings of a run with these arguments.
fn classes(bench: &Bench, arguments: &[&str]) -> Array2<f64> {
    let photo = photo();
    let run = on_demo(bench, &[&["trace", "--views", "2", "--batch", "1", &photo, "-o", "t"], arguments].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    Goldens::read(&bench.path("t")).matrix("classes")
}

fn assert_near(a: &Array2<f64>, b: &Array2<f64>, tolerance: f64) {
    assert_eq!(a.dim(), b.dim());
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < tolerance), "{}", a - b);
}

#[test]
fn any_labels_with_any_head() {
    let bench = Bench::new();
    let (labels, photo) = (bench.write("my.txt", LABELS.as_bytes()), photo());
    for head in ["none", "class-shift", "class-lowrank", "context"] {
        let run =
            on_demo(&bench, &["classify", "--json", "--labels", &labels, "--head", head, "--views", "16", &photo]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let record = &run.records()[0];
        assert_eq!((&record["label"], &record["head"]), (&"a red accordion".into(), &head.into()));
        assert!(record.get("id").is_none(), "labels without identifiers have none in the record");
    }
}

#[test]
fn the_tower_reproduces_the_bundles_own_classes() {
    let bench = Bench::new();
    let stored = classes(&bench, &[]);
    // As a template the same prompt goes through the tower.
    assert_near(&classes(&bench, &["--template", "a photo of a {}."]), &stored, 1e-6);
}

#[test]
fn templates_are_averaged_and_a_context_is_a_template() {
    let bench = Bench::new();
    let labels = bench.write("my.txt", LABELS.as_bytes());
    let with = |prompt: &[&str]| classes(&bench, &[&["--labels", &labels], prompt].concat());
    let painting = with(&["--context", "a painting of the"]);
    assert_near(&painting, &with(&["--template", "a painting of the {}."]), 1e-9);
    assert_near(&painting, &with(&["--context", "  a painting of the "]), 1e-9);
    let photo = with(&[]);
    assert!((&photo - &painting).iter().any(|difference| difference.abs() > 1e-3));
    let both = with(&["--template", "a photo of a {}.", "--template", "a painting of the {}."]);
    assert_near(&both, &unit_rows(photo + painting).rows, 1e-6);
}

#[test]
fn underscores_are_spaces_to_the_tower() {
    let bench = Bench::new();
    let plain = bench.write("plain.txt", b"sea turtle\nold car\n");
    let underscored = bench.write("underscored.txt", b"sea_turtle\nold_car\n");
    assert_near(&classes(&bench, &["--labels", &plain]), &classes(&bench, &["--labels", &underscored]), 1e-9);
}

#[test]
fn the_same_labels_run_no_text_tower_a_second_time() {
    let bench = Bench::new();
    let labels = bench.write("my.txt", LABELS.as_bytes());
    let run = |log: &str| {
        let photo = photo();
        let arguments = ["classify", "--json", "--views", "2", "--batch", "1", "--labels", &labels, &photo];
        let output = bench.command(&arguments).env("RTPT_BUNDLE", demo()).env("RUST_LOG", log).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        (record["top"].clone(), String::from_utf8(output.stderr).unwrap())
    };
    let (first, log) = run("info");
    assert!(log.contains("4 labels went through the text tower"), "{log}");
    let (second, log) = run("info");
    assert!(first == second && !log.contains("text tower"), "{log}");
    let memory = fs::read_dir(bench.path("memory/rtpt")).unwrap();
    let files: Vec<_> =
        memory.map(|entry| entry.unwrap().path()).filter(|path| path.to_str().unwrap().contains("labels-")).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    let bytes = fs::read(file).unwrap();
    fs::write(file, &bytes[..100]).unwrap();
    let (third, log) = run("info");
    assert!(log.contains("cannot use the stored label embeddings") && log.contains("went through"), "{log}");
    assert_eq!(first, third);
    assert_eq!(fs::read(file).unwrap(), bytes, "the damaged file was replaced");
    // As many labels, but others.
    bench.write("my.txt", LABELS.replace("parrot", "lamp").as_bytes());
    assert!(run("info").1.contains("4 labels went through"));
}

#[test]
fn the_tuned_context_does_not_depend_on_the_number_of_threads() {
    let bench = Bench::new();
    // Enough rows for several chunks.
    let text: String = (0..150).map(|index| format!("thing number {index}\n")).collect();
    let (labels, photo) = (bench.write("many.txt", text.as_bytes()), photo());
    let tuned = |threads: &str, origin: &str| {
        let arguments = ["trace", "--labels", &labels, "--head", "context", "--views", "4", "--batch", "1", &photo];
        let run = on_demo(&bench, &[&arguments[..], &["--threads", threads, "-o", "t"]].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        let trace = Goldens::read(&bench.path("t"));
        assert_eq!(trace.metadata("classes_origin"), origin);
        (trace.matrix("classes"), trace.matrix("tuned_logits"))
    };
    let one = tuned("1", "computed");
    assert_eq!(one, tuned("3", "remembered"));
    fs::remove_dir_all(bench.path("memory")).unwrap();
    assert_eq!(one, tuned("2", "computed"));
}

#[test]
fn ten_thousand_labels_work() {
    let bench = Bench::new();
    let text: String = (0..10_001).map(|index| format!("thing {index}\n")).collect();
    let (labels, photo) = (bench.write("many.txt", text.as_bytes()), photo());
    let run = on_demo(&bench, &["classify", "--json", "--labels", &labels, "--views", "2", "--batch", "1", &photo]);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

#[test]
fn identifiers_are_in_the_records() {
    let bench = Bench::new();
    let labels = bench.write("my.txt", b"# ImageNet has two\nn1\tmissile\nn2\tmissile\nn3\taccordion\n");
    let photo = photo();
    let run = on_demo(&bench, &["classify", "--json", "--labels", &labels, "--views", "2", "--batch", "1", &photo]);
    let record = &run.records()[0];
    assert_eq!((&record["label"], &record["id"]), (&"accordion".into(), &"n3".into()), "{}", run.stderr);
    assert_eq!(record["zero_shot"]["id"], "n3");
    let rest: Vec<&str> = record["top"].as_array().unwrap()[1..].iter().map(|a| a["id"].as_str().unwrap()).collect();
    assert_eq!(rest, ["n1", "n2"]);
}

#[test]
fn the_members_of_a_group_have_one_answer_together() {
    let bench = Bench::new();
    let plain = bench.write("plain.txt", b"accordion\ngrand piano\nelectric guitar\nllama\nbeaver\n");
    let grouped = b"instrument\taccordion\ninstrument\tgrand piano\ninstrument\telectric guitar\nllama\nbeaver\n";
    let grouped = bench.write("grouped.txt", grouped);
    for method in ["view-shift", "context", "zero-shot", "zero", "mta"] {
        let record = |labels: &str| {
            let options = ["classify", "--json", "--views", "8", "--method", method, "--labels", labels, &photo()];
            let run = on_demo(&bench, &options);
            assert_eq!(run.code, 0, "{}", run.stderr);
            run.records().remove(0)
        };
        let (apart, together) = (record(&plain), record(&grouped));
        let sum: f64 = apart["top"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|answer| !["llama", "beaver"].contains(&answer["label"].as_str().unwrap()))
            .map(|answer| answer["probability"].as_f64().unwrap())
            .sum();
        assert_eq!((&together["label"], &together["zero_shot"]["label"]), (&"instrument".into(), &"instrument".into()));
        let found = together["probability"].as_f64().unwrap();
        assert!((found - sum).abs() < 1e-5, "{method}: {found} {sum}");
        assert_eq!(together["top"].as_array().unwrap().len(), 3);
        assert!(together.get("id").is_none(), "a group is no identifier");
    }
    // A trace has what was computed of the texts, and what is answered of the labels.
    let run = on_demo(&bench, &["trace", "--views", "4", "--labels", &grouped, &photo(), "-o", "t"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let trace = Goldens::read(&bench.path("t"));
    assert_eq!((trace.matrix("classes").nrows(), trace.matrix("logits").dim()), (5, (4, 3)));
    assert_eq!(trace.matrix("tuned_logits").dim(), (4, 3));
    assert_eq!(trace.metadata("labels"), "[\"instrument\",\"llama\",\"beaver\"]");
}

#[test]
fn a_cutoff_that_cuts_little_hardly_changes_the_answer() {
    let bench = Bench::new();
    let photo = photo();
    let answer = |cutoff: &str| {
        let run = on_demo(&bench, &["classify", "--json", "--head", "context", "--class-cutoff", cutoff, &photo]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.records()[0].clone()
    };
    let (exact, cut) = (answer("0"), answer("1e-3"));
    assert_eq!(exact["label"], cut["label"]);
    let difference = exact["probability"].as_f64().unwrap() - cut["probability"].as_f64().unwrap();
    assert!(difference.abs() < 1e-3 && difference != 0.0, "{difference}");
}

#[test]
fn labels_the_tower_cannot_take() {
    let bench = Bench::new();
    let photo = photo();
    let refused = |content: &[u8], parts: &[&str]| {
        let labels = bench.write("bad.txt", content);
        on_demo(&bench, &["classify", "--labels", &labels, &photo]).fails_with(2, parts);
    };
    let long = format!("dog\n{}\n", "lamp ".repeat(100).trim());
    refused(long.as_bytes(), &["the label \"lamp lamp", "tokens, expected at most 40", "shorten it"]);
    // The demo's small vocabulary has no "q" that ends a word.
    refused(b"dog\nmodel q\n", &["\"a photo of a model q.\"", "a character that the model's vocabulary lacks"]);
    refused(b"dog\n<|endoftext|>\n", &["<|endoftext|>", "starts or ends a text"]);
    refused(b"1\tdog\n2\t\n", &["has the line 2", "expected a label"]);
    refused(b"dog\n\xff\n", &["is not UTF-8"]);
}

#[test]
fn prompts_that_make_no_sense() {
    let bench = Bench::new();
    let photo = photo();
    let long = "x".repeat(1025);
    for (arguments, part) in [
        (
            &["--template", "a photo"][..],
            "the template is \"a photo\", which has no {}, expected one {} where the label",
        ),
        (&["--template", "{} and {}"], "which has 2 {}"),
        (&["--context", "a {}"], "in a template; use --template"),
        (&["--context", &long], "at most 1024 bytes"),
        (&["--context", "a", "--template", "{}"], "cannot be used with"),
        (&["--head", "context", "--template", "a {}."], "which the method context tunes; use --context"),
        (&["--head", "context", "--context", ""], "one context of at least one word"),
    ] {
        let run = on_demo(&bench, &[&["classify", &photo], arguments].concat());
        run.fails_with(2, &[part]);
    }
    let templates: Vec<String> = (0..257).map(|index| format!("--template={index} {{}}")).collect();
    let mut arguments = vec!["classify", &photo];
    arguments.extend(templates.iter().map(String::as_str));
    on_demo(&bench, &arguments).fails_with(2, &["1 to 256 templates"]);
}

#[test]
fn without_a_text_tower_only_the_bundles_own_prompt_works() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    for arguments in [["--context", "a painting of a"], ["--template", "{}"], ["--head", "context"]] {
        let run = bench.rtpt(&[&["classify", &image], &arguments[..]].concat());
        run.fails_with(2, &["the bundle tiny has no text tower", "rtpt bundle info --classes"]);
    }
    let same = bench.rtpt(&["classify", "--context", "a photo of a", &image]);
    assert_eq!(same.code, 0, "{}", same.stderr);
}

#[test]
fn labels_instead_of_a_file_of_them_are_told_how_to_make_one() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    bench
        .rtpt(&["classify", "--labels", "cup, dog's bowl", &image])
        .fails_with(2, &["one label per line", r"printf 'cup\ndog'\''s bowl\n' > my.txt"]);
    bench.rtpt(&["classify", "--labels", "none.txt", &image]).fails_with(2, &["UTF-8 text, one label per line"]);
}
