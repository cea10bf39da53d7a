//! `rtpt eval` as a user drives it: data sets and what is wrong with them, resuming, shards, reports.

use std::fs;
use std::path::Path;

use rtpt_edge::Method;
use serde_json::{Value, json};

use crate::program::{Bench, image_bytes};

/// Photos in folders of the tiny bundle's classes: seven images in three folders.
pub fn photos(bench: &Bench) -> String {
    let files = [
        ("red", "rgb.png"),
        ("red", "rgb.jpg"),
        ("sea_horse", "progressive.jpg"),
        ("sea_horse", "palette.png"),
        ("sea_horse", "grey.png"),
        ("Watch", "lossless.webp"),
        ("Watch", "orientation-6.jpg"),
    ];
    for (class, file) in files {
        bench.write(&format!("photos/{class}/{file}"), &image_bytes(file));
    }
    bench.path("photos").to_str().unwrap().into()
}

fn report(bench: &Bench, folder: &str) -> String {
    bench.path(folder).to_str().unwrap().into()
}

fn summary(folder: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(Path::new(folder).join("summary.json")).unwrap()).unwrap()
}

/// The lines of a result file without what a clock or a cache decides.
fn lines(path: &str) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        line.remove("ms");
        line.remove("cached");
        for result in line.get_mut("results").into_iter().flat_map(|results| results.as_array_mut().unwrap()) {
            result.as_object_mut().unwrap().remove("ms");
        }
    }
    lines
}

