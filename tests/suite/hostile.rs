//! Hostile input over HTTP: each a refusal in JSON, and the daemon lives.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, LONG, Reply, exchange, free_port, read_reply, tcp, until};
use crate::program::{Bench, image_bytes};

/// Sends bytes as they are and reads what comes back.
fn raw(daemon: &Daemon, bytes: &[u8]) -> Option<Reply> {
    let mut stream = UnixStream::connect(&daemon.socket).unwrap();
    // The daemon may hang up before all is sent.
    let _ = stream.write_all(bytes);
    stream.set_read_timeout(Some(LONG)).unwrap();
    read_reply(stream)
}

#[track_caller]
fn refused(daemon: &Daemon, bytes: &[u8], status: u16, kind: &str) {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
    raw(daemon, bytes).unwrap_or_else(|| panic!("no answer to {start:?}")).refused(status, kind);
    assert_eq!(daemon.get("/readyz").status, 200, "after {start:?}");
}

/// A PNG that claims sides of 60,000 pixels.
fn bomb() -> Vec<u8> {
    let mut png = image_bytes("rgb.png");
    png[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    png[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&png[12..29]);
    png[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    png
}

#[test]
fn images_that_are_none_are_refused_each_with_its_reason() {
    let bench = Bench::new();
    let daemon = Daemon::start(&bench, &[]);
    let image = image_bytes("rgb.png");
    daemon.classify(b"", "").refused(422, "image_empty");
    daemon.classify(b"no image at all", "").refused(415, "image_format_unknown");
    daemon.classify(&image[..image.len() / 2], "").refused(422, "image_damaged");
    daemon.classify(&bomb(), "").refused(422, "image_size");
    for kind in ["text/plain", "application/json", "multipart/form-data; boundary=x", "video/mp4"] {
        let reply = daemon.send("POST", "/v1/classify", &[&format!("content-type: {kind}")], &image);
        reply.refused(415, "content_type");
    }
    for (query, kind) in [
        ("?views=0", "setting"),
        ("?views=257", "setting"),
        ("?views=-1", "query"),
        ("?views=1e9", "query"),
        ("?head=tail", "query"),
        ("?top=0", "setting"),
        ("?top=1001", "setting"),
        ("?deadline_ms=0", "setting"),
        ("?deadline_ms=600001", "setting"),
        ("?seed=3", "query"),
        ("?head=context", "no_text_tower"),
    ] {
        daemon.classify(&image, query).refused(400, kind);
    }
    assert_eq!(daemon.classify(&image, "?views=256&top=1000&deadline_ms=600000").status, 200, "on the limits");
}

#[test]
fn bodies_are_bounded_in_size_and_time() {
    let bench = Bench::new();
    let daemon = Daemon::start(&bench, &[]);
    let before = daemon.rss();
    // Announced and never sent, sent without being announced, and labels far past their limit.
    let announced = format!(
        "POST /v1/classify HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        (64 << 20) + 1
    );
    refused(&daemon, announced.as_bytes(), 413, "body_too_large");
    let mut chunked =
        b"POST /v1/classify HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..65 {
        chunked.extend(b"100000\r\n");
        chunked.extend(vec![b'x'; 1 << 20]);
        chunked.extend(b"\r\n");
    }
    refused(&daemon, &chunked, 413, "body_too_large");
    let labels: String = (0..600_000).map(|number| format!("label number {number}\n")).collect();
    assert!(labels.len() > 10_000_000);
    daemon.send("PUT", "/v1/labels", &[], labels.as_bytes()).refused(413, "body_too_large");
    let many: String = (0..100_001).map(|number| format!("{number}\n")).collect();
    daemon.send("PUT", "/v1/labels", &[], many.as_bytes()).refused(400, "label_count");
    let cut = b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nonly this";
    let mut stream = UnixStream::connect(&daemon.socket).unwrap();
    stream.write_all(cut).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    // The client is gone when its body ends early; nobody is there to be told.
    assert!(read_reply(stream).is_none_or(|reply| reply.status == 400));
    assert_eq!(daemon.get("/readyz").status, 200);
    // Two bodies of 64 MiB were on their way; none of it stays.
    until("memory is given back", || (daemon.rss() < before + 40e6).then_some(()));
}

#[test]
fn slow_clients_are_told_and_keep_nobody_waiting() {
    let bench = Bench::new();
    let daemon = Daemon::start(&bench, &[]);
    let descriptors = daemon.descriptors();
    let open = |text: &[u8]| {
        let mut stream = UnixStream::connect(&daemon.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(50))).unwrap();
        stream.write_all(text).unwrap();
        stream
    };
    let slow_body = open(b"POST /v1/classify HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100\r\n\r\nx");
    let slow_head = open(b"POST /v1/classify HTTP/1.1\r\nho");
    let silent: Vec<UnixStream> = (0..100).map(|_| open(b"")).collect();
    let began = Instant::now();
    assert_eq!(daemon.classify(&image_bytes("rgb.png"), "").status, 200, "others are served meanwhile");
    assert!(began.elapsed() < Duration::from_secs(8));
    // After its time a head that does not come ends the connection.
    let head = read_reply(slow_head);
    assert!(head.is_none_or(|reply| reply.status == 408));
    // hyper's own bound is three times as long as ours.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    read_reply(slow_body).unwrap().refused(408, "body_too_slow");
    until("idle connections are ended", || (daemon.descriptors() <= descriptors).then_some(()));
    drop(silent);
}

