//! The committed seeds of the fuzzed readers, and the inputs that once broke one, go through the same functions here.

use std::fs;
use std::path::PathBuf;

use rtpt_edge::internal::fuzz::TARGETS;

use crate::goldens::root;

fn files(folder: PathBuf) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn readers_withstand_their_seeds_and_what_broke_them_once() {
    for target in &TARGETS {
        let seeds = files(root().join("fuzz/seeds").join(target.name));
        assert!(!seeds.is_empty(), "{} has no seed in fuzz/seeds", target.name);
        for seed in seeds.into_iter().chain(files(root().join("fuzz/found").join(target.name))) {
            let folder = tempfile::tempdir().unwrap();
            eprintln!("{} on {}", target.name, seed.display());
            (target.run)(&fs::read(&seed).unwrap(), folder.path());
        }
    }
}

#[test]
fn every_folder_of_seeds_has_its_reader() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    for kind in ["fuzz/seeds", "fuzz/found"] {
        for folder in files(root().join(kind)) {
            let name = folder.file_name().unwrap().to_str().unwrap();
            assert!(names.contains(&name), "{kind}/{name} is the folder of no reader, they are {names:?}");
        }
    }
}
