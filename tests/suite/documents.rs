//! What the documents say of the program and of each other.

use std::fs;
use std::path::{Path, PathBuf};

use rtpt_edge::internal::method::needs_text_tower;
use rtpt_edge::{Method, MethodSettings};

use crate::goldens::root;

fn files_below(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') {
                files_below(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
}

#[test]
fn messages_to_look_up_are_those_of_the_program() {
    let mut sources = Vec::new();
    files_below(&root().join("src"), &[".rs"], &mut sources);
    files_below(&root().join("cross"), &[".sh"], &mut sources);
    let said: String = sources.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let mut looked_up = 0;
    for line in page.lines().filter(|line| line.starts_with("| `") && !line.contains("(from the ")) {
        let message = line.split('`').nth(1).unwrap();
        assert!(said.contains(message), "nothing says {message:?}");
        looked_up += 1;
    }
    assert!(looked_up > 30, "{looked_up}");
}

/// The anchor that a heading has.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut pages: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name)).into();
    files_below(&root().join("docs"), &[".md"], &mut pages);
    let mut followed = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.contains("://") {
                continue;
            }
            let (path, wanted) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if let Some(wanted) = wanted {
                let there = fs::read_to_string(&target).unwrap();
                let found = there.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line) == wanted);
                assert!(found, "{}: {link} has no such heading", page.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 20, "{followed}");
}

/// The table of methods in the documents is that of the program; `RTPT_WRITE_DOCS=1` writes it anew.
#[test]
fn the_table_of_methods_is_the_programs() {
    let path = root().join("docs/methods.md");
    let page = fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- methods: begin -->\n", "<!-- methods: end -->");
    let (before, rest) = page.split_once(begin).unwrap();
    let (table, after) = rest.split_once(end).unwrap();
    let mut wanted = "| method | what it does | parameters and defaults | needs |\n|---|---|---|---|\n".to_string();
    for method in Method::all() {
        let settings = MethodSettings::of(method);
        let parameters: Vec<String> = settings.iter().map(|(name, value)| format!("`{name}` {value}")).collect();
        let cell = |text: String| if text.is_empty() { " ".into() } else { format!(" {text} ") };
        let needs = if needs_text_tower(method) { "a text tower" } else { "" };
        let (parameters, needs) = (cell(parameters.join(", ")), cell(needs.into()));
        wanted += &format!("| `{method}` | {} |{parameters}|{needs}|\n", method.summary());
    }
    if std::env::var_os("RTPT_WRITE_DOCS").is_some() {
        fs::write(&path, format!("{before}{begin}{wanted}{end}{after}")).unwrap();
    } else {
        assert_eq!(table, wanted, "write it with RTPT_WRITE_DOCS=1");
    }
}
