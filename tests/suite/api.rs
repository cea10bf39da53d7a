//! The public interface: a committed list of its items, so that growing it is a decision, and a crate elsewhere that uses it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rtpt_edge::{Answer, Bundle, Classifier, ClassifierBuilder, Error, FeatureCache, Features, Labels, MethodSettings};

use crate::goldens::root;
use crate::program::image_bytes;

/// The list; `RTPT_WRITE_API=1` writes it anew.
const LIST: &str = "tests/data/public-api.txt";

#[test]
fn the_public_items_are_those_of_the_list() {
    let found = public_items().join("\n") + "\n";
    let path = root().join(LIST);
    if std::env::var_os("RTPT_WRITE_API").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let listed = fs::read_to_string(&path).unwrap();
    let missing_in = |list: &str, from: &str| -> Vec<String> {
        from.lines().filter(|line| !list.lines().any(|other| other == *line)).map(str::to_string).collect()
    };
    let (added, gone) = (missing_in(&listed, &found), missing_in(&found, &listed));
    assert!(
        added.is_empty() && gone.is_empty(),
        "{LIST} differs: new {added:?}, gone {gone:?}; if that is meant, run this test with RTPT_WRITE_API=1"
    );
}

/// Every item that `lib.rs` re-exports, with its public fields, variants and methods, a line each.
fn public_items() -> Vec<String> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut items = Vec::new();
    for reexport in lib.split("\npub use ").skip(1).map(|rest| rest.split(';').next().unwrap()) {
        let (module, names) = reexport.rsplit_once("::").unwrap();
        for name in names.trim_matches(['{', '}']).split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let before = items.len();
            let sources = sources_of(module.split("::").next().unwrap());
            sources.iter().for_each(|text| items_of(text, name, &mut items));
            assert!(items.len() > before, "nothing was found of {name} in {module}");
        }
    }
    let doors: Vec<&str> = lib.lines().filter(|line| line.starts_with("pub mod ")).collect();
    assert_eq!(doors, ["pub mod internal;"], "a public module is a door of its own");
    assert!(lib.contains("#[doc(hidden)]\npub mod internal;"));
    items.sort();
    items
}

