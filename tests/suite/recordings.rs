//! Field recordings and their replay, whole, cut off and damaged.

use std::fs;
use std::path::{Path, PathBuf};

use rtpt_edge::internal::recording::Recording;
use serde_json::Value;

use crate::daemon::{Daemon, until};
use crate::program::{Bench, Run, image_bytes};

const IMAGES: [&str; 4] = ["rgb.png", "rgb.jpg", "grey.png", "progressive.jpg"];

fn committed(daemon: &Daemon) -> u64 {
    daemon.status()["recording"]["committed"].as_u64().unwrap()
}

/// A folder of images and the daemon's flags for recording them.
fn recorded(bench: &Bench, more: &[&str]) -> (Daemon, PathBuf) {
    for name in IMAGES {
        bench.write(&format!("photos/{name}"), &image_bytes(name));
    }
    let source = format!("{}?every=0.01", bench.path("photos").display());
    let folder = bench.path("recording");
    let daemon = Daemon::start(bench, &[&["--source", &source, "--record", folder.to_str().unwrap()], more].concat());
    (daemon, folder)
}

/// Records at least `count` frames and ends the daemon.
fn record(bench: &Bench, count: u64, more: &[&str]) -> PathBuf {
    let (mut daemon, folder) = recorded(bench, more);
    until("frames are on the disk", || (committed(&daemon) >= count).then_some(()));
    assert_eq!(daemon.terminate(), Some(0));
    folder
}

fn replay(bench: &Bench, folder: &Path, more: &[&str]) -> (Run, Value) {
    let run = bench.rtpt(&[&["replay", "--json", folder.to_str().unwrap()], more].concat());
    let summary = run.records().pop().unwrap_or_else(|| panic!("{}", run.stderr));
    (run, summary)
}