#[test]
fn heads_that_are_too_large_or_no_http_are_refused_in_json() {
    let bench = Bench::new();
    let daemon = Daemon::start(&bench, &[]);
    let with_headers = |count: usize, length: usize| {
        let lines: String = (0..count).map(|number| format!("x-{number}: {}\r\n", "y".repeat(length))).collect();
        format!("GET /v1/info HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n").into_bytes()
    };
    assert_eq!(raw(&daemon, &with_headers(60, 10)).unwrap().status, 200);
    for (count, length) in [(65, 1), (30, 600), (400, 10), (600, 1), (10_000, 10), (1, 100_000), (1, 5_000_000)] {
        refused(&daemon, &with_headers(count, length), 431, "head_too_large");
    }
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "a".repeat(20_000));
    refused(&daemon, long.as_bytes(), 431, "head_too_large");
    let longer = format!("GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "a".repeat(200_000));
    let reply = raw(&daemon, longer.as_bytes()).unwrap();
    assert!([414, 431].contains(&reply.status), "{}", reply.head);
    reply.refused(reply.status, if reply.status == 414 { "address_too_long" } else { "head_too_large" });
    for nonsense in [
        &b"hello\r\n\r\n"[..],
        b"GET /v1/info SPDY/9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ] {
        refused(&daemon, nonsense, 400, "not_http");
    }
    for (request, status, kind) in [
        ("GET /v1/../../etc/passwd HTTP/1.1", 404, "not_found"),
        ("GET /v1/labels/..%2f..%2fetc%2fpasswd HTTP/1.1", 404, "not_found"),
        ("GET //etc/passwd HTTP/1.1", 404, "not_found"),
        ("PUT /v1/labels/../../tmp/x HTTP/1.1", 404, "not_found"),
        ("GET /v1/classify HTTP/1.1", 405, "method_not_allowed"),
        ("DELETE /v1/info HTTP/1.1", 405, "method_not_allowed"),
        ("BREW /v1/info HTTP/1.1", 405, "method_not_allowed"),
    ] {
        refused(&daemon, format!("{request}\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes(), status, kind);
    }
}

#[test]
fn a_full_queue_and_too_many_connections_are_refused_for_now() {
    let bench = Bench::new();
    let port = free_port();
    let daemon = Daemon::start(&bench, &["--listen", &format!("127.0.0.1:{port}"), "--queue", "1"]);
    let descriptors = daemon.descriptors();
    let idle: Vec<TcpStream> = (0..1000).map(|_| tcp(port)).collect();
    let reply = until("there is no room", || {
        exchange(tcp(port), "GET", "/healthz", &[], &[]).filter(|reply| reply.status == 503)
    });
    reply.refused(503, "too_many_connections");
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(daemon.get("/healthz").status, 200, "the socket's places are its own");
    let photo = bench.image("rgb.png");
    let asked = bench.rtpt(&["ask", "--socket", daemon.socket.to_str().unwrap(), &photo]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    drop(idle);
    until("there is room again", || {
        exchange(tcp(port), "GET", "/healthz", &[], &[]).filter(|reply| reply.status == 200)
    });
    until("descriptors are given back", || (daemon.descriptors() <= descriptors + 1).then_some(()));
    let watchers: Vec<_> = (0..32)
        .map(|_| {
            let mut events = daemon.events();
            events.next("status");
            events
        })
        .collect();
    daemon.get("/v1/events").refused(503, "too_many_watchers");
    drop(watchers);
    until("watchers that left make room", || {
        let mut stream = UnixStream::connect(&daemon.socket).unwrap();
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut start = [0; 12];
        std::io::Read::read_exact(&mut stream, &mut start).unwrap();
        (&start == b"HTTP/1.1 200").then_some(())
    });
}

/// The times of some answers over the socket (milliseconds), the shortest first.
fn times(daemon: &Daemon, image: &[u8], count: usize) -> Vec<f64> {
    let mut times: Vec<f64> = (0..count)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(daemon.classify(image, "?views=8").status, 200);
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

#[test]
#[ignore = "it measures: cargo test --test suite -- --ignored --nocapture hostile::figures"]
fn figures_of_a_flood() {
    let bench = Bench::new();
    let port = free_port();
    let token = bench.write("token", b"0123456789abcdef");
    let daemon = Daemon::launch(
        &bench,
        &["--listen", &format!("127.0.0.1:{port}"), "--token-file", &token, "--cache", "off"],
        |command| command.env("RTPT_BUNDLE", crate::program::demo()).env("RUST_LOG", "warn"),
    );
    daemon.wait_until_ready();
    let image = std::fs::read(crate::program::demo().join("../photos/llama.jpg")).unwrap();
    times(&daemon, &image, 20);
    let (mut quiet, mut flooded) = (Vec::new(), Vec::new());
    // By turns, since the machine has other work as well.
    for _ in 0..5 {
        quiet.extend(times(&daemon, &image, 100));
        let _idle: Vec<TcpStream> = (0..1000).map(|_| tcp(port)).collect();
        let _slow: Vec<TcpStream> = (0..200)
            .map(|_| {
                let mut stream = tcp(port);
                let head = "POST /v1/classify HTTP/1.1\r\nhost: x\r\nauthorization: Bearer 0123456789abcdef\r\ncontent-length: 60000000\r\n\r\nabc";
                let _ = stream.write_all(head.as_bytes());
                stream
            })
            .collect();
        flooded.extend(times(&daemon, &image, 100));
    }
    let quantile = |times: &mut Vec<f64>, share: f64| {
        times.sort_by(f64::total_cmp);
        times[((times.len() - 1) as f64 * share).round() as usize]
    };
    for share in [0.5, 0.9, 0.99] {
        let (one, other) = (quantile(&mut quiet, share), quantile(&mut flooded, share));
        println!("p{:.0}: quiet {one:.2} ms, flooded {other:.2} ms, ratio {:.2}", share * 100.0, other / one);
    }
}
