//! The boundaries ARCHITECTURE.md promises, as far as a search can check them.

use std::collections::BTreeSet;
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
    only_in(&["tokenizers::", "regex::"], &["text/"]);
}

#[test]
fn matrix_products_go_through_one_place() {
    only_in(&["gemm(", "general_mat_mul"], &["products.rs"]);
}

#[test]
fn unsafe_code_is_in_few_places() {
    // A kernel, and the system's own interfaces: a mapped file, a camera, a fork, descriptors from systemd, the allocator.
    let allowed = [
        "encoder/fused/mod.rs",
        "files/steady.rs",
        "heap.rs",
        "kernels/",
        "products.rs",
        "source/v4l2.rs",
        "source/command.rs",
        "daemon/listen.rs",
    ];
    only_in(&["unsafe {", "unsafe fn", "unsafe impl"], &allowed);
}

#[test]
fn only_views_decide_what_a_pixel_is() {
    only_in(&["use image::", "image::Dynamic", " image::load"], &["views/"]);
}

#[test]
fn clocks_stay_out_of_the_mathematics() {
    let allowed = [
        "cache/disk.rs",
        "label_set/store.rs",
        "classifier.rs",
        "cli/",
        "daemon/",
        "encoder/prepared.rs",
        "eval/",
        "extractor/",
        "files/steady.rs",
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
        &["daemon/", "cli/client.rs", "cli/ask.rs", "cli/labels.rs", "cli/slots.rs", "fuzz.rs"],
    );
}

#[test]
fn cameras_and_child_processes_are_sources() {
    only_in(&["ioctl_", "inotify", "std::process::{Child"], &["source/"]);
}

#[test]
fn one_place_writes_features_to_disk() {
    only_in(&["FOLDER_NAME: &str", "LruCache"], &["cache/"]);
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
    only_in(&["println!", "eprintln!", "process::exit", "env_logger"], &["cli/", "views/jpeg_scans.rs"]);
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
            "examples.rs",
            "import/config/",
            "method/mod.rs",
            "method/settings.rs",
            "metrics.rs",
            "recording/chain.rs",
            "recording/part.rs",
            "report/",
            "rounds.rs",
            "slots/mod.rs",
            "tamper.rs",
            "text/clean.rs",
            "text/layers.rs",
            "text/tower.rs",
            "timings.rs",
            "views/mod.rs",
            "views/resize.rs",
        ],
    );
}

/// Every module with the modules that it may use, each after those: what is not earlier in the table cannot be used, so
/// that no circle can be written down. The command line may use all, and so may what the fuzzer calls.
const USES: &[(&str, &str)] = &[
    ("cause", ""),
    ("heap", ""),
    ("limits", ""),
    ("setting", ""),
    ("wording", ""),
    ("cancellation", ""),
    ("files", ""),
    ("timings", ""),
    ("device", ""),
    ("rows", ""),
    ("metrics", ""),
    ("kernels", ""),
    ("products", "kernels"),
    ("directions", "products rows"),
    ("views", "cause kernels limits setting"),
    ("encoder", "cancellation cause device files kernels limits rows"),
    ("examples", "files limits rows setting wording"),
    ("labels", "examples files limits rows setting wording"),
    ("text", "cause files kernels limits products rows setting wording"),
    ("tuning", "products rows"),
    ("reliability", "products rows"),
    ("method", "directions limits products reliability rows setting text tuning"),
    ("tamper", "directions reliability rows"),
    ("cache", "files limits views"),
    ("bundle", "cause encoder files labels limits method rows text views wording"),
    ("error", "bundle cancellation encoder examples files labels setting text views"),
    ("label_set", "bundle device error examples files labels limits text wording"),
    ("rounds", "error limits method reliability rows setting"),
    ("extractor", "bundle cache cancellation device encoder error labels limits rounds setting timings views"),
    ("listing", "error files limits views wording"),
    ("lock", "error files"),
    ("calibration", "bundle error files label_set limits method rounds rows views"),
    ("signing", "bundle calibration error files limits"),
    ("check", "bundle encoder error label_set products text views"),
    ("source", "error files limits listing views"),
    ("predictor", "bundle calibration error examples label_set method products rounds rows text views"),
    ("quantise", "bundle check encoder error files label_set products rows text views"),
    ("import", "bundle check encoder error files labels limits method rows text views"),
    ("answer", "calibration extractor label_set labels method predictor rounds rows tamper timings views"),
    (
        "eval",
        "calibration error extractor files labels limits listing method metrics predictor products rounds rows tamper timings views wording",
    ),
    ("classifier", "answer bundle cache cancellation error extractor label_set method predictor rounds timings views"),
    (
        "builder",
        "bundle cache calibration classifier error extractor label_set labels method predictor rounds text views",
    ),
    (
        "report",
        "answer classifier error eval extractor files limits method metrics rounds rows timings tuning views wording",
    ),
    ("attack", "classifier error views"),
    (
        "recording",
        "answer bundle cancellation classifier device error examples extractor files label_set labels limits lock method rounds setting text views",
    ),
    ("slots", "bundle calibration check error files limits lock signing"),
    ("stream", "answer cancellation classifier error extractor source views"),
    (
        "daemon",
        "answer bundle cache calibration cancellation check classifier device encoder error examples extractor files heap label_set labels limits lock method predictor recording report rows setting signing slots source stream text timings views wording",
    ),
];

