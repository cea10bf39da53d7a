//! A device in the field: a camera that runs and breaks, many clients, and the power pulled again and again.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rtpt_edge::internal::source::JpegSplitter;

use crate::daemon::{Daemon, is_here, until};
use crate::program::{Bench, demo, image_bytes};

/// The demo's clean photos as ffmpeg's MJPEG: each frame's digest, and what is to be answered to it.
struct Film {
    command: String,
    photos: PathBuf,
    answers: HashMap<String, (String, String)>,
}

impl Film {
    /// Photos that are all cut to one size, as a camera's frames are, and what `rtpt classify` says to each.
    fn shoot(bench: &Bench) -> Self {
        let photos = bench.path("film");
        fs::create_dir(&photos).unwrap();
        let list = fs::read_to_string(demo().join("../photos/photos.tsv")).unwrap();
        let list: Vec<(&str, &str)> = list
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(|line| {
                let fields: Vec<&str> = line.split('\t').collect();
                (fields[0], fields[2])
            })
            .collect();
        for (number, (file, _)) in list.iter().enumerate() {
            fs::copy(demo().join("../photos").join(file), photos.join(format!("{number:02}.jpg"))).unwrap();
        }
        let filter = "scale=240:240:force_original_aspect_ratio=increase,crop=240:240";
        let input = format!("-f image2 -framerate 5 -i {}/%02d.jpg", photos.display());
        let output = format!("-vf {filter} -c:v mjpeg -q:v 3 -huffman default -f mjpeg");
        let once = format!("ffmpeg -hide_banner -loglevel error {input} {output} -");
        let film = Command::new("sh").args(["-c", &once]).output().unwrap();
        assert!(film.status.success(), "{}", String::from_utf8_lossy(&film.stderr));
        let mut splitter = JpegSplitter::default();
        splitter.push(&film.stdout);
        let frames: Vec<Vec<u8>> = std::iter::from_fn(|| splitter.next_jpeg()).collect();
        assert_eq!(frames.len(), list.len());
        let mut answers = HashMap::new();
        for (number, (frame, (_, label))) in frames.iter().zip(&list).enumerate() {
            let path = bench.write(&format!("frames/{number:02}.jpg"), frame);
            let run = bench.rtpt(&["classify", "--json", "--bundle", demo().to_str().unwrap(), "--views", "16", &path]);
            let record = &run.records()[0];
            let answer = record["label"].as_str().unwrap().to_string();
            answers.insert(record["digest"].as_str().unwrap().to_string(), (answer, label.to_string()));
        }
        assert_eq!(answers.len(), list.len(), "ffmpeg makes the same frame of a photo each time");
        let command = format!("ffmpeg -hide_banner -loglevel error -re -stream_loop -1 {input} {output} -");
        Self { command, photos, answers }
    }

    /// The source's name: a shell is not needed for it.
    fn source(&self) -> String {
        format!("exec:{}", self.command)
    }
}

/// The process with this word in its arguments that a daemon started.
fn child_of(daemon: &Daemon, word: &str) -> Option<Pid> {
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok()) else { continue };
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<i32>().ok());
        let arguments = fs::read(path.join("cmdline")).unwrap_or_default();
        if parent == Some(daemon.pid().as_raw()) && String::from_utf8_lossy(&arguments).contains(word) {
            return Some(Pid::from_raw(pid));
        }
    }
    None
}

