//! The command line: one file a subcommand, thin over the library.

mod bench;
mod bundle;
mod classify;
mod demo;
mod import;
mod inputs;
mod settings;
mod trace;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rtpt_edge::error::{Category, Error};

const EXIT_CODES: &str = "\
Exit codes:
  0  everything asked for was done
  1  some inputs could not be classified, or an output could not be written
  2  the command line or the labels are wrong
  3  the bundle is missing, damaged, or fails its own goldens; a model cannot be imported

Environment:
  RTPT_BUNDLE     the bundle to use where --bundle is not given
  XDG_CACHE_HOME  where this device's choices and label embeddings are remembered (default
                  ~/.cache), in the folder rtpt
  RUST_LOG        what is logged to standard error: error, warn (default), info, debug";

/// Robust zero-shot image classification on small devices.
#[derive(Parser)]
#[command(name = "rtpt", version, about, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Classify photos: R-TPT's answer beside zero-shot's
    Classify(classify::Arguments),
    /// Write every intermediate of one photo as named tensors
    Trace(trace::Arguments),
    /// Time each stage on this device
    Bench(bench::Arguments),
    /// Look at a model bundle
    Bundle(bundle::Arguments),
    /// Classify the demo photos, clean and attacked
    Demo(demo::Arguments),
}

/// Why a command stopped before its end.
enum Failure {
    /// Something this program checks.
    Error(Error),
    /// Standard output could not be written.
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// How a command that reached its end went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Completion {
    All,
    SomeFailed,
}

type Outcome = Result<Completion, Failure>;

/// Parses the arguments, runs the command and says how it went.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Classify(arguments) => classify::run(&arguments),
        Command::Trace(arguments) => trace::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Bundle(arguments) => bundle::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
    };
    match outcome {
        Ok(Completion::All) => ExitCode::SUCCESS,
        Ok(Completion::SomeFailed) => ExitCode::from(1),
        Err(Failure::Error(error)) => {
            eprintln!("rtpt: {error}");
            ExitCode::from(match error.category() {
                Category::Input | Category::Output => 1,
                Category::Usage => 2,
                Category::Bundle => 3,
            })
        }
        // Whoever reads our output has seen enough: `rtpt … | head` is no failure.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(error)) => {
            eprintln!("rtpt: cannot write to standard output: {error}");
            ExitCode::from(1)
        }
    }
}
