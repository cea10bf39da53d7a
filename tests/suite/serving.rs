//! `rtpt serve` and its clients as a technician uses them: requests, labels, reloads, sockets, systemd.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::daemon::{Daemon, Events, LONG, Reply, exchange, free_port, read_reply, tcp, until};
use crate::program::{Bench, demo, image_bytes};

/// A record without what may differ from time to time.
fn lasting(mut record: Value) -> Value {
    let fields = record.as_object_mut().unwrap_or_else(|| panic!("no record"));
    fields.remove("timings_ms").expect("every record has timings");
    fields.remove("cached").expect("every record says so");
    fields.remove("path").expect("every record has a path");
    record
}

fn labels_of(daemon: &Daemon) -> Vec<String> {
    serde_json::from_value(daemon.get("/v1/labels").json()["labels"].clone()).unwrap()
}

#[test]
fn requests_get_the_records_of_classify() {
    let bench = Bench::new();
    let image = bench.image("rgb.png");
    let daemon = Daemon::start(&bench, &[]);
    for (query, flags) in [
        ("", &[][..]),
        ("?views=9&top=2", &["--views", "9", "--top", "2"]),
        ("?head=mta", &["--head", "mta"]),
        ("?head=zero&views=5", &["--head", "zero", "--views", "5"]),
        ("?head=view-shift&top=1", &["--head", "view-shift", "--top", "1"]),
        ("?head=class-lowrank", &["--head", "class-lowrank"]),
    ] {
        let expected = bench.rtpt(&[&["classify", "--json", &image], flags].concat());
        let reply = daemon.classify(&image_bytes("rgb.png"), query);
        assert_eq!(reply.status, 200, "{query}: {}", reply.text());
        assert_eq!(lasting(reply.json()), lasting(expected.records()[0].clone()), "{query}");
    }
    let again = daemon.classify(&image_bytes("rgb.png"), "").json();
    assert_eq!(again["cached"], true, "features are remembered in memory");
    assert!(daemon.metric("rtpt_cache_hits_total") >= 6.0 && daemon.metric("rtpt_cache_misses_total") >= 1.0);
    assert!(daemon.metric("rtpt_stage_seconds_count{stage=\"encode\"}") >= 7.0);
    assert!(daemon.metric("rtpt_views_per_image_count") >= 7.0);
}

