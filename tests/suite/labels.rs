//! Wrong labels and wrong settings: exit code 2, and what to do.

use crate::program::Bench;

fn assert_labels_refused(content: &[u8], parts: &[&str]) {
    let bench = Bench::new();
    let (image, labels) = (bench.image("rgb.png"), bench.write("labels.txt", content));
    bench.rtpt(&["classify", "--labels", &labels, &image]).fails_with(2, parts);
}

#[test]
fn wrong_label_files() {
    assert_labels_refused(
        b"red\nYin_yang\n",
        &["no class named \"Yin_yang\"", "did you mean \"yin yang\"?", "--classes"],
    );
    assert_labels_refused(b"", &["has no labels", "one label per line"]);
    assert_labels_refused(b"red\nwatch\nred\n", &["\"red\" is given twice", "entries 1 and 3"]);
    assert_labels_refused(b"red\n", &["labels.txt has 1 label, expected at least 2: one label alone"]);
    assert_labels_refused(b"red,watch\n", &["a comma does not separate labels", "one label per line"]);
    assert_labels_refused(b"\xff\xfe", &["is not UTF-8"]);
}

#[test]
fn a_missing_label_file() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    bench
        .rtpt(&["classify", "--labels", "nowhere.txt", &image])
        .fails_with(2, &["there is no file nowhere.txt", "per line"]);
}

#[test]
fn settings_out_of_range() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    for (flag, value, advice) in [
        ("--views", "0", "expected 1 to 1024"),
        ("--views", "1025", "expected 1 to 1024"),
        ("--threads", "0", "expected 1 to 256"),
        ("--threads", "257", "expected 1 to 256"),
        ("--batch", "0", "expected 1 to 64"),
        ("--batch", "65", "expected 1 to 64"),
        ("--top", "0", "expected 1 to 1000"),
        ("--top", "1001", "expected 1 to 1000"),
        ("--tta-steps", "0", "expected 1 to 100"),
        ("--tta-steps", "101", "expected 1 to 100"),
        ("--lr", "0", "the learning rate is 0, expected above 0"),
        ("--lr", "nan", "the learning rate is NaN"),
        ("--lr", "1001", "expected above 0, up to 1000"),
        ("--selection", "0", "expected above 0, up to 1"),
        ("--selection", "1.01", "expected above 0, up to 1"),
        ("--rank", "0", "expected 1 to 8192"),
        ("--rank", "8193", "expected 1 to 8192"),
        ("--class-cutoff", "0.1", "less than 0.1"),
        ("--class-cutoff", "-0.1", "less than 0.1"),
    ] {
        let arguments = ["classify", "--method", "class-lowrank", &format!("{flag}={value}"), &image];
        bench.rtpt(&arguments).fails_with(2, &[advice]);
    }
    for (flag, value, expected) in [
        ("--views", "many", "invalid value 'many' for '--views <N>': expected a whole number, 1 to 1024"),
        ("--views", "-3", "invalid value '-3' for '--views <N>': expected a whole number, 1 to 1024"),
        ("--seed", "-1", "expected a whole number, 0 to 18446744073709551615"),
        ("--lr", "fast", "expected a number"),
    ] {
        bench.rtpt(&["classify", flag, value, &image]).fails_with(2, &[expected]);
    }
    let unknown = ["classify", "--method", "zero", "--set", "lambda=2", &image];
    bench.rtpt(&unknown).fails_with(2, &["zero has no parameter lambda; it has selection"]);
    bench.rtpt(&["bench", "--repeat", "0"]).fails_with(2, &["expected 1 to 10000"]);
    assert_eq!(bench.rtpt(&["classify", "--views", "1024", "--top", "1000", &image]).code, 0);
    let most = ["--tta-steps", "100", "--lr", "1000", "--selection", "1", "--rank", "8192", "--class-cutoff", "0.0999"];
    let run = bench.rtpt(&[&["classify", "--head", "class-lowrank", &image], &most[..]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
}

#[test]
fn wrong_command_lines() {
    let bench = Bench::new();
    for arguments in [&["classify"][..], &["classify", "--head", "magic", "x"], &["clasify", "x"], &[]] {
        assert_eq!(bench.rtpt(arguments).code, 2, "{arguments:?}");
    }
    let image = bench.image("rgb.png");
    bench.rtpt(&["classify", "--explain", "x.png", &image, &image]).fails_with(2, &["--explain", "one image"]);
    bench.rtpt(&["classify", "--explain", "x.jpg", &image]).fails_with(2, &["--explain is x.jpg", "ends in .png"]);
    bench.rtpt(&["classify", "--explain", &image, &image]).fails_with(2, &["another file than the image"]);
    bench.rtpt(&["trace", &image, "-o", &image]).fails_with(2, &["another file than the image"]);
}
