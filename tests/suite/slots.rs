//! Bundles that are installed while a daemon runs: tried, confirmed, given up; and every way for an archive to be refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::bundles::replace_tensor;
use crate::daemon::{Daemon, until};
use crate::faults::Faults;
use crate::program::{Bench, image_bytes, tiny};
use crate::signing::{make_keys, sign, signature};

/// A bundle that differs from the tiny one by its description, as a newer version would.
fn newer(bench: &Bench, name: &str) -> PathBuf {
    let folder = bench.path(name);
    fs::create_dir_all(&folder).unwrap();
    for entry in fs::read_dir(tiny()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let path = folder.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["description"] = name.into();
    fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    folder
}

fn tar_of(folder: &Path) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    builder.append_dir_all(".", folder).unwrap();
    builder.into_inner().unwrap()
}

/// A calibration of the bundle in a folder, for four views: what is above the threshold is suspicious.
pub fn calibration(folder: &Path, threshold: f32) -> Vec<u8> {
    let manifest = fs::read(folder.join("manifest.json")).unwrap();
    let augment = serde_json::from_slice::<Value>(&manifest).unwrap()["views"]["augment"].clone();
    let calibration = json!({
        "format": 1, "bundle": blake3::hash(&manifest).to_hex().to_string(), "views": 4, "augment": augment, "seed": 0,
        "tamper": {"threshold": threshold, "false_positive_rate": 0.05, "images": 20}, "temperature": null,
    });
    serde_json::to_vec(&calibration).unwrap()
}

fn source(bench: &Bench) -> String {
    bench.write("photos/rgb.png", &image_bytes("rgb.png"));
    format!("{}?every=0.01", bench.path("photos").display())
}

struct Device<'a> {
    bench: &'a Bench,
    slots: PathBuf,
}

impl<'a> Device<'a> {
    fn new(bench: &'a Bench) -> Self {
        Self { bench, slots: bench.path("slots") }
    }

    fn daemon(&self, more: &[&str]) -> Daemon {
        let slots = self.slots.to_str().unwrap();
        Daemon::start(self.bench, &[&["--slots", slots, "--source", &source(self.bench)], more].concat())
    }

