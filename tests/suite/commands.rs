//! The blocks of the documents, done as a reader does them.
//!
//! A page is one session in a terminal: its `sh` blocks run one after another in one shell, in a folder that looks like a
//! clone. A block whose last command ends in ` &` starts a daemon, which is waited for. A block ```` ```sh no-run: REASON ````
//! is not run.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::daemon::{free_port, is_here};
use crate::goldens::root;
use crate::program::Bench;

/// Longest run of a page; several may share two slow cores.
const PAGE_MAX: Duration = Duration::from_secs(200);
/// Port of the page in the documents.
const PORT: &str = "8080";
/// What may stand after the three backticks, besides `sh` with a reason.
const LANGUAGES: [&str; 6] = ["sh", "text", "toml", "json", "rust", "ini"];
/// Waits until the daemon that was just started is ready; fails if it ends or takes too long.
const WAIT_UNTIL_READY: &str = "
tries=600
until rtpt status 2>/dev/null | grep ', ready,' >/dev/null; do
    kill -0 $!
    tries=$((tries - 1))
    test $tries -gt 0
    sleep 0.1
done
";

/// Makes a test of every page, and the list of all.
macro_rules! pages {
    ($($test:ident: $page:literal,)*) => {
        const PAGES: &[&str] = &[$($page),*];
        $(
            #[test]
            fn $test() {
                run($page);
            }
        )*
    };
}

pages! {
    readme: "README.md",
    index: "docs/README.md",
    arm: "docs/arm.md",
    attacks: "docs/attacks.md",
    cameras: "docs/cameras.md",
    classify: "docs/classify.md",
    daemon: "docs/daemon.md",
    evaluate: "docs/evaluate.md",
    explain: "docs/explain.md",
    jetson: "docs/jetson.md",
    labels: "docs/labels.md",
    library: "docs/library.md",
    limits: "docs/limits.md",
    methods: "docs/methods.md",
    raspberry_pi: "docs/raspberry-pi.md",
    rounds: "docs/rounds.md",
    troubleshooting: "docs/troubleshooting.md",
    updates: "docs/updates.md",
    your_own_model: "docs/your-own-model.md",
}

#[test]
fn every_page_is_run_and_every_block_that_is_not_has_a_reason() {
    let files = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut there: BTreeSet<String> = files.map(|name| format!("docs/{}", name.to_str().unwrap())).collect();
    there.insert("README.md".into());
    assert_eq!(there, PAGES.iter().map(ToString::to_string).collect());
    let mut run = 0;
    for block in PAGES.iter().flat_map(|page| blocks(page)) {
        run += usize::from(block.info == "sh");
        let reason = block.info.strip_prefix("sh no-run: ").is_some_and(|reason| reason.len() > 5);
        assert!(reason || LANGUAGES.contains(&&*block.info), "{}: unknown kind of block {:?}", block.place, block.info);
    }
    assert!(run > 30, "{run} blocks are run");
}

#[test]
fn configurations_are_taken() {
    let bench = Bench::new();
    let mut taken = 0;
    for Block { place, text, .. } in all_blocks("toml") {
        if text.starts_with("[dependencies]") {
            let parsed: toml::Table = toml::from_str(&text).unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!(parsed["dependencies"]["rtpt-edge"]["default-features"], false.into(), "{place}");
            continue;
        }
        let config = bench.write("rtpt.toml", text.as_bytes());
        let [socket, state] = ["socket", "state"].map(|name| bench.path(name).to_str().unwrap().to_string());
        // Waiting for the bundle, so that a folder of the reader's is not asked for.
        let flags = ["--bundle", "/nowhere", "--bundle-wait", "1", "--socket", &socket, "--state", &state];
        let run = bench.rtpt(&[&["serve", "--config", &config][..], &flags].concat());
        // File and values were taken if the bundle is what is missing, or a camera's program.
        let missing = ["there is no folder /nowhere", "which is not installed here"];
        assert!(missing.iter().any(|what| run.stderr.contains(what)), "{place}: {}", run.stderr);
        taken += 1;
    }
    assert!(taken > 3, "{taken}");
}

#[test]
fn records_are_as_the_program_writes_them() {
    let bench = Bench::new();
    let [Block { text, .. }] = &all_blocks("json")[..] else { panic!("expected one record in the documents") };
    let documented: Value = serde_json::from_str(text).unwrap();
    let photo = root().join(documented["path"].as_str().unwrap());
    let run = bench.rtpt_in_clone(&["classify", "--json", "--top", "2", photo.to_str().unwrap()]);
    let written = &run.records()[0];
    assert_eq!(keys(&documented), keys(written));
    for same in ["digest", "label", "method", "views", "zero_shot/label", "tamper/suspicious"] {
        let pointer = format!("/{same}");
        assert_eq!(documented.pointer(&pointer), written.pointer(&pointer), "{same}");
    }
}