#[test]
fn a_minute_of_camera_with_answers_right_memory_flat_and_a_camera_that_dies() {
    if !is_here("ffmpeg") {
        return;
    }
    let bench = Bench::new();
    let film = Film::shoot(&bench);
    let right = film.answers.values().filter(|(answer, label)| answer == label).count();
    assert!(right >= 14, "{right} of 16: {:?}", film.answers.values());
    let recording = bench.path("recording");
    let flags = ["--source", &film.source(), "--views", "16", "--record", recording.to_str().unwrap()];
    let mut daemon = Daemon::launch(&bench, &flags, |command| command.env("RTPT_BUNDLE", demo()));
    daemon.wait_until_ready();
    let socket = daemon.socket.to_str().unwrap().to_string();
    let photo = film.photos.join("00.jpg").to_str().unwrap().to_string();
    let done = AtomicBool::new(false);
    let began = Instant::now();
    let minute = Duration::from_secs(60);
    let (decisions, flat, asked) = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = 0;
            while !done.load(Ordering::Relaxed) {
                let run = bench.rtpt(&["ask", "--json", "--socket", &socket, &photo]);
                assert_eq!((run.code, &run.records()[0]["label"]), (0, &"accordion".into()), "{}", run.stderr);
                asked += 1;
                thread::sleep(Duration::from_millis(200));
            }
            asked
        });
        let watching = scope.spawn(|| {
            let mut events = daemon.events();
            let mut decisions = Vec::new();
            while began.elapsed() < minute {
                let decision = events.next("decision");
                let text = |name: &str| decision["image"][name].as_str().unwrap().to_string();
                decisions.push((text("digest"), text("label")));
            }
            decisions
        });
        // Warm after a quarter; from then on it is flat, over a death of the camera in the middle.
        let mut memory = Vec::new();
        let mut killed = false;
        while began.elapsed() < minute {
            if !killed && began.elapsed() > minute / 2 {
                killed = true;
                kill(child_of(&daemon, "ffmpeg").expect("ffmpeg runs"), Signal::SIGKILL).unwrap();
                let lost = until("the loss is noticed", || {
                    Some(daemon.status()).filter(|status| status["source"]["state"] != "streaming")
                });
                let back = Instant::now();
                until("the camera is back", || (daemon.status()["source"]["state"] == "streaming").then_some(()));
                assert!(back.elapsed() < Duration::from_secs(5), "{:?} after {lost}", back.elapsed());
            }
            if began.elapsed() > minute / 4 {
                memory.push(daemon.rss());
            }
            thread::sleep(Duration::from_millis(500));
        }
        done.store(true, Ordering::Relaxed);
        (watching.join().unwrap(), memory, asking.join().unwrap())
    });
    let (least, most) = (flat.iter().copied().fold(f64::MAX, f64::min), flat.iter().copied().fold(0.0, f64::max));
    eprintln!("{} decisions, {asked} requests, memory {:.1} to {:.1} MB", decisions.len(), least / 1e6, most / 1e6);
    // What goes back to the system is no growth.
    assert!(most - flat[0] < 5e6, "{flat:?}");
    assert!(decisions.len() > 60 && asked > 20, "{} decisions, {asked} requests", decisions.len());
    for (digest, label) in &decisions {
        let (expected, _) = film.answers.get(digest).unwrap_or_else(|| panic!("{digest} is no frame of the film"));
        assert_eq!(label, expected, "{digest}");
    }
    let status = daemon.status();
    assert!(status["source"]["reopens"] == 1 && status["source"]["failed"] == 0, "{status}");
    assert_eq!(daemon.terminate(), Some(0));
    let run = bench.rtpt(&["replay", recording.to_str().unwrap()]);
    let frames: usize = run.stdout.split(' ').next().unwrap().parse().unwrap();
    assert!(run.code == 0 && frames >= decisions.len() - 2, "{}: {}", decisions.len(), run.stdout);
}

