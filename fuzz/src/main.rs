//! The fuzzer's entry: the reader of foreign bytes that RTPT_FUZZ_TARGET names, given the fuzzer's bytes.

#![no_main]

use std::env;
use std::panic;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use libfuzzer_sys::fuzz_target;
use rtpt_edge::internal::fuzz::{TARGETS, Target};

static LAST: Mutex<String> = Mutex::new(String::new());
static CHOSEN: OnceLock<(&Target, PathBuf)> = OnceLock::new();

fn choose() {
    let name = env::var("RTPT_FUZZ_TARGET").unwrap_or_default();
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("RTPT_FUZZ_TARGET is {name:?}, expected one of {}", names.join(", "));
        std::process::exit(2);
    };
    if target.contains_panics {
        // The fuzzer's hook would end the process at panics that the reader contains. The last is kept for the report.
        panic::set_hook(Box::new(|panic| *LAST.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string()));
    }
    let folder = tempfile::Builder::new().prefix("rtpt-fuzz-").tempdir().expect("a temporary folder can be made");
    CHOSEN.set((target, folder.keep())).unwrap_or_else(|_| unreachable!("the fuzzer begins once"));
}

fuzz_target!(init: choose(), |bytes: &[u8]| {
    let (target, folder) = CHOSEN.get().expect("the fuzzer has begun");
    if panic::catch_unwind(|| (target.run)(bytes, folder)).is_err() {
        eprintln!("{}", LAST.lock().unwrap_or_else(PoisonError::into_inner));
        std::process::abort();
    }
});
