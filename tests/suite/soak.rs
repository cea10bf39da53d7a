//! Hours of use with everything that goes wrong in them: `make soak HOURS=2`. The daemon must neither end nor grow.
//!
//! A daemon records, gets frames from a command and from a watched folder by turns, has clients of every kind, other labels and reloads,
//! while disks fail, clocks jump, files are cut and frames are broken. Memory, descriptors, threads and the time of an answer are sampled;
//! what grows steadily fails the run.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::daemon::{Daemon, exchange, free_port};
use crate::faults::Faults;
use crate::goldens::root;
use crate::program::{Bench, demo, image_bytes};

/// Largest growth of memory that is taken for none (MiB an hour), and the most memory (MiB).
const GROWTH_MAX: f64 = 1.0;
const RSS_MAX: f64 = 130.0;
/// Growth of descriptors and threads that is taken for none (count an hour): over two hours the swing of the least counts alone makes one.
const COUNT_GROWTH_MAX: f64 = 2.0;
/// The least time over which a growth can be told from chance (hours).
const GROWTH_FROM: f64 = 1.0;

const TOKEN: &str = "soak-token-0123456789";

struct Sample {
    seconds: f64,
    rss_mib: f64,
    descriptors: f64,
    threads: f64,
    ask_ms: f64,
}

/// A random number below `bound`, from a counter: the same from run to run.
struct Draws(AtomicU64);

impl Draws {
    fn below(&self, bound: u64) -> u64 {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        let digest = blake3::hash(&number.to_le_bytes());
        u64::from_le_bytes(*digest.as_bytes().first_chunk().unwrap()) % bound
    }

    fn of<'a, T>(&self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }
}

struct Soak<'a> {
    bench: &'a Bench,
    faults: &'a Faults,
    daemon: Mutex<Daemon>,
    port: u16,
    photos: Vec<Vec<u8>>,
    draws: Draws,
    over: AtomicBool,
    answered: AtomicU64,
    refused: AtomicU64,
}

/// Ends all threads when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "it takes the hours in RTPT_SOAK_HOURS"]
fn hours_of_use_with_everything_that_goes_wrong() {
    let hours: f64 = std::env::var("RTPT_SOAK_HOURS").expect("RTPT_SOAK_HOURS").parse().unwrap();
    let bench = Bench::new();
    let faults = Faults::new(&bench);
    let list = fs::read_to_string(demo().join("../photos/photos.tsv")).unwrap();
    let names = list
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split('\t').next().unwrap());
    let mut photos: Vec<Vec<u8>> = names.map(|name| fs::read(demo().join("../photos").join(name)).unwrap()).collect();
    photos.push(image_bytes("progressive.jpg"));
    for (number, photo) in photos.iter().enumerate() {
        bench.write(&format!("film/{number:02}.jpg"), photo);
    }
    fs::create_dir(bench.path("watched")).unwrap();
    copy_bundle(&bench);
    let port = free_port();
    let token = bench.write("token", TOKEN.as_bytes());
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let soak = Soak {
        daemon: Mutex::new(start(&bench, &faults, port)),
        bench: &bench,
        faults: &faults,
        port,
        photos,
        draws: Draws(AtomicU64::new(0)),
        over: AtomicBool::new(false),
        answered: AtomicU64::new(0),
        refused: AtomicU64::new(0),
    };
    let seconds = hours * 3600.0;
    let samples = thread::scope(|scope| {
        let soak = &soak;
        scope.spawn(move || soak.clients());
        scope.spawn(move || soak.strangers());
        scope.spawn(move || soak.frames());
        scope.spawn(move || soak.changes());
        // Also where this panics: a scope waits for its threads.
        let _over = Over(&soak.over);
        // The first part has ends of every kind in it; what is left is one process, in which growth can be seen.
        soak.ends(seconds * 0.1).and_then(|()| soak.sample(seconds * 0.9))
    });
    let samples = samples.unwrap_or_else(|problem| panic!("{problem}\n{}", soak.daemon.lock().unwrap().log()));
    let report = judge(&samples, hours, soak.answered.load(Ordering::Relaxed), soak.refused.load(Ordering::Relaxed));
    let folder = root().join(std::env::var("CARGO_TARGET_DIR").unwrap_or("target".into())).join("soak");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("samples.tsv"), table(&samples)).unwrap();
    println!("{}", report.text);
    soak.faults.mend_all();
    let mut daemon = soak.daemon.lock().unwrap();
    assert_eq!(daemon.terminate(), Some(0));
    let replay = bench.rtpt(&["replay", "--json", bench.path("recording").to_str().unwrap()]);
    println!("{}", replay.stdout.lines().last().unwrap_or_default());
    assert!(report.good, "something grows, or is too large");
}