/// The files of a module, and of those whose `impl` blocks belong to its types.
fn sources_of(module: &str) -> Vec<String> {
    let mut paths = vec![root().join(format!("src/{module}.rs")), root().join("src/builder.rs")];
    walk(&root().join("src").join(module), &mut paths);
    paths.sort();
    paths.dedup();
    paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

/// The items of a type in a formatted source file.
fn items_of(text: &str, name: &str, items: &mut Vec<String>) {
    let mut block = None;
    let mut signature = String::new();
    for line in text.lines() {
        if line == "#[cfg(test)]" {
            break;
        }
        let is_named = |rest: &str| {
            rest.strip_prefix(name).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        for kind in ["struct", "enum"] {
            if line.strip_prefix(&format!("pub {kind} ")).is_some_and(is_named) {
                items.push(line.trim_start_matches("pub ").trim_end_matches([' ', '{', ';']).into());
                block = Some(kind);
            }
        }
        let is_own = line.strip_prefix("impl ").or_else(|| line.split_once("> ").map(|(_, rest)| rest));
        if line.starts_with("impl") && !line.contains(" for ") && is_own.is_some_and(is_named) {
            block = Some("impl");
        }
        if line == "}" {
            block = None;
        }
        match block {
            Some("impl") if line.starts_with("    pub fn ") || !signature.is_empty() => {
                signature += line.trim();
                signature.push(' ');
                if line.ends_with('{') {
                    let text = signature.trim_end_matches([' ', '{']).trim_start_matches("pub fn ");
                    items.push(format!("{name}::{}", text.replace("( ", "(").replace(", )", ")")));
                    signature.clear();
                }
            }
            Some("struct") => {
                let field = line.strip_prefix("    pub ").filter(|field| !field.starts_with('('));
                items.extend(field.map(|field| format!("{name}.{}", field.trim_end_matches(','))));
            }
            Some("enum") => {
                let variant = line.strip_prefix("    ").filter(|rest| rest.starts_with(char::is_uppercase));
                items.extend(variant.map(|variant| format!("{name}::{}", variant.trim_end_matches([',', ' ', '{']))));
            }
            _ => {}
        }
    }
}

#[test]
fn threads_may_share_what_is_public() {
    fn shared<T: Send + Sync>() {}
    shared::<Bundle>();
    shared::<Classifier>();
    shared::<ClassifierBuilder>();
    shared::<Answer>();
    shared::<Features>();
    shared::<FeatureCache>();
    shared::<Labels>();
    shared::<MethodSettings>();
    shared::<Error>();
}

/// A crate outside the repository, with the library alone, in ten lines.
#[test]
fn a_crate_elsewhere_classifies_a_photo() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| fs::write(folder.path().join(name), text).unwrap();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    // With the same profile its dependencies are those that are built already.
    let from = manifest.find("[profile.dev]").unwrap();
    let profile = &manifest[from..from + manifest[from..].find("[profile.release]").unwrap()];
    let dependency = format!("rtpt-edge = {{ path = {:?}, default-features = false }}", root());
    // With the same features, too: what others of this repository's dependencies turn on in those that the library shares with them. Without
    // these lines the engine is compiled once more, which takes minutes.
    let shared = r#"
log = { version = "0.4", features = ["std"] }
rustix = { version = "1", features = ["termios"] }
serde_core = "1"
smallvec = { version = "1", features = ["const_new"] }

[build-dependencies]
syn = { version = "3", features = ["full"] }
"#;
    let package =
        "[package]\nname = \"elsewhere\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n";
    write("Cargo.toml", format!("{package}{dependency}{shared}\n{profile}").as_bytes());
    fs::copy(root().join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    let program = r#"use rtpt_edge::{Bundle, Classifier};

fn main() -> Result<(), rtpt_edge::Error> {
    let bundle = Bundle::open(std::env::args().nth(1).unwrap())?;
    let classifier = Classifier::builder(&bundle).build()?;
    let answer = classifier.classify(&std::fs::read("photo.png")?)?;
    println!("{} {}", answer.best().label, answer.best().probability);
    Ok(())
}
"#;
    assert!(program.lines().count() <= 10);
    write("src/main.rs", program.as_bytes());
    write("photo.png", &image_bytes("rgb.png"));
    let target = Path::new(env!("CARGO_BIN_EXE_rtpt")).parent().unwrap().parent().unwrap();
    let run = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--offline", "--"])
        .arg(root().join("tests/data/tiny"))
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", target)
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{stderr}");
    assert!(["red", "sea horse", "yin yang", "watch"].iter().any(|label| stdout.starts_with(label)), "{stdout}");
    // None of the program's dependencies is there.
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges", "normal", "--prefix", "none"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    assert!(tree.contains("tract-onnx"), "{tree}");
    for name in ["clap", "indicatif", "env_logger", "plotters", "tokio", "axum", "hyper"] {
        assert!(!tree.lines().any(|line| line.starts_with(&format!("{name} v"))), "{name} is in\n{tree}");
    }
}

/// Files that the compiler reads beside the sources are in the package too, and the package is no place for models.
#[test]
fn the_package_has_what_its_sources_include() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let listed =
        Command::new(cargo).args(["package", "--list", "--allow-dirty", "--offline"]).current_dir(root()).output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    let files: Vec<&str> = listed.lines().collect();
    assert!(files.contains(&"src/lib.rs") && files.contains(&"LICENSE-MIT"), "{listed}");
    let mut sources = Vec::new();
    walk(&root().join("src"), &mut sources);
    let mut included = 0;
    for source in sources.iter().filter(|path| path.extension().is_some_and(|kind| kind == "rs")) {
        let text = fs::read_to_string(source).unwrap();
        for call in ["include_bytes!(\"", "include_str!(\""] {
            for name in text.split(call).skip(1).map(|rest| rest.split('"').next().unwrap()) {
                let path = source.parent().unwrap().join(name).canonicalize().unwrap();
                let path = path.strip_prefix(root()).unwrap().to_str().unwrap();
                assert!(files.contains(&path), "{path} is not among the files that Cargo.toml includes");
                included += 1;
            }
        }
    }
    assert!(included > 5, "the search is broken");
    let bytes: u64 = files.iter().filter_map(|name| root().join(name).metadata().ok()).map(|file| file.len()).sum();
    assert!(bytes < 10_000_000, "{bytes} bytes before compression, more than a registry takes");
}
