//! The boundaries ARCHITECTURE.md promises, as far as a search can check them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::goldens::root;

/// Every source file with its path below `src/` and its text without comments.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    walk(&root().join("src"), &mut files);
    let text_of = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
    };
    let name_of = |path: &PathBuf| path.strip_prefix(root().join("src")).unwrap().to_str().unwrap().to_string();
    files.iter().map(|path| (name_of(path), text_of(path))).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// Asserts that no file outside `allowed` has any of `patterns`, and that some file inside has.
fn only_in(patterns: &[&str], allowed: &[&str]) {
    let mut used = false;
    for (name, text) in sources() {
        let found = patterns.iter().find(|pattern| text.contains(**pattern));
        if allowed.iter().any(|prefix| name.starts_with(prefix)) {
            used |= found.is_some();
        } else {
            assert!(found.is_none(), "src/{name} has {:?}, which belongs in {allowed:?}", found.unwrap());
        }
    }
    assert!(used, "{patterns:?} are nowhere: the search is broken");
}

#[test]
fn only_the_encoder_names_the_engine() {
    only_in(&["tract_core", "tract_onnx"], &["encoder/"]);
}

#[test]
fn only_the_text_tower_names_its_tokenizer_and_its_files() {
    only_in(&["tokenizers::", "memmap2", "regex::"], &["text/"]);
}

#[test]
fn matrix_products_go_through_one_place() {
    only_in(&["gemm(", "general_mat_mul"], &["rows.rs"]);
}

#[test]
fn unsafe_code_is_in_few_places() {
    // A kernel, a mapped file, and the system's own interfaces: a camera, a fork, descriptors from systemd.
    let allowed = ["rows.rs", "text/weights.rs", "source/v4l2.rs", "source/command.rs", "daemon/listen.rs"];
    only_in(&["unsafe {", "unsafe fn", "unsafe impl"], &allowed);
}

#[test]
fn only_views_decide_what_a_pixel_is() {
    only_in(&["use image::", "image::Dynamic", " image::load"], &["views/"]);
}

#[test]
fn clocks_stay_out_of_the_mathematics() {
    let allowed = [
        "label_set/store.rs",
        "classifier.rs",
        "cli/",
        "daemon/",
        "encoder/batch.rs",
        "eval/",
        "extractor.rs",
        "recording/writer.rs",
        "source/",
        "stream/",
        "timings.rs",
    ];
    only_in(&["Instant", "SystemTime"], &allowed);
}

#[test]
fn the_network_is_the_daemons_and_its_clients() {
    only_in(
        &["tokio", "axum", "hyper", "TcpListener", "UnixListener"],
        &["daemon/", "cli/client.rs", "cli/ask.rs", "cli/labels.rs"],
    );
}

#[test]
fn cameras_and_child_processes_are_sources() {
    only_in(&["ioctl_", "inotify", "std::process::{Child"], &["source/"]);
}

#[test]
fn nothing_below_the_daemon_knows_it() {
    for (name, text) in sources() {
        let layer = name.split(['/', '.']).next().unwrap();
        let knows = |other: &str| text.contains(&format!("crate::{other}"));
        if !["daemon", "cli", "lib", "main"].contains(&layer) {
            assert!(!knows("daemon"), "src/{name} knows the daemon");
        }
        if layer == "source" {
            let below = ["error", "files", "limits", "listing", "source", "views"];
            let used = text.match_indices("crate::").map(|(at, _)| &text[at + 7..]);
            for path in used {
                assert!(
                    below.iter().any(|known| path.starts_with(known)),
                    "src/{name} knows {}",
                    &path[..20.min(path.len())]
                );
            }
        }
    }
}

#[test]
fn one_place_writes_features_to_disk() {
    only_in(&["redb::", "LruCache"], &["cache/"]);
}

#[test]
fn one_place_decomposes_matrices() {
    only_in(&["nalgebra"], &["directions.rs"]);
}

#[test]
fn randomness_comes_from_one_place() {
    only_in(&["rand_", "ChaCha"], &["views/sampler.rs"]);
}

#[test]
fn the_library_never_prints_exits_or_installs_a_logger() {
    only_in(&["println!", "eprintln!", "process::exit", "env_logger"], &["cli/"]);
}

#[test]
fn serialised_types_are_promises() {
    only_in(
        &["Serialize", "Deserialize"],
        &[
            "answer.rs",
            "bundle/manifest.rs",
            "calibration.rs",
            "cli/",
            "daemon/protocol.rs",
            "eval/dataset/",
            "eval/journal.rs",
            "eval/record.rs",
            "eval/summary.rs",
            "import/config.rs",
            "method/mod.rs",
            "method/settings.rs",
            "metrics.rs",
            "recording/part.rs",
            "report/",
            "tamper.rs",
            "text/layers.rs",
            "timings.rs",
            "views/mod.rs",
        ],
    );
}

#[test]
fn stages_do_not_know_one_another() {
    let stages = [
        "views",
        "encoder",
        "text",
        "tuning",
        "method",
        "reliability",
        "tamper",
        "cache",
        "classes",
        "bundle",
        "extractor",
        "classifier",
        "eval",
        "attack",
        "calibration",
        "report",
        "check",
        "source",
        "stream",
        "recording",
        "daemon",
    ];
    for (name, text) in sources() {
        let stage = name.split(['/', '.']).next().unwrap();
        if ["views", "encoder", "text", "tuning", "reliability", "directions", "rows", "limits", "error", "files"]
            .contains(&stage)
        {
            for other in stages.iter().filter(|other| **other != stage) {
                assert!(!text.contains(&format!("crate::{other}")), "src/{name} knows {other}");
            }
        }
    }
}