fn copy_bundle(bench: &Bench) {
    let folder = bench.path("bundle");
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(demo()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
}

/// The configuration, with one of the two sources.
fn configure(bench: &Bench, source: usize) {
    let film = bench.path("film");
    let command =
        format!("exec:sh -c 'while true; do for f in {}/*.jpg; do cat $f; sleep 0.2; done; done'", film.display());
    let watched = format!("watch:{}", bench.path("watched").display());
    let text = format!("source = {:?}\nviews = 16\n", [command, watched][source]);
    bench.write("rtpt.toml", text.as_bytes());
}

fn start(bench: &Bench, faults: &Faults, port: u16) -> Daemon {
    configure(bench, 0);
    let (config, token, listen) = (bench.path("rtpt.toml"), bench.path("token"), format!("127.0.0.1:{port}"));
    let recording = bench.path("recording");
    let flags = [
        "--config",
        config.to_str().unwrap(),
        "--listen",
        &listen,
        "--token-file",
        token.to_str().unwrap(),
        "--record",
        recording.to_str().unwrap(),
        "--record-max-mb",
        "64",
    ];
    let daemon = Daemon::launch(bench, &flags, |command| {
        faults.preload(command);
        command.env("RTPT_BUNDLE", bench.path("bundle")).env("RUST_LOG", "warn")
    });
    daemon.wait_until_ready();
    daemon
}

impl Soak<'_> {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn socket(&self) -> PathBuf {
        self.bench.path("rtpt.sock")
    }

    fn rest(&self, milliseconds: u64) {
        let until = Instant::now() + Duration::from_millis(milliseconds);
        while !self.is_over() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Option<u16> {
        let stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let reply = exchange(stream, method, path, &[], body)?;
        let counter = if reply.status < 400 { &self.answered } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        Some(reply.status)
    }

    /// Clients that mean well: images, some of them broken, pictures of the page, metrics.
    fn clients(&self) {
        while !self.is_over() {
            let mut image = self.draws.of(&self.photos).clone();
            match self.draws.below(8) {
                0 => image.truncate(image.len() / 2),
                1 => {
                    let (start, length) = (image.len() / 3, image.len() / 4);
                    image[start..start + length].fill(0);
                }
                _ => {}
            }
            let views = [1, 8, 16, 64][self.draws.below(4) as usize];
            self.ask("POST", &format!("/v1/classify?views={views}"), &image);
            let path = *self.draws.of(&[
                "/v1/views.jpg",
                "/v1/frame.jpg",
                "/metrics",
                "/v1/info",
                "/v1/history",
                "/",
                "/nowhere",
            ]);
            self.ask("GET", path, b"");
            self.rest(200 + self.draws.below(800));
        }
    }

    /// Clients that do not: no token, no end, nothing read.
    fn strangers(&self) {
        let mut held: Vec<std::net::TcpStream> = Vec::new();
        while !self.is_over() {
            let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.port)) else {
                self.rest(500);
                continue;
            };
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let with_token = format!("authorization: Bearer {TOKEN}\r\n");
            let text = match self.draws.below(6) {
                0 => "GET /v1/info HTTP/1.1\r\nhost: localhost\r\n\r\n".to_string(),
                1 => format!(
                    "POST /v1/classify HTTP/1.1\r\nhost: localhost\r\n{with_token}content-length: 5000\r\n\r\nabc"
                ),
                2 => format!("GET /v1/events HTTP/1.1\r\nhost: localhost\r\n{with_token}\r\n"),
                3 => "nonsense\r\n\r\n".into(),
                4 => String::new(),
                _ => format!("GET /v1/views.jpg HTTP/1.1\r\nhost: localhost\r\n{with_token}\r\n"),
            };
            let _ = stream.write_all(text.as_bytes());
            held.push(stream);
            if held.len() > 40 {
                held.drain(..self.draws.below(40) as usize);
            }
            self.rest(self.draws.below(400));
        }
    }

    /// Files for the watched folder, whole, cut and broken.
    fn frames(&self) {
        let mut number = 0_u64;
        while !self.is_over() {
            let mut image = self.draws.of(&self.photos).clone();
            if self.draws.below(5) == 0 {
                image.truncate(self.draws.below(image.len() as u64) as usize);
            }
            number += 1;
            let path = self.bench.path(&format!("watched/{:03}.jpg", number % 200));
            let _ = fs::write(path, image);
            self.rest(150);
        }
    }

    /// Other labels, reloads with the other source, and faults that come and go.
    fn changes(&self) {
        let lists = ["llama\nbeaver\n", "cup\nchair\nwatch\numbrella\n", "a red car\na blue car\n"];
        let mut source = 0;
        while !self.is_over() {
            self.rest(5_000);
            match self.draws.below(13) {
                0 | 1 => drop(self.ask("PUT", "/v1/labels", self.draws.of(&lists).as_bytes())),
                2 => drop(self.ask("DELETE", "/v1/labels", b"")),
                3 | 4 => {
                    source = 1 - source;
                    configure(self.bench, source);
                    self.ask("POST", "/v1/reload", b"");
                }
                5 => self.with_fault("write", Errno::ENOSPC, "/recording/"),
                6 => self.with_fault("fsync", Errno::EIO, "/recording/"),
                7 => self.with_fault("open", Errno::EROFS, "/part-"),
                8 => self.with_fault("accept", Errno::EMFILE, "any"),
                9 => {
                    let _running = self.daemon.lock().unwrap();
                    let _ = fs::remove_dir_all(self.bench.path("recording"));
                }
                10 => self.cut_bundle(),
                11 => self.jump_clock(),
                _ => drop(self.ask("POST", "/v1/reload", b"")),
            }
        }
    }

    fn with_fault(&self, call: &str, error: Errno, part: &str) {
        // A daemon that starts on a disk that cannot be written ends, and says why: no daemon is started meanwhile.
        let _running = self.daemon.lock().unwrap();
        self.faults.fail(call, error, part);
        self.rest(3_000);
        self.faults.mend(call);
    }

    /// A file of the bundle is cut while it is in use, and made whole again: what is in force serves on.
    fn cut_bundle(&self) {
        let _running = self.daemon.lock().unwrap();
        let name = *self.draws.of(&["image_encoder.onnx", "text_encoder.safetensors", "manifest.json"]);
        let path = self.bench.path(&format!("bundle/{name}"));
        let whole = fs::read(demo().join(name)).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        self.ask("POST", "/v1/reload", b"");
        self.ask("PUT", "/v1/labels", b"llama\nbeaver\ncup\n");
        fs::write(&path, &whole).unwrap();
        self.ask("POST", "/v1/reload", b"");
    }

    fn jump_clock(&self) {
        let hours = [-48, -1, 1, 1000][self.draws.below(4) as usize];
        self.faults.set_clock(hours * 3600);
        self.rest(3_000);
        self.faults.set_clock(0);
    }

    /// Ends of every kind, for so many seconds, each followed by a start.
    fn ends(&self, seconds: f64) -> Result<(), String> {
        let began = Instant::now();
        let mut number = 0;
        while began.elapsed().as_secs_f64() < seconds {
            self.rest(8_000);
            self.faults.mend_all();
            let mut daemon = self.daemon.lock().unwrap();
            if !daemon.is_running() {
                return Err("the daemon ended by itself".into());
            }
            match number % 3 {
                0 => daemon.kill(),
                1 => drop(daemon.terminate()),
                _ => {
                    daemon.signal(Signal::SIGINT);
                    daemon.signal(Signal::SIGINT);
                    daemon.wait();
                }
            }
            number += 1;
            *daemon = start(self.bench, self.faults, self.port);
        }
        println!("{number} ends and starts");
        Ok(())
    }

    fn sample(&self, seconds: f64) -> Result<Vec<Sample>, String> {
        let began = Instant::now();
        let mut samples = Vec::new();
        while began.elapsed().as_secs_f64() < seconds {
            self.rest(5_000);
            let asked = Instant::now();
            self.ask("POST", "/v1/classify?views=8", &self.photos[0]);
            let ask_ms = asked.elapsed().as_secs_f64() * 1e3;
            let daemon = self.daemon.lock().unwrap();
            if !daemon.is_running() {
                return Err(format!("the daemon ended by itself after {:.0} s", began.elapsed().as_secs_f64()));
            }
            samples.push(Sample {
                seconds: began.elapsed().as_secs_f64(),
                rss_mib: daemon.rss() / f64::from(1 << 20),
                descriptors: daemon.descriptors() as f64,
                threads: fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().count() as f64,
                ask_ms,
            });
        }
        Ok(samples)
    }
}