#[test]
fn the_clients_say_what_the_daemon_says() {
    let bench = Bench::new();
    let (png, jpg) = (bench.image("rgb.png"), bench.image("progressive.jpg"));
    let mut daemon = Daemon::start(&bench, &[]);
    let socket = daemon.socket.to_str().unwrap().to_string();
    let rtpt = |arguments: &[&str]| bench.rtpt(&[arguments, &["--socket", &socket]].concat());

    let expected = bench.rtpt(&["classify", "--json", &png, &jpg]);
    let asked = rtpt(&["ask", "--json", &png, &jpg]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    for (found, expected) in asked.records().iter().zip(expected.records()) {
        assert_eq!(found["path"], expected["path"]);
        assert_eq!(lasting(found.clone()), lasting(expected));
    }
    let table = rtpt(&["ask", "--head", "none", "--views", "4", "--top", "2", &png]);
    assert!(table.code == 0 && table.stdout.contains("rgb.png") && table.stdout.contains(" 2."), "{}", table.stdout);
    let bad = bench.write("bad.png", b"no image");
    let mixed = rtpt(&["ask", "--json", &bad, &png]);
    assert_eq!((mixed.code, mixed.records().len()), (1, 2));
    assert!(mixed.records()[0]["error"]["message"].as_str().unwrap().contains("not a JPEG"), "{}", mixed.stdout);
    rtpt(&["ask", &bench.path("missing").to_string_lossy()]).fails_with(1, &["cannot read", "missing"]);

    let status = rtpt(&["status"]);
    assert!(
        ["ready", "source     none", "0 waiting, at most 16", "tiny@"].iter().all(|part| status.stdout.contains(part)),
        "{}",
        status.stdout
    );
    let status = &rtpt(&["status", "--json"]).records()[0];
    assert_eq!((&status["status"]["ready"], &status["model"]["views"]), (&true.into(), &16.into()));

    let file = bench.write("labels.txt", b"umbrella\nred\n");
    assert_eq!(rtpt(&["labels", "set", &file]).stdout, "2 labels are in force\n");
    assert_eq!(rtpt(&["labels", "show"]).stdout, "umbrella\nred\n");
    let with_ids = bench.rtpt_with(&["labels", "set", "-", "--json", "--socket", &socket], b"1\tred\n2\twatch\n");
    assert_eq!(
        (&with_ids.records()[0]["ids"], &with_ids.records()[0]["origin"]),
        (&json!(["1", "2"]), &"edited".into())
    );
    assert_eq!(rtpt(&["labels", "show"]).stdout, "1\tred\n2\twatch\n");
    rtpt(&["labels", "set", &bench.write("one.txt", b"red\n")]).fails_with(2, &["has 1 label, expected at least 2"]);
    rtpt(&["labels", "set", &bench.write("unknown.txt", b"red\nzebra\n")]).fails_with(2, &["no class named \"zebra\""]);
    assert_eq!(rtpt(&["labels", "show"]).stdout, "1\tred\n2\twatch\n", "the old ones stay");
    // What `show --json` prints can be put in force again.
    let shown = rtpt(&["labels", "show", "--json"]).stdout;
    assert_eq!(rtpt(&["labels", "reset", "--json"]).records()[0]["origin"], "configured");
    let file = bench.write("labels.json", shown.as_bytes());
    assert_eq!(rtpt(&["labels", "set", &file]).stdout, "2 labels are in force\n");
    rtpt(&["labels", "set", &bench.write("no.json", b"{\"names\": []}")]).fails_with(2, &["not JSON with labels"]);
    for flags in [["--views", "0"], ["--top", "0"], ["--views", "300"]] {
        rtpt(&[&["ask", &png], &flags[..]].concat()).fails_with(2, &["expected 1 to"]);
    }

    assert_eq!(daemon.terminate(), Some(0));
    for command in [&["ask", &png][..], &["status"], &["labels", "show"], &["watch"]] {
        rtpt(command).fails_with(4, &["no daemon answers", "rtpt serve", "--socket"]);
    }
}

#[test]
fn labels_change_at_once_or_not_at_all_and_outlast_a_power_cut() {
    let bench = Bench::new();
    let mut daemon = Daemon::start(&bench, &[]);
    let configured = labels_of(&daemon);
    let put = |daemon: &Daemon, kind: &str, body: &str| {
        daemon.send("PUT", "/v1/labels", &[&format!("content-type: {kind}")], body.as_bytes())
    };
    let json = "application/json";
    // A head that was asked for before the change answers with the labels after it.
    assert!(daemon.classify(&image_bytes("rgb.png"), "?head=mta").json()["top"].as_array().unwrap().len() > 2);
    let reply = put(&daemon, json, r#"{"labels": ["  red ", "umbrella"]}"#);
    assert_eq!((reply.status, &reply.json()["labels"]), (200, &json!(["red", "umbrella"])));
    for query in ["", "?head=mta"] {
        let answers = daemon.classify(&image_bytes("rgb.png"), query).json()["top"].clone();
        assert_eq!(answers.as_array().unwrap().len(), 2, "{query}: {answers}");
    }
    for (kind, body, status, error) in [
        (json, "{\"labels\": [\"red\"]}", 400, "label_count"),
        (json, "{\"labels\": [\"red\", \"red\"]}", 400, "label_duplicate"),
        (json, "{\"labels\": [\"red\", \"zebra\"]}", 400, "label_unknown"),
        (json, "{\"labels\": [\"red\", \"watch\"], \"ids\": [\"1\"]}", 400, "setting"),
        (json, "{\"names\": []}", 400, "labels_malformed"),
        (json, "red\nwatch\n", 400, "labels_malformed"),
        ("text/plain", "", 400, "labels_malformed"),
        ("text/plain", "red\n\u{0}\n", 400, "label_not_words"),
        ("text/plain", "red\n../../etc/passwd\n", 400, "label_not_words"),
        ("text/plain", "red\n/etc/passwd\n", 400, "label_not_words"),
        ("text/plain", "{\"labels\": [\"red\"]}", 400, "label_count"),
        ("image/png", "red\nwatch\n", 415, "content_type"),
    ] {
        put(&daemon, kind, body).refused(status, error);
        assert_eq!(labels_of(&daemon), ["red", "umbrella"], "{body}");
    }
    // Somebody else's change is not overwritten unseen.
    let tag = daemon.get("/v1/labels").header("etag").unwrap().to_string();
    let with_tag =
        |tag: &str, body: &str| daemon.send("PUT", "/v1/labels", &[&format!("if-match: {tag}")], body.as_bytes());
    assert_eq!(with_tag(&tag, "watch\nred\n").status, 200);
    with_tag(&tag, "umbrella\nwatch\n").refused(412, "changed_meanwhile");
    assert_eq!(labels_of(&daemon), ["watch", "red"]);
    // Of many who have the same tag one is the first.
    let tag = daemon.get("/v1/labels").header("etag").unwrap().to_string();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let put = |number: usize| {
            let (tag, with_tag) = (&tag, &with_tag);
            scope.spawn(move || with_tag(tag, ["umbrella\nred\n", "red\numbrella\n"][number % 2]).status)
        };
        let all: Vec<_> = (0..8).map(put).collect();
        all.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 1, "{statuses:?}");
    assert_eq!(with_tag("*", "watch\nred\n").status, 200);

    daemon.kill();
    let mut daemon = Daemon::start(&bench, &[]);
    assert_eq!(labels_of(&daemon), ["watch", "red"], "they outlast a power cut");
    assert_eq!(daemon.get("/v1/labels").json()["origin"], "edited");
    // Groups, which have other labels where they have other members.
    let grouped = |daemon: &Daemon, body: &str| put(daemon, "text/plain", body).header("etag").unwrap().to_string();
    let other = grouped(&daemon, "plain\tred\nplain\twatch\nodd\tumbrella\nodd\tyin yang\n");
    let tag = grouped(&daemon, "plain\tred\nodd\twatch\nodd\tumbrella\nodd\tyin yang\n");
    assert_ne!(tag, other);
    daemon.kill();
    let mut daemon = Daemon::start(&bench, &[]);
    let reply = daemon.get("/v1/labels");
    assert_eq!((reply.header("etag"), &reply.json()["ids"]), (Some(&tag[..]), &json!(["plain", "odd", "odd", "odd"])));
    let answers = daemon.classify(&image_bytes("rgb.png"), "").json()["top"].clone();
    let mut names: Vec<&str> = answers.as_array().unwrap().iter().map(|one| one["label"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["odd", "plain"]);
    assert_eq!(daemon.send("DELETE", "/v1/labels", &[], b"").json()["origin"], "configured");
    assert_eq!(labels_of(&daemon), configured);
    daemon.kill();
    assert_eq!(labels_of(&Daemon::start(&bench, &[])), configured, "and so does going back");

    // Edited labels that the bundle cannot take do not keep the daemon from starting.
    fs::write(bench.path("state/rtpt/labels.json"), r#"{"labels": ["zebra", "gnu"]}"#).unwrap();
    let daemon = Daemon::start(&bench, &[]);
    assert_eq!(labels_of(&daemon), configured);
    assert!(daemon.log().contains("do not fit this bundle"), "{}", daemon.log());
}

#[test]
fn features_are_on_the_disk_soon() {
    let bench = Bench::new();
    let mut daemon = Daemon::start(&bench, &["--cache", "disk"]);
    assert_eq!(daemon.classify(&image_bytes("rgb.png"), "").json()["cached"], false);
    // They are written every five seconds, few as they are.
    std::thread::sleep(Duration::from_millis(6500));
    daemon.kill();
    let daemon = Daemon::start(&bench, &["--cache", "disk"]);
    assert_eq!(daemon.classify(&image_bytes("rgb.png"), "").json()["cached"], true);
}

#[test]
fn a_text_tower_embeds_whatever_is_typed() {
    let bench = Bench::new();
    let daemon = Daemon::launch(&bench, &["--views", "4"], |command| command.env("RTPT_BUNDLE", demo()));
    daemon.wait_until_ready();
    let reply = daemon.send("PUT", "/v1/labels", &[], "a red accordion\nmen's shoes / boots\n".as_bytes());
    assert_eq!(reply.status, 200, "{}", reply.text());
    let photo = fs::read(demo().join("../photos/accordion.jpg")).unwrap();
    assert_eq!(daemon.classify(&photo, "?head=context").json()["label"], "a red accordion");
    daemon
        .send("PUT", "/v1/labels", &[], format!("red\n{}\n", "very ".repeat(100)).as_bytes())
        .refused(400, "label_too_long");
    assert_eq!(labels_of(&daemon), ["a red accordion", "men's shoes / boots"]);
}

#[test]
fn settings_come_from_a_file_and_are_loaded_again() {
    let bench = Bench::new();
    let labels = bench.write("labels.txt", b"red\nwatch\n");
    let config = bench.write("rtpt.toml", format!("labels = {labels:?}\nviews = 5\nqueue = 3\n").as_bytes());
    let daemon = Daemon::start(&bench, &["--config", &config, "--queue", "7"]);
    let info = daemon.get("/v1/info").json();
    assert_eq!((&info["model"]["views"], &info["model"]["labels"]), (&5.into(), &2.into()));
    assert_eq!(info["status"]["queue_max"], 7, "flags win over the file");

    fs::write(&labels, "red\nwatch\numbrella\n").unwrap();
    fs::write(&config, format!("labels = {labels:?}\nviews = 6\n")).unwrap();
    let reply = daemon.send("POST", "/v1/reload", &[], b"");
    assert_eq!((reply.status, &reply.json()["model"]["views"]), (200, &6.into()));
    assert_eq!(labels_of(&daemon).len(), 3);

    // What cannot be loaded changes nothing.
    for (text, message) in [
        ("views = 0\n", "the number of views is 0"),
        ("view = 6\n", "\"view\", which is not a setting (did you mean \"views\"?)"),
        ("views = [1\n", "is not valid TOML"),
        ("views = true\n", "expected a text or a number"),
        ("views = [1, 2]\n", "a list for \"views\", expected one value"),
        ("[serve]\nviews = 6\n", "a section [serve]; settings stand at the top level"),
        ("views = \"many\"\n", "invalid value 'many' for \"views\": expected a whole number, 1 to 1024"),
        ("augment = \"blur\"\n", "[possible values: crop, augmix]"),
        ("source = \"v4l2:\"\n", "is empty"),
        ("labels = \"/nowhere\"\n", "/nowhere"),
    ] {
        fs::write(&config, text).unwrap();
        let reply = daemon.send("POST", "/v1/reload", &[], b"");
        let found = reply.json()["error"]["message"].to_string().replace("\\\"", "\"");
        assert!(reply.status >= 400 && found.contains(message), "{text}: {found}");
        let info = daemon.get("/v1/info").json();
        assert_eq!((&info["model"]["views"], &info["model"]["labels"]), (&6.into(), &3.into()), "{text}");
    }
    fs::write(&config, "views = 4\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    until("SIGHUP loads the file again", || (daemon.get("/v1/info").json()["model"]["views"] == 4).then_some(()));
    drop(daemon);
    bench.rtpt(&["serve", "--config", &bench.path("none.toml").to_string_lossy()]).fails_with(2, &["cannot be read"]);
    fs::write(&config, "volume = 11\n").unwrap();
    bench.rtpt(&["serve", "--config", &config]).fails_with(2, &["volume", "source-timeout", "rtpt.toml"]);
}

#[test]
fn one_daemon_a_socket_and_one_a_folder() {
    let bench = Bench::new();
    let mut first = Daemon::start(&bench, &[]);
    let mode = fs::metadata(&first.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o660, "{mode:o}");
    let socket = first.socket.to_str().unwrap().to_string();
    let (other_state, state) = (bench.path("other"), bench.path("state/rtpt"));
    let other_state = other_state.to_str().unwrap();
    let second = bench.rtpt(&["serve", "--socket", &socket, "--state", other_state]);
    let same = bench.rtpt(&["serve", "--socket", &socket, "--state", state.to_str().unwrap()]);
    same.fails_with(4, &["another daemon (", &socket, "choose another socket with --socket PATH"]);
    second.fails_with(4, &[&format!("another daemon (process {}) uses {socket}", first.pid()), "--socket"]);
    let other_socket = bench.path("other.sock");
    let run = bench.rtpt(&["serve", "--socket", other_socket.to_str().unwrap(), "--state", state.to_str().unwrap()]);
    run.fails_with(4, &["another daemon (", state.to_str().unwrap(), "--state"]);
    assert_eq!(first.get("/readyz").status, 200, "the first is none the worse");

    first.kill();
    assert!(first.socket.exists(), "a killed daemon leaves its socket behind");
    let mut third = Daemon::start(&bench, &[]);
    assert_eq!(third.terminate(), Some(0));
    assert!(!third.socket.exists(), "one that ends takes it along");

    // What is no socket is not removed, and another program's socket is not taken.
    fs::write(&third.socket, "precious").unwrap();
    bench
        .rtpt(&["serve", "--socket", &socket, "--state", other_state])
        .fails_with(2, &["--socket", "another kind of file"]);
    assert_eq!(fs::read(&third.socket).unwrap(), b"precious");
    fs::write(bench.path("photo.jpg"), "precious too").unwrap();
    let photo = bench.path("photo.jpg");
    bench.rtpt(&["serve", "--socket", photo.to_str().unwrap(), "--state", other_state]).fails_with(2, &["--socket"]);
    assert!(!bench.path("photo.jpg.lock").exists(), "nothing is left beside what is not its own");
    let nowhere = bench.path("nowhere/x.sock");
    let missing = bench.rtpt(&["serve", "--socket", nowhere.to_str().unwrap(), "--state", other_state]);
    missing.fails_with(2, &["nowhere/x.sock, whose folder does not exist", "--socket PATH"]);
    let (file, free) = (bench.write("file", b""), bench.path("free.sock"));
    bench.rtpt(&["serve", "--state", &file, "--socket", free.to_str().unwrap()]).fails_with(2, &["--state"]);
    assert!(!free.exists());
    fs::remove_file(&third.socket).unwrap();
    let foreign = UnixListener::bind(&third.socket).unwrap();
    bench.rtpt(&["serve", "--socket", &socket, "--state", other_state]).fails_with(4, &["another daemon uses"]);
    drop(foreign);
}

#[test]
fn over_tcp_only_those_who_may_are_answered() {
    let bench = Bench::new();
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut daemon = Daemon::start(&bench, &["--listen", &format!("localhost:{port}")]);
    let places = daemon.get("/v1/info").json()["listening"].clone();
    assert_eq!(places, json!([daemon.socket.to_str().unwrap(), format!("http://{listen}/")]));
    assert!(daemon.log().contains(&format!("listening on {} and http://{listen}/", daemon.socket.display())));
    let other = bench.path("other").to_str().unwrap().to_string();
    let busy = ["serve", "--socket", &format!("{other}.sock"), "--state", &other, "--listen", &listen];
    bench.rtpt(&busy).fails_with(4, &["cannot listen on", "another program may use the port"]);
    bench.rtpt(&["serve", "--listen", "8080"]).fails_with(2, &["such as 127.0.0.1:8080"]);
    let get = |headers: &[&str]| exchange(tcp(port), "GET", "/v1/info", headers, &[]).unwrap();
    assert_eq!(get(&[&format!("host: {listen}")]).status, 200);
    get(&["host: evil.example"]).refused(403, "foreign_name");
    let put = exchange(tcp(port), "PUT", "/v1/labels", &["host: localhost", "origin: http://evil.example"], b"a\nb\n");
    put.unwrap().refused(403, "foreign_page");
    assert_eq!(daemon.terminate(), Some(0));

    // Any other address needs a token.
    let open = bench.rtpt(&["serve", "--listen", "0.0.0.0:0"]);
    open.fails_with(2, &["can be reached from the network", "--token-file"]);
    let short = bench.write("short", b"secret\n");
    bench.rtpt(&["serve", "--listen", "0.0.0.0:0", "--token-file", &short]).fails_with(2, &["the token", "16 to 1024"]);
    bench.rtpt(&["serve", "--token-file", "/nowhere"]).fails_with(2, &["--token-file", "/nowhere"]);
    let token = bench.write("token", b"correct-horse-battery\n");
    let daemon = Daemon::start(&bench, &["--listen", &format!("0.0.0.0:{port}"), "--token-file", &token]);
    get(&["host: camera.local"]).refused(401, "token_needed");
    get(&["authorization: Bearer wrong-horse-battery"]).refused(401, "token_needed");
    assert_eq!(get(&["host: camera.local", "authorization: Bearer correct-horse-battery"]).status, 200);
    let page = exchange(tcp(port), "GET", "/?token=correct-horse-battery", &["host: camera.local"], &[]).unwrap();
    let cookie = page.header("set-cookie").unwrap().split(';').next().unwrap().to_string();
    assert_eq!((page.status, page.header("location")), (303, Some("/")));
    assert!(page.header("set-cookie").unwrap().contains("HttpOnly"));
    assert_eq!(get(&["host: camera.local", &format!("cookie: {cookie}")]).status, 200);
    let wrong = exchange(tcp(port), "GET", "/?token=wrong-horse-battery", &["host: camera.local"], &[]).unwrap();
    wrong.refused(401, "token_needed");
    let healthz = exchange(tcp(port), "GET", "/healthz", &["host: camera.local"], &[]).unwrap();
    assert_eq!(healthz.status, 200, "whether it is alive may be asked without");
    assert_eq!(daemon.get("/v1/info").status, 200, "the socket has its file mode");
}

#[test]
fn clients_do_not_wait_for_ever_for_a_daemon_that_hangs() {
    let bench = Bench::new();
    let daemon = Daemon::start(&bench, &[]);
    let (socket, image) = (daemon.socket.to_str().unwrap().to_string(), bench.image("rgb.png"));
    daemon.signal(Signal::SIGSTOP);
    let asked = bench.rtpt(&["ask", "--socket", &socket, "--patience", "1", &image]);
    let status = bench.rtpt(&["status", "--socket", &socket]);
    daemon.signal(Signal::SIGCONT);
    asked.fails_with(4, &[&format!("the daemon on {socket} did not answer within 3 s; it may hang")]);
    status.fails_with(4, &["did not answer within 10 s; it may hang"]);
    assert_eq!(bench.rtpt(&["status", "--socket", &socket]).code, 0);
}

#[test]
fn who_asked_for_what_is_in_the_log() {
    let bench = Bench::new();
    let daemon = Daemon::start(&bench, &[]);
    daemon.classify(&image_bytes("rgb.png"), "");
    let line = format!("uid {} pid {}: POST \"/v1/classify\" 200", nix::unistd::getuid(), std::process::id());
    assert!(daemon.log().contains(&line), "{line} is not in: {}", daemon.log());
}

#[test]
fn deadlines_and_hang_ups_cancel_the_work() {
    let bench = Bench::new();
    let daemon =
        Daemon::launch(&bench, &["--threads", "1", "--queue", "4"], |command| command.env("RTPT_BUNDLE", demo()));
    daemon.wait_until_ready();
    let image = image_bytes("rgb.png");
    let alone = Instant::now();
    assert_eq!(daemon.classify(&image, "?views=256").status, 200);
    let alone = alone.elapsed();
    // Each of these would take that long; cancelled, all of them together take less than one.
    let began = Instant::now();
    for seed in 0..6_u8 {
        let reply = daemon.classify(&[&image[..], &[seed]].concat(), "?views=256&deadline_ms=40");
        reply.refused(504, "deadline");
        let mut stream = UnixStream::connect(&daemon.socket).unwrap();
        let body = [&image[..], &[100 + seed]].concat();
        write!(stream, "POST /v1/classify?views=256 HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len())
            .unwrap();
        stream.write_all(&body).unwrap();
        std::thread::sleep(Duration::from_millis(40));
    }
    assert_eq!(daemon.classify(&image, "?views=1").status, 200);
    assert!(began.elapsed() < 6 * alone, "12 cancelled requests took {:?}, one takes {alone:?}", began.elapsed());
}

#[test]
fn what_runs_is_finished_before_the_end() {
    let bench = Bench::new();
    let mut daemon = Daemon::launch(&bench, &["--threads", "1"], |command| command.env("RTPT_BUNDLE", demo()));
    daemon.wait_until_ready();
    let events = daemon.events();
    let mut stream = UnixStream::connect(&daemon.socket).unwrap();
    let image = image_bytes("rgb.png");
    write!(
        stream,
        "POST /v1/classify?views=128 HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        image.len()
    )
    .unwrap();
    stream.write_all(&image).unwrap();
    until("the request has arrived", || (daemon.metric("rtpt_connections") >= 3.0).then_some(()));
    daemon.signal(Signal::SIGTERM);
    let reply = read_reply(stream).expect("an answer");
    assert_eq!((reply.status, reply.json()["views"].as_u64()), (200, Some(128)), "{}", reply.head);
    assert_eq!(daemon.wait(), Some(0));
    drop(events);
}

#[test]
fn a_damaged_bundle_ends_the_start_and_spoils_no_reload() {
    let bench = Bench::new();
    let bundle = bench.bundle();
    let folder = bundle.folder().to_string();
    let daemon = Daemon::launch(&bench, &["--bundle", &folder], |command| command);
    daemon.wait_until_ready();
    bundle.damage("image_encoder.onnx", |bytes| bytes[100] ^= 1);
    let reply = daemon.send("POST", "/v1/reload", &[], b"");
    reply.refused(500, "bundle_file_differs");
    assert_eq!(daemon.classify(&image_bytes("rgb.png"), "").status, 200);
    drop(daemon);
    let mut daemon = Daemon::launch(&bench, &["--bundle", &folder], |command| command);
    assert_eq!(daemon.wait(), Some(3));
    assert!(daemon.log().contains("BLAKE3 digest") && !daemon.socket.exists(), "{}", daemon.log());
}

/// The messages that a service manager has received, up to one with `wanted` in it.
fn told(manager: &UnixDatagram, wanted: &str) -> String {
    let mut all = String::new();
    until(&format!("{wanted} is told"), || {
        let mut buffer = [0; 4096];
        match manager.recv(&mut buffer) {
            Ok(count) => all += &String::from_utf8_lossy(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        all.contains(wanted).then_some(())
    });
    all
}

/// A thread that is stopped as long as this value lives; whatever becomes of the test, it goes on afterwards.
struct Frozen(Pid);

impl Frozen {
    fn freeze(thread: i32) -> Self {
        let thread = Pid::from_raw(thread);
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        Self(thread)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = nix::sys::wait::waitpid(self.0, Some(nix::sys::wait::WaitPidFlag::__WALL));
        let _ = ptrace::detach(self.0, None);
    }
}

#[test]
fn the_service_manager_is_told_and_its_watchdog_fed_by_progress_alone() {
    let bench = Bench::new();
    let notify = bench.path("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_nonblocking(true).unwrap();
    let mut daemon =
        Daemon::launch(&bench, &[], |command| command.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", "1600000"));
    told(&manager, "READY=1");
    told(&manager, "WATCHDOG=1");
    daemon.signal(Signal::SIGHUP);
    let messages = told(&manager, "READY=1");
    assert!(messages.contains("RELOADING=1") && messages.contains("MONOTONIC_USEC="), "{messages}");

    // The engine's thread alone is stopped; the rest of the daemon runs and could feed the watchdog.
    let engine = fs::read_dir(format!("/proc/{}/task", daemon.pid()))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|task| fs::read_to_string(task.join("comm")).unwrap().trim() == "rtpt-engine")
        .expect("the engine has a thread");
    let frozen = Frozen::freeze(engine.file_name().unwrap().to_str().unwrap().parse().unwrap());
    until("the daemon sees it", || daemon.log().contains("made no progress").then_some(()));
    assert_eq!(daemon.get("/healthz").status, 200, "HTTP is answered all the while");
    while manager.recv(&mut [0; 4096]).is_ok() {}
    std::thread::sleep(Duration::from_millis(1700));
    let mut buffer = [0; 4096];
    assert!(manager.recv(&mut buffer).is_err(), "it was fed: {}", String::from_utf8_lossy(&buffer));
    drop(frozen);
    told(&manager, "WATCHDOG=1");
    assert_eq!(daemon.terminate(), Some(0));
    told(&manager, "STOPPING=1");
}

#[test]
fn sockets_may_come_from_systemd() {
    let bench = Bench::new();
    let handed = bench.path("handed.sock");
    let listener = UnixListener::bind(&handed).unwrap();
    let shell = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", shell, env!("CARGO_BIN_EXE_rtpt")]).stdin(OwnedFd::from(listener));
    command.env("RTPT_BUNDLE", crate::program::tiny()).env("XDG_CACHE_HOME", bench.path("memory"));
    command.env("XDG_STATE_HOME", bench.path("state")).env("RTPT_SOCKET", bench.path("unused.sock"));
    let mut child = command.spawn().unwrap();
    let get = || exchange(UnixStream::connect(&handed).unwrap(), "GET", "/readyz", &[], &[]);
    until("it answers on the socket that was handed over", || get().filter(|reply| reply.status == 200));
    assert!(!bench.path("unused.sock").exists());
    nix::sys::signal::kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(handed.exists(), "the socket is systemd's");
}

#[test]
fn an_address_from_systemd_needs_a_token_as_any_other() {
    let bench = Bench::new();
    let shell = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve \"$@\"";
    let serve = |address: &str, state: &str, more: &[&str]| {
        let listener = std::net::TcpListener::bind(address).unwrap();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", shell, env!("CARGO_BIN_EXE_rtpt")]).args(more).stdin(OwnedFd::from(listener));
        command.env("RTPT_BUNDLE", crate::program::tiny()).env("XDG_CACHE_HOME", bench.path("memory"));
        command.env("XDG_STATE_HOME", bench.path(state)).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let refused = serve("0.0.0.0:0", "refused", &[]).wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{message}");
    assert!(message.contains("0.0.0.0:") && message.contains("--token-file"), "{message}");
    let token = bench.write("token", b"0123456789abcdef");
    for (address, more) in [("0.0.0.0:0", &["--token-file", &token][..]), ("127.0.0.1:0", &[])] {
        let mut child = serve(address, address, more);
        let lock = bench.path(address).join("rtpt/daemon.lock");
        until("it serves", || lock.exists().then_some(()));
        std::thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none(), "{address}");
        nix::sys::signal::kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn watchers_see_decisions_and_the_rest_of_the_interface_fits_them() {
    let bench = Bench::new();
    for name in ["a.png", "b.png"] {
        bench.write(&format!("photos/{name}"), &image_bytes("rgb.png"));
    }
    let source = format!("{}?every=0.1", bench.path("photos").display());
    let mut daemon = Daemon::start(&bench, &["--source", &source]);
    let mut events: Events = daemon.events();
    assert_eq!(events.next("status")["ready"], true);
    let (first, second) = (events.next("decision"), events.next("decision"));
    assert!(second["sequence"].as_u64() > first["sequence"].as_u64(), "{first} {second}");
    let expected = bench.rtpt(&["classify", "--json", &bench.image("rgb.png")]).records()[0].clone();
    assert_eq!(lasting(second["image"].clone()), lasting(expected));
    let plain: Vec<f64> = serde_json::from_value(second["zero_shot"].clone()).unwrap();
    let (image, listed) = (&second["image"], second["image"]["top"].as_array().unwrap());
    let place = listed.iter().position(|answer| answer["label"] == image["zero_shot"]["label"]).unwrap();
    assert_eq!(plain.len(), listed.len());
    assert!((plain[place] - image["zero_shot"]["probability"].as_f64().unwrap()).abs() < 1e-6, "{second}");
    assert!(plain.iter().sum::<f64>() < 1.000_01 && plain.iter().all(|&other| other <= plain[place]));
    let views = second["views"].as_array().unwrap();
    let sum: f64 = views.iter().map(|view| view["weight"].as_f64().unwrap()).sum();
    assert!(views.len() == 16 && (sum - 1.0).abs() < 1e-3, "{sum}");
    assert_eq!(views.iter().filter(|view| view["selected"] == true).count(), 1, "a tenth of 16");

    assert_eq!(daemon.get("/v1/frame.jpg").body, image_bytes("rgb.png"));
    assert_eq!(daemon.get("/v1/frame.jpg").header("content-type"), Some("image/png"));
    let sheet = daemon.get("/v1/views.jpg");
    let digest = second["image"]["digest"].as_str().unwrap();
    assert_eq!(sheet.header("etag"), Some(&*format!("\"{digest}\"")), "it says whose views they are");
    assert_eq!((sheet.status, sheet.header("content-type")), (200, Some("image/jpeg")));
    let sheet = rtpt_edge::internal::views::decode(&sheet.body).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (8 * 96, 2 * 96));
    assert!(daemon.get("/v1/latest").json()["sequence"].as_u64() >= second["sequence"].as_u64());
    let history = until("there is a history", || {
        Some(daemon.get("/v1/history").json()).filter(|points| points.as_array().unwrap().len() > 1)
    });
    assert!(
        history[0]["total"].as_f64().unwrap() > 0.0 && history[0]["unix_ms"].as_u64() < history[1]["unix_ms"].as_u64()
    );
    assert!(daemon.metric("rtpt_frames_classified_total") >= 2.0 && daemon.metric("rtpt_source_up") == 1.0);
    assert!(daemon.metric("rtpt_resident_memory_bytes") > 1e6 && daemon.metric("rtpt_queue_length") == 0.0);
    let metrics = daemon.get("/metrics");
    assert!(metrics.header("content-type").unwrap().contains("openmetrics") && metrics.text().ends_with("# EOF\n"));

    let socket = daemon.socket.to_str().unwrap();
    let watched = bench.rtpt(&["watch", "--count", "3", "--json", "--socket", socket]);
    assert_eq!((watched.code, watched.records().len()), (0, 3), "{}", watched.stderr);
    let lines = bench.rtpt(&["watch", "--count", "2", "--socket", socket]);
    assert_eq!(
        (lines.stdout.lines().count(), lines.stderr.contains("is streaming")),
        (2, true),
        "{} {}",
        lines.stdout,
        lines.stderr
    );
    let began = Instant::now();
    assert_eq!(daemon.terminate(), Some(0));
    assert!(began.elapsed() < LONG / 6, "open event streams do not hold up the end");
}

#[test]
fn who_watches_waits_for_a_daemon_that_is_started_again() {
    let bench = Bench::new();
    let source = format!("{}?every=0.05", bench.image("rgb.png"));
    let mut daemon = Daemon::start(&bench, &["--source", &source]);
    let mut watching = bench.command(&["watch", "--count", "400", "--socket", daemon.socket.to_str().unwrap()]);
    let out = bench.path("watched");
    let mut watching = watching.stdout(fs::File::create(&out).unwrap()).spawn().unwrap();
    let lines = || fs::read_to_string(&out).unwrap().lines().count();
    until("it is watched", || (lines() > 3).then_some(()));
    daemon.kill();
    let before = lines();
    let _second = Daemon::start(&bench, &["--source", &source]);
    until("it is watched again", || (lines() > before + 3).then_some(()));
    assert!(watching.try_wait().unwrap().is_none());
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn without_a_frame_there_is_none() {
    let bench = Bench::new();
    let daemon = Daemon::start(&bench, &[]);
    for path in ["/v1/latest", "/v1/frame.jpg", "/v1/views.jpg"] {
        daemon.get(path).refused(404, "no_frame");
    }
    assert_eq!(daemon.get("/v1/history").json(), json!([]));
}

#[test]
fn a_bundle_whose_disk_is_mounted_later_is_waited_for() {
    let bench = Bench::new();
    let late = bench.path("mounted");
    fs::create_dir(&late).unwrap();
    let daemon = Daemon::launch(&bench, &["--bundle-wait", "50"], |command| command.env("RTPT_BUNDLE", &late));
    until("it says that it waits", || daemon.log().contains("waiting for it, 50 s at most").then_some(()));
    daemon.get("/v1/latest").refused(404, "no_frame");
    daemon.get("/readyz").refused(503, "not_ready");
    let whole = bench.bundle();
    for entry in fs::read_dir(whole.folder()).unwrap() {
        let path = entry.unwrap().path();
        // The manifest last, as a mount shows all of its files at once.
        if !path.ends_with("manifest.json") {
            fs::copy(&path, late.join(path.file_name().unwrap())).unwrap();
        }
    }
    fs::copy(std::path::Path::new(whole.folder()).join("manifest.json"), late.join("manifest.json")).unwrap();
    daemon.wait_until_ready();
    assert_eq!(daemon.log().matches("waiting for it").count(), 1, "it says so once: {}", daemon.log());
    drop(daemon);
    // A wrong name is told at once by whoever does not ask to wait, and after the wait by others.
    let nowhere = bench.path("nowhere");
    let socket = bench.path("other.sock");
    for wait in ["0", "1"] {
        let flags = ["serve", "--socket", socket.to_str().unwrap(), "--bundle-wait", wait];
        bench
            .rtpt(&[&flags[..], &["--bundle", nowhere.to_str().unwrap()]].concat())
            .fails_with(3, &["there is no folder"]);
    }
}

#[test]
fn labels_past_the_bound_are_refused_over_http() {
    let bench = Bench::new();
    let daemon = Daemon::start(&bench, &[]);
    let list: String = (0..10_001).map(|number| format!("watch {number}\n")).collect();
    let reply = daemon.send("PUT", "/v1/labels", &["content-type: text/plain"], list.as_bytes());
    reply.refused(413, "too_many_labels");
    assert!(reply.text().contains("10001") && reply.text().contains("at most 10000"), "{}", reply.text());
}

#[test]
fn a_picture_of_views_is_drawn_once_for_whoever_asks() {
    let bench = Bench::new();
    bench.write("photos/rgb.png", &image_bytes("rgb.png"));
    let source = format!("{}?every=3600", bench.path("photos").display());
    let daemon = Daemon::start(&bench, &["--source", &source, "--views", "20"]);
    until("a frame was classified", || daemon.try_get("/v1/latest").filter(|reply| reply.status == 200));
    let sheets: Vec<Reply> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..12).map(|_| scope.spawn(|| daemon.get("/v1/views.jpg"))).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert!(sheets.iter().all(|sheet| sheet.status == 200 && sheet.body == sheets[0].body));
    assert_eq!(sheets[0].header("etag"), sheets[11].header("etag"));
    // Twenty views, eight in a row of 96 pixels each.
    let picture = image::load_from_memory(&sheets[0].body).unwrap();
    assert_eq!((picture.width(), picture.height()), (768, 288));
}

#[test]
fn a_reset_of_labels_asks_for_the_tag_as_any_change_and_identifiers_are_in_it() {
    let bench = Bench::new();
    let daemon = Daemon::start(&bench, &[]);
    let put = |text: &str| daemon.send("PUT", "/v1/labels", &["content-type: text/plain"], text.as_bytes());
    let tag = |reply: &Reply| reply.header("etag").unwrap().to_string();
    let one = tag(&put("1\twatch\n2\tred\n"));
    let other = tag(&put("1\twatch\n3\tred\n"));
    assert_ne!(one, other, "labels with other identifiers are other labels");
    daemon.send("DELETE", "/v1/labels", &[&format!("if-match: {one}")], b"").refused(412, "changed_meanwhile");
    assert_eq!(daemon.send("DELETE", "/v1/labels", &[&format!("if-match: {other}")], b"").status, 200);
}

#[test]
fn a_flag_wins_over_a_setting_that_it_excludes() {
    let bench = Bench::new();
    let config = bench.write("rtpt.toml", b"context = \"a photo of a\"\n");
    let socket = bench.path("s");
    let flags = ["serve", "--config", &config, "--template", "a {}.", "--bundle", "nowhere"];
    bench.rtpt(&[&flags[..], &["--socket", socket.to_str().unwrap()]].concat()).fails_with(3, &["nowhere"]);
}

#[test]
fn a_recording_that_cannot_be_changed_goes_on_as_it_was() {
    let bench = Bench::new();
    bench.write("photos/rgb.png", &image_bytes("rgb.png"));
    let source = format!("{}?every=0.01", bench.path("photos").display());
    let folder = bench.path("recording");
    let settings = |max: u64| format!("source = {source:?}\nrecord = {:?}\nrecord-max-mb = {max}\n", folder.display());
    let config = bench.write("rtpt.toml", settings(5).as_bytes());
    let faults = crate::faults::Faults::new(&bench);
    let daemon = faults.daemon(&bench, &["--config", &config]);
    let committed = || daemon.status()["recording"]["committed"].as_u64().unwrap_or(0);
    until("frames are on the disk", || (committed() > 2).then_some(()));
    // The lock cannot be opened just then, as on a disk that hiccups.
    faults.fail("open", nix::errno::Errno::EIO, "recording.lock");
    bench.write("rtpt.toml", settings(6).as_bytes());
    assert_ne!(daemon.send("POST", "/v1/reload", &[], b"").status, 200);
    faults.mend("open");
    assert_eq!(daemon.send("POST", "/v1/reload", &[], b"").status, 200);
    until("it is recorded with the new room", || {
        (committed() > 2 && daemon.status()["recording"]["bytes_max"] == 6 << 20).then_some(())
    });
}
