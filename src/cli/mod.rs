//! The command line: one file a subcommand, thin over the library.

mod advice;
#[cfg(feature = "daemon")]
mod ask;
#[cfg(feature = "eval")]
mod attack;
mod bench;
mod bundle;
mod cache;
#[cfg(feature = "eval")]
mod calibrate;
mod classify;
#[cfg(feature = "daemon")]
mod client;
#[cfg(feature = "daemon")]
mod config;
#[cfg(feature = "eval")]
mod datasets;
mod demo;
mod doctor;
#[cfg(feature = "eval")]
mod eval;
mod import;
mod inputs;
#[cfg(feature = "daemon")]
mod labels;
mod manual;
mod outputs;
mod printer;
mod quantize;
#[cfg(feature = "daemon")]
mod replay;
#[cfg(feature = "daemon")]
mod serve;
mod settings;
#[cfg(feature = "daemon")]
mod slots;
#[cfg(feature = "daemon")]
mod status;
mod trace;
#[cfg(feature = "daemon")]
mod watch;

#[cfg(feature = "daemon")]
pub(crate) use config::parse as parse_line;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use crate::bundle::BundleError;
use crate::cancellation::Cancelled;
use crate::encoder::EncoderError;
use crate::error::{Category, Error};
use crate::files::FileError;
use crate::labels::LabelsError;
use crate::setting::SettingError;
use crate::text::{TensorError, TextError};
use crate::views::ImageError;
use advice::advised;
#[cfg(not(feature = "daemon"))]
use clap::FromArgMatches;
use clap::{CommandFactory, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const EXIT_CODES: &str = "\
Exit codes:
  0  everything that was asked for was done
  1  some inputs could not be classified, an output could not be written, or the doctor found a
     problem
  2  the command line, the labels or a data set are wrong, or results do not fit together
  3  the bundle is missing, damaged, or fails its own goldens (reference results); a model cannot
     be imported
  4  another daemon has the socket or the folder, or no daemon answers

Environment:
  RTPT_BUNDLE     the bundle to use where --bundle is not given
  RTPT_SOCKET     the daemon's socket where --socket is not given
  XDG_STATE_HOME  where a daemon keeps edited labels (default ~/.local/state), in the folder rtpt
  XDG_CACHE_HOME  where this device's choices, label embeddings and features are cached
                  (default ~/.cache), in the folder rtpt
  RUST_LOG        what is logged to standard error: error, warn (default), info (default of serve),
                  debug";

/// Classify photos and camera frames with labels of your own, robustly, on small devices
#[derive(Parser)]
#[command(name = "rtpt", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// In the order of `--help`: what is used every day, what measures, what looks after bundles and devices.
#[derive(Subcommand)]
enum Command {
    /// Classify photos: the method's answer beside zero-shot's
    #[command(after_help = classify::EXAMPLES)]
    Classify(classify::Arguments),
    /// Classify the demo photos, clean and attacked
    Demo(demo::Arguments),
    /// Run a daemon: classify a camera's frames and clients' images, and show a live page
    #[cfg(feature = "daemon")]
    #[command(after_help = serve::EXAMPLES)]
    Serve(Box<serve::Arguments>),
    /// Have a running daemon classify images
    #[cfg(feature = "daemon")]
    Ask(ask::Arguments),
    /// Follow a running daemon's decisions, one per line
    #[cfg(feature = "daemon")]
    Watch(watch::Arguments),
    /// Show the state of a running daemon
    #[cfg(feature = "daemon")]
    Status(status::Arguments),
    /// Show or change the labels of a running daemon
    #[cfg(feature = "daemon")]
    #[command(after_help = labels::EXAMPLES)]
    Labels(labels::Arguments),
    /// Classify a recording's frames again, and report which answers differ
    #[cfg(feature = "daemon")]
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::Arguments),
    /// Measure methods on labelled images: accuracy, calibration, robustness, time
    #[cfg(feature = "eval")]
    #[command(after_help = eval::EXAMPLES)]
    Eval(Box<eval::Arguments>),
    /// Fit the tamper score's threshold and the probabilities' temperature to your own images
    #[cfg(feature = "eval")]
    #[command(after_help = calibrate::EXAMPLES)]
    Calibrate(calibrate::Arguments),
    /// Make altered copies of labelled images: attacks by queries, and common corruptions
    #[cfg(feature = "eval")]
    #[command(after_help = attack::EXAMPLES)]
    Attack(Box<attack::Arguments>),
    /// Time each stage on this device
    Bench(bench::Arguments),
    /// Write every intermediate result of one photo as named tensors
    Trace(trace::Arguments),
    /// Look at a model bundle, check it, or import a model as one
    Bundle(bundle::Arguments),
    /// Show or delete the features cached on disk
    Cache(cache::Arguments),
    /// Check this device, and suggest fixes
    Doctor(doctor::Arguments),
    /// Print a shell completion script
    #[command(after_help = manual::PLACES)]
    Completions(manual::CompletionsArguments),
    /// Write the manual pages
    #[command(after_help = manual::EXAMPLES)]
    Manual(manual::ManualArguments),
}

/// Reason why a command stopped before its end.
enum Failure {
    /// Something this program checks.
    Error(Error),
    /// Standard output could not be written.
    Output(io::Error),
}

macro_rules! failures {
    ($($error:ty),+ $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Error(error.into())
            }
        }
    )+};
}

// Named one by one: a blanket impl over what becomes an `Error` would take `io::Error` as well, which here means that
// standard output cannot be written.
failures!(
    Error,
    BundleError,
    Cancelled,
    EncoderError,
    FileError,
    ImageError,
    LabelsError,
    SettingError,
    TensorError,
    TextError,
);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Outcome of a command that reached its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Completion {
    All,
    SomeFailed,
}

