//! `rtpt watch`: a running daemon's decisions as they come.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use crate::daemon::protocol::{DecisionRecord, StatusRecord};
use clap::Args;

use super::client::{ClientError, SocketArgument};
use super::printer::answer;
use super::settings::number;
use super::{Completion, Failure, Outcome};

/// Width of a label (characters).
const LABEL_WIDTH: usize = 20;
/// Pause before looking for a daemon again.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    socket: SocketArgument,
    /// End after N decisions [default: go on, also when the daemon is restarted]
    #[arg(long, value_name = "N", value_parser = number::<u64>("a whole number of at least 1"))]
    count: Option<u64>,
    /// One JSON object per line instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let client = arguments.socket.client()?;
    let mut printer = Printer { json: arguments.json, left: arguments.count, last: None, state: String::new() };
    let mut seen = false;
    loop {
        match client.events(|name, data| printer.event(name, data)) {
            Ok(printed) => printed?,
            // A daemon that was there may be started again; one that never was is a wrong socket.
            Err(error) if seen && error.of_program().is_some_and(ClientError::is_unreachable) => {}
            Err(error) => return Err(Failure::Error(error)),
        }
        if printer.left == Some(0) {
            return Ok(Completion::All);
        }
        // Once for each time that it goes, not once a second.
        if !std::mem::replace(&mut seen, true) || printer.state != "gone" {
            eprintln!("rtpt: the daemon is gone; waiting for it, Ctrl-C ends");
            printer.state = "gone".into();
        }
        thread::sleep(PAUSE);
    }
}

struct Printer {
    json: bool,
    /// Decisions that are left to print.
    left: Option<u64>,
    /// Number and time of the last decision: the daemon tells it again to whoever begins to watch.
    last: Option<(u64, u64)>,
    /// The source's state that was said last.
    state: String,
}

impl Printer {
    /// Prints an event; false where nothing more is to be printed.
    fn event(&mut self, name: &str, data: &str) -> io::Result<bool> {
        match name {
            "decision" => self.decision(data)?,
            "status" => self.status(data),
            _ => {}
        }
        Ok(self.left != Some(0))
    }

    fn decision(&mut self, data: &str) -> io::Result<()> {
        // What another version sends and this one cannot read is passed over.
        let Ok(record) = serde_json::from_str::<DecisionRecord>(data) else { return Ok(()) };
        let this = Some((record.sequence, record.unix_ms));
        if std::mem::replace(&mut self.last, this) == this {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        if self.json {
            // As it came: a newer daemon's fields are not lost.
            writeln!(out, "{data}")?;
        } else {
            let image = &record.image;
            writeln!(
                out,
                "{} {:>7}  {}  zero-shot {}  {:5.0} ms, {} dropped{}",
                time_of_day(record.unix_ms),
                record.sequence,
                answer(&image.best.label, image.best.probability, LABEL_WIDTH),
                answer(&image.zero_shot.label, image.zero_shot.probability, LABEL_WIDTH),
                image.timings_ms.total,
                record.dropped,
                if image.is_suspicious() { "  tampered?" } else { "" },
            )?;
        }
        out.flush()?;
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Ok(())
    }

    /// Says when the source comes or goes.
    fn status(&mut self, data: &str) {
        let Ok(status) = serde_json::from_str::<StatusRecord>(data) else { return };
        let source = status.source;
        if source.state != self.state {
            let problem = source.problem.map_or(String::new(), |problem| format!(": {problem}"));
            match source.name {
                Some(name) => eprintln!("rtpt: source {name} is {}{problem}", source.state),
                None => eprintln!(
                    "rtpt: the daemon has no source, and nothing to show; start it with --source; waiting for one, Ctrl-C ends"
                ),
            }
            self.state = source.state;
        }
    }
}

/// The time of day (UTC) of a moment.
fn time_of_day(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}.{:03}Z", seconds / 3600, seconds / 60 % 60, seconds % 60, unix_ms % 1000)
}