/// A fenced block of a document.
struct Block {
    /// File and line.
    place: String,
    /// What stands after the backticks.
    info: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
        let text = inside.map(|line| format!("{line}\n")).collect();
        blocks.push(Block { place: format!("{page}:{}", number + 1), info: info.into(), text });
    }
    blocks
}

fn all_blocks(info: &str) -> Vec<Block> {
    PAGES.iter().flat_map(|page| blocks(page)).filter(|block| block.info == info).collect()
}

/// The names of all fields, those inside others as `outer/inner`.
fn keys(record: &Value) -> BTreeSet<String> {
    match record {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| {
                let inner = keys(value).into_iter().map(move |inner| format!("{name}/{inner}"));
                inner.chain([name.clone()]).collect::<Vec<_>>()
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(keys).collect(),
        _ => BTreeSet::new(),
    }
}

/// Runs the blocks of a page that can be run.
#[track_caller]
fn run(page: &str) {
    let mut script = "set -euo pipefail\n".to_string();
    for Block { place, text, .. } in blocks(page).into_iter().filter(|block| block.info == "sh") {
        script += &format!("echo '== {place}' >&2\n{text}");
        let last = text.lines().last().and_then(|line| line.split(" #").next()).unwrap_or_default();
        if last.trim_end().ends_with(" &") {
            script += WAIT_UNTIL_READY;
        }
    }
    if script.contains("curl ") && !is_here("curl") {
        return;
    }
    let bench = Bench::new();
    lay_out_clone(&bench);
    lay_out_what_the_reader_has(&bench);
    Session::start(&bench, &script.replace(PORT, &free_port().to_string())).finish(page);
}

/// What a clone has after `make build`.
fn lay_out_clone(bench: &Bench) {
    for entry in fs::read_dir(root()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_str().unwrap().to_string();
        if name != "target" && !name.starts_with('.') {
            symlink(entry.path(), bench.path(&name)).unwrap();
        }
    }
    fs::create_dir_all(bench.path("target/release")).unwrap();
    symlink(env!("CARGO_BIN_EXE_rtpt"), bench.path("target/release/rtpt")).unwrap();
}

/// What the documents say that the reader brings: a model from a hub.
fn lay_out_what_the_reader_has(bench: &Bench) {
    copy_folder(&root().join("tests/data/tiny-clip"), &bench.path("clip-vit-base-patch32"));
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, copy) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else {
            fs::copy(path, copy).unwrap();
        }
    }
}

/// A shell that runs a page, with all that it starts; killed when the test ends.
struct Session<'a> {
    bench: &'a Bench,
    shell: Child,
}

impl<'a> Session<'a> {
    fn start(bench: &'a Bench, script: &str) -> Self {
        bench.write("page.sh", script.as_bytes());
        let log = fs::File::create(bench.path("page.log")).unwrap();
        let programs = std::env::var("PATH").unwrap();
        let mut command = Command::new("bash");
        command.arg("page.sh").current_dir(bench.path(".")).process_group(0);
        command.env("PATH", format!("{}:{programs}", bench.path("target/release").display()));
        for (name, folder) in [
            ("HOME", "home"),
            ("XDG_CACHE_HOME", "home/cache"),
            ("XDG_STATE_HOME", "home/state"),
            ("XDG_RUNTIME_DIR", "home/run"),
        ] {
            fs::create_dir_all(bench.path(folder)).unwrap();
            command.env(name, bench.path(folder));
        }
        for name in ["RTPT_BUNDLE", "RTPT_SOCKET", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "RUST_LOG"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { bench, shell: command.spawn().unwrap() }
    }

    /// Waits for the end of the page.
    #[track_caller]
    fn finish(mut self, page: &str) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.shell.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < PAGE_MAX, "{page} takes too long:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        };
        assert!(status.success(), "{page}: a block fails ({status}):\n{}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.bench.path("page.log")).unwrap_or_default()
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // The group outlives the shell as long as a daemon is in it.
        let _ = killpg(Pid::from_raw(self.shell.id().cast_signed()), Signal::SIGKILL);
        let _ = self.shell.wait();
    }
}
