//! Runs the real `rtpt` the way a user does, and makes the bundles and images it is run on.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::goldens::{Goldens, root};

/// What a run of the program printed and how it ended.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The JSON objects on standard output, one a line.
    pub fn records(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    /// Asserts the exit code and that the message on standard error has all of `parts`.
    pub fn fails_with(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in: {}", self.stderr);
        }
    }
}

/// A folder for one test: its images, its bundle and the program's memory.
pub struct Bench {
    folder: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `rtpt` with the tiny bundle, unless the arguments name another.
    pub fn rtpt(&self, arguments: &[&str]) -> Run {
        self.rtpt_with(arguments, &[])
    }

    /// As [`Self::rtpt`], with `input` on standard input.
    pub fn rtpt_with(&self, arguments: &[&str], input: &[u8]) -> Run {
        let mut command = self.command(arguments);
        command.env("RTPT_BUNDLE", tiny());
        run(command, input)
    }

    /// As [`Self::rtpt`], with no bundle named.
    pub fn rtpt_without_bundle(&self, arguments: &[&str]) -> Run {
        run(self.command(arguments), &[])
    }

    /// As [`Self::rtpt_without_bundle`], by a program in the `target/release` of a clone: this one's own may be elsewhere.
    pub fn rtpt_in_clone(&self, arguments: &[&str]) -> Run {
        let clone = self.path("clone");
        let (program, model) = (clone.join("target/release/rtpt"), clone.join("models/everyday"));
        for path in [&program, &model] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        let built = Path::new(env!("CARGO_BIN_EXE_rtpt"));
        fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).unwrap();
        symlink(root().join("models/everyday"), &model).unwrap();
        run(self.prepared(program_at(&program), arguments), &[])
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        self.prepared(program(), arguments)
    }

    fn prepared(&self, mut command: Command, arguments: &[&str]) -> Command {
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("XDG_CACHE_HOME", self.path("memory"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env_remove("RTPT_TRUSTED_KEYS")
            .env_remove("RTPT_BUNDLE")
            .env_remove("RUST_LOG");
        command
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_string()
    }

    /// A golden image file, such as `rgb.png` or `progressive.jpg`.
    pub fn image(&self, golden: &str) -> String {
        self.write(golden, &image_bytes(golden))
    }

    /// A copy of the tiny bundle, to be broken.
    pub fn bundle(&self) -> BrokenBundle {
        let folder = self.path("bundle");
        fs::create_dir_all(&folder).unwrap();
        for entry in fs::read_dir(tiny()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
        BrokenBundle { folder }
    }
}

/// `rtpt`; where the tests run under emulation, by the same emulator.
pub fn program() -> Command {
    program_at(Path::new(env!("CARGO_BIN_EXE_rtpt")))
}

fn program_at(path: &Path) -> Command {
    let emulator = std::env::var("RTPT_TESTS_EMULATOR").unwrap_or_default();
    let mut words = emulator.split_whitespace().map(OsStr::new).chain([path.as_os_str()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

pub fn tiny() -> PathBuf {
    root().join("tests/data/tiny")
}

/// The demo bundle, which is small and has a text tower.
pub fn demo() -> PathBuf {
    root().join("models/demo/bundle")
}

pub fn image_bytes(golden: &str) -> Vec<u8> {
    Goldens::open("decoding.safetensors").bytes(&format!("{golden}.file"))
}

pub fn run(mut command: Command, input: &[u8]) -> Run {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rtpt starts");
    // A program that fails early does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A bundle whose files can be changed with and without the manifest knowing.
pub struct BrokenBundle {
    folder: PathBuf,
}

impl BrokenBundle {
    pub fn folder(&self) -> &str {
        self.folder.to_str().unwrap()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Changes the bytes of a file and leaves its record as it was.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.file(name)).unwrap();
        change(&mut bytes);
        fs::write(self.file(name), bytes).unwrap();
    }

    /// Changes the bytes of a file and its record, as a faulty exporter would.
    pub fn forge(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        self.damage(name, change);
        let bytes = fs::read(self.file(name)).unwrap();
        self.manifest(|manifest| {
            manifest["files"][name]["size"] = bytes.len().into();
            manifest["files"][name]["blake3"] = blake3::hash(&bytes).to_hex().to_string().into();
        });
    }

    /// Changes the manifest.
    pub fn manifest(&self, change: impl FnOnce(&mut Value)) {
        let path: &Path = &self.file("manifest.json");
        let mut manifest = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        change(&mut manifest);
        fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    }
}
