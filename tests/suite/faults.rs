//! Disks that are full, gone or stuck, by a library that is loaded before the C library.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::errno::Errno;

use crate::daemon::Daemon;
use crate::goldens::root;
use crate::program::Bench;

/// Faults of the calls that a daemon makes.
pub struct Faults {
    folder: PathBuf,
    library: PathBuf,
}

impl Faults {
    pub fn new(bench: &Bench) -> Self {
        let folder = bench.path("faults");
        fs::create_dir(&folder).unwrap();
        let library = bench.path("fault_shim.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&library)
            .arg(root().join("tests/suite/fault_shim.c"))
            .arg("-ldl")
            .status();
        assert!(built.unwrap().success());
        Self { folder, library }
    }

    /// From here on `call` fails with `error` where the path has `part` in it.
    pub fn fail(&self, call: &str, error: Errno, part: &str) {
        self.set(call, error as i32, part);
    }

    /// From here on `call` blocks where the path has `part` in it.
    pub fn block(&self, call: &str, part: &str) {
        self.set(call, 0, part);
    }

    fn set(&self, call: &str, number: i32, part: &str) {
        // Whole at once: it is read all the time.
        let (made, there) = (self.folder.join(format!("{call}.new")), self.folder.join(call));
        fs::write(&made, format!("{number} {part}")).unwrap();
        fs::rename(made, there).unwrap();
    }

    pub fn mend(&self, call: &str) {
        let _ = fs::remove_file(self.folder.join(call));
    }

    /// Ends all faults.
    pub fn mend_all(&self) {
        for entry in fs::read_dir(&self.folder).unwrap() {
            // Another thread may mend the same one.
            let _ = fs::remove_file(entry.unwrap().path());
        }
    }

    /// Sets the clock of the wall so many seconds off.
    pub fn set_clock(&self, seconds: i64) {
        let (made, there) = (self.folder.join("clock.new"), self.folder.join("clock"));
        fs::write(&made, seconds.to_string()).unwrap();
        fs::rename(made, there).unwrap();
    }

    /// Has a program's calls fail.
    pub fn preload(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("RTPT_FAULTS", &self.folder);
    }

    pub fn daemon(&self, bench: &Bench, flags: &[&str]) -> Daemon {
        let daemon = Daemon::launch(bench, flags, |command| {
            command.env("LD_PRELOAD", &self.library).env("RTPT_FAULTS", &self.folder)
        });
        daemon.wait_until_ready();
        daemon
    }
}