    /// Runs `rtpt bundle COMMAND` against the running daemon.
    fn bundle(&self, words: &[&str]) -> crate::program::Run {
        let mut command = self.bench.command(&[&["bundle"], words].concat());
        let output = command.env("RTPT_SOCKET", self.bench.path("rtpt.sock")).output().unwrap();
        crate::program::Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn state(&self) -> Value {
        serde_json::from_slice(&fs::read(self.slots.join("state.json")).unwrap()).unwrap()
    }

    /// What is in the slots' folder but the slots themselves.
    fn leftovers(&self) -> Vec<String> {
        let names = fs::read_dir(&self.slots).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let known = ["a", "b", "state.json", "slots.lock", "in-use.lock", "bundle-versions.json"];
        names.filter(|name| !known.contains(&name.as_str())).collect()
    }
}

fn record(daemon: &Daemon) -> Value {
    daemon.get("/v1/bundle").json()
}

#[test]
fn a_bundle_is_installed_tried_and_confirmed_and_one_can_go_back() {
    let bench = Bench::new();
    let device = Device::new(&bench);
    let daemon = device.daemon(&["--trial-seconds", "1"]);
    let before = daemon.get("/v1/info").json()["model"]["bundle"].clone();
    assert_eq!(record(&daemon)["slot"], Value::Null);
    // As a folder, as a .tar, and as a .tar.zst with a folder in it.
    let mut ids = vec![before];
    for (number, slot) in [(1, "a"), (2, "b"), (3, "a")] {
        let folder = newer(&bench, &format!("version-{number}"));
        let path = match number {
            1 => folder.display().to_string(),
            2 => bench.write("two.tar", &tar_of(&folder)),
            _ => {
                let mut builder = Builder::new(Vec::new());
                builder.append_dir_all("version-3", &folder).unwrap();
                let bytes = builder.into_inner().unwrap();
                bench.write("three.tar.zst", &compress_to_vec(&bytes[..], CompressionLevel::Fastest))
            }
        };
        let run = device.bundle(&["install", &path]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(run.stdout.contains(&format!("slot       {slot}, trial")), "{}", run.stdout);
        assert_eq!(daemon.metric("rtpt_bundle_on_trial"), 1.0);
        let id = daemon.get("/v1/info").json()["model"]["bundle"].clone();
        assert!(!ids.contains(&id), "the new one answers: {id}");
        ids.push(id);
        let again = device.bundle(&["install", &path]);
        assert!(again.code == 2 && again.stderr.contains("is on trial"), "{}", again.stderr);
        until("it is confirmed", || (record(&daemon)["state"] == "confirmed").then_some(()));
        assert_eq!((device.state()["active"].as_str(), &device.state()["trial"]), (Some(slot), &Value::Null));
        assert_eq!(device.leftovers(), [""; 0]);
        let again = device.bundle(&["install", &path]);
        assert!(again.code == 2 && again.stderr.contains("is in force already"), "{}", again.stderr);
    }
    let shown = device.bundle(&["slots"]);
    assert!(shown.stdout.contains("slot       a, confirmed"), "{}", shown.stdout);
    // Back by hand: to the other slot.
    let back = device.bundle(&["rollback"]);
    assert!(back.code == 0 && back.stdout.contains("slot       b, confirmed"), "{}{}", back.stdout, back.stderr);
    assert_eq!(daemon.get("/v1/info").json()["model"]["bundle"], ids[2]);
    assert!(device.bundle(&["slots"]).stdout.contains("given up   slot a: it was asked for"));
}

#[test]
fn a_trial_that_goes_wrong_is_given_up_by_itself() {
    let bench = Bench::new();
    let device = Device::new(&bench);
    let daemon = device.daemon(&["--trial-seconds", "600", "--views", "4"]);
    let before = daemon.get("/v1/info").json()["model"]["bundle"].clone();
    until("frames are answered", || (daemon.metric("rtpt_frames_classified_total") > 30.0).then_some(()));
    // It takes every picture for an attack.
    let nervous = newer(&bench, "nervous");
    fs::write(nervous.join("calibration.json"), calibration(&nervous, 0.0)).unwrap();
    let archive = bench.write("nervous.tar", &tar_of(&nervous));
    let run = device.bundle(&["install", &archive]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let given_up = until("it is given up", || Some(record(&daemon)).filter(|record| record["given_up"].is_object()));
    assert!(given_up["given_up"]["why"].as_str().unwrap().contains("look tampered with"), "{given_up}");
    until("the one before answers", || (daemon.get("/v1/info").json()["model"]["bundle"] == before).then_some(()));
    assert_eq!(device.state()["active"], Value::Null);
    // Confirmed by hand, a trial is over at once.
    let run = device.bundle(&["install", newer(&bench, "good").to_str().unwrap()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = device.bundle(&["confirm"]);
    assert!(run.code == 0 && run.stdout.contains("slot       a, confirmed"), "{}{}", run.stdout, run.stderr);
}

#[test]
fn a_daemon_that_does_not_stay_up_goes_back() {
    let bench = Bench::new();
    let device = Device::new(&bench);
    let slots = device.slots.to_str().unwrap();
    let folder = newer(&bench, "deadly");
    let run = bench.rtpt(&["bundle", "install", "--slots", slots, folder.to_str().unwrap()]);
    assert!(
        run.code == 0 && run.stdout.contains("is in slot a; the next daemon tries it"),
        "{}{}",
        run.stdout,
        run.stderr
    );
    // Ends that are meant do not count, however many there are.
    for _ in 0..5 {
        assert_eq!(device.daemon(&[]).terminate(), Some(0));
    }
    assert_eq!(device.state()["trial"]["starts"], 0);
    for _ in 0..3 {
        let mut daemon = device.daemon(&[]);
        assert_eq!(record(&daemon)["state"], "trial");
        daemon.kill();
    }
    let daemon = device.daemon(&[]);
    assert_eq!(record(&daemon)["slot"], Value::Null);
    assert!(record(&daemon)["given_up"]["why"].as_str().unwrap().contains("ended 3 times during the trial"));
}

#[test]
fn a_bundle_on_trial_that_cannot_be_loaded_is_given_up_at_once() {
    let bench = Bench::new();
    let device = Device::new(&bench);
    let slots = device.slots.to_str().unwrap();
    let folder = newer(&bench, "soon-damaged");
    assert_eq!(bench.rtpt(&["bundle", "install", "--slots", slots, folder.to_str().unwrap()]).code, 0);
    let encoder = device.slots.join("a/image_encoder.onnx");
    let bytes = fs::read(&encoder).unwrap();
    fs::write(&encoder, &bytes[..bytes.len() / 2]).unwrap();
    let daemon = device.daemon(&[]);
    assert_eq!(record(&daemon)["slot"], Value::Null, "{}", daemon.log());
    assert!(record(&daemon)["given_up"]["why"].as_str().unwrap().contains("image_encoder.onnx has size"));
}

/// An archive with one entry more than a good one has.
fn with_entry(folder: &Path, entry: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    builder.append_dir_all(".", folder).unwrap();
    entry(&mut builder);
    builder.into_inner().unwrap()
}

/// A header whose name is written as it is, which the library would refuse to write.
fn raw_header(name: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    header
}

#[test]
fn hostile_archives_are_refused_and_leave_nothing() {
    let bench = Bench::new();
    let device = Device::new(&bench);
    let daemon = device.daemon(&[]);
    let before = daemon.get("/v1/info").json()["model"]["bundle"].clone();
    let folder = newer(&bench, "good");
    let outside = bench.path("outside");
    let good = tar_of(&folder);
    let absolute = outside.display().to_string();
    let link = |kind: EntryType| {
        with_entry(&folder, |builder| {
            let mut header = Header::new_ustar();
            header.set_entry_type(kind);
            header.set_size(0);
            builder.append_link(&mut header, "extra", &outside).unwrap();
        })
    };
    let named = |name: &str| {
        with_entry(&folder, |builder| builder.append(&raw_header(name, EntryType::Regular, 3), &b"abc"[..]).unwrap())
    };
    let zeros = vec![0; 1 << 20];
    let mut bomb = raw_header("zeros.bin", EntryType::Regular, 5 << 30).as_bytes().to_vec();
    (0..64).for_each(|_| bomb.extend(&zeros));
    let many = with_entry(&folder, |builder| {
        for number in 0..300 {
            builder.append(&raw_header(&format!("file-{number}"), EntryType::Regular, 0), &b""[..]).unwrap();
        }
    });
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("escaping", named("../escaped"), "leads out of the bundle's folder"),
        ("escaping deep", named("x/../../escaped"), "leads out of the bundle's folder"),
        ("absolute", named(&absolute), "leads out of the bundle's folder"),
        ("symbolic link", link(EntryType::Symlink), "neither a file nor a folder"),
        ("hard link", link(EntryType::Link), "neither a file nor a folder"),
        (
            "device",
            with_entry(&folder, |builder| builder.append(&raw_header("null", EntryType::Char, 0), &b""[..]).unwrap()),
            "neither a file nor a folder",
        ),
        ("twice", named("labels.txt"), "has it twice"),
        ("deep", named("a/b/c/d/e/f"), "nested too deeply"),
        ("many", many, "more than 256 entries"),
        ("bomb", bomb.clone(), "more than 4096 MiB"),
        ("packed bomb", compress_to_vec(&bomb[..], CompressionLevel::Fastest), "more than 4096 MiB"),
        ("cut off", good[..good.len() / 2].to_vec(), "cannot be installed"),
        (
            "cut off, packed",
            {
                let packed = compress_to_vec(&good[..], CompressionLevel::Fastest);
                packed[..packed.len() / 2].to_vec()
            },
            "cannot be installed",
        ),
        ("no archive", b"hello".to_vec(), "cannot be installed"),
        ("empty", Vec::new(), "it has no files"),
        (
            "no bundle",
            {
                let mut builder = Builder::new(Vec::new());
                builder.append(&raw_header("x", EntryType::Regular, 1), &b"x"[..]).unwrap();
                builder.into_inner().unwrap()
            },
            "has no manifest.json",
        ),
    ];
    for (what, bytes, reason) in cases {
        let archive = bench.write("hostile.tar", &bytes);
        let run = device.bundle(&["install", &archive]);
        assert!(run.code != 0 && run.stderr.contains(reason), "{what}: {}", run.stderr);
        assert_eq!(device.leftovers(), [""; 0], "{what}");
        assert!(
            !outside.exists() && !device.slots.join("a").exists() && !device.slots.join("state.json").exists(),
            "{what}"
        );
    }
    // A file that nothing verified does not come with the rest.
    let archive = bench.write("more.tar", &named("notes.txt"));
    assert_eq!(device.bundle(&["install", &archive]).code, 0);
    assert!(!device.slots.join("a/notes.txt").exists() && device.slots.join("a/labels.txt").exists());
    assert_ne!(daemon.get("/v1/info").json()["model"]["bundle"], before);
}

#[test]
fn a_bundle_whose_goldens_or_signature_are_wrong_is_not_installed() {
    let bench = Bench::new();
    let device = Device::new(&bench);
    let key = make_keys(&bench, "maker");
    let keys = bench.path("keys");
    let first = newer(&bench, "first");
    sign(&bench, first.to_str().unwrap(), &key, &["--bundle-version", "3"]);
    let daemon = device.daemon(&[
        "--bundle",
        first.to_str().unwrap(),
        "--trusted-keys",
        keys.to_str().unwrap(),
        "--trial-seconds",
        "1",
    ]);
    let install = |folder: &Path| device.bundle(&["install", folder.to_str().unwrap()]);
    let unsigned = newer(&bench, "unsigned");
    assert!(install(&unsigned).stderr.contains("manifest.json.minisig is missing"));
    let older = newer(&bench, "older");
    sign(&bench, older.to_str().unwrap(), &key, &["--bundle-version", "2"]);
    assert!(install(&older).stderr.contains("is version 2 of \"tiny\", expected 3 or later"));
    let expired = newer(&bench, "expired");
    let manifest = fs::read(expired.join("manifest.json")).unwrap();
    let over = signature(&key, &manifest, "rtpt name=tiny version=4 expires=2026-01-31");
    fs::write(expired.join("manifest.json.minisig"), over).unwrap();
    let run = install(&expired);
    assert_eq!(run.code, 3, "a bundle's exit code: {}", run.stderr);
    assert_eq!(daemon.send("PUT", "/v1/bundle", &[], &tar_of(&expired)).status, 422, "it is the client's");
    assert!(install(&expired).stderr.contains("expired on 2026-01-31"));
    let broken = bench.bundle();
    replace_tensor(&broken, "features", vec![1, 8], &[0.125_f32; 8].map(f32::to_le_bytes).concat());
    let off = PathBuf::from(broken.folder());
    sign(&bench, off.to_str().unwrap(), &key, &["--bundle-version", "4"]);
    let run = install(&off);
    assert!(run.stderr.contains("goldens are not reproduced"), "{}", run.stderr);
    assert!(!device.slots.join("a").exists() && record(&daemon)["slot"] == Value::Null, "the old one serves on");

    let next = newer(&bench, "next");
    sign(&bench, next.to_str().unwrap(), &key, &["--bundle-version", "4"]);
    assert_eq!(install(&next).code, 0);
    assert_eq!(record(&daemon)["signed"]["version"], 4);
    until("it is confirmed", || (record(&daemon)["state"] == "confirmed").then_some(()));
    assert_eq!(daemon.metric("rtpt_bundle_version"), 4.0);
    let between = newer(&bench, "between");
    sign(&bench, between.to_str().unwrap(), &key, &["--bundle-version", "3"]);
    assert!(install(&between).stderr.contains("expected 4 or later"));
    // Whoever goes back on purpose may have the older one.
    let back = device.bundle(&["rollback"]);
    assert!(back.code == 0, "{}", back.stderr);
    assert_eq!(record(&daemon)["slot"], Value::Null);
}

#[test]
fn without_slots_nothing_is_installed() {
    let bench = Bench::new();
    let _daemon = Daemon::start(&bench, &[]);
    let device = Device::new(&bench);
    let folder = newer(&bench, "good");
    for words in [&["install", folder.to_str().unwrap()][..], &["slots"], &["confirm"], &["rollback"]] {
        let run = device.bundle(words);
        assert!(run.code == 1 && run.stderr.contains("has no bundle slots"), "{words:?}: {}", run.stderr);
    }
    let slots = bench.path("unused");
    bench.rtpt(&["bundle", "rollback", "--slots", slots.to_str().unwrap()]).fails_with(2, &["nothing to go back from"]);
}

/// Steps of an installation at which it can be stopped: a call and what its path has in it.
const STEPS: [(&str, &str); 12] = [
    ("mkdir", "slots/incoming"),
    ("open", "incoming/manifest.json"),
    ("open", "incoming/image_encoder.onnx"),
    ("open", "incoming/goldens.safetensors"),
    ("fsync", "incoming/classes.safetensors"),
    ("fsync", "slots/incoming"),
    ("rename", "slots/outgoing"),
    ("rename", "slots/b"),
    ("fsync", "/slots"),
    ("open", ".state.json"),
    ("fsync", ".state.json"),
    ("rename", "slots/state.json"),
];

#[test]
fn an_installation_that_is_killed_anywhere_leaves_a_good_slot() {
    let bench = Bench::new();
    let device = Device::new(&bench);
    let faults = Faults::new(&bench);
    let slots = device.slots.to_str().unwrap().to_string();
    let install = |folder: &Path| bench.rtpt(&["bundle", "install", "--slots", &slots, folder.to_str().unwrap()]);
    let confirm = || assert_eq!(bench.rtpt(&["bundle", "confirm", "--slots", &slots]).code, 0);
    // Both slots are full: the next one replaces slot b.
    for name in ["one", "two", "three"] {
        let run = install(&newer(&bench, name));
        assert_eq!(run.code, 0, "{}", run.stderr);
        confirm();
    }
    assert_eq!(device.state()["active"], "a");
    let next = newer(&bench, "next");
    let mut stopped = 0;
    // Killed where each step blocks, and at any time between.
    for round in 0..50 {
        let step = STEPS.get(round);
        if let Some((call, part)) = step {
            faults.block(call, part);
        }
        let mut command = bench.command(&["bundle", "install", "--slots", &slots, next.to_str().unwrap()]);
        faults.preload(&mut command);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let wait = Duration::from_millis(if step.is_some() { 1500 } else { 7 * (round as u64 - STEPS.len() as u64) });
        let began = Instant::now();
        while began.elapsed() < wait && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(2));
        }
        let blocked = child.try_wait().unwrap().is_none();
        stopped += usize::from(blocked && step.is_some());
        let _ = child.kill();
        child.wait().unwrap();
        if let Some((call, _)) = step {
            faults.mend(call);
        }
        let state = device.state();
        let active = state["active"].as_str().unwrap();
        let place = device.slots.join(active);
        let check = bench.rtpt(&["bundle", "check", place.to_str().unwrap()]);
        assert_eq!(check.code, 0, "{round} {step:?}: {}", check.stderr);
        let description = bench.rtpt(&["bundle", "info", place.to_str().unwrap()]).stdout;
        if active == "a" {
            assert!(description.contains("three") && state["trial"].is_null(), "{round}: {description}");
        } else {
            // It came to its end: what is in force is the new one, whole and on trial.
            assert!(description.contains("next") && state["trial"]["before"] == "a", "{round}: {description}");
            assert_eq!(bench.rtpt(&["bundle", "rollback", "--slots", &slots]).code, 0);
        }
    }
    assert_eq!(stopped, STEPS.len(), "every step was reached");
    // A daemon that starts there serves, clears up, and can install.
    let mut daemon = device.daemon(&[]);
    assert_eq!(device.leftovers(), [""; 0]);
    assert!(record(&daemon)["slot"] == "a");
    let run = device.bundle(&["install", next.to_str().unwrap()]);
    assert!(run.code == 0 && run.stdout.contains("slot       b, trial"), "{}{}", run.stdout, run.stderr);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
}

#[test]
fn a_confirmation_or_a_way_back_that_is_killed_is_made_or_not() {
    let bench = Bench::new();
    let device = Device::new(&bench);
    let faults = Faults::new(&bench);
    let slots = device.slots.to_str().unwrap().to_string();
    let run = |words: &[&str]| {
        let run = bench.rtpt(&[&["bundle"], words, &["--slots", &slots]].concat());
        assert_eq!(run.code, 0, "{words:?}: {}", run.stderr);
    };
    run(&["install", newer(&bench, "one").to_str().unwrap()]);
    run(&["confirm"]);
    let next = newer(&bench, "next");
    for word in ["confirm", "rollback"] {
        for (call, part) in
            [("open", ".state.json"), ("write", ".state.json"), ("fsync", ".state.json"), ("rename", "state.json")]
        {
            run(&["install", next.to_str().unwrap()]);
            faults.block(call, part);
            let mut command = bench.command(&["bundle", word, "--slots", &slots]);
            faults.preload(&mut command);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            thread::sleep(Duration::from_millis(400));
            assert!(child.try_wait().unwrap().is_none(), "{word} {call}: it blocks there");
            child.kill().unwrap();
            child.wait().unwrap();
            faults.mend(call);
            // It was not made: everything is as before, and it can be asked for again.
            assert!(device.state()["active"] == "b" && device.state()["trial"]["before"] == "a", "{word} {call}");
            run(&[word]);
            assert_eq!(device.state()["active"], if word == "confirm" { "b" } else { "a" }, "{word} {call}");
            if word == "confirm" {
                run(&["rollback"]);
            }
            assert_eq!(device.state()["active"], "a");
        }
    }
}

#[test]
fn a_trial_goes_on_over_reloads() {
    let bench = Bench::new();
    let device = Device::new(&bench);
    let daemon = device.daemon(&["--trial-seconds", "2"]);
    assert_eq!(device.bundle(&["install", newer(&bench, "next").to_str().unwrap()]).code, 0);
    until("it is confirmed, however often the configuration is loaded", || {
        assert_eq!(daemon.send("POST", "/v1/reload", &[], b"").status, 200);
        thread::sleep(Duration::from_millis(200));
        (record(&daemon)["state"] == "confirmed").then_some(())
    });
}

#[test]
fn a_bundle_that_is_only_signed_anew_has_a_whole_trial() {
    let bench = Bench::new();
    let device = Device::new(&bench);
    let key = make_keys(&bench, "maker");
    let keys = bench.path("keys");
    let folder = newer(&bench, "same");
    let folder = folder.to_str().unwrap();
    sign(&bench, folder, &key, &["--bundle-version", "1"]);
    let flags = ["--bundle", folder, "--trusted-keys", keys.to_str().unwrap(), "--trial-seconds", "3"];
    let daemon = device.daemon(&flags);
    until("frames are answered", || (daemon.metric("rtpt_frames_classified_total") > 30.0).then_some(()));
    thread::sleep(Duration::from_secs(4));
    let copy = newer(&bench, "copy");
    fs::copy(Path::new(folder).join("manifest.json"), copy.join("manifest.json")).unwrap();
    sign(&bench, copy.to_str().unwrap(), &key, &["--bundle-version", "2"]);
    let began = Instant::now();
    let run = device.bundle(&["install", "--wait", copy.to_str().unwrap()]);
    assert!(run.code == 0 && run.stdout.contains("slot       a, confirmed"), "{}{}", run.stdout, run.stderr);
    assert!(began.elapsed() >= Duration::from_secs(3), "what the old one did before confirms nothing");
}

#[test]
fn waiting_for_a_trial_tells_when_the_bundle_is_given_up() {
    let bench = Bench::new();
    let device = Device::new(&bench);
    let daemon = device.daemon(&["--trial-seconds", "600"]);
    let folder = newer(&bench, "bad");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| device.bundle(&["install", "--wait", folder.to_str().unwrap()]));
        until("it is on trial", || (record(&daemon)["state"] == "trial").then_some(()));
        assert_eq!(device.bundle(&["rollback"]).code, 0);
        let run = waiting.join().unwrap();
        assert_eq!(run.code, 3, "{}", run.stderr);
        assert!(run.stderr.contains("the bundle in slot a was given up: it was asked for"), "{}", run.stderr);
    });
}

