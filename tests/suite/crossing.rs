//! The scripts that build for ARM, as someone runs them on a machine where something is wrong.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::goldens::root;
use crate::program::Bench;

/// A folder with the programs that scripts may use, and no other.
struct Programs(PathBuf);

impl Programs {
    /// All of this machine's, but `missing`.
    fn without(bench: &Bench, missing: &[&str]) -> Self {
        let folder = bench.path(&format!("bin-without-{}", missing.join("-")));
        fs::create_dir(&folder).unwrap();
        for path in std::env::split_paths(&std::env::var_os("PATH").unwrap()) {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if !missing.iter().any(|left_out| name == **left_out) {
                    // The first of a name wins, as it does in PATH.
                    let _ = symlink(entry.path(), folder.join(name));
                }
            }
        }
        Self(folder)
    }

    /// Replaces one by a script.
    fn with(self, name: &str, script: &str) -> Self {
        let path = self.0.join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// Runs a script of `cross/` with them.
    fn run(&self, script: &str, arguments: &[&str], environment: &[(&str, &Path)]) -> Output {
        let mut command = Command::new(root().join("cross").join(script));
        command.args(arguments).env("PATH", &self.0).envs(environment.iter().copied());
        command.env_remove("CARGO_TARGET_DIR").output().unwrap()
    }
}

/// Asserts that a script failed with one line that has all of `parts`.
fn fails_with_one_line(output: &Output, parts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

/// The set-up script is for Debian on x86-64; elsewhere it says so, and there is no more to test.
fn is_debian() -> bool {
    let there = |path: &str| Path::new(path).exists();
    let debian = cfg!(target_arch = "x86_64")
        && there("/usr/bin/apt-get")
        && (there("/usr/share/keyrings/debian-archive-keyring.gpg")
            || there("/usr/share/keyrings/debian-archive-keyring.pgp"));
    if !debian {
        eprintln!("passed over: this is no Debian on x86-64");
    }
    debian
}

#[test]
fn a_missing_tool_is_named_with_what_to_do() {
    if !is_debian() {
        return;
    }
    let bench = Bench::new();
    let chain = bench.path("chain");
    for (tool, advice) in [
        ("cargo", "https://rustup.rs"),
        ("apt-get", "use rustup targets"),
        ("dpkg-deb", "use rustup targets"),
        ("python3", "apt install python3"),
    ] {
        let output = Programs::without(&bench, &[tool]).run("setup-debian.sh", &[], &[("RTPT_TOOLCHAIN", &chain)]);
        fails_with_one_line(&output, &[&format!("{tool} is missing"), advice]);
    }
    let no_pip = Programs::without(&bench, &["pip"]).with("python3", "exit 1");
    fails_with_one_line(
        &no_pip.run("setup-debian.sh", &[], &[("RTPT_TOOLCHAIN", &chain)]),
        &["pip is missing", "apt install python3-pip"],
    );
    let mac = Programs::without(&bench, &["none"]).with("uname", "echo Darwin arm64");
    fails_with_one_line(
        &mac.run("setup-debian.sh", &[], &[("RTPT_TOOLCHAIN", &chain)]),
        &["this is Darwin arm64", "rustup"],
    );
    assert!(!chain.exists(), "nothing is made before everything is there");
}

#[test]
fn a_full_disk_and_a_missing_network_are_told() {
    if !is_debian() {
        return;
    }
    let bench = Bench::new();
    let chain = bench.path("chain");
    let environment: [(&str, &Path); 1] = [("RTPT_TOOLCHAIN", &chain)];
    let small = Programs::without(&bench, &["a"])
        .with("df", "echo Filesystem 1M-blocks Used Available; echo /dev/x 1000 990 10 99% /");
    fails_with_one_line(&small.run("setup-debian.sh", &[], &environment), &["10 MiB are free", "expected 3072"]);
    let fills = Programs::without(&bench, &["b"])
        .with("apt-get", "echo 'E: Write error - write (28: No space left on device)' >&2; exit 100");
    let output = fills.run("setup-debian.sh", &[], &environment);
    fails_with_one_line(&output, &["the disk is full", "RTPT_TOOLCHAIN"]);
    let all = Programs::without(&bench, &["c"]);
    let used = bench.write("used/file", b"precious");
    let used = Path::new(&used).parent().unwrap();
    let output = all.run("setup-debian.sh", &[], &[("RTPT_TOOLCHAIN", used)]);
    fails_with_one_line(&output, &["holds other things", "RTPT_TOOLCHAIN"]);
    assert_eq!(fs::read(used.join("file")).unwrap(), b"precious");
    let nowhere = [("RTPT_TOOLCHAIN", chain.as_path()), ("RTPT_DEBIAN_MIRROR", Path::new("http://127.0.0.1:9"))];
    let output = all.run("setup-debian.sh", &[], &nowhere);
    fails_with_one_line(&output, &["no package lists from http://127.0.0.1:9", "is there a network?"]);
    fails_with_one_line(&all.run("setup-debian.sh", &["--check"], &environment), &["run: cross/setup-debian.sh"]);
}

#[test]
fn versions_that_do_not_fit_are_told() {
    if !is_debian() {
        return;
    }
    let bench = Bench::new();
    let chain = bench.path("chain");
    // What a mirror in the middle of an update says, and one whose compiler is too old.
    let policy = |name: &str, compiler: &str, library: &str| {
        let script = format!(
            "case $2 in rustc-web) v={compiler} ;; libstd-rust-web-dev:arm64) v={library} ;; *) v={compiler} ;; esac\n\
             echo \"  Candidate: $v\""
        );
        let programs = Programs::without(&bench, &[name]).with("apt-get", "exit 0").with("apt-cache", &script);
        programs.run("setup-debian.sh", &[], &[("RTPT_TOOLCHAIN", &chain)])
    };
    let output = policy("a", "1.96.0+dfsg1-1", "1.95.0+dfsg1-1");
    fails_with_one_line(&output, &["version 1.96.0+dfsg1-1", "libstd-rust-web-dev:arm64 1.95.0", "try again later"]);
    let output = policy("b", "1.63.0+dfsg1-2", "1.63.0+dfsg1-2");
    fails_with_one_line(&output, &["version 1.63.0+dfsg1-2, expected 1.91 or newer", "rustup"]);
    let output = policy("c", "\"\"", "\"\"");
    fails_with_one_line(&output, &["rustc-web has version none"]);
}

#[test]
fn cargo_is_given_the_target_that_is_there() {
    let bench = Bench::new();
    let nothing = Programs::without(&bench, &["rustup"]).with("rustup", "exit 0");
    let empty = bench.path("empty");
    let environment: [(&str, &Path); 1] = [("RTPT_TOOLCHAIN", &empty)];
    for (arguments, parts) in [
        (
            &["aarch64", "build"][..],
            &["no compiler for aarch64-unknown-linux-gnu", "cross/setup-debian.sh", "rustup"][..],
        ),
        (&["armv7", "build"], &["rustup target add armv7-unknown-linux-gnueabihf"]),
        (&["riscv", "build"], &["unknown target riscv, expected aarch64 (arm64) or armv7 (armhf)"]),
        (&["aarch64"], &["expected a target and a command of cargo"]),
    ] {
        fails_with_one_line(&nothing.run("cargo.sh", arguments, &environment), parts);
    }
    let of_rustup = Programs::without(&bench, &["a"])
        .with("rustup", "echo aarch64-unknown-linux-gnu")
        .with("aarch64-linux-gnu-gcc", "")
        .with("rustc", "echo rustc 1.95.0")
        .with("cargo", "echo \"$@\"; env");
    let output = of_rustup.run("cargo.sh", &["aarch64", "build", "--bin", "rtpt"], &environment);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Where cargo-auditable is installed, it builds.
    let said = said.strip_prefix("auditable ").unwrap_or(&said);
    assert!(said.starts_with("build --locked --target aarch64-unknown-linux-gnu --bin rtpt\n"), "{said}");
    assert!(said.contains("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc"), "{said}");
    assert!(!said.contains("\nRUSTC="), "rustup's own compiler is used: {said}");
    let without_gcc = Programs::without(&bench, &["aarch64-linux-gnu-gcc"])
        .with("rustup", "echo aarch64-unknown-linux-gnu")
        .run("cargo.sh", &["aarch64", "build"], &environment);
    fails_with_one_line(&without_gcc, &["aarch64-linux-gnu-gcc is missing", "apt install gcc-aarch64-linux-gnu"]);
}

#[test]
fn a_program_that_asks_too_much_is_told() {
    let script = root().join("cross/check-program.sh");
    let program = std::env::current_exe().unwrap();
    let check = |megabytes: &str, most: &str| {
        Command::new(&script).args([program.to_str().unwrap(), megabytes, most]).output().unwrap()
    };
    fails_with_one_line(&check("9999", "2.3"), &["needs glibc 2.", "expected 2.3 or older"]);
    // A test is linked by this machine's own tools, against libgcc_s as well.
    fails_with_one_line(&check("9999", "2.99"), &["needs libgcc_s.so.1, which not every device has"]);
    let text = Command::new(&script).arg(root().join("Cargo.toml")).arg("1").output().unwrap();
    fails_with_one_line(&text, &["is no program that can be read"]);
    fails_with_one_line(&check("many", "2.31"), &["the largest size is many, expected a number"]);
    fails_with_one_line(&check("30", "new"), &["the newest glibc is new, expected such as 2.31"]);
    // A program of the system's that needs the C library alone.
    let small = |megabytes: &str| Command::new(&script).args(["/bin/true", megabytes, "2.99"]).output().unwrap();
    fails_with_one_line(&small("0"), &["expected at most 0 MB"]);
    let output = small("1");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("needs glibc 2."), "{said}");
}

