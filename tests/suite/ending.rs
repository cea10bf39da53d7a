//! The end of a daemon: within five seconds, whatever blocks.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::daemon::{Daemon, until};
use crate::faults::Faults;
use crate::program::{Bench, image_bytes};

/// What is promised to whoever sends SIGTERM.
const BOUND: Duration = Duration::from_secs(5);

/// Sends SIGTERM; the exit code, after no more than the bound.
#[track_caller]
fn ends(daemon: &mut Daemon) -> Option<i32> {
    let began = Instant::now();
    let code = daemon.terminate();
    assert!(began.elapsed() < BOUND, "it took {:?}:\n{}", began.elapsed(), daemon.log());
    code
}

fn photos(bench: &Bench) -> String {
    bench.write("photos/rgb.png", &image_bytes("rgb.png"));
    format!("{}?every=0.01", bench.path("photos").display())
}

#[test]
fn clients_that_do_not_move_are_cut_off() {
    let bench = Bench::new();
    let mut daemon = Daemon::start(&bench, &["--source", &photos(&bench)]);
    let mut held: Vec<UnixStream> = (0..4).map(|_| UnixStream::connect(&daemon.socket).unwrap()).collect();
    let requests: [&[u8]; 4] = [
        b"",
        b"GET /v1/info HTTP/1.1\r\nhost: lo",
        b"POST /v1/classify HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nabc",
        b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ];
    held.iter_mut().zip(requests).for_each(|(stream, request)| stream.write_all(request).unwrap());
    // The last one follows events, and reads none.
    held[3].read_exact(&mut [0; 100]).unwrap();
    assert_eq!(ends(&mut daemon), Some(0));
}

#[test]
fn a_command_that_takes_no_notice_is_killed() {
    let bench = Bench::new();
    let deaf = "exec:sh -c 'trap \"\" TERM INT; while true; do sleep 1; done'";
    let mut daemon = Daemon::start(&bench, &["--source", deaf]);
    assert_eq!(ends(&mut daemon), Some(0));
}

#[test]
fn a_disk_that_is_stuck_is_not_waited_for() {
    let bench = Bench::new();
    let faults = Faults::new(&bench);
    let folder = bench.path("recording");
    let flags = ["--source", &photos(&bench), "--record", folder.to_str().unwrap()];
    for call in ["fsync", "write"] {
        let mut daemon = faults.daemon(&bench, &flags);
        until("frames are on the disk", || (daemon.metric("rtpt_frames_recorded_total") > 2.0).then_some(()));
        faults.block(call, "decisions.jsonl");
        let before = daemon.metric("rtpt_frames_unrecorded_total");
        until("the disk is stuck, and frames are classified all the same", || {
            (daemon.metric("rtpt_frames_unrecorded_total") > before + 5.0).then_some(())
        });
        assert_eq!(ends(&mut daemon), Some(0), "{call}");
        assert!(daemon.log().contains("the recording does not end; ending without it"), "{call}: {}", daemon.log());
        faults.mend(call);
    }
}

#[test]
fn a_model_that_is_being_loaded_ends_with_the_daemon() {
    let bench = Bench::new();
    let faults = Faults::new(&bench);
    let mut daemon = faults.daemon(&bench, &["--source", &photos(&bench)]);
    faults.block("open", "manifest.json");
    daemon.signal(Signal::SIGHUP);
    until("the model is loaded again", || daemon.status()["changing"]["what"].as_str().map(String::from));
    // A second change waits for the first.
    daemon.signal(Signal::SIGHUP);
    assert_eq!(ends(&mut daemon), Some(0));
    // At the start nothing else is there yet.
    let mut daemon =
        Daemon::launch(&bench, &["--bundle-wait", "60"], |command| command.env("RTPT_BUNDLE", bench.path("nowhere")));
    until("it lives", || daemon.try_get("/healthz"));
    assert_eq!(ends(&mut daemon), Some(0));
}

#[test]
fn a_log_that_nobody_reads_holds_up_the_daemon_but_not_its_end() {
    let bench = Bench::new();
    let mut daemon = Daemon::launch(&bench, &["--source", &photos(&bench)], |command| {
        // A pipe that is full: its reader is there and reads nothing.
        command.env("RUST_LOG", "trace").stderr(Stdio::piped())
    });
    until("the daemon is held up by its log", || {
        let mut stream = UnixStream::connect(&daemon.socket).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        stream
            .write_all(b"GET /v1/classify/some/long/path HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .ok()?;
        stream.read(&mut [0; 100]).err()
    });
    assert_eq!(ends(&mut daemon), Some(4), "it says that something blocked, by its code");
}

#[test]
fn a_second_signal_ends_at_once() {
    let bench = Bench::new();
    let faults = Faults::new(&bench);
    let folder = bench.path("recording");
    let mut daemon = faults.daemon(&bench, &["--source", &photos(&bench), "--record", folder.to_str().unwrap()]);
    until("frames are on the disk", || (daemon.metric("rtpt_frames_recorded_total") > 2.0).then_some(()));
    faults.block("fsync", "decisions.jsonl");
    std::thread::sleep(Duration::from_millis(1100));
    daemon.signal(Signal::SIGINT);
    until("it is ending", || daemon.log().contains("ending").then_some(()));
    daemon.signal(Signal::SIGINT);
    assert_eq!(daemon.wait(), Some(130), "as a shell reports a process that SIGINT ended");
    assert!(daemon.log().contains("by a second signal"), "{}", daemon.log());
}

#[test]
fn commands_of_a_source_end_by_the_usual_signals() {
    // The daemon hears signals by handlers and not by a mask, which children would have as well.
    let bench = Bench::new();
    let source = "exec:sh -c 'grep SigBlk /proc/self/status >&2; sleep 100'";
    let daemon = Daemon::start(&bench, &["--source", source]);
    let line =
        until("the command speaks", || daemon.log().lines().find(|line| line.contains("SigBlk")).map(String::from));
    assert!(line.ends_with("0000000000000000"), "{line}");
}
