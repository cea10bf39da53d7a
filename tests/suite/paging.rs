//! The live page in a real browser, on a phone's width and a desk's.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::browser::Browser;
use crate::daemon::{Daemon, free_port, is_here, until};
use crate::program::{Bench, demo};

/// WebDriver's names of keys.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// A daemon with a camera that can be unplugged, the page's address, and a browser; nothing without one.
fn stage(bench: &Bench, views: &str) -> Option<(Daemon, String, Browser)> {
    stage_in(bench, ["--views", views])
}

fn stage_in(bench: &Bench, views: [&str; 2]) -> Option<(Daemon, String, Browser)> {
    if !is_here("chromedriver") || !is_here("chromium") {
        return None;
    }
    for photo in ["accordion.jpg", "accordion-attacked.png", "chair.jpg"] {
        fs::create_dir_all(bench.path("camera")).unwrap();
        fs::copy(demo().join("../photos").join(photo), bench.path("camera").join(photo)).unwrap();
    }
    fs::copy(bench.path("camera/chair.jpg"), bench.path("camera/<b>bold<b>.jpg")).unwrap();
    let port = free_port();
    let source = format!("{}?every=0.3", bench.path("camera").display());
    let address = format!("127.0.0.1:{port}");
    let flags = [&["--source", &source, "--listen", &address], &views[..]].concat();
    let daemon = Daemon::launch(bench, &flags, |command| command.env("RTPT_BUNDLE", demo()));
    daemon.wait_until_ready();
    let browser = Browser::start(&bench.path("profile"));
    Some((daemon, format!("http://127.0.0.1:{port}/"), browser))
}

#[track_caller]
fn no_complaints(browser: &Browser) {
    let complaints = browser.console();
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// Where a picture of the page goes, if somebody wants to look at it.
fn keep(browser: &Browser, name: &str) {
    if let Some(folder) = std::env::var_os("RTPT_SCREENSHOTS") {
        fs::write(std::path::Path::new(&folder).join(name), browser.screenshot()).unwrap();
    }
}

#[test]
fn the_page_shows_what_the_camera_sees_on_a_phone_and_on_a_desk() {
    let bench = Bench::new();
    let Some((_daemon, address, browser)) = stage(&bench, "64") else { return };
    for (width, height) in [(360, 740), (1280, 900)] {
        browser.open(&address, width, height);
        browser.wait_for("state.decision && document.getElementById('frame').complete && document.getElementById('frame').naturalWidth > 0");
        let shown = |script: &str| browser.run(&format!("return {script}"));
        assert_eq!(shown("document.getElementById('label').textContent"), shown("state.decision.image.label"));
        assert_eq!(shown("document.querySelectorAll('#tiles li').length"), 64);
        assert!(shown("document.querySelectorAll('#bars tr').length").as_u64() >= Some(5));
        assert!(browser.text("tamper").starts_with("T") && browser.text("link").contains("streaming"));
        let wide = shown("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(wide, 0, "nothing sticks out at {width} pixels");
        let small = shown("[...document.querySelectorAll('button')].filter(b => b.offsetHeight < 40).length");
        assert_eq!(small, 0, "buttons are large enough for a thumb");
        // A new frame is shown without anybody doing anything.
        browser.run("window.seen = state.decision.sequence");
        browser.wait_for(
            "state.decision.sequence > window.seen + 2 && document.querySelectorAll('svg polyline').length >= 5",
        );
        browser.wait_for("Number(document.getElementById('frames').textContent) > 2");
        // An attacked photo is marked, with zero-shot's answer beside.
        browser.wait_for("document.getElementById('tamper').classList.contains('suspicious')");
        assert!(browser.text("total-now").contains("ms") && browser.text("memory").contains("MiB"));
        browser.run("document.getElementById('show-views').click()");
        browser.wait_for("document.querySelectorAll('.thumb canvas').length === 64");
        assert_eq!(shown("document.getElementById('method').textContent"), "view-shift");
        browser.wait_for("document.getElementById('about').textContent.includes('demo@')");
        keep(&browser, &format!("page-{width}.png"));
        no_complaints(&browser);
    }
}

#[test]
fn a_frame_in_rounds_says_how_many_views_it_needed_and_what_the_gate_found() {
    let bench = Bench::new();
    let Some((_daemon, address, browser)) = stage_in(&bench, ["--views-max", "16"]) else { return };
    browser.open(&address, 1280, 900);
    browser.wait_for("document.getElementById('frame-note').textContent.includes(' of at most 16')");
    browser.wait_for("document.getElementById('tamper').textContent.includes('copy without detail')");
    // A frame comes when it comes: what is shown of one is looked at before the next.
    let shown = |gate: &str| {
        let look = "const node = document.getElementById('tamper'); return [node.textContent, node.classList.contains('suspicious')]";
        browser.run(&format!("showTamper({{gate: {gate}}}); {look}"))
    };
    let low = shown("{cosine: 0.5, bound: 0.8}");
    let warning =
        "This frame may have been tampered with. Likeness to its copy without detail 0.50 (suspicious below 0.80)";
    assert_eq!(low, serde_json::json!([warning, true]));
    assert_eq!(shown("{cosine: 0.9, bound: 0.8}")[1], false);
    no_complaints(&browser);
}

#[test]
fn pictures_of_views_stand_over_their_own_labels() {
    let bench = Bench::new();
    let Some((_daemon, address, browser)) = stage(&bench, "16") else { return };
    browser.open(&address, 1280, 900);
    browser.wait_for("state.decision");
    browser.run("document.getElementById('show-views').click()");
    // What stands under the pictures, which photo it is of, and the first picture itself.
    let shown = "const text = [...document.querySelectorAll('#tiles .name, #tiles .share')].map(node => node.textContent).join(); \
        const canvas = document.querySelector('.thumb canvas'); return canvas ? [text, canvas.toDataURL()] : null";
    let mut pictures: BTreeMap<String, String> = BTreeMap::new();
    until("three photos were shown", || {
        let pair = browser.run(shown);
        let (text, picture) = (pair[0].as_str()?.to_string(), pair[1].as_str()?.to_string());
        let first = pictures.entry(text).or_insert_with(|| picture.clone());
        assert_eq!(*first, picture, "the same labels and weights, so the same photo");
        (pictures.len() >= 3).then_some(())
    });
    let mut different: Vec<&String> = pictures.values().collect();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), pictures.len(), "another photo has other pictures");
    browser.run("document.getElementById('show-views').click()");
    assert_eq!(browser.run("return document.querySelectorAll('.thumb canvas').length"), 0);
    no_complaints(&browser);
}

