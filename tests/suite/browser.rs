//! A real Chromium, driven over the WebDriver protocol by its own driver.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::daemon::{exchange, free_port, tcp, until};

/// A browser with one window; ended when the test ends.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

impl Browser {
    pub fn start(profile: &std::path::Path) -> Self {
        let port = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let mut this = Self { driver, port, session: String::new() };
        until("the driver answers", || {
            let stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
            exchange(stream, "GET", "/status", &[], &[]).filter(|reply| reply.json()["value"]["ready"] == true)
        });
        let profile = format!("--user-data-dir={}", profile.display());
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &profile,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let session = this.call("POST", "/session", &wanted);
        this.session = session["sessionId"].as_str().unwrap_or_else(|| panic!("{session}")).into();
        this
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "GET" { Vec::new() } else { body.to_string().into_bytes() };
        let headers = ["content-type: application/json"];
        let reply = exchange(tcp(self.port), method, path, &headers, &body).expect("the driver answers");
        let answer = reply.json()["value"].clone();
        assert_eq!(reply.status, 200, "{method} {path}: {answer}");
        answer
    }

    fn of_session(&self, method: &str, path: &str, body: Value) -> Value {
        self.call(method, &format!("/session/{}{path}", self.session), &body)
    }

    /// Opens an address in a window of this size.
    pub fn open(&self, address: &str, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics });
        self.of_session("POST", "/goog/cdp/execute", command);
        self.of_session("POST", "/url", json!({ "url": address }));
    }

    /// Runs a script in the page and gives what it returns.
    pub fn run(&self, script: &str) -> Value {
        self.of_session("POST", "/execute/sync", json!({ "script": script, "args": [] }))
    }

    /// The text of an element.
    pub fn text(&self, id: &str) -> String {
        let text = self.run(&format!("return document.getElementById('{id}').textContent"));
        text.as_str().unwrap_or_else(|| panic!("{id}: {text}")).into()
    }

    /// Waits until a script returns true.
    #[track_caller]
    pub fn wait_for(&self, condition: &str) {
        until(condition, || (self.run(&format!("return Boolean({condition})")) == true).then_some(()));
    }

    /// Presses keys, as WebDriver writes them, one after the other.
    pub fn press(&self, keys: &[&str]) {
        let actions: Vec<Value> = keys
            .iter()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })])
            .collect();
        let keyboard = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] });
        self.of_session("POST", "/actions", keyboard);
    }

    /// Types into the element that has the focus.
    pub fn type_text(&self, text: &str) {
        let keys: Vec<String> = text.chars().map(String::from).collect();
        self.press(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// What the console has said since the last time.
    pub fn console(&self) -> Vec<Value> {
        let log = self.of_session("POST", "/se/log", json!({ "type": "browser" }));
        log.as_array().unwrap_or_else(|| panic!("{log}")).clone()
    }

    /// A picture of the window, as a PNG file.
    pub fn screenshot(&self) -> Vec<u8> {
        use base64::Engine;
        let picture = self.of_session("GET", "/screenshot", Value::Null);
        base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap()).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let path = format!("/session/{}", self.session);
            let _ = std::net::TcpStream::connect(("127.0.0.1", self.port))
                .map(|stream| exchange(stream, "DELETE", &path, &[], &[]));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