type Outcome = Result<Completion, Failure>;

/// The whole program: parses the command line, runs one command, and gives the exit code.
pub fn run() -> ExitCode {
    let program = match parse() {
        Ok(program) => program,
        Err(code) => return code,
    };
    let levels = env_logger::Env::default().default_filter_or(program.log_level());
    let mut logger = env_logger::Builder::from_env(levels);
    // Without times: the journal has its own.
    logger.format_timestamp(None);
    if !program.is_daemon() {
        // As the other messages of a command read; details name the part that they come from.
        logger.format(|out, record| match record.level() {
            log::Level::Warn => writeln!(out, "rtpt: warning: {}", record.args()),
            log::Level::Error | log::Level::Info => writeln!(out, "rtpt: {}", record.args()),
            level => writeln!(out, "rtpt: {level} {}: {}", record.target(), record.args()),
        });
    }
    logger.init();
    execute(&program)
}

impl Cli {
    /// Default log level: a daemon reports what happens to it.
    pub(crate) fn log_level(&self) -> &'static str {
        if self.is_daemon() { "info" } else { "warn" }
    }

    fn is_daemon(&self) -> bool {
        match self.command {
            #[cfg(feature = "daemon")]
            Command::Serve(_) => true,
            _ => false,
        }
    }
}

/// Parses the arguments, those in a configuration file among them.
///
/// # Errors
/// The arguments are wrong, or only help was asked for. The message is printed, and the exit code is given.
fn parse() -> Result<Cli, ExitCode> {
    #[cfg(feature = "daemon")]
    return config::parse(std::env::args_os().collect()).map_err(|error| finish(Err(error.into())));
    #[cfg(not(feature = "daemon"))]
    Ok(Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit()))
}

/// The command line. Negative numbers are values and not flags, so that their message says which numbers there are.
fn command() -> clap::Command {
    with_negative_numbers(Cli::command())
}

fn with_negative_numbers(command: clap::Command) -> clap::Command {
    command
        .mut_args(|argument| match argument.get_action().takes_values() {
            true => argument.allow_negative_numbers(true),
            false => argument,
        })
        .mut_subcommands(with_negative_numbers)
}

/// Runs the command.
fn execute(program: &Cli) -> ExitCode {
    finish(match &program.command {
        Command::Classify(arguments) => classify::run(arguments),
        Command::Trace(arguments) => trace::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        #[cfg(feature = "eval")]
        Command::Eval(arguments) => eval::run(arguments),
        #[cfg(feature = "eval")]
        Command::Attack(arguments) => attack::run(arguments),
        #[cfg(feature = "eval")]
        Command::Calibrate(arguments) => calibrate::run(arguments),
        Command::Cache(arguments) => cache::run(arguments),
        Command::Bundle(arguments) => bundle::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Manual(arguments) => manual::manual(arguments),
        Command::Completions(arguments) => manual::completions(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        #[cfg(feature = "daemon")]
        Command::Serve(arguments) => serve::run(arguments),
        #[cfg(feature = "daemon")]
        Command::Ask(arguments) => ask::run(arguments),
        #[cfg(feature = "daemon")]
        Command::Status(arguments) => status::run(arguments),
        #[cfg(feature = "daemon")]
        Command::Labels(arguments) => labels::run(arguments),
        #[cfg(feature = "daemon")]
        Command::Watch(arguments) => watch::run(arguments),
        #[cfg(feature = "daemon")]
        Command::Replay(arguments) => replay::run(arguments),
    })
}

/// The exit code that says whose fault it is.
fn exit_code(category: Category) -> u8 {
    match category {
        Category::Input | Category::Output => 1,
        Category::Usage => 2,
        Category::Bundle => 3,
        Category::Daemon => 4,
    }
}

fn finish(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(Completion::All) => ExitCode::SUCCESS,
        Ok(Completion::SomeFailed) => ExitCode::from(1),
        Err(Failure::Error(error)) => {
            eprintln!("rtpt: {}", advised(&error));
            ExitCode::from(exit_code(error.category()))
        }
        // Whoever reads our output has seen enough: `rtpt … | head` is no failure.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(error)) => {
            eprintln!("rtpt: cannot write to standard output: {error}");
            ExitCode::from(1)
        }
    }
}

/// Least number of images that is worth a progress bar.
const BAR_FROM: usize = 4;

/// A bar on standard error, if that is a terminal and there is something to wait for.
fn progress_bar(count: usize) -> ProgressBar {
    if count < BAR_FROM || !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}, {per_sec}, {eta} left")
        .expect("the template is a constant and valid");
    ProgressBar::new(count as u64).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples that a command's help and its subcommands' end in.
    fn examples(command: &clap::Command) -> Vec<String> {
        let own = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines = own.lines().filter(|line| line.starts_with("  rtpt "));
        // What an example says beside is parted by many spaces.
        let lines = lines.map(|line| line.trim().split("   ").next().unwrap_or_default().to_string());
        lines.chain(command.get_subcommands().flat_map(examples)).collect()
    }

    #[cfg(all(feature = "daemon", feature = "eval"))]
    #[test]
    fn examples_in_the_help_can_be_run() {
        let examples = examples(&Cli::command());
        for command in ["classify", "eval", "attack", "calibrate", "serve", "bundle import", "replay", "labels"] {
            let count = examples.iter().filter(|line| line.starts_with(&format!("rtpt {command} "))).count();
            assert!((2..=4).contains(&count), "{count} examples of {command}");
        }
        for example in examples {
            let words = shlex::split(&example).unwrap();
            assert!(Cli::try_parse_from(&words).is_ok(), "{example}");
        }
    }
}