struct Report {
    text: String,
    good: bool,
}

fn judge(samples: &[Sample], hours: f64, answered: u64, refused: u64) -> Report {
    let mut text = String::new();
    let mut good = true;
    let points = |of: fn(&Sample) -> f64| samples.iter().map(|sample| (sample.seconds, of(sample))).collect::<Vec<_>>();
    let mut row = |name: &str, of: fn(&Sample) -> f64, growth: f64, most: f64, growth_max: f64| {
        let mut values: Vec<f64> = samples.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let (median, largest) = (values[values.len() / 2], values[values.len() - 1]);
        let fine = largest <= most && (hours < GROWTH_FROM || growth <= growth_max);
        good &= fine;
        let verdict = if fine { "ok" } else { "FAILED" };
        writeln!(text, "{name:20} median {median:8.1}  largest {largest:8.1}  growth {growth:8.2} an hour  {verdict}")
            .unwrap();
    };
    row(
        "memory (MiB)",
        |sample| sample.rss_mib,
        growth(&floors(&points(|sample| sample.rss_mib))),
        RSS_MAX,
        GROWTH_MAX,
    );
    for (name, of) in
        [("descriptors", (|sample| sample.descriptors) as fn(&Sample) -> f64), ("threads", |sample| sample.threads)]
    {
        row(name, of, growth(&floors(&points(of))), f64::INFINITY, COUNT_GROWTH_MAX);
    }
    row("answer (ms)", |sample| sample.ask_ms, growth(&points(|sample| sample.ask_ms)), f64::INFINITY, f64::INFINITY);
    writeln!(text, "{} samples, {answered} requests answered, {refused} refused", samples.len()).unwrap();
    Report { text, good }
}