#[test]
fn every_decision_is_reproduced_to_the_bit() {
    let bench = Bench::new();
    let folder = record(&bench, 10, &["--head", "view-shift", "--views", "9", "--seed", "3", "--threads", "2"]);
    for threads in ["1", "3"] {
        let (run, summary) = replay(&bench, &folder, &["--threads", threads]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let frames = summary["frames"].as_u64().unwrap();
        assert!(frames >= 10 && summary["same_bits"] == frames && summary["same_label"] == frames, "{summary}");
        assert_eq!((&summary["left_out"], &summary["other_device"]), (&serde_json::json!([]), &false.into()));
    }
    let text = bench.rtpt(&["replay", folder.to_str().unwrap()]);
    assert!(text.stdout.contains("reproduced to the bit") && text.stdout.lines().count() == 1, "{}", text.stdout);

    // A decision that was recorded with other bits is told.
    let decisions = folder.join("part-00000001/decisions.jsonl");
    let lines = fs::read_to_string(&decisions).unwrap();
    let place = lines.find("\"bits\":\"").unwrap() + 8;
    let mut changed = lines.clone();
    changed.replace_range(place..place + 1, if &lines[place..place + 1] == "0" { "1" } else { "0" });
    fs::write(&decisions, changed).unwrap();
    let (run, summary) = replay(&bench, &folder, &[]);
    assert_eq!((run.code, summary["frames"].as_u64().unwrap() - summary["same_bits"].as_u64().unwrap()), (1, 1));
    assert!(bench.rtpt(&["replay", folder.to_str().unwrap()]).stdout.contains("→"));
}

#[test]
fn a_replay_may_be_started_in_another_folder() {
    let bench = Bench::new();
    bench.bundle();
    let folder = record(&bench, 2, &["--bundle", "bundle"]);
    let mut command = bench.command(&["replay", folder.to_str().unwrap()]);
    let output = command.current_dir("/").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_replay_may_ask_what_if() {
    let bench = Bench::new();
    let folder = record(&bench, 8, &[]);
    let labels = bench.write("labels.txt", b"watch\numbrella\n");
    let (run, summary) = replay(&bench, &folder, &["--labels", &labels]);
    assert_eq!((run.code, &summary["same_bits"]), (0, &0.into()), "another question has another answer: {summary}");
    assert!(
        run.records()[..8].iter().all(|frame| ["watch", "umbrella"].contains(&frame["replayed"].as_str().unwrap()))
    );
    let (run, summary) = replay(&bench, &folder, &["--head", "mta"]);
    let answered = bench.rtpt(&["classify", "--json", "--head", "mta", "--cache", "off", &bench.image("rgb.png")]);
    let frame = run.records().into_iter().find(|frame| frame["digest"] == answered.records()[0]["digest"]).unwrap();
    assert_eq!(frame["replayed"], answered.records()[0]["label"], "{summary}");
    assert_eq!(frame["replayed_probability"], answered.records()[0]["probability"]);
    let run = bench.rtpt(&["replay", "--head", "none", folder.to_str().unwrap()]);
    assert!(run.code == 0 && run.stdout.contains("would have had the same answer"), "{}", run.stdout);
    // Another model is no what-if.
    let bundle = bench.bundle();
    bundle.manifest(|manifest| manifest["description"] = "another".into());
    bench
        .rtpt(&["replay", "--bundle", bundle.folder(), folder.to_str().unwrap()])
        .fails_with(2, &["was made with the bundle", "--bundle"]);
    for (path, problem) in [("photos", "no parts"), ("nowhere", "cannot be listed")] {
        bench.rtpt(&["replay", bench.path(path).to_str().unwrap()]).fails_with(2, &[problem]);
    }
}

#[test]
fn labels_that_change_begin_a_new_part_and_are_replayed_each_with_its_own() {
    let bench = Bench::new();
    let (mut daemon, folder) = recorded(&bench, &[]);
    until("frames are on the disk", || (committed(&daemon) >= 3).then_some(()));
    assert_eq!(daemon.send("PUT", "/v1/labels", &[], b"1\twatch\n2\twatch\n3\tred\n").status, 200);
    let before = committed(&daemon);
    until("more are", || (committed(&daemon) >= before + 5).then_some(()));
    assert_eq!(daemon.terminate(), Some(0));
    let recording = Recording::open(&folder).unwrap();
    assert_eq!(recording.parts.len(), 2);
    assert_eq!(recording.parts[1].settings.labels, ["watch", "watch", "red"]);
    let (run, summary) = replay(&bench, &folder, &[]);
    assert_eq!((run.code, &summary["same_bits"]), (0, &summary["frames"]), "{summary}");
}

/// Copies a part's files, each cut to a length.
fn cut(from: &Path, to: &Path, frames: usize, decisions: usize) {
    fs::create_dir_all(to).unwrap();
    for (name, length) in [("frames.bin", frames), ("decisions.jsonl", decisions)] {
        fs::write(to.join(name), &fs::read(from.join(name)).unwrap()[..length]).unwrap();
    }
}

#[test]
fn a_recording_cut_off_anywhere_is_readable_up_to_there() {
    let bench = Bench::new();
    let folder = record(&bench, 6, &[]);
    let part = folder.join("part-00000001");
    let whole = &Recording::open(&folder).unwrap().parts[0];
    let (images, lines) = (fs::read(part.join("frames.bin")).unwrap(), fs::read(part.join("decisions.jsonl")).unwrap());
    let first_line = lines.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    let target = bench.path("cut/part-00000001");
    for step in 0..200 {
        let decisions = lines.len() * step / 200;
        cut(&part, &target, images.len(), decisions);
        let opened = Recording::open(target.parent().unwrap());
        if decisions < first_line {
            assert!(opened.unwrap_err().to_string().contains("no part that can be read"), "{decisions}");
            continue;
        }
        let ended = lines[first_line..decisions].iter().filter(|&&byte| byte == b'\n').count();
        let opened = opened.unwrap();
        assert_eq!(opened.left_out.is_empty(), lines[decisions - 1] == b'\n', "a line that was cut off is told");
        let found = &opened.parts[0];
        assert_eq!(found.frames, whole.frames[..ended], "{decisions} bytes of decisions");
    }
    for step in 0..50 {
        let length = images.len() * step / 50;
        cut(&part, &target, length, lines.len());
        let opened = Recording::open(target.parent().unwrap()).unwrap();
        let fits: Vec<_> = whole.frames.iter().filter(|frame| frame.offset + frame.length <= length as u64).collect();
        assert_eq!(opened.parts[0].frames.iter().collect::<Vec<_>>(), fits, "{length} bytes of images");
        assert_eq!(opened.left_out.is_empty(), fits.len() == whole.frames.len());
        assert!(fits.iter().all(|frame| opened.parts[0].image(frame).is_ok()));
    }
    // What a power cut leaves of a page that was never written: zeros, in images and lines.
    let mut zeroed = images.clone();
    let second = &whole.frames[1];
    zeroed[second.offset as usize..][..second.length as usize].fill(0);
    cut(&part, &target, images.len(), lines.len());
    let mut flipped = images.clone();
    flipped[(second.offset + second.length / 2) as usize] ^= 1;
    fs::write(target.join("frames.bin"), flipped).unwrap();
    let opened = &Recording::open(target.parent().unwrap()).unwrap().parts[0];
    let refused = opened.image(&opened.frames[1]).unwrap_err().to_string();
    assert!(refused.contains("another image than the one recorded"), "{refused}");
    assert!(opened.image(&opened.frames[0]).is_ok());
    fs::write(target.join("frames.bin"), zeroed).unwrap();
    let (run, summary) = replay(&bench, target.parent().unwrap(), &[]);
    assert_eq!((run.code, &summary["failed"]), (1, &1.into()), "half-written images are not decided: {summary}");
    assert_eq!(summary["same_bits"].as_u64().unwrap() + 1, summary["frames"].as_u64().unwrap());
    let mut holes = lines.clone();
    holes[first_line + 5..first_line + 60].fill(0);
    fs::write(target.join("decisions.jsonl"), holes).unwrap();
    let opened = Recording::open(target.parent().unwrap()).unwrap();
    assert_eq!((opened.parts[0].frames.len(), opened.left_out.len()), (whole.frames.len() - 1, 1));
    fs::write(
        target.join("decisions.jsonl"),
        lines.iter().map(|&byte| if byte == b'1' { b'7' } else { byte }).collect::<Vec<_>>(),
    )
    .unwrap();
    assert!(Recording::open(target.parent().unwrap()).unwrap_err().to_string().contains("format 7"));
}

fn size(folder: &Path) -> u64 {
    let parts = fs::read_dir(folder).unwrap().map(|part| part.unwrap().path());
    parts
        .flat_map(|part| fs::read_dir(part).into_iter().flatten())
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum()
}

#[test]
fn the_ring_stays_within_its_bound_and_keeps_the_latest() {
    let bench = Bench::new();
    let mut photo = image_bytes("rgb.png");
    photo.resize(60_000, 0);
    bench.write("photos/large.png", &photo);
    let source = format!("{}?every=0", bench.path("photos/large.png").display());
    let folder = bench.path("recording");
    let flags = ["--source", &source, "--record", folder.to_str().unwrap(), "--record-max-mb", "1", "--views", "2"];
    let mut daemon = Daemon::start(&bench, &flags);
    until("more than fits was recorded", || {
        // A part may come and another go while they are counted; at rest the bound is strict, below.
        let found = size(&folder);
        assert!(found <= (1 << 20) + (1 << 18), "{found} bytes");
        (committed(&daemon) > 60).then_some(())
    });
    assert!(daemon.status()["recording"]["bytes"].as_u64().unwrap() <= 1 << 20);
    assert_eq!(daemon.terminate(), Some(0));
    let recording = Recording::open(&folder).unwrap();
    let sequences: Vec<u64> =
        recording.parts.iter().flat_map(|part| part.frames.iter().map(|frame| frame.sequence)).collect();
    assert!(sequences.len() >= 8 && sequences.is_sorted(), "{sequences:?}");
    assert!(sequences[0] > 40, "the oldest are gone: {sequences:?}");
    assert!(size(&folder) <= 1 << 20);

    // One daemon a recording.
    let first = Daemon::start(&bench, &flags);
    let (other, state) = (bench.path("other.sock"), bench.path("other"));
    let apart = ["serve", "--socket", other.to_str().unwrap(), "--state", state.to_str().unwrap()];
    bench.rtpt(&[&apart[..], &flags].concat()).fails_with(4, &["another daemon has", "--record"]);
    drop(first);

    // The next run goes on in the same ring.
    let mut daemon = Daemon::start(&bench, &flags);
    until("it is recorded", || (committed(&daemon) > 3).then_some(()));
    assert_eq!(daemon.terminate(), Some(0));
    assert!(size(&folder) <= 1 << 20);
    let (run, summary) = replay(&bench, &folder, &[]);
    assert_eq!((run.code, &summary["same_bits"]), (0, &summary["frames"]), "{summary}");
    bench
        .rtpt(&["serve", "--record", folder.to_str().unwrap(), "--record-max-mb", "0"])
        .fails_with(2, &["--record-max-mb"]);
}

#[test]
fn a_disk_that_cannot_be_written_costs_the_recording_alone() {
    let bench = Bench::new();
    let file = bench.write("in-the-way", b"");
    bench.rtpt(&["serve", "--record", &file]).fails_with(1, &["cannot write", "in-the-way"]);
    // A limit on file sizes does to a write what a full disk does.
    bench.write("photos/rgb.png", &image_bytes("rgb.png"));
    let source = format!("{}?every=0.01", bench.path("photos").display());
    let folder = bench.path("recording");
    let daemon = Daemon::launch(&bench, &[], |command| {
        let mut limited = std::process::Command::new("sh");
        let script =
            "ulimit -f 24; trap '' XFSZ; exec \"$0\" serve --cache off --source \"$1\" --record \"$2\" 2>\"$3\"";
        limited.args(["-c", script, env!("CARGO_BIN_EXE_rtpt"), &source]).arg(&folder).arg(bench.path("limited.log"));
        for (name, value) in command.get_envs() {
            value.map(|value| limited.env(name, value));
        }
        *command = limited;
        command
    });
    daemon.wait_until_ready();
    let status = until("the problem is told", || {
        Some(daemon.status()).filter(|status| status["recording"]["problem"].is_string())
    });
    assert!(status["recording"]["problem"].as_str().unwrap().contains("cannot record"), "{status}");
    let classified = status["source"]["classified"].as_u64();
    until("frames are classified all the same", || {
        (daemon.status()["source"]["classified"].as_u64() > classified).then_some(())
    });
    assert!(daemon.status()["recording"]["missed"].as_u64() > Some(0));
    until("what was begun counts", || (daemon.status()["recording"]["bytes"] == size(&folder)).then_some(()));
    // What was written before is whole.
    let recording = Recording::open(&folder).unwrap();
    assert!(recording.parts[0].frames.iter().all(|frame| recording.parts[0].image(frame).is_ok()));
    assert!(!recording.parts[0].frames.is_empty());
}
