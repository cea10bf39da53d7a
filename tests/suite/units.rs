//! The files that a device is set up with: the service, its socket and its configuration.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::goldens::root;
use crate::program::Bench;

#[test]
fn the_sample_configuration_has_every_setting_and_is_taken() {
    let sample = fs::read_to_string(root().join("cross/rtpt.toml")).unwrap();
    let setting = |line: &str| {
        let (key, value) = line.strip_prefix("# ").unwrap_or(line).split_once(" = ")?;
        key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-').then(|| (key.to_string(), value.to_string()))
    };
    let settings: Vec<(String, String)> = sample.lines().filter_map(setting).collect();
    let bench = Bench::new();
    let help = bench.rtpt(&["serve", "--help"]).stdout;
    let flags: BTreeSet<String> = help
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--"))
        .map(|flag| flag.trim_end_matches([',', '.', ';', ')']).to_string())
        .filter(|flag| !["config", "help", ""].contains(&flag.as_str()))
        .collect();
    let keys: BTreeSet<String> = settings.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(keys, flags);
    // Each by itself, since some exclude others. The parser has had its say when the bundle is looked for.
    for (key, value) in settings {
        let text = format!("{key} = {value}\n");
        let config = bench.write("rtpt.toml", text.as_bytes());
        let (socket, token) = (bench.path("s"), bench.write("token", b"0123456789abcdef"));
        let mut command = bench.command(&["serve", "--config", &config, "--bundle", "/nowhere"]);
        command.args(["--socket", socket.to_str().unwrap(), "--state", bench.path("state").to_str().unwrap()]);
        // Files that are not here, and a wait that would last.
        if key == "token-file" {
            command.args(["--token-file", &token]);
        }
        if key == "trusted-keys" {
            bench.write("keys/maker.pub", b"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n");
            command.arg("--trusted-keys").arg(bench.path("keys"));
        }
        if key == "bundle-wait" {
            command.args(["--bundle-wait", "0"]);
        }
        let output = command.env("RTPT_SOCKET", &socket).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        // A camera's program or folder that this machine lacks is noticed before.
        let lacks = ["which does not exist", "which is not installed here"];
        if key == "source" && lacks.iter().any(|what| message.contains(what)) {
            continue;
        }
        assert_eq!(output.status.code(), Some(3), "{text}: {message}");
        assert!(message.contains("there is no folder /nowhere"), "{text}: {message}");
    }
}

#[test]
fn systemd_takes_the_units_and_finds_the_service_well_locked() {
    let at_hand = Command::new("systemd-analyze").arg("--version").output();
    if !at_hand.is_ok_and(|output| output.status.success()) {
        eprintln!("passed over: systemd is not at hand");
        return;
    }
    let bench = Bench::new();
    let service = fs::read_to_string(root().join("cross/rtpt.service")).unwrap();
    let placed = service.replace("/usr/bin/rtpt", env!("CARGO_BIN_EXE_rtpt"));
    let path = bench.write("rtpt.service", placed.as_bytes());
    let socket = bench.write("rtpt.socket", &fs::read(root().join("cross/rtpt.socket")).unwrap());
    let verify = Command::new("systemd-analyze").args(["verify", "--man=no", &path, &socket]).output().unwrap();
    let said = String::from_utf8_lossy(&verify.stderr);
    let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("rtpt")).collect();
    assert!(about_ours.is_empty(), "{said}");
    // Exposure from 0 to 10; up to 2 it is called safe. The threshold is in tenths.
    let security = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=20", "--no-pager", &path])
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&security.stdout);
    let overall = table.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_default();
    eprintln!("{overall}");
    assert!(security.status.success() && !overall.is_empty(), "{table}");
    for wanted in ["NoNewPrivileges=yes", "DynamicUser=yes", "WatchdogSec=", "Type=notify"] {
        assert!(service.contains(wanted), "{wanted}");
    }
}