/// The least value of every five minutes. Strangers hold between none and 40 connections and images come and go, so that descriptors swing by
/// that many and memory by 30 MiB, and the slope of all values says more of that than of growth. What is never closed or freed raises what is left
/// when they go.
fn floors(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut windows: Vec<&[(f64, f64)]> =
        points.chunk_by(|one, other| (one.0 / 300.0).floor() == (other.0 / 300.0).floor()).collect();
    // The last may be too short for a least value that could be compared.
    if windows.len() > 1 && windows[windows.len() - 1].len() * 2 < windows[0].len() {
        windows.pop();
    }
    let least = |window: &&[(f64, f64)]| window.iter().copied().min_by(|one, other| one.1.total_cmp(&other.1));
    windows.iter().filter_map(least).collect()
}

/// Growth an hour of (seconds, value): the median of the slopes between all pairs (Theil and Sen), which single peaks do not move.
fn growth(points: &[(f64, f64)]) -> f64 {
    let step = points.len().div_ceil(500).max(1);
    let thinned: Vec<(f64, f64)> = points.iter().copied().step_by(step).collect();
    let mut slopes = Vec::new();
    for (number, one) in thinned.iter().enumerate() {
        for other in &thinned[number + 1..] {
            slopes.push((other.1 - one.1) / (other.0 - one.0) * 3600.0);
        }
    }
    slopes.sort_by(f64::total_cmp);
    slopes.get(slopes.len() / 2).copied().unwrap_or(0.0)
}

fn table(samples: &[Sample]) -> String {
    let rows = samples.iter().map(|Sample { seconds, rss_mib, descriptors, threads, ask_ms }| {
        format!("{seconds:.1}\t{rss_mib:.2}\t{descriptors}\t{threads}\t{ask_ms:.2}\n")
    });
    "seconds\trss_mib\tdescriptors\tthreads\task_ms\n".to_string() + &rows.collect::<String>()
}

#[test]
fn growth_is_seen_and_peaks_are_not_taken_for_it() {
    // Connections that are held: up to 40, more of them late than early.
    let swing = |number: usize| (number * 31 % 41) as f64 * if number > 720 { 1.0 } else { 0.5 };
    let samples = |of: fn(usize) -> f64| -> Vec<Sample> {
        let sample = |number| Sample {
            seconds: number as f64 * 5.0,
            rss_mib: of(number),
            descriptors: 20.0 + swing(number),
            threads: 9.0,
            ask_ms: 5.0,
        };
        (0..1440).map(sample).collect()
    };
    let flat = samples(|number| 90.0 + (number % 7) as f64 + if number % 50 == 0 { 30.0 } else { 0.0 });
    assert!(judge(&flat, 2.0, 0, 0).good);
    // What clients are doing holds 30 MiB more or less, late more often than early.
    let phases = samples(|number| if number * 7919 % 1440 < number { 85.0 } else { 54.0 });
    assert!(judge(&phases, 2.0, 0, 0).good);
    let growing = samples(|number| 90.0 + (number % 7) as f64 + number as f64 * 2.0 / 720.0);
    assert!(!judge(&growing, 2.0, 0, 0).good);
    assert!(!judge(&samples(|_| 131.0), 2.0, 0, 0).good);
    assert!(judge(&growing, 0.1, 0, 0).good, "in minutes growth cannot be told from chance");
    // Three descriptors an hour that are never closed, below the swing of the connections that come and go.
    let mut leaking = flat;
    for sample in &mut leaking {
        sample.descriptors += (sample.seconds / 1200.0).floor();
    }
    assert!(!judge(&leaking, 2.0, 0, 0).good);
}

#[test]
fn a_soak_of_seconds_runs_every_kind_of_trouble() {
    // The same code as for hours, so that it works when somebody has them.
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "soak::hours_of_use_with_everything_that_goes_wrong", "--ignored", "--nocapture"]);
    let output = command.env("RTPT_SOAK_HOURS", "0.004").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("memory (MiB)") && text.contains("ends and starts"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
