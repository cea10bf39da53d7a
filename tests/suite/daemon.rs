//! Starts the real daemon and talks to it: as its own client does, and as a hostile one would.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::program::{Bench, tiny};

/// No wait in a test is as long as this unless something hangs.
pub const LONG: Duration = Duration::from_secs(60);

/// A running daemon; killed when the test ends.
pub struct Daemon {
    child: Child,
    pub socket: PathBuf,
    log: PathBuf,
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.head, String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// Asserts a refusal in JSON.
    #[track_caller]
    pub fn refused(&self, status: u16, kind: &str) {
        assert_eq!(self.status, status, "{}\n{}", self.head, String::from_utf8_lossy(&self.body));
        let record = self.json();
        assert_eq!((&record["schema"], &record["error"]["kind"]), (&1.into(), &kind.into()), "{record}");
        assert!(record["error"]["message"].as_str().unwrap().len() > 10, "{record}");
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
        Some(line.split_once(':')?.1.trim())
    }
}

/// Waits until `done` gives something, and fails with `what` if it never does.
#[track_caller]
pub fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(began.elapsed() < LONG, "it took too long: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Daemon {
    /// Starts a daemon with the tiny bundle and waits until it is ready.
    #[track_caller]
    pub fn start(bench: &Bench, arguments: &[&str]) -> Self {
        let daemon = Self::launch(bench, arguments, |command| command);
        daemon.wait_until_ready();
        daemon
    }

    /// Starts a daemon that `change` has a say in, and does not wait.
    pub fn launch(bench: &Bench, arguments: &[&str], change: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let socket = bench.path("rtpt.sock");
        let log = bench.path("daemon.log");
        let mut command = bench.command(&["serve"]);
        command.args(arguments).env("RTPT_BUNDLE", tiny()).env("RTPT_SOCKET", &socket);
        command.env("RUST_LOG", "info,rtpt_edge=debug").stdin(Stdio::null());
        command.stderr(fs::OpenOptions::new().create(true).append(true).open(&log).unwrap());
        let child = change(&mut command).spawn().unwrap();
        Self { child, socket, log }
    }

    #[track_caller]
    pub fn wait_until_ready(&self) {
        until("the daemon is ready", || {
            assert!(self.is_running(), "the daemon ended:\n{}", self.log());
            self.try_get("/readyz").filter(|reply| reply.status == 200)
        });
    }

    /// Its standard input, if that was asked for.
    pub fn input(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("a piped standard input")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub fn is_running(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for its end; the exit code, or nothing if a signal ended it.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        until("the daemon ends", || self.child.try_wait().unwrap()).code()
    }

    /// Ends it as systemd does.
    #[track_caller]
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Ends it as a power cut does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn get(&self, path: &str) -> Reply {
        self.try_get(path).unwrap_or_else(|| panic!("no answer to {path}:\n{}", self.log()))
    }

    pub fn try_get(&self, path: &str) -> Option<Reply> {
        exchange(UnixStream::connect(&self.socket).ok()?, "GET", path, &[], &[])
    }

    #[track_caller]
    pub fn send(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Reply {
        let stream = UnixStream::connect(&self.socket).unwrap();
        exchange(stream, method, path, headers, body)
            .unwrap_or_else(|| panic!("no answer to {method} {path}:\n{}", self.log()))
    }

    pub fn classify(&self, image: &[u8], query: &str) -> Reply {
        self.send("POST", &format!("/v1/classify{query}"), &["content-type: image/png"], image)
    }

    pub fn status(&self) -> Value {
        self.get("/v1/info").json()["status"].clone()
    }

    /// The value of a metric.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name} is not in:\n{text}")).rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// Resident memory (bytes).
    pub fn rss(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
    }

    /// Open descriptors (count).
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Follows the events: name and data, as they come.
    pub fn events(&self) -> Events {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        Events { stream, text: Vec::new() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A stream of events.
pub struct Events {
    stream: UnixStream,
    text: Vec<u8>,
}

impl Events {
    /// The next event of this name.
    #[track_caller]
    pub fn next(&mut self, name: &str) -> Value {
        let mark = format!("event: {name}\ndata: ");
        let mut buffer = [0; 4096];
        // Other events keep coming; the one that is waited for may not.
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < LONG, "no event {name} came");
            // Chunk headers stand between events, never within: each event is a chunk.
            let text = String::from_utf8_lossy(&self.text).into_owned();
            if let Some(start) = text.find(&mark)
                && let Some(length) = text[start..].find("\n\n")
            {
                let data = text[start + mark.len()..start + length].to_string();
                self.text.drain(..start + length);
                return serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error}: {data}"));
            }
            let count = self.stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the events ended: {text}");
            self.text.extend_from_slice(&buffer[..count]);
        }
    }
}

/// Sends one request and reads the answer to its end; nothing if there is none.
pub fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &[u8],
) -> Option<Reply> {
    let host = if headers.iter().any(|header| header.starts_with("host:")) { "" } else { "host: localhost\r\n" };
    let more: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = format!("content-length: {}\r\n", body.len());
    let head = format!("{method} {path} HTTP/1.1\r\n{host}{more}{length}connection: close\r\n\r\n");
    // A daemon that refuses does not read to the end.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    read_reply(stream)
}

/// Reads an answer: as much as it says it is, or up to the end of the connection.
pub fn read_reply(mut stream: impl Read) -> Option<Reply> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let count = stream.read(&mut buffer).unwrap_or(0);
        bytes.extend_from_slice(&buffer[..count]);
        let reply = parse_reply(&bytes);
        let whole = reply.as_ref().is_some_and(|reply| {
            reply.header("content-length").is_some_and(|length| length.parse() == Ok(reply.body.len()))
        });
        if whole || count == 0 {
            return reply;
        }
    }
}

fn parse_reply(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Reply { status, head, body: bytes[end + 4..].to_vec() })
}

/// A TCP connection to this device.
pub fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whether a program that a test drives is here; where the user chose to go without it, the test is passed over.
#[track_caller]
pub fn is_here(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
    let without = std::env::var("RTPT_TESTS_WITHOUT").unwrap_or_default();
    assert!(found || without.contains(program), "{program} is missing; tests/setup.sh installs it");
    found
}
