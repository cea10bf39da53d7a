//! `rtpt status`: the state of a running daemon.

use std::io::{self, Write};

use crate::daemon::protocol::{ChangeRecord, InfoRecord, RecordingRecord, SourceRecord};
use crate::wording::counted;
use clap::Args;

use super::client::SocketArgument;
use super::printer::json_line;
use super::{Completion, Outcome};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    socket: SocketArgument,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let info: InfoRecord = arguments.socket.client()?.info()?;
    let mut out = io::stdout().lock();
    if arguments.json {
        json_line(&mut out, &info)?;
    } else {
        print(&mut out, &info)?;
    }
    Ok(Completion::All)
}

fn print(out: &mut impl Write, info: &InfoRecord) -> io::Result<()> {
    let status = &info.status;
    let state = if status.ready { "ready" } else { "not ready" };
    let (hours, minutes) = (status.uptime_s / 3600, status.uptime_s % 3600 / 60);
    writeln!(out, "rtpt {}, process {}, {state}, up {hours} h {minutes} min", info.version, info.pid)?;
    writeln!(out, "listening  {}", info.listening.join(", "))?;
    if let Some(model) = &info.model {
        writeln!(
            out,
            "model      {}, {}, method {}, {}, {}, batch {}",
            model.bundle,
            counted(model.labels, "label"),
            model.method,
            counted(model.views, "view"),
            counted(model.threads, "thread"),
            model.batch
        )?;
    }
    let SourceRecord { name, state, problem, frames, classified, failed, damaged, dropped, reopens, waiting, .. } =
        &status.source;
    let problem = problem.as_ref().map_or(String::new(), |problem| format!(": {problem}"));
    match name {
        Some(name) => writeln!(out, "source     {name}, {state}{problem}")?,
        None => writeln!(out, "source     none (start the daemon with --source)")?,
    }
    let times = if *reopens == 1 { "time" } else { "times" };
    writeln!(
        out,
        "frames     {frames} received, {classified} classified, {failed} failed ({damaged} damaged), {dropped} dropped; reopened {reopens} {times}"
    )?;
    if *waiting > 0 {
        writeln!(out, "backlog    {} of the watched folder", counted(*waiting as usize, "file"))?;
    }
    if let Some(ChangeRecord { what, labels, since_unix_ms }) = &status.changing {
        let labels = labels.map_or(String::new(), |labels| format!(", {labels} of them"));
        let seconds = status.unix_ms.saturating_sub(*since_unix_ms) / 1000;
        writeln!(out, "changing   {what}{labels}, for {seconds} s")?;
    }
    writeln!(out, "requests   {} waiting, at most {}", status.queue, status.queue_max)?;
    let memory = status.rss_bytes.map_or("unknown".into(), |bytes| format!("{:.1} MiB", mebibytes(bytes)));
    let temperature = status.temperature_c.map_or("no sensor".into(), |celsius| format!("{celsius:.1} °C"));
    writeln!(out, "device     memory {memory}, temperature {temperature}")?;
    if let Some(RecordingRecord { folder, bytes, bytes_max, committed, missed, problem, .. }) = &status.recording {
        let (used, most) = (mebibytes(*bytes), mebibytes(*bytes_max));
        let problem = problem.as_ref().map_or(String::new(), |problem| format!("; {problem}"));
        writeln!(
            out,
            "recording  {folder}, {used:.1} of {most:.0} MiB, {committed} frames on disk, {missed} missed{problem}"
        )?;
    }
    Ok(())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