#[test]
fn without_a_daemon_one_can_go_back_to_an_older_version() {
    let bench = Bench::new();
    let device = Device::new(&bench);
    let key = make_keys(&bench, "maker");
    let keys = bench.path("keys");
    let [first, next] = ["first", "next"].map(|name| newer(&bench, name));
    for (folder, version) in [(&first, "1"), (&next, "2")] {
        sign(&bench, folder.to_str().unwrap(), &key, &["--bundle-version", version]);
    }
    let flags = ["--bundle", first.to_str().unwrap(), "--trusted-keys", keys.to_str().unwrap()];
    let mut daemon = device.daemon(&flags);
    assert_eq!(device.bundle(&["install", next.to_str().unwrap()]).code, 0);
    assert_eq!(device.bundle(&["confirm"]).code, 0);
    let slots = device.slots.to_str().unwrap();
    for command in ["rollback", "confirm"] {
        // What the daemon has in use is not changed behind its back.
        bench.rtpt(&["bundle", command, "--slots", slots]).fails_with(4, &["another daemon", "leave --slots out"]);
    }
    assert_eq!(record(&daemon)["slot"], "a");
    assert_eq!(daemon.terminate(), Some(0));
    let run = bench.rtpt(&["bundle", "rollback", "--slots", slots]);
    assert!(run.code == 0 && run.stdout.contains("slot       none"), "{}{}", run.stdout, run.stderr);
    let daemon = device.daemon(&flags);
    assert_eq!(record(&daemon)["signed"]["version"], 1, "{}", daemon.log());
}