#[test]
fn every_method_is_measured_and_right_answers_are_those_of_classify() {
    let bench = Bench::new();
    let (photos, out) = (photos(&bench), report(&bench, "report"));
    let run = bench.rtpt(&["eval", &photos, "--report", &out, "--curve", "2,8"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let summary = summary(&out);
    let [condition] = &summary["conditions"].as_array().unwrap()[..] else { panic!("{summary}") };
    assert_eq!((&condition["name"], &condition["images"]), (&json!("photos"), &json!(7)));
    let methods = condition["methods"].as_array().unwrap();
    let names: Vec<&str> = methods.iter().map(|method| method["name"].as_str().unwrap()).collect();
    // The tiny bundle has no text tower, and so no context to tune.
    let expected: Vec<&str> = Method::all().map(Method::name).filter(|name| *name != "context").collect();
    assert_eq!(names, expected);
    let ranks: Vec<Vec<u64>> = lines(&format!("{out}/photos.jsonl"))[1..]
        .iter()
        .map(|line| line["results"].as_array().unwrap().iter().map(|result| result["rank"].as_u64().unwrap()).collect())
        .collect();
    for (place, method) in methods.iter().enumerate().skip(1) {
        let count = |ours: bool| {
            let differs = |ranks: &&Vec<u64>| (ranks[place] == 0) == ours && (ranks[0] == 0) != ours;
            ranks.iter().filter(differs).count()
        };
        let gap = &method["against_zero_shot"];
        assert_eq!((&gap["better"], &gap["worse"]), (&json!(count(true)), &json!(count(false))), "{}", method["name"]);
    }
    let truth = |path: &str| {
        ["red", "sea horse", "watch"]
            .into_iter()
            .find(|label| path.to_lowercase().replace('_', " ").contains(&format!("/{label}/")))
    };
    for (name, method) in names.iter().zip(methods) {
        let head = if *name == "zero-shot" { "none" } else { name };
        let answers = bench.rtpt(&["classify", "--json", "--cache", "off", "--head", head, &photos]).records();
        let right = answers.iter().filter(|record| {
            let label = if *name == "zero-shot" { &record["zero_shot"]["label"] } else { &record["label"] };
            truth(record["path"].as_str().unwrap()) == label.as_str()
        });
        assert_eq!(method["right"], json!(right.count()), "{name}");
        assert!(run.stdout.contains(name));
        let curve = method["curve"].as_array().unwrap();
        assert_eq!(curve.len(), 2);
        // With fewer views the answers are those of a run with as many.
        let few =
            bench.rtpt(&["classify", "--json", "--cache", "off", "--views", "8", "--head", head, &photos]).records();
        let right = few.iter().filter(|record| {
            let label = if *name == "zero-shot" { &record["zero_shot"]["label"] } else { &record["label"] };
            truth(record["path"].as_str().unwrap()) == label.as_str()
        });
        assert!((curve[1].as_f64().unwrap() - right.count() as f64 / 7.0).abs() < 1e-9, "{name} at 8 views");
    }
    let chosen = bench.rtpt(&["eval", &photos, "--report", &report(&bench, "other"), "--methods", "zero,none"]);
    assert!(chosen.stdout.find("\nzero ") < chosen.stdout.find("\nnone "), "{}", chosen.stdout);
}

#[test]
fn an_interrupted_evaluation_goes_on_and_other_settings_are_not_mixed_in() {
    let bench = Bench::new();
    let (photos, out) = (photos(&bench), report(&bench, "report"));
    let results = format!("{out}/photos.jsonl");
    let eval = |more: &[&str]| bench.rtpt(&[&["eval", &photos, "--report", &out], more].concat());
    assert_eq!(eval(&[]).code, 0);
    let (whole, whole_summary) = (lines(&results), summary(&out));
    let text = fs::read_to_string(&results).unwrap();
    let kept: Vec<&str> = text.split_inclusive('\n').take(4).collect();
    let torn = kept.concat() + &text.split_inclusive('\n').nth(4).unwrap()[..40];
    fs::write(&results, torn).unwrap();
    let run = eval(&[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("3 of 7 images were measured before"), "{}", run.stderr);
    assert_eq!(lines(&results), whole);
    assert_eq!(
        summary(&out)["conditions"][0]["methods"][2]["right"],
        whole_summary["conditions"][0]["methods"][2]["right"]
    );

    eval(&["--seed", "9"]).fails_with(2, &["photos.jsonl", "seed was 0, now it is 9", "another folder"]);
    eval(&["--set", "class-shift.lr=0.5"]).fails_with(2, &["methods was"]);
    assert_eq!(lines(&results), whole, "nothing was lost");
    fs::write(&results, text.replacen("\"index\":0", "\"index\":99", 1)).unwrap();
    eval(&[]).fails_with(2, &["line 2 is damaged", "image 99 is not expected there"]);
    fs::write(&results, text.replacen("\"truth\":", "\"truht\":", 1)).unwrap();
    eval(&[]).fails_with(2, &["line 2 is damaged", "photos.jsonl"]);
}

#[test]
fn shards_put_together_are_the_whole() {
    let bench = Bench::new();
    let (photos, whole) = (photos(&bench), report(&bench, "whole"));
    let csv = bench.write("more.csv", b"path,label\nphotos/red/rgb.png,red\nphotos/Watch/lossless.webp,watch\n");
    let sets = [format!("clean={photos}"), format!("again={csv}")];
    assert_eq!(bench.rtpt(&["eval", &sets[0], &sets[1], "--report", &whole]).code, 0);
    let parts: Vec<String> = (1..=3).map(|number| report(&bench, &format!("part{number}"))).collect();
    for (number, part) in (1..).zip(&parts) {
        let shard = format!("{number}/3");
        let run = bench.rtpt(&["eval", &sets[0], &sets[1], "--report", part, "--shard", &shard]);
        assert_eq!(run.code, 0, "{}", run.stderr);
    }
    let merged = report(&bench, "merged");
    let merge = |parts: &[&String]| {
        let mut arguments = vec!["eval", "merge", "--report", &merged];
        arguments.extend(parts.iter().map(|part| part.as_str()));
        bench.rtpt(&arguments)
    };
    merge(&[&parts[0], &parts[2]]).fails_with(2, &["are in no part", "run all shards"]);
    merge(&[&parts[0], &parts[1], &parts[1], &parts[2]]).fails_with(2, &["is in another part as well"]);
    let run = merge(&[&parts[1], &parts[0], &parts[2]]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    for name in ["clean", "again"] {
        assert_eq!(lines(&format!("{merged}/{name}.jsonl")), lines(&format!("{whole}/{name}.jsonl")), "{name}");
    }
    let strip = |folder: &str| {
        let mut summary = summary(folder);
        for condition in summary["conditions"].as_array_mut().unwrap() {
            condition.as_object_mut().unwrap().remove("encode_ms");
            condition["methods"].as_array_mut().unwrap().iter_mut().for_each(|method| {
                method.as_object_mut().unwrap().remove("ms");
            });
        }
        summary
    };
    assert_eq!(strip(&merged), strip(&whole));
    bench
        .rtpt(&["eval", &photos, "--report", &parts[0], "--shard", "4/3"])
        .fails_with(2, &["--shard", "I from 1 to N"]);
}

#[test]
fn what_is_wrong_with_a_data_set_is_said_before_anything_is_encoded() {
    let bench = Bench::new();
    photos(&bench);
    let out = report(&bench, "report");
    let eval = |set: &str| bench.rtpt(&["eval", set, "--report", &out]);
    let write = |name: &str, text: &str| bench.write(name, text.as_bytes());
    let csv = "path,label\nphotos/red/rgb.png,red\nphotos/red/gone.png,red\nphotos/red/rgb.png,watch\n,watch\n";
    let csv = write("set.csv", csv);
    eval(&csv).fails_with(
        2,
        &[
            "set.csv:3: there is no file",
            "set.csv:4: photos/red/rgb.png is listed already, in line 2",
            "set.csv:5:",
            "3 problem",
        ],
    );
    eval(&write("zebra.csv", "path,label\nphotos/red/rgb.png,red\nphotos/red/rgb.jpg,se horse\n")).fails_with(
        2,
        &[
            "zebra.csv:3: the class \"se horse\" is not among the 4 labels (did you mean \"sea horse\"?)",
            "--class-names",
        ],
    );
    eval(&write("mixed.csv", "path,label\nphotos/red/rgb.png,red\nphotos/red/rgb.jpg,1\n"))
        .fails_with(2, &["mixed.csv:3: the class \"1\" is not among the 4 labels"]);
    eval(&write("columns.csv", "file,label\na.png,red\n")).fails_with(2, &["columns.csv:1:", "path and label"]);
    eval(&write("nothing.csv", "path,label\n")).fails_with(2, &["it lists no images"]);
    eval(&write("ragged.csv", "path,label\nphotos/red/rgb.png\n")).fails_with(2, &["ragged.csv:"]);
    fs::create_dir_all(bench.path("photos/yin yang")).unwrap();
    eval(bench.path("photos").to_str().unwrap()).fails_with(2, &["photos/yin yang: the class has no images"]);
    eval(bench.path("photos/red").to_str().unwrap()).fails_with(2, &["expected one folder of images per class"]);
    for (name, text, expected) in [
        ("list.json", "[1, 2]", "list.json:1: expected {\"train\""),
        ("syntax.json", "{\n\"test\": [\n[1, }", "syntax.json:3:"),
        ("entry.json", "{\"test\": [\n[\"photos/red/rgb.png\", 0]\n]}", "entry.json:2: expected [path, label, class]"),
        ("train.json", "{\"train\": []}", "expected a split \"test\", found train"),
        ("empty.json", "{}", "expected a split \"test\", found no splits"),
        (
            "twice.json",
            "{\"test\": [\n[\"photos/red/rgb.png\", 0, \"red\"],\n[\"photos/red/rgb.jpg\", 0, \"watch\"]]}",
            "twice.json:3: label 0 is \"watch\" here and \"red\" in line 2",
        ),
        ("gap.json", "{\"test\": [[\"photos/red/rgb.png\", 1, \"red\"]]}", "numbered from 0 without gaps"),
    ] {
        eval(&write(name, text)).fails_with(2, &[expected]);
    }
    eval(&write("images_variant_test.txt", "1234 707\nabc\n")).fails_with(2, &["test.txt:2:", "1234.jpg"]);
    eval("nowhere").fails_with(2, &["nowhere: expected a folder"]);
    assert!(!Path::new(&out).exists(), "nothing was measured");
}

#[test]
fn the_layouts_of_the_field_are_read() {
    let bench = Bench::new();
    let photos = photos(&bench);
    let right = |set: &str, more: &[&str]| {
        let out = report(&bench, "once");
        let _ = fs::remove_dir_all(&out);
        let arguments = [&["eval", set, "--report", &out, "--methods", "none"], more].concat();
        let run = bench.rtpt(&arguments);
        assert_eq!(run.code, 0, "{set}: {}", run.stderr);
        let stem = Path::new(set).file_stem().unwrap().to_str().unwrap().to_string();
        let records = lines(&format!("{out}/{stem}.jsonl"));
        let labels = records[0]["labels"].as_array().unwrap().clone();
        let truths: Vec<String> = records[1..]
            .iter()
            .map(|record| labels[record["truth"].as_u64().unwrap() as usize].as_str().unwrap().to_string())
            .collect();
        (labels.len(), truths)
    };
    let (count, folders) = right(&photos, &[]);
    assert_eq!(count, 4);
    assert_eq!(folders, ["watch", "watch", "red", "red", "sea horse", "sea horse", "sea horse"]);

    // CoOp: images below a folder beside the file, and the labels are the split's own.
    let split = "{\"train\": [[\"Watch/lossless.webp\", 2, \"watch\"]], \"val\": [],\n \"test\": [\n\
        [\"red/rgb.png\", 0, \"red\"], [\"sea_horse/grey.png\", 1, \"sea_horse\"]]}";
    let coop = bench.write("split_zhou_Tiny.json", split.as_bytes());
    assert_eq!(right(&coop, &[]), (3, vec!["red".into(), "sea horse".into()]));
    assert_eq!(right(&coop, &["--split", "train"]).1, ["watch"]);
    // A class may be a member of a group.
    let groups = bench.write("groups.txt", b"plain\tred\nanimal\tsea horse\nplain\twatch\n");
    assert_eq!(right(&coop, &["--labels", &groups]), (2, vec!["plain".into(), "animal".into()]));
    bench.write("elsewhere/split_zhou_Tiny.json", split.as_bytes());
    let elsewhere = bench.path("elsewhere/split_zhou_Tiny.json");
    assert_eq!(right(elsewhere.to_str().unwrap(), &["--images", &photos]).1.len(), 2);

    // ImageNet: folders are identifiers, a variant uses some of the classes.
    let labels = bench.write("imagenet.tsv", b"n01\tred\nn02\tyin yang\nn03\tsea horse\nn04\twatch\n");
    let subset = bench.write("variant.json", b"[0,\n 2, 3]");
    bench.write("variant/n01/a.png", &image_bytes("rgb.png"));
    bench.write("variant/n04/b.png", &image_bytes("grey.png"));
    let variant = bench.path("variant").to_str().unwrap().to_string();
    let with = |more: &[&str]| right(&variant, &[&["--labels", labels.as_str()], more].concat());
    assert_eq!(with(&[]), (4, vec!["red".into(), "watch".into()]));
    assert_eq!(with(&["--subset", &subset]), (3, vec!["red".into(), "watch".into()]));
    let out = report(&bench, "once");
    let wrong = bench.write("wrong.txt", b"0\n7\nx\n0\n");
    bench.rtpt(&["eval", &variant, "--labels", &labels, "--subset", &wrong, "--report", &out]).fails_with(
        2,
        &["wrong.txt:2: 7 is past the end", "wrong.txt:3: expected places", "wrong.txt:4: 0 is listed twice"],
    );
    // ImageNet-V2: folders are places in the list.
    bench.write("numbered/2/a.png", &image_bytes("rgb.png"));
    bench.write("numbered/0/b.png", &image_bytes("grey.png"));
    let numbered = bench.path("numbered").to_str().unwrap().to_string();
    assert_eq!(right(&numbered, &["--labels", &labels]).1, ["red", "sea horse"]);

    // Aircraft, with class names of one's own; two classes may have one name.
    bench.write("data/images/0034.jpg", &image_bytes("rgb.jpg"));
    bench.write("data/images/0035.jpg", &image_bytes("progressive.jpg"));
    let aircraft = bench.write("data/images_variant_test.txt", b"0034 DC 3\n0035 DC 4\n");
    let names = bench.write("names.tsv", b"# ours\nDC 3\twatch\nDC 4\twatch\n");
    assert_eq!(right(&aircraft, &["--class-names", &names]).1, ["watch", "watch"]);
    let names = bench.write("bad.tsv", b"DC 3\twatch\nDC 4\n");
    bench
        .rtpt(&["eval", &aircraft, "--class-names", &names, "--report", &out])
        .fails_with(2, &["bad.tsv:2: expected a class, a tab and a label"]);
}

#[test]
fn an_image_that_cannot_be_read_is_counted_and_tried_again() {
    let bench = Bench::new();
    let (photos, out) = (photos(&bench), report(&bench, "report"));
    bench.write("photos/red/broken.png", b"not a picture");
    let eval = || bench.rtpt(&["eval", &photos, "--report", &out]);
    eval().fails_with(1, &["red/broken.png", "not a JPEG"]);
    assert_eq!(summary(&out)["conditions"][0]["failed"], 1);
    bench.write("photos/red/broken.png", &image_bytes("grey.jpg"));
    let run = eval();
    assert_eq!(run.code, 0, "{}", run.stderr);
    let condition = &summary(&out)["conditions"][0];
    assert_eq!((&condition["failed"], &condition["images"]), (&json!(0), &json!(8)));
}

#[test]
fn the_report_is_one_file_with_plots_and_pictures() {
    let bench = Bench::new();
    let (photos, out) = (photos(&bench), report(&bench, "report"));
    let odd =
        bench.write("odd.csv", b"path,label\nphotos/red/rgb.png,yin yang\nphotos/Watch/lossless.webp,sea horse\n");
    let sets = [format!("clean={photos}"), format!("<odd>={odd}")];
    let run = bench.rtpt(&["eval", &sets[0], &sets[1], "--report", &out, "--curve", "4,8"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let html = fs::read_to_string(Path::new(&out).join("report.html")).unwrap();
    for part in
        ["&lt;odd&gt;", "class-lowrank", "data:image/png;base64,", "the number of views", "worst mistakes", "ECE"]
    {
        assert!(html.contains(part), "{part}");
    }
    assert!(!html.contains("<odd>") && !html.contains("http-equiv") && !html.contains("could not be drawn"));
    // Bars, a curve and a diagram for each condition, and the times.
    assert_eq!(html.matches("<svg").count(), 1 + 2 + 2 + 1, "plots");
    assert!(!html.replace("http://www.w3.org/2000/svg", "").contains("http"), "nothing is fetched");
    let markdown = fs::read_to_string(Path::new(&out).join("summary.md")).unwrap();
    assert!(markdown.contains("| zero-shot |") && markdown.contains("### clean: 7 images"), "{markdown}");
}

#[test]
fn settings_of_methods_are_checked() {
    let bench = Bench::new();
    let (photos, out) = (photos(&bench), report(&bench, "report"));
    for (arguments, expected) in [
        (["--methods", "none,magic"], "possible values: zero-shot, none"),
        (["--methods", "none,none"], "each method once"),
        (["--methods", "context"], "text tower"),
        (["--set", "none.lr"], "METHOD.NAME=VALUE"),
        (["--set", "magic.lr=1"], "one of zero-shot"),
        (["--set", "zero.selection=many"], "a number"),
        (["--set", "zero.selection=0"], "above 0"),
        (["--curve", "16"], "from 1 to"),
        (["--shard", "2"], "I/N"),
    ] {
        bench.rtpt(&[&["eval", &photos, "--report", &out], &arguments[..]].concat()).fails_with(2, &[expected]);
    }
    bench.rtpt(&["eval", &photos]).fails_with(2, &["--report"]);
    bench
        .rtpt(&["eval", "merge", "--report", &out, bench.path("photos").to_str().unwrap()])
        .fails_with(2, &["no .jsonl file"]);
    bench.rtpt(&["eval", &photos, &photos, "--report", &out]).fails_with(2, &["a name of its own"]);
}
