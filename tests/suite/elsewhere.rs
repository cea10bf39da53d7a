//! What another processor computes, against this machine's own build: run by `cross/test.sh`, under emulation.

use std::process::Command;

use crate::goldens::{Goldens, root};
use crate::program::{Bench, demo, tiny};

/// Largest differences between processors: those that a bundle's goldens allow, and what they come to further on.
const TOLERANCES: [(&str, f64); 7] = [
    ("views", 1e-5),
    ("features", 1e-4),
    ("classes", 1e-4),
    ("logits", 1e-2),
    ("weights", 1e-4),
    ("tuned_logits", 2e-2),
    ("prediction", 2e-3),
];

#[test]
fn every_stage_is_that_of_this_machine() {
    let Some(native) = std::env::var_os("RTPT_TESTS_NATIVE") else {
        eprintln!("passed over: this is no test under emulation");
        return;
    };
    let photo = root().join("models/demo/photos/accordion-attacked.png");
    // One path through the text tower as well.
    for (bundle, head) in [(tiny(), "class-shift"), (demo(), "view-shift"), (demo(), "context")] {
        let bench = Bench::new();
        let arguments = |output: &'static str| {
            let views = ["trace", "--views", "8", "--batch", "2", "--head", head, "--bundle", bundle.to_str().unwrap()];
            [&views[..], &["--threads", "2", photo.to_str().unwrap(), "-o", output]].concat()
        };
        let run = bench.rtpt(&arguments("here.safetensors"));
        assert_eq!(run.code, 0, "{}", run.stderr);
        let mut command = Command::new(&native);
        command.args(arguments("native.safetensors")).current_dir(bench.path(""));
        command.env("XDG_CACHE_HOME", bench.path("native"));
        assert!(command.status().unwrap().success());
        let (here, native) = (bench.path("here.safetensors"), bench.path("native.safetensors"));
        let (here, native) = (Goldens::read(&here), Goldens::read(&native));
        for (name, tolerance) in TOLERANCES {
            let (a, b) = (here.doubles(name), native.doubles(name));
            assert_eq!(a.len(), b.len(), "{name}");
            let largest = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            eprintln!("{head} {name}: {largest:.1e} of {tolerance:.0e}");
            assert!(a.iter().all(|value| value.is_finite()) && largest <= tolerance, "{head} {name}: {largest}");
        }
        assert_eq!(here.indices("selected"), native.indices("selected"), "{head}");
    }
}
