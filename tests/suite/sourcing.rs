//! Sources of frames, and everything that can happen to them. The daemon never ends for any of it.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rtpt_edge::internal::views::{Pixels, encode_jpeg};
use serde_json::Value;

use crate::daemon::{Daemon, until};
use crate::goldens::root;
use crate::program::{Bench, demo, image_bytes, tiny};

/// A JPEG of its own for every number.
fn jpeg(number: u8) -> Vec<u8> {
    let mut pixels = Pixels::black(48, 40);
    pixels.bytes_mut().iter_mut().enumerate().for_each(|(at, byte)| *byte = (at as u8).wrapping_mul(2 * number + 1));
    encode_jpeg(&pixels, 90)
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn source(daemon: &Daemon) -> Value {
    daemon.status()["source"].clone()
}

fn wait_for(daemon: &Daemon, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let found = until(&format!("{what}: {}", source(daemon)), || {
        assert!(daemon.is_running(), "the daemon ended:\n{}", daemon.log());
        Some(source(daemon)).filter(&fits)
    });
    assert_eq!(daemon.get("/readyz").status, 200);
    found
}

#[test]
fn a_folder_of_images_is_gone_through_again_and_again() {
    let bench = Bench::new();
    for number in 0..3 {
        bench.write(&format!("photos/{number}.jpg"), &jpeg(number));
    }
    let folder = bench.path("photos");
    let daemon = Daemon::start(&bench, &["--source", &format!("{}?every=0.05", folder.display())]);
    let mut events = daemon.events();
    let seen: Vec<String> =
        (0..6).map(|_| events.next("decision")["image"]["digest"].as_str().unwrap().to_string()).collect();
    let digests: Vec<String> = (0..3).map(|number| digest(&jpeg(number))).collect();
    for pair in seen.windows(2) {
        let place = |found: &String| digests.iter().position(|digest| digest == found).unwrap();
        assert_eq!(place(&pair[1]), (place(&pair[0]) + 1) % 3, "in order, none left out: files wait for their turn");
    }
    assert_eq!(source(&daemon)["dropped"], 0);
    // A file that is no image is counted, and the others go on; a folder that is gone is waited for.
    bench.write("photos/1.jpg", b"no image");
    wait_for(&daemon, "the bad file is seen", |source| source["failed"].as_u64() > Some(0));
    let mut holed = fs::read(demo().join("../photos/llama.jpg")).unwrap();
    let middle = holed.len() / 2;
    holed[middle..middle + 512].fill(0);
    bench.write("photos/1.jpg", &holed);
    wait_for(&daemon, "the damaged file is seen", |source| source["damaged"].as_u64() > Some(0));
    assert!(daemon.metric("rtpt_frames_damaged_total") > 0.0);
    let moved = bench.path("moved");
    fs::rename(&folder, &moved).unwrap();
    wait_for(&daemon, "it is lost", |source| source["state"] == "lost");
    fs::rename(&moved, &folder).unwrap();
    wait_for(&daemon, "it is back", |source| source["state"] == "streaming" && source["reopens"].as_u64() > Some(0));
}

#[test]
fn frames_of_a_stream_that_are_cut_short_are_counted() {
    let bench = Bench::new();
    let whole = bench.write("whole.jpg", &jpeg(1));
    let cut = bench.write("cut.jpg", &jpeg(2)[..jpeg(2).len() - 20]);
    let film = format!("exec:sh -c 'while true; do cat {cut} {whole}; sleep 0.05; done'");
    let daemon = Daemon::start(&bench, &["--source", &film]);
    wait_for(&daemon, "they are counted", |source| source["damaged"].as_u64() > Some(2));
    let found = source(&daemon);
    assert!(found["failed"].as_u64() >= found["damaged"].as_u64() && found["classified"].as_u64() > Some(0), "{found}");
    assert_eq!(daemon.log().matches("cut short or too long").count(), 1, "{}", daemon.log());
}

#[test]
fn a_watched_folder_gives_files_when_they_are_whole() {
    let bench = Bench::new();
    let inbox = bench.path("inbox");
    fs::create_dir(&inbox).unwrap();
    let daemon = Daemon::start(&bench, &["--source", &format!("watch:{}", inbox.display()), "--source-timeout", "0.2"]);
    let mut events = daemon.events();
    wait_for(&daemon, "it is open", |source| source["state"] == "opening");
    let mut digest_of_next = || events.next("decision")["image"]["digest"].as_str().unwrap().to_string();

    // Written slowly: nothing is seen before the file is closed. Then moved in. What is no image is not looked at.
    let mut file = fs::File::create(inbox.join("slow.jpg")).unwrap();
    for part in jpeg(1).chunks(100) {
        file.write_all(part).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    fs::write(inbox.join("notes.txt"), "no image").unwrap();
    fs::write(inbox.join(".hidden.jpg"), jpeg(9)).unwrap();
    assert_eq!(source(&daemon)["frames"], 0);
    drop(file);
    assert_eq!(digest_of_next(), digest(&jpeg(1)));
    fs::write(bench.path("outside.jpg"), jpeg(2)).unwrap();
    fs::rename(bench.path("outside.jpg"), inbox.join("moved.jpg")).unwrap();
    assert_eq!(digest_of_next(), digest(&jpeg(2)));
    // Many at once: none is dropped.
    (10..30).for_each(|number| fs::write(inbox.join(format!("{number}.jpg")), jpeg(number)).unwrap());
    wait_for(&daemon, "all are classified", |source| source["classified"] == 22);
    assert_eq!(source(&daemon)["dropped"], 0);
    // An empty folder is no lost one; a folder that is gone is, until it is there again.
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(source(&daemon)["state"], "streaming");
    fs::remove_dir_all(&inbox).unwrap();
    let lost = wait_for(&daemon, "it is gone", |source| source["state"] == "lost");
    assert!(lost["problem"].as_str().unwrap().contains("gone"), "{lost}");
    fs::create_dir(&inbox).unwrap();
    wait_for(&daemon, "it is watched again", |source| source["state"] == "opening");
    until("new files are seen", || {
        fs::write(inbox.join("again.jpg"), jpeg(3)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        (source(&daemon)["state"] == "streaming").then_some(())
    });
}

#[test]
fn standard_input_may_be_a_camera() {
    let bench = Bench::new();
    let mut daemon = Daemon::launch(&bench, &["--source", "-"], |command| command.stdin(Stdio::piped()));
    daemon.wait_until_ready();
    let mut events = daemon.events();
    let mut input = daemon.input();
    for number in [4, 5] {
        input.write_all(&jpeg(number)).unwrap();
        assert_eq!(events.next("decision")["image"]["digest"], digest(&jpeg(number)));
    }
    input.write_all(&jpeg(6)[..200]).unwrap();
    drop(input);
    let lost = wait_for(&daemon, "the end is seen", |source| source["state"] == "lost");
    assert!(lost["problem"].as_str().unwrap().contains("it ended"), "{lost}");
    assert_eq!(daemon.classify(&image_bytes("rgb.png"), "").status, 200, "the daemon goes on without it");
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn a_command_is_started_again_whatever_it_does() {
    let bench = Bench::new();
    fs::write(bench.path("a.jpg"), jpeg(1)).unwrap();
    let script = |text: &str| {
        let start = format!("#!/bin/sh\ncd {}\necho $$ > pid\n{text}", bench.path(".").display());
        let path = bench.write("camera.new", start.as_bytes());
        Command::new("chmod").args(["+x", &path]).status().unwrap();
        fs::rename(path, bench.path("camera.sh")).unwrap();
        bench.path("camera.sh").to_str().unwrap().to_string()
    };
    let path = script("while true; do cat a.jpg; sleep 0.02; done");
    let daemon =
        Daemon::start(&bench, &["--source", &format!("exec:{path} --with 'an argument'"), "--source-timeout", "0.5"]);
    wait_for(&daemon, "frames come", |source| source["classified"].as_u64() > Some(2));
    let mut reopens = 0;
    for (text, problem) in [
        ("cat a.jpg; echo 'no such camera' >&2; exit 3", "exit status: 3; it said: no such camera"),
        ("cat a.jpg; sleep 100", "no frame came in time"),
        ("cat a.jpg; head -c 100000 /dev/zero; sleep 100", "no whole JPEG"),
        ("cat a.jpg; head -c 300 a.jpg", "it ended"),
        ("cat a.jpg; kill -9 $$", "signal: 9"),
        ("while true; do printf '\\377\\330\\377\\331'; sleep 0.01; done", "could not be decoded"),
        ("exec >&-; sleep 100", "runs on"),
    ] {
        script(text);
        // The one that runs goes on as it is until it is ended from outside.
        let pid: i32 = fs::read_to_string(bench.path("pid")).unwrap().trim().parse().unwrap();
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        let lost = wait_for(&daemon, problem, |source| {
            source["problem"].as_str().is_some_and(|found| found.contains(problem))
        });
        assert!(lost["reopens"].as_u64() >= Some(reopens), "{lost}");
        reopens = lost["reopens"].as_u64().unwrap();
    }
    let _ = fs::remove_file(&path);
    wait_for(&daemon, "a program that is not there is waited for", |source| {
        source["problem"].as_str().is_some_and(|found| found.contains("cannot start"))
    });
    script("while true; do cat a.jpg; sleep 0.02; done");
    wait_for(&daemon, "frames come again", |source| source["state"] == "streaming");
    assert!(reopens >= 6, "{reopens}");
    // Nothing that was started is left over as a zombie.
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid())).unwrap_or_default();
    let zombies = children.split_whitespace().filter(|child| state_of(child) == Some('Z')).count();
    assert_eq!(zombies, 0);
}

/// The state of a process, by the kernel's letter.
fn state_of(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn a_command_ends_with_the_daemon_however_that_ends() {
    for killed in [true, false] {
        let bench = Bench::new();
        fs::write(bench.path("a.jpg"), jpeg(1)).unwrap();
        let script =
            format!("echo $$ > {0}/pid; while true; do cat {0}/a.jpg; sleep 0.02; done", bench.path(".").display());
        let script = bench.write("camera.sh", script.as_bytes());
        let mut daemon = Daemon::start(&bench, &["--source", &format!("exec:sh {script}")]);
        wait_for(&daemon, "frames come", |source| source["classified"].as_u64() > Some(0));
        let pid = fs::read_to_string(bench.path("pid")).unwrap().trim().to_string();
        assert!(state_of(&pid).is_some());
        if killed {
            daemon.kill()
        } else {
            assert_eq!(daemon.terminate(), Some(0))
        }
        until("the command is gone", || matches!(state_of(&pid), None | Some('Z')).then_some(()));
    }
}

#[test]
fn the_latest_frame_wins_and_requests_get_their_turn() {
    let bench = Bench::new();
    fs::write(bench.path("a.jpg"), jpeg(1)).unwrap();
    let script = format!("while true; do cat {}; sleep 0.002; done", bench.path("a.jpg").display());
    let script = bench.write("camera.sh", script.as_bytes());
    let daemon = Daemon::start(&bench, &["--source", &format!("exec:sh {script}"), "--views", "256"]);
    let first = wait_for(&daemon, "frames are dropped", |source| source["dropped"].as_u64() > Some(20));
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(daemon.classify(&image_bytes("rgb.png"), "?views=1").status, 200);
    }
    let waited = began.elapsed();
    let last = wait_for(&daemon, "frames are classified as well", |source| {
        source["classified"].as_u64() > first["classified"].as_u64()
    });
    let count = |source: &Value, name: &str| source[name].as_u64().unwrap();
    // Each frame was classified, dropped, or is the one in the slot or at work.
    let open = count(&last, "frames") as i64 - (count(&last, "classified") + count(&last, "dropped")) as i64;
    assert!((-2..=3).contains(&open), "{last}");
    assert!(waited < Duration::from_secs(20), "{waited:?}");
    // A source that is taken away at the running daemon stops.
    assert!(daemon.metric("rtpt_frames_dropped_total") >= 20.0);
}

/// A folder that a preloaded library makes a camera of.
struct FakeCamera {
    folder: std::path::PathBuf,
    library: std::path::PathBuf,
}

impl FakeCamera {
    fn new(bench: &Bench, format: &str, frames: &[Vec<u8>]) -> Self {
        let folder = bench.path("camera");
        fs::create_dir(&folder).unwrap();
        let library = bench.path("camera_shim.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-D_FILE_OFFSET_BITS=64", "-o"])
            .arg(&library)
            .arg(root().join("tests/suite/camera_shim.c"))
            .arg("-ldl")
            .status();
        assert!(built.unwrap().success());
        let this = Self { folder, library };
        this.set("format", format.as_bytes());
        frames.iter().enumerate().for_each(|(number, frame)| this.set(&format!("frame-{number}.bin"), frame));
        this
    }

    fn set(&self, name: &str, content: &[u8]) {
        fs::write(self.folder.join(name), content).unwrap();
    }

    fn unset(&self, name: &str) {
        fs::remove_file(self.folder.join(name)).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn daemon(&self, bench: &Bench, spec: &str) -> Daemon {
        let daemon = Daemon::launch(bench, &["--source", spec, "--source-timeout", "0.5"], |command| {
            command.env("LD_PRELOAD", &self.library).env("RTPT_SHIM", &self.folder)
        });
        daemon.wait_until_ready();
        daemon
    }
}

#[test]
fn a_v4l2_camera_gives_jpegs_and_may_be_pulled_out() {
    let bench = Bench::new();
    let frames: Vec<Vec<u8>> = (0..4).map(jpeg).collect();
    let camera = FakeCamera::new(&bench, "MJPG", &frames);
    let mut daemon = camera.daemon(&bench, "v4l2:/dev/video-test?size=640x480&fps=15");
    let mut events = daemon.events();
    let digests: Vec<String> = frames.iter().map(|frame| digest(frame)).collect();
    for _ in 0..6 {
        let seen = events.next("decision");
        assert!(digests.iter().any(|digest| seen["image"]["digest"] == **digest), "{}", seen["image"]);
    }
    assert_eq!(source(&daemon)["failed"], 0, "frames that the camera marks as damaged are not looked at");
    let log = camera.log();
    assert!(["open nonblocking", "size 640x480", "rate 15/1", "on"].iter().all(|line| log.contains(line)), "{log}");

    for (file, problem) in [("unplugged", "unplugged"), ("stalled", "no frame came in time")] {
        camera.set(file, b"");
        wait_for(&daemon, problem, |source| source["problem"].as_str().is_some_and(|found| found.contains(problem)));
        camera.unset(file);
        wait_for(&daemon, "it is back", |source| source["state"] == "streaming");
    }
    for (file, problem) in [
        ("absent", "cannot open /dev/video-test"),
        ("metadata", "try the next"),
        ("busy", "another program uses the camera"),
    ] {
        camera.set(file, b"");
        camera.set("unplugged", b"");
        wait_for(&daemon, problem, |source| source["problem"].as_str().is_some_and(|found| found.contains(problem)));
        camera.unset(file);
        camera.unset("unplugged");
        wait_for(&daemon, "it is back", |source| source["state"] == "streaming");
    }
    assert_eq!(daemon.terminate(), Some(0));
    let log = camera.log();
    assert!(log.ends_with("off\nclose\n"), "{log}");
    assert_eq!(log.matches("open nonblocking\n").count(), log.matches("close\n").count(), "{log}");
}

#[test]
fn a_v4l2_camera_may_give_raw_pixels() {
    let bench = Bench::new();
    // 64×48 in YUYV with padded rows: left black, right white; short buffers and unknown formats follow.
    let row: Vec<u8> = (0..64).flat_map(|x| [if x < 32 { 16 } else { 235 }, 128]).chain([0x55; 16]).collect();
    let camera = FakeCamera::new(&bench, "YUYV", &[row.repeat(48)]);
    let daemon = camera.daemon(&bench, "/dev/video-test");
    daemon.events().next("decision");
    let frame = daemon.get("/v1/frame.jpg");
    assert_eq!(frame.header("content-type"), Some("image/jpeg"));
    let pixels = rtpt_edge::internal::views::decode(&frame.body).unwrap();
    assert_eq!((pixels.width(), pixels.height()), (64, 48));
    for (at, wanted) in [((20 * 64 + 5) * 3, 0_u8), ((40 * 64 + 60) * 3, 255)] {
        assert!(
            pixels.bytes()[at..at + 3].iter().all(|&level| level.abs_diff(wanted) < 4),
            "{:?}",
            &pixels.bytes()[at..at + 3]
        );
    }
    camera.set("frame-0.bin", &row.repeat(47));
    wait_for(&daemon, "frames cut short are counted", |source| source["failed"].as_u64() > Some(0));
    wait_for(&daemon, "and lose the camera", |source| {
        source["problem"].as_str().is_some_and(|problem| problem.contains("could not be decoded"))
    });
    camera.set("format", b"NV12");
    wait_for(&daemon, "other formats are named", |source| {
        source["problem"].as_str().is_some_and(|problem| problem.contains("offers H264, NV12, expected MJPG or YUYV"))
    });
}

#[test]
fn the_doctor_looks_at_cameras_and_what_they_offer() {
    let bench = Bench::new();
    let camera = FakeCamera::new(&bench, "MJPG", &[jpeg(0)]);
    let examine = || {
        let mut command = bench.command(&["doctor", "--json", "--no-timing", "--camera", "/dev/video-test"]);
        command.env("RTPT_BUNDLE", tiny()).env("LD_PRELOAD", &camera.library).env("RTPT_SHIM", &camera.folder);
        let output = command.output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = |list: &str| report[list].as_array().unwrap().clone();
        let finding = found("findings").into_iter().rfind(|finding| finding["topic"] == "camera").unwrap();
        (found("cameras").last().unwrap().clone(), finding)
    };
    let (seen, finding) = examine();
    assert_eq!((&seen["device"], &seen["name"]), (&"/dev/video-test".into(), &"Test camera".into()));
    let formats = serde_json::json!([
        { "format": "H264", "understood": false, "sizes": [[1920, 1080]] },
        { "format": "MJPG", "understood": true, "sizes": [[640, 480], [320, 240]] },
    ]);
    assert_eq!(seen["formats"], formats);
    assert_eq!(finding["verdict"], "ok");
    assert!(finding["found"].as_str().unwrap().contains("MJPG up to 640×480"), "{finding}");
    assert!(finding["advice"].as_str().unwrap().contains("--source /dev/video-test"), "{finding}");
    assert!(!camera.log().contains("on\n") && !camera.log().contains("size"), "nothing is set: {}", camera.log());

    camera.set("format", b"RG10");
    let (_, finding) = examine();
    assert_eq!(finding["verdict"], "warning");
    assert!(finding["advice"].as_str().unwrap().contains("rpicam-vid"), "{finding}");
    camera.set("metadata", b"");
    assert_eq!(examine().1["verdict"], "ok", "a device that gives no frames is none to worry about");
    camera.set("absent", b"");
    let (seen, finding) = examine();
    assert_eq!(finding["verdict"], "problem");
    assert!(seen["problem"].as_str().unwrap().contains("cannot open /dev/video-test"), "{seen}");
}

#[test]
fn what_is_no_source_ends_the_start() {
    let bench = Bench::new();
    for (spec, advice) in [
        ("rtsp://camera/stream", "exec:ffmpeg"),
        ("http://camera/mjpeg", "exec:ffmpeg"),
        ("usb:0", "is not a source that rtpt knows"),
        ("exec:", "names no program"),
        ("nofolder", "which does not exist"),
        ("watch:nofolder", "which does not exist"),
        ("exec:no-such-program", "which is not installed here"),
        ("/dev/zero", "which is neither a file nor a folder"),
    ] {
        bench.rtpt(&["serve", "--source", spec]).fails_with(2, &[advice, spec]);
    }
    bench.rtpt(&["serve", "--source-timeout", "0"]).fails_with(2, &["--source-timeout", "0.1 to 3600 seconds"]);
}

#[test]
fn sources_change_when_the_configuration_does() {
    let bench = Bench::new();
    for folder in ["one", "two"] {
        bench.write(&format!("{folder}/a.jpg"), &jpeg(folder.len() as u8));
    }
    let spec = |folder: &str| format!("source = \"{}?every=0.05\"\n", bench.path(folder).display());
    let config = bench.write("rtpt.toml", spec("one").as_bytes());
    let daemon = Daemon::start(&bench, &["--config", &config]);
    wait_for(&daemon, "the first", |source| {
        source["name"].as_str().unwrap_or("").ends_with("one") && source["state"] == "streaming"
    });
    fs::write(&config, spec("two")).unwrap();
    assert_eq!(daemon.send("POST", "/v1/reload", &[], b"").status, 200);
    wait_for(&daemon, "the second", |source| {
        source["name"].as_str().unwrap_or("").ends_with("two") && source["state"] == "streaming"
    });
    fs::write(&config, "").unwrap();
    assert_eq!(daemon.send("POST", "/v1/reload", &[], b"").status, 200);
    let none = wait_for(&daemon, "none", |source| source["state"] == "none");
    assert_eq!(none["name"], Value::Null);
}