#[test]
fn labels_are_edited_by_keyboard_and_mistakes_are_told() {
    let bench = Bench::new();
    let Some((daemon, address, browser)) = stage(&bench, "16") else { return };
    browser.open(&address, 360, 740);
    browser.wait_for("state.decision && document.getElementById('text').value.includes('accordion')");
    let focus = || browser.run("return document.activeElement.id");
    // By tabulator alone: the link over the navigation, then the editor and its buttons.
    browser.press(&[TAB]);
    assert_eq!(browser.run("return document.activeElement.className"), "skip");
    browser.press(&[TAB]);
    assert_eq!(focus(), "text");
    browser.run("document.getElementById('text').select()");
    browser.type_text("a red accordion");
    browser.press(&[ENTER]);
    browser.type_text("chair");
    browser.press(&[TAB]);
    assert_eq!(focus(), "save");
    let outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(outline, "solid", "the focus can be seen");
    browser.press(&[ENTER]);
    browser.wait_for("document.getElementById('saved').textContent === '2 labels are in force.'");
    browser.wait_for("['a red accordion', 'chair'].includes(document.getElementById('label').textContent)");
    let labels: Value = daemon.get("/v1/labels").json();
    assert_eq!((&labels["labels"][0], &labels["origin"]), (&"a red accordion".into(), &"edited".into()));
    no_complaints(&browser);

    browser.run("document.getElementById('text').value = 'one'; document.getElementById('save').click()");
    browser.wait_for("document.getElementById('saved').classList.contains('wrong')");
    assert!(browser.text("saved").contains("1 label given"), "{}", browser.text("saved"));
    assert_eq!(browser.run("return document.getElementById('text').value"), "one", "what was typed stays");
    browser.run("document.getElementById('revert').click()");
    assert_eq!(browser.run("return document.getElementById('text').value"), "a red accordion\nchair\n");
    // Another technician's change is seen here, and not overwritten.
    assert_eq!(daemon.send("PUT", "/v1/labels", &[], b"chair\ncup\n").status, 200);
    browser.wait_for("document.getElementById('text').value.includes('cup')");
    browser.wait_for("document.querySelectorAll('#bars tr').length === 2");
    // Names are text, not markup.
    browser.wait_for("document.getElementById('frame-note').textContent.includes('<b>bold<b>')");
    assert_eq!(browser.run("return document.querySelectorAll('main b').length"), 0);
    browser.run("document.getElementById('reset').click()");
    browser.wait_for("document.getElementById('saved').textContent === '100 labels are in force.'");
    assert_eq!(daemon.get("/v1/labels").json()["origin"], "configured");
}

#[test]
fn a_lost_camera_and_a_lost_daemon_are_shown() {
    let bench = Bench::new();
    let Some((mut daemon, address, browser)) = stage(&bench, "16") else { return };
    browser.open(&address, 1280, 900);
    browser.wait_for("state.decision && document.getElementById('alarm').hidden");
    let (camera, away) = (bench.path("camera"), bench.path("away"));
    fs::rename(&camera, &away).unwrap();
    browser.wait_for("!document.getElementById('alarm').hidden");
    assert!(browser.text("alarm").contains("The camera is lost"), "{}", browser.text("alarm"));
    assert_eq!(browser.run("return document.getElementById('picture').classList.contains('lost')"), true);
    keep(&browser, "page-lost.png");
    fs::rename(&away, &camera).unwrap();
    browser.wait_for("document.getElementById('alarm').hidden");
    browser.wait_for("Number(document.getElementById('reopens').textContent) >= 1");
    no_complaints(&browser);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    browser.wait_for("document.getElementById('link').textContent.includes('does not answer')");
    let port = address.trim_end_matches('/').rsplit(':').next().unwrap().to_string();
    let source = format!("{}?every=0.3", camera.display());
    let flags = ["--source", &source, "--listen", &format!("127.0.0.1:{port}"), "--views", "16"];
    let daemon = Daemon::launch(&bench, &flags, |command| command.env("RTPT_BUNDLE", demo()));
    daemon.wait_until_ready();
    browser.wait_for("document.getElementById('link').textContent.includes('streaming')");
    until("decisions come again", || {
        let sequence = browser.run("return state.decision.sequence").as_u64()?;
        (daemon.get("/v1/latest").json()["sequence"].as_u64()? <= sequence + 3).then_some(())
    });
}