#[test]
fn what_is_built_does_not_name_the_folder_it_was_built_in() {
    let bench = Bench::new();
    let built = |folder: &str| {
        // As cargo compiles a package: from its own folder, a library by a path below the sources, another by one below the registry.
        let (source, home) = (bench.path(folder), bench.path(&format!("{folder}-home")));
        let program =
            bench.write(&format!("{folder}/src/main.rs"), b"fn main() { println!(\"{}\", krate::name()); panic!(); }");
        let package = bench.write(
            &format!("{folder}-home/registry/src/index-1/krate/lib.rs"),
            b"pub fn name() -> &'static str { file!() }",
        );
        let compile = |arguments: &[&str]| {
            let mut command = Command::new(root().join("cross/rustc.sh"));
            command.arg("rustc").args(arguments).current_dir(&source);
            command.env("CARGO_HOME", &home).env("RTPT_SOURCE", &source).env_remove("CARGO_TARGET_DIR");
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let common = ["--edition=2024", "-Copt-level=1", "-Cstrip=symbols", "--out-dir=out"];
        compile(&[&["--crate-type=rlib", "--crate-name=krate", &package], &common[..]].concat());
        compile(&[&["--extern=krate=out/libkrate.rlib", &program], &common[..]].concat());
        fs::read(source.join("out/main")).unwrap()
    };
    let (one, other) = (built("one"), built("somewhere-else"));
    let text = String::from_utf8_lossy(&one);
    assert!(text.contains("/rtpt-edge/src/main.rs") && text.contains("/crates/krate/lib.rs"));
    assert!(!text.contains(bench.path("one").to_str().unwrap()));
    assert!(one == other, "two folders give two programs");
}
