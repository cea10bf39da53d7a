//! `rtpt doctor`, as a technician runs it.

use serde_json::Value;

use crate::bundles::replace_tensor;
use crate::program::{Bench, demo};

fn finding<'a>(report: &'a Value, topic: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["topic"] == topic).unwrap_or_else(|| panic!("no {topic} in {report}"))
}

#[test]
fn the_device_is_described_and_every_finding_says_what_to_do() {
    let bench = Bench::new();
    let run = bench.rtpt(&["doctor", "--json"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let report = &run.records()[0];
    assert_eq!(report["schema"], 1);
    assert!(["ok", "warning"].contains(&report["verdict"].as_str().unwrap()), "{report}");
    assert!(report["slowed"].is_array() && report["memory"]["peak_bytes"].as_u64() > Some(1 << 20), "{report}");
    let processor = &report["processor"];
    assert!(processor["cores"].as_u64() >= Some(1) && !processor["model"].as_str().unwrap().is_empty());
    let features = |list: &str| {
        let names = processor[list].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_string());
        names.collect::<Vec<_>>()
    };
    let known: Vec<String> = [features("features"), features("missing")].concat();
    let expected: &[&str] = match processor["architecture"].as_str().unwrap() {
        "x86_64" => &["avx2", "vnni"],
        "aarch64" => &["fp16", "dotprod", "i8mm"],
        _ => &["neon"],
    };
    assert!(expected.iter().all(|name| known.contains(&name.to_string())), "{known:?}");
    assert!(report["memory"]["total_bytes"].as_u64() > Some(1 << 20), "{}", report["memory"]);

    let goldens = report["bundle"]["goldens"].as_array().unwrap();
    let stages: Vec<&str> = goldens.iter().map(|deviation| deviation["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["view", "features", "logits"]);
    assert!(
        goldens.iter().all(|deviation| deviation["passes"] == true && deviation["difference"].as_f64() >= Some(0.0))
    );

    let speed = &report["speed"];
    let kernels = speed["kernels"].as_array().unwrap();
    assert!(kernels.iter().any(|name| name.as_str().unwrap().contains("f32")), "{kernels:?}");
    let views = |list: &str| -> Vec<u64> {
        speed[list].as_array().unwrap().iter().map(|entry| entry["views"].as_u64().unwrap()).collect()
    };
    assert_eq!(views("measured"), [8, 16]);
    assert_eq!(views("forecast"), [8, 16, 32, 64]);
    let forecast: Vec<f64> = speed["forecast"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["frames_per_second"].as_f64().unwrap())
        .collect();
    assert!(forecast.windows(2).all(|pair| pair[0] > pair[1] && pair[1] > 0.0), "{forecast:?}");

    for topic in
        ["processor", "bundle", "kernels", "speed", "memory", "temperature", "throttling", "camera", "cache", "daemon"]
    {
        let finding = finding(report, topic);
        assert!(["ok", "warning"].contains(&finding["verdict"].as_str().unwrap()), "{finding}");
        assert!(!finding["found"].as_str().unwrap().is_empty() && !finding["advice"].as_str().unwrap().is_empty());
    }
    assert_eq!(report["findings"].as_array().unwrap().iter().filter(|f| f["topic"] == "bundle").count(), 1);
}

#[test]
fn the_list_is_for_people() {
    let bench = Bench::new();
    let run = bench.rtpt(&["doctor", "--no-timing"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    for part in ["processor    ok", "deviation from the goldens: view", "temperature  ", "→ nothing to do"] {
        assert!(run.stdout.contains(part), "{part:?} is not in {}", run.stdout);
    }
    assert!(!run.stdout.contains("forecast"), "{}", run.stdout);
    let topics = run.stdout.lines().filter(|line| !line.starts_with(' ')).count();
    assert_eq!(run.stdout.lines().filter(|line| line.trim_start().starts_with('→')).count(), topics);
}

#[test]
fn a_device_that_computes_something_else_is_told() {
    let bench = Bench::new();
    let broken = bench.bundle();
    replace_tensor(&broken, "features", vec![1, 8], &[0.125_f32; 8].map(f32::to_le_bytes).concat());
    let run = bench.rtpt(&["doctor", "--no-timing", "--json", "--bundle", broken.folder()]);
    run.fails_with(3, &["golden"]);
    let bundle = finding(&run.records()[0], "bundle").clone();
    assert_eq!(bundle["verdict"], "problem");
    assert!(bundle["advice"].as_str().unwrap().contains("do not trust its answers"), "{bundle}");
    let failed =
        run.records()[0]["bundle"]["goldens"].as_array().unwrap().iter().any(|deviation| deviation["passes"] == false);
    assert!(failed);
}

#[test]
fn without_a_bundle_the_rest_is_told() {
    let bench = Bench::new();
    let run = bench.rtpt(&["doctor", "--json", "--bundle", "/nowhere"]);
    run.fails_with(3, &["there is no folder /nowhere"]);
    let report = &run.records()[0];
    assert_eq!(finding(report, "bundle")["verdict"], "problem");
    assert_eq!(report["bundle"], Value::Null);
    finding(report, "throttling");
}

#[test]
fn a_cache_that_cannot_be_used_is_told() {
    let bench = Bench::new();
    let file = bench.write("in-the-way", b"");
    let run = bench.rtpt(&["doctor", "--no-timing", "--json", "--cache-dir", &file]);
    let cache = finding(&run.records()[0], "cache").clone();
    assert_eq!((run.code, &cache["verdict"]), (0, &Value::from("warning")));
    assert!(cache["found"].as_str().unwrap().contains("cannot be written"), "{cache}");
    bench.write("damaged/features-2", b"in the way");
    let folder = bench.path("damaged").to_str().unwrap().to_string();
    let run = bench.rtpt(&["doctor", "--no-timing", "--json", "--cache-dir", &folder]);
    let cache = finding(&run.records()[0], "cache").clone();
    assert!(cache["found"].as_str().unwrap().contains("cannot be used"), "{cache}");
    assert!(cache["advice"].as_str().unwrap().contains("rtpt cache clear"), "{cache}");
}

#[test]
fn a_wrong_flag_is_told_before_anything_is_run() {
    let bench = Bench::new();
    for threads in ["0", "99999"] {
        let run = bench.rtpt(&["doctor", "--threads", threads, "--no-timing"]);
        run.fails_with(2, &[&format!("the number of threads is {threads}, expected 1 to 256")]);
        assert!(run.stdout.is_empty(), "{}", run.stdout);
    }
}

#[test]
fn a_damaged_bundle_is_to_be_copied_again() {
    let bench = Bench::new();
    let broken = bench.bundle();
    broken.damage("classes.safetensors", |bytes| bytes.push(0));
    let run = bench.rtpt(&["doctor", "--json", "--bundle", broken.folder()]);
    run.fails_with(3, &["classes.safetensors"]);
    let advice = finding(&run.records()[0], "bundle")["advice"].clone();
    assert!(advice.as_str().unwrap().contains("copy it again"), "{advice}");
}

#[test]
fn nothing_is_made_where_the_cache_would_be() {
    let bench = Bench::new();
    let folder = bench.path("new/and/deep").to_str().unwrap().to_string();
    let run = bench.rtpt(&["doctor", "--no-timing", "--json", "--cache-dir", &folder]);
    assert_eq!(finding(&run.records()[0], "cache")["verdict"], "ok");
    assert!(!bench.path("new").exists());
}

#[test]
fn a_socket_without_a_daemon_is_a_problem() {
    let bench = Bench::new();
    let socket = bench.path("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let run = bench.rtpt(&["doctor", "--no-timing", "--json", "--socket", socket.to_str().unwrap()]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let daemon = finding(&run.records()[0], "daemon").clone();
    assert_eq!(daemon["verdict"], "problem");
    assert!(daemon["advice"].as_str().unwrap().contains("systemctl restart rtpt"), "{daemon}");
    assert_eq!(run.records()[0]["verdict"], "problem");
    // A socket that was named is one that should be there.
    let run = bench.rtpt(&["doctor", "--no-timing", "--json", "--socket", bench.path("none.sock").to_str().unwrap()]);
    let daemon = finding(&run.records()[0], "daemon").clone();
    assert_eq!((run.code, &daemon["verdict"]), (1, &Value::from("problem")));
    assert!(daemon["advice"].as_str().unwrap().contains("name another socket"), "{daemon}");
}

#[test]
fn the_demo_bundle_is_examined_with_its_text_tower() {
    let bench = Bench::new();
    let run = bench.rtpt(&["doctor", "--no-timing", "--json", "--bundle", demo().to_str().unwrap()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let goldens = run.records()[0]["bundle"]["goldens"].clone();
    let stages: Vec<&str> =
        goldens.as_array().unwrap().iter().map(|deviation| deviation["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["view", "features", "logits", "tokens", "texts"]);
}

#[test]
fn a_daemon_is_looked_for_where_it_would_listen() {
    let bench = Bench::new();
    let folder = bench.path("run");
    std::fs::create_dir(&folder).unwrap();
    let mut command = bench.command(&["doctor", "--no-timing", "--json"]);
    command.env("RTPT_BUNDLE", demo()).env("XDG_RUNTIME_DIR", &folder).env_remove("RUNTIME_DIRECTORY");
    let output = command.env_remove("RTPT_SOCKET").output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = finding(&report, "daemon")["found"].as_str().unwrap().to_string();
    // A daemon of the whole device may run here.
    if !std::path::Path::new("/run/rtpt/rtpt.sock").exists() && !std::path::Path::new("/run/rtpt.sock").exists() {
        assert_eq!(found, format!("none: there is no {}", folder.join("rtpt.sock").display()));
    }
}
