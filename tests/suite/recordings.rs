//! Field recordings and their replay, whole, cut off and damaged.

use std::fs;
use std::path::{Path, PathBuf};

use rtpt_edge::internal::recording::Recording;
use serde_json::Value;

use crate::daemon::{Daemon, until};
use crate::faults::Faults;
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

/// Copies a part's files, each cut to a length, with what it says of itself.
fn cut(from: &Path, to: &Path, frames: usize, decisions: usize) {
    fs::create_dir_all(to).unwrap();
    fs::copy(from.join("heads.jsonl"), to.join("heads.jsonl")).unwrap();
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
        String::from_utf8(lines).unwrap().replacen("\"format\":2", "\"format\":7", 1),
    )
    .unwrap();
    assert!(Recording::open(target.parent().unwrap()).unwrap_err().to_string().contains("format 7"));
}

fn size(folder: &Path) -> u64 {
    let parts = fs::read_dir(folder).unwrap().map(|part| part.unwrap().path());
    parts
        .flat_map(|part| fs::read_dir(part).into_iter().flatten())
        // A file that goes meanwhile takes no room any more.
        .map(|file| file.and_then(|file| file.metadata()).map_or(0, |found| found.len()))
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

    // A folder that is used for something else is left alone.
    let photos = bench.path("photos");
    let elsewhere = ["serve", "--record", photos.to_str().unwrap(), "--socket", "e.sock", "--state", "e"];
    bench.rtpt(&elsewhere).fails_with(2, &["which has other files", "large.png", "--record"]);
    assert!(!photos.join("recording.lock").exists());

    // One daemon a recording.
    let first = Daemon::start(&bench, &flags);
    let (other, state) = (bench.path("other.sock"), bench.path("other"));
    let apart = ["serve", "--socket", other.to_str().unwrap(), "--state", state.to_str().unwrap()];
    bench.rtpt(&[&apart[..], &flags].concat()).fails_with(4, &["another daemon (", "--record"]);
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
    bench.rtpt(&["serve", "--record", &file]).fails_with(1, &["in-the-way is a file, expected a folder"]);
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

/// The lines of a part's file.
fn lines_of(part: &Path, name: &str) -> Vec<String> {
    fs::read_to_string(part.join(name)).unwrap().lines().map(String::from).collect()
}

fn write_lines(part: &Path, name: &str, lines: &[String]) {
    fs::write(part.join(name), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

#[test]
fn a_replay_finds_lines_that_were_changed_left_out_moved_or_added() {
    let bench = Bench::new();
    let folder = record(&bench, 6, &[]);
    let part = folder.join("part-00000001");
    let (lines, heads) = (lines_of(&part, "decisions.jsonl"), lines_of(&part, "heads.jsonl"));
    let (run, summary) = replay(&bench, &folder, &[]);
    assert_eq!((run.code, &summary["altered"]), (0, &serde_json::json!([])), "{}", run.stderr);
    let last: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!(summary["head"], last["chain"], "what a keeper of heads compares");
    assert_eq!(serde_json::from_str::<Value>(heads.last().unwrap()).unwrap()["chain"], last["chain"]);

    let frame: Value = serde_json::from_str(&lines[2]).unwrap();
    let label = format!("\"label\":\"{}\"", frame["answer"]["label"].as_str().unwrap());
    let edited = lines[2].replacen(&label, "\"label\":\"nobody\"", 1);
    assert_ne!(edited, lines[2]);
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        lines
    };
    let cases: [(&str, Vec<String>, &str); 7] = [
        ("edited", with(&|lines| lines[2] = edited.clone()), "at line 3"),
        ("left out", with(&|lines| drop(lines.remove(2))), "at line 3"),
        ("moved", with(&|lines| lines.swap(2, 3)), "first at line 3"),
        ("twice", with(&|lines| lines.insert(3, lines[2].clone())), "at line 4"),
        ("unsealed", with(&|lines| lines[2] = format!("{}}}", lines[2].split(",\"chain\"").next().unwrap())), "1 of"),
        ("cut at the end", with(&|lines| drop(lines.pop())), "1 of"),
        ("settings edited", with(&|lines| lines[0] = lines[0].replacen("\"views\":", "\"views\": ", 1)), "at line 1"),
    ];
    for (what, changed, message) in cases {
        assert_ne!(changed, lines, "{what}");
        write_lines(&part, "decisions.jsonl", &changed);
        let (run, summary) = replay(&bench, &folder, &[]);
        let told = summary["altered"][0].as_str().unwrap_or_else(|| panic!("{what}: {summary}"));
        assert!(run.code == 1 && told.contains(message), "{what}: {told}");
        assert!(run.stderr.contains("changed since it was recorded"), "{what}: {}", run.stderr);
    }
    write_lines(&part, "decisions.jsonl", &lines);
    // What a part had on the disk is not forgotten with the file that says so.
    fs::remove_file(part.join("heads.jsonl")).unwrap();
    let (run, summary) = replay(&bench, &folder, &[]);
    assert!(run.code == 1 && summary["altered"][0].as_str().unwrap().contains("heads.jsonl"), "{summary}");
    // A power cut costs what was not forced to the disk, and that is no change.
    write_lines(&part, "heads.jsonl", &heads[..1]);
    let kept: Value = serde_json::from_str(&heads[0]).unwrap();
    let mut cut = lines[..kept["lines"].as_u64().unwrap() as usize].join("\n") + "\n";
    cut.push_str(&lines.last().unwrap()[..20]);
    fs::write(part.join("decisions.jsonl"), cut).unwrap();
    let (run, summary) = replay(&bench, &folder, &[]);
    assert_eq!((run.code, &summary["altered"]), (0, &serde_json::json!([])), "{}", run.stderr);
    assert_eq!(summary["left_out"].as_array().unwrap().len(), 1);
}

#[test]
fn a_replay_finds_a_part_that_is_missing_and_one_that_was_cut() {
    let bench = Bench::new();
    let (mut daemon, folder) = recorded(&bench, &[]);
    for labels in ["watch\nred\n", "watch\numbrella\n"] {
        let before = committed(&daemon);
        until("frames are on the disk", || (committed(&daemon) >= before + 4).then_some(()));
        assert_eq!(daemon.send("PUT", "/v1/labels", &[], labels.as_bytes()).status, 200);
    }
    let before = committed(&daemon);
    until("frames are on the disk", || (committed(&daemon) >= before + 4).then_some(()));
    let head = daemon.status()["recording"]["head"].clone();
    assert_eq!(head.as_str().unwrap().len(), 64);
    assert_eq!(daemon.terminate(), Some(0));
    // The next run of the daemon continues where this one ended.
    let mut daemon = recorded(&bench, &[]).0;
    until("frames are on the disk", || (committed(&daemon) >= 1).then_some(()));
    assert_eq!(daemon.terminate(), Some(0));
    let parts: Vec<PathBuf> = (1..=4).map(|number| folder.join(format!("part-{number:08}"))).collect();
    assert!(lines_of(&parts[2], "decisions.jsonl").iter().any(|line| line.contains(head.as_str().unwrap())));
    let (run, summary) = replay(&bench, &folder, &[]);
    assert_eq!((run.code, &summary["altered"]), (0, &serde_json::json!([])), "{}", run.stderr);

    // Lines and heads are cut alike; the next part knows better.
    let (lines, heads) = (lines_of(&parts[2], "decisions.jsonl"), lines_of(&parts[2], "heads.jsonl"));
    write_lines(&parts[2], "decisions.jsonl", &lines[..2]);
    write_lines(&parts[2], "heads.jsonl", &[]);
    let (run, summary) = replay(&bench, &folder, &[]);
    assert!(run.code == 1 && summary["altered"][0].as_str().unwrap().contains("continues part 3"), "{summary}");
    write_lines(&parts[2], "decisions.jsonl", &lines);
    write_lines(&parts[2], "heads.jsonl", &heads);
    // The oldest part makes room as days go by.
    fs::remove_dir_all(&parts[0]).unwrap();
    assert_eq!(replay(&bench, &folder, &[]).0.code, 0);
    fs::remove_dir_all(&parts[2]).unwrap();
    let (run, summary) = replay(&bench, &folder, &[]);
    assert!(run.code == 1 && summary["altered"][0].as_str().unwrap().contains("parts are missing"), "{summary}");
}

#[test]
fn a_recording_of_the_version_without_a_chain_is_replayed() {
    let bench = Bench::new();
    let folder = record(&bench, 3, &[]);
    let part = folder.join("part-00000001");
    let old: Vec<String> = lines_of(&part, "decisions.jsonl")
        .iter()
        .map(|line| {
            format!("{}}}", line.split(",\"chain\"").next().unwrap()).replacen("\"format\":2", "\"format\":1", 1)
        })
        .collect();
    write_lines(&part, "decisions.jsonl", &old);
    fs::remove_file(part.join("heads.jsonl")).unwrap();
    let (run, summary) = replay(&bench, &folder, &[]);
    assert_eq!((run.code, &summary["same_bits"], &summary["head"]), (0, &summary["frames"], &Value::Null), "{summary}");
}

#[test]
fn a_folder_that_is_removed_or_moved_away_is_made_anew() {
    let bench = Bench::new();
    let (mut daemon, folder) = recorded(&bench, &[]);
    for step in 0..2 {
        let before = committed(&daemon);
        until("frames are on the disk", || (committed(&daemon) >= before + 3).then_some(()));
        match step {
            0 => fs::remove_dir_all(&folder).unwrap(),
            _ => fs::rename(&folder, bench.path("moved")).unwrap(),
        }
        let before = committed(&daemon);
        until("it is recorded again", || {
            (folder.exists() && committed(&daemon) >= before + 3 && daemon.status()["recording"]["problem"].is_null())
                .then_some(())
        });
    }
    let missed = daemon.status()["recording"]["missed"].as_u64().unwrap();
    assert!(missed > 0, "what went with the folder is counted");
    assert_eq!(daemon.terminate(), Some(0));
    assert!(daemon.log().contains("was removed while it was written"), "{}", daemon.log());
    for folder in [&folder, &bench.path("moved")] {
        let (run, summary) = replay(&bench, folder, &[]);
        assert_eq!((run.code, &summary["same_bits"]), (0, &summary["frames"]), "{}", run.stderr);
        assert!(summary["frames"].as_u64().unwrap() >= 3);
    }
}

#[test]
fn disks_that_fail_in_any_way_cost_the_recording_alone() {
    use nix::errno::Errno;
    let bench = Bench::new();
    let faults = Faults::new(&bench);
    for name in IMAGES {
        bench.write(&format!("photos/{name}"), &image_bytes(name));
    }
    let source = format!("{}?every=0.01", bench.path("photos").display());
    for (number, (call, error, part)) in [
        ("write", Errno::ENOSPC, "frames.bin"),
        ("write", Errno::EIO, "decisions.jsonl"),
        ("write", Errno::ENOSPC, "heads.jsonl"),
        ("fsync", Errno::EIO, "frames.bin"),
        ("fsync", Errno::ENOSPC, "heads.jsonl"),
        ("open", Errno::EROFS, "part-00000002"),
        ("open", Errno::EMFILE, "part-00000002"),
        ("mkdir", Errno::ENOSPC, "part-00000002"),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = bench.path(&format!("recording-{number}"));
        let mut daemon = faults.daemon(&bench, &["--source", &source, "--record", folder.to_str().unwrap()]);
        until("frames are on the disk", || (committed(&daemon) >= 3).then_some(()));
        faults.fail(call, error, part);
        // Other labels begin another part.
        let labels = if number % 2 == 0 { "watch\nred\n" } else { "watch\numbrella\n" };
        assert_eq!(daemon.send("PUT", "/v1/labels", &[], labels.as_bytes()).status, 200);
        let status = until("the problem is told", || {
            Some(daemon.status()).filter(|status| status["recording"]["problem"].is_string())
        });
        let problem = status["recording"]["problem"].as_str().unwrap();
        assert!(
            problem.contains("cannot record") && problem.contains(&format!("os error {}", error as i32)),
            "{call} {error}: {problem}"
        );
        let classified = status["source"]["classified"].as_u64();
        until("frames are classified all the same", || {
            (daemon.status()["source"]["classified"].as_u64() > classified).then_some(())
        });
        assert_eq!(daemon.terminate(), Some(0), "{call} {error}");
        faults.mend(call);
        // What was said to be on the disk is there, and nothing looks changed that was not.
        let on_disk = status["recording"]["committed"].as_u64().unwrap();
        let (run, summary) = replay(&bench, &folder, &[]);
        assert_eq!((run.code, &summary["altered"]), (0, &serde_json::json!([])), "{call} {error}: {}", run.stderr);
        assert!(
            summary["frames"].as_u64().unwrap() >= on_disk,
            "{call} {error}: {summary}, {on_disk} were on the disk"
        );
    }
}