#[test]
fn two_hundred_clients_get_answers_or_are_told_to_wait() {
    let bench = Bench::new();
    let queue = 8;
    let daemon =
        Daemon::launch(&bench, &["--queue", &queue.to_string(), "--views", "32", "--cache", "off"], |command| {
            command.env("RTPT_BUNDLE", demo())
        });
    daemon.wait_until_ready();
    let image = image_bytes("rgb.png");
    let round = |clients: usize, rounds: usize| -> Vec<(u16, Duration)> {
        thread::scope(|scope| {
            let client = |_| {
                scope.spawn(|| -> Vec<(u16, Duration)> {
                    let one = |_| {
                        let began = Instant::now();
                        let status = daemon.classify(&image, "").status;
                        (status, began.elapsed())
                    };
                    (0..rounds).map(one).collect()
                })
            };
            let all: Vec<_> = (0..clients).map(client).collect();
            all.into_iter().flat_map(|handle| handle.join().unwrap()).collect()
        })
    };
    // The time of one request under the same load: all answers of a few clients, which fill the queue and no more.
    round(20, 2);
    let began = Instant::now();
    let service = round(queue, 4).len() as f64 / began.elapsed().as_secs_f64();
    let service = Duration::from_secs_f64(1.0 / service);
    let (memory, descriptors) = (daemon.rss(), daemon.descriptors());
    let replies = round(200, 3);
    let mut accepted: Vec<Duration> =
        replies.iter().filter(|(status, _)| *status == 200).map(|(_, took)| *took).collect();
    let refused = replies.iter().filter(|(status, _)| *status == 503).count();
    assert_eq!(accepted.len() + refused, 600, "no error but 503");
    assert!(refused > 0 && accepted.len() >= queue, "{} accepted, {refused} refused", accepted.len());
    accepted.sort();
    let p99 = accepted[(accepted.len() * 99).div_ceil(100) - 1];
    // What is at work, what waits, and the time that 200 clients themselves take of two cores.
    let bound = service * (queue as u32 + 1) * 3;
    eprintln!("{} accepted, {refused} refused; one takes {service:?}, p99 {p99:?}, bound {bound:?}", accepted.len());
    assert!(p99 <= bound, "p99 {p99:?}, bound {bound:?}");
    let reply = until("a refusal", || {
        let replies = thread::scope(|scope| {
            let all: Vec<_> = (0..30).map(|_| scope.spawn(|| daemon.classify(&image, ""))).collect();
            all.into_iter().map(|handle| handle.join().unwrap()).collect::<Vec<_>>()
        });
        replies.into_iter().find(|reply| reply.status == 503)
    });
    reply.refused(503, "busy");
    assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    until("descriptors are given back", || (daemon.descriptors() <= descriptors).then_some(()));
    let after = daemon.rss();
    eprintln!("memory {:.1} MB before, {:.1} MB after", memory / 1e6, after / 1e6);
    assert!(after - memory < 5e6, "{memory} bytes before, {after} after");
}

#[test]
fn the_power_may_be_pulled_at_any_moment() {
    let bench = Bench::new();
    // Many small images that differ, so that cache and recording are written all the time.
    for number in 0..200_u32 {
        let mut image = image_bytes("rgb.png");
        image.extend(number.to_le_bytes());
        bench.write(&format!("photos/{number:03}.png"), &image);
    }
    let recording = bench.path("recording");
    let source = format!("{}?every=0.004", bench.path("photos").display());
    let flags = [
        "--source",
        &source,
        "--views",
        "4",
        "--batch",
        "4",
        "--cache",
        "disk",
        "--record",
        recording.to_str().unwrap(),
    ];
    let mut committed = 0;
    for round in 0..50_u64 {
        let mut daemon = Daemon::start(&bench, &flags);
        let log = daemon.log();
        assert!(!log.contains("going on without"), "the cache is whole in round {round}: {log}");
        // At moments that differ: while it starts to write, in the middle, and after a while.
        thread::sleep(Duration::from_millis(7 * (round % 25)));
        if round % 5 == 4 {
            until("something is on the disk", || {
                (daemon.status()["recording"]["committed"].as_u64() > Some(0)).then_some(())
            });
        }
        committed += daemon.status()["recording"]["committed"].as_u64().unwrap();
        daemon.kill();
        fs::remove_file(bench.path("daemon.log")).unwrap();
    }
    let run = bench.rtpt(&["replay", "--json", recording.to_str().unwrap()]);
    let summary = run.records().pop().unwrap();
    assert_eq!((run.code, &summary["failed"]), (0, &0.into()), "{}", run.stderr);
    assert_eq!(summary["same_bits"], summary["frames"], "nothing half-written is served: {summary}");
    let frames = summary["frames"].as_u64().unwrap();
    eprintln!("{committed} frames were said to be on the disk, {frames} are");
    assert!(committed > 0 && frames >= committed, "{frames} frames of {committed}");
    // What the cache has is what is computed anew.
    let photos = bench.path("photos");
    let flags = ["classify", "--json", "--views", "4", "--batch", "4", photos.to_str().unwrap()];
    let (cached, computed) = (bench.rtpt(&flags), bench.rtpt(&[&flags[..], &["--cache", "off"]].concat()));
    let hits = cached.records().iter().filter(|record| record["cached"] == true).count();
    assert!(hits >= 32, "{hits}");
    for (cached, computed) in cached.records().iter().zip(computed.records()) {
        assert_eq!((&cached["digest"], &cached["top"]), (&computed["digest"], &computed["top"]));
    }
}