#[test]
fn what_was_given_up_is_not_gone_back_to() {
    let bench = Bench::new();
    let device = Device::new(&bench);
    let _daemon = device.daemon(&["--trial-seconds", "600"]);
    for name in ["good", "bad"] {
        assert_eq!(device.bundle(&["install", newer(&bench, name).to_str().unwrap()]).code, 0);
        assert_eq!(device.bundle(&[if name == "good" { "confirm" } else { "rollback" }]).code, 0);
    }
    assert_eq!(device.state()["active"], "a");
    let back = device.bundle(&["rollback"]);
    assert!(back.stdout.contains("slot       none"), "slot b has the bad one: {}{}", back.stdout, back.stderr);
    device.bundle(&["rollback"]).fails_with(2, &["there is nothing to go back from"]);
}

#[test]
fn confirmed_bundles_that_rot_are_left_at_the_next_start() {
    let bench = Bench::new();
    let device = Device::new(&bench);
    let mut daemon = device.daemon(&[]);
    // From the second one goes back to the first, and from that to what the device came with.
    for slot in ["a", "b"] {
        assert_eq!(device.bundle(&["install", newer(&bench, slot).to_str().unwrap()]).code, 0);
        assert_eq!(device.bundle(&["confirm"]).code, 0);
        let encoder = device.slots.join(slot).join("image_encoder.onnx");
        let bytes = fs::read(&encoder).unwrap();
        fs::write(&encoder, &bytes[..bytes.len() / 2]).unwrap();
    }
    // The daemon that runs goes on with what it has.
    assert_eq!(daemon.send("POST", "/v1/reload", &[], b"").status, 500);
    assert_eq!(record(&daemon)["slot"], "b");
    assert_eq!(daemon.terminate(), Some(0));
    let daemon = device.daemon(&[]);
    assert_eq!(record(&daemon)["slot"], Value::Null, "{}", daemon.log());
    assert!(record(&daemon)["given_up"]["why"].as_str().unwrap().contains("it cannot be opened"));
}

#[test]
fn a_calibration_comes_with_its_bundle() {
    let bench = Bench::new();
    let device = Device::new(&bench);
    let daemon = device.daemon(&[]);
    let calibrated = |name: &str| {
        let folder = newer(&bench, name);
        fs::write(folder.join("calibration.json"), calibration(&folder, 0.5)).unwrap();
        folder
    };
    for (name, slot) in [("as-folder", "a"), ("as-archive", "b")] {
        let folder = calibrated(name);
        let path = match slot {
            "a" => folder.display().to_string(),
            _ => bench.write("calibrated.tar", &tar_of(&folder)),
        };
        assert_eq!(device.bundle(&["install", &path]).code, 0);
        assert_eq!(device.bundle(&["confirm"]).code, 0);
        assert!(device.slots.join(slot).join("calibration.json").is_file(), "{name}: {}", daemon.log());
    }
    drop(daemon);
    let folder = calibrated("offline");
    let run = bench.rtpt(&["bundle", "install", "--slots", device.slots.to_str().unwrap(), folder.to_str().unwrap()]);
    assert!(run.code == 0 && run.stdout.contains("its signature was not looked at"), "{}{}", run.stdout, run.stderr);
    assert!(device.slots.join("a/calibration.json").is_file());
}