#[test]
fn every_module_uses_what_the_table_says() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let declared: BTreeSet<String> =
        lib.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).map(str::to_string).collect();
    let listed = USES.iter().map(|(name, _)| name.to_string()).chain(["cli".into(), "fuzz".into()]).collect();
    assert_eq!(declared, listed, "a module is missing from the table, or from src/lib.rs");
    for (place, (name, uses)) in USES.iter().enumerate() {
        let earlier: Vec<&str> = USES[..place].iter().map(|(name, _)| *name).collect();
        for used in uses.split_whitespace() {
            assert!(earlier.contains(&used), "{used} stands after {name}, which uses it: that is a circle");
        }
        let expected: BTreeSet<String> = uses.split_whitespace().map(str::to_string).collect();
        assert_eq!(used_by(name, &lib), expected, "what {name} uses is not what the table says it may");
    }
}

#[test]
fn a_use_of_another_module_is_seen() {
    let reexports = "pub use text::{Prompt, TextError};\npub use error::Error;\n";
    let modules =
        names_of("use crate::rows::dot;\nuse crate::{Prompt, Error};\nlet x = crate::limits::Y;\n", reexports);
    assert_eq!(modules, ["error", "limits", "rows", "text"].map(String::from).into());
}

#[test]
fn nothing_below_the_command_line_names_a_flag() {
    let flag = |line: &str| {
        let mut places =
            line.match_indices("--").map(|(at, _)| (line[..at].chars().last(), line[at + 2..].chars().next()));
        places.any(|(before, after)| {
            before.is_none_or(|c| " `\"".contains(c)) && after.is_some_and(|c| c.is_ascii_lowercase())
        })
    };
    let named = |name: &str, text: &str| {
        let text = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        let found = text.lines().find(|line| line.contains("`rtpt ") || line.contains("sudo") || flag(line));
        found.map(|line| format!("src/{name}: {}", line.trim()))
    };
    let code = |name: &str| name.ends_with(".rs") || name.ends_with(".js");
    let (own, below): (Vec<_>, Vec<_>) = sources()
        .into_iter()
        .filter(|(name, _)| code(name))
        .partition(|(name, _)| name.starts_with("cli/") || name == "fuzz.rs");
    assert_eq!(below.iter().find_map(|(name, text)| named(name, text)), None);
    assert!(own.iter().any(|(name, text)| named(name, text).is_some()), "the search is broken");
}

/// The other modules that the files of a module name, tests left out.
fn used_by(module: &str, lib: &str) -> BTreeSet<String> {
    let own = sources().into_iter().filter(|(name, _)| name.split(['/', '.']).next() == Some(module));
    let mut used: BTreeSet<String> = own.flat_map(|(_, text)| names_of(&text, lib)).collect();
    used.remove(module);
    used
}

/// The modules behind every `crate::…` of a text; what `lib` re-exports is traced to its module.
fn names_of(text: &str, lib: &str) -> BTreeSet<String> {
    let text = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
    let word = |text: &str| text.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect::<String>();
    let mut names = Vec::new();
    for path in text.split("crate::").skip(1) {
        match path.strip_prefix('{') {
            Some(group) => names.extend(group.split('}').next().unwrap().split(',').map(|name| word(name.trim()))),
            None => names.push(word(path)),
        }
    }
    names.iter().map(|name| module_of(name, lib)).collect()
}

fn module_of(name: &str, lib: &str) -> String {
    let reexports = lib.split("pub use ").skip(1).map(|rest| rest.split(';').next().unwrap());
    let has = |names: &str| names.trim_matches(['{', '}']).split(',').any(|one| one.trim() == name);
    let found = reexports.filter_map(|reexport| reexport.split_once("::")).find(|(_, names)| has(names));
    found.map_or(name, |(module, _)| module).to_string()
}
