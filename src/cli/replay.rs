//! `rtpt replay`: a recording's frames decided again.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::bundle::{Bundle, BundleError, locate_bundle};
use crate::error::{Error, Result};
use crate::labels::read_labels;
use crate::limits::THREADS_MAX;
use crate::method::Method;
use crate::recording::{RecordedFrame, Recording, RecordingPart, Replayed, WhatIf, replayer};
use crate::wording::counted;
use clap::Args;
use serde::Serialize;

use super::printer::{answer, json_line};
use super::progress_bar;
use super::settings::{cache_folder, method_parser, whole};
use super::{Completion, Outcome};

/// Width of a label (characters).
const LABEL_WIDTH: usize = 20;

pub(crate) const EXAMPLES: &str = "\
Examples:
  rtpt replay field
  rtpt replay --method zero-shot field
  rtpt replay --labels my.txt --json field";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Model bundle [default: the one that was recorded with, where it was]
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// What if this method had been used?
    #[arg(long, alias = "head", value_name = "NAME", value_parser = method_parser())]
    method: Option<Method>,
    /// What if these labels had been used?
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Number of worker threads; results do not depend on it [default: one per core]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1, THREADS_MAX))]
    threads: Option<usize>,
    /// One JSON object per frame, then a summary
    #[arg(long)]
    json: bool,
    /// A recording made by `rtpt serve --record`
    #[arg(value_name = "DIR")]
    recording: PathBuf,
}

/// Decision on a frame, then and now.
#[derive(Serialize)]
struct FrameRecord<'a> {
    schema: u32,
    sequence: u64,
    unix_ms: u64,
    digest: &'a str,
    recorded: &'a str,
    recorded_probability: f32,
    replayed: Option<&'a str>,
    replayed_probability: Option<f32>,
    same_label: bool,
    same_bits: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Default, Serialize)]
struct Summary {
    schema: u32,
    frames: usize,
    same_bits: usize,
    same_label: usize,
    failed: usize,
    left_out: Vec<String>,
    altered: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<String>,
    other_device: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let what_if =
        WhatIf { method: arguments.method, labels: arguments.labels.as_deref().map(read_labels).transpose()? };
    let recording = Recording::open(&arguments.recording)?;
    let (left_out, altered, head) = (recording.left_out, recording.altered, recording.head);
    let mut summary = Summary { schema: 1, left_out, altered, head, ..Summary::default() };
    let bar = progress_bar(recording.parts.iter().map(|part| part.frames.len()).sum());
    // A part without frames needs no model, and loading one takes seconds.
    for part in recording.parts.iter().filter(|part| !part.frames.is_empty()) {
        let bundle = open_bundle(arguments.bundle.as_deref(), part)?;
        let replayer = replayer(&bundle, &part.settings, &what_if, arguments.threads, cache_folder().as_deref())?;
        summary.other_device |= replayer.other_device;
        for frame in &part.frames {
            let result = replayer.replay(part, frame);
            summary.count(&result);
            bar.suspend(|| print(arguments, frame, &result))?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let as_it_was = what_if == WhatIf::default();
    conclude(arguments.json, &summary, as_it_was)?;
    // The same bits can be expected of the recorded settings alone.
    let differs = as_it_was && summary.same_bits < summary.frames;
    let nothing = summary.frames == 0 && !summary.left_out.is_empty();
    if nothing {
        eprintln!("rtpt: no frame could be read");
    }
    let failed = differs || nothing || summary.failed > 0 || !summary.altered.is_empty();
    Ok(if failed { Completion::SomeFailed } else { Completion::All })
}

/// The bundle that was named, or the one that was recorded with.
fn open_bundle(named: Option<&Path>, part: &RecordingPart) -> Result<Bundle> {
    if let Some(path) = named {
        return Ok(Bundle::open(path)?);
    }
    // Elsewhere the folder may be another one, and the everyday bundle wherever this program has it.
    let recorded = Bundle::open(&part.settings.bundle);
    match recorded {
        Ok(bundle) => Ok(bundle),
        // If there is none elsewhere either, the recorded place is what helps to find it.
        Err(error @ BundleError::NotFolder { .. }) => {
            Ok(locate_bundle(None).and_then(|path| Bundle::open(&path)).map_err(|_| error)?)
        }
        Err(error) => Err(error.into()),
    }
}

impl Summary {
    fn count(&mut self, result: &Result<Replayed>) {
        self.frames += 1;
        match result {
            Ok(replayed) => {
                self.same_bits += usize::from(replayed.same_bits);
                self.same_label += usize::from(replayed.same_label);
            }
            Err(_) => self.failed += 1,
        }
    }
}

/// Prints a frame: all of them as JSON, those that differ as text.
fn print(arguments: &Arguments, frame: &RecordedFrame, result: &Result<Replayed>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let replayed = result.as_ref().ok();
    if arguments.json {
        return json_line(
            &mut out,
            &FrameRecord {
                schema: 1,
                sequence: frame.sequence,
                unix_ms: frame.unix_ms,
                digest: &frame.digest,
                recorded: &frame.answer.label,
                recorded_probability: frame.answer.probability,
                replayed: replayed.map(|replayed| replayed.label.as_str()),
                replayed_probability: replayed.map(|replayed| replayed.probability),
                same_label: replayed.is_some_and(|replayed| replayed.same_label),
                same_bits: replayed.is_some_and(|replayed| replayed.same_bits),
                error: result.as_ref().err().map(Error::to_string),
            },
        );
    }
    let before = answer(&frame.answer.label, frame.answer.probability, LABEL_WIDTH);
    match result {
        Ok(replayed) if replayed.same_bits => Ok(()),
        Ok(replayed) => {
            let now = answer(&replayed.label, replayed.probability, LABEL_WIDTH);
            writeln!(out, "frame {:>7}  {before}  →  {now}", frame.sequence)
        }
        Err(error) => {
            eprintln!("rtpt: frame {}: {error}", frame.sequence);
            Ok(())
        }
    }
}

fn conclude(json: bool, summary: &Summary, as_it_was: bool) -> io::Result<()> {
    for what in &summary.left_out {
        eprintln!("rtpt: left out: {what}");
    }
    for what in &summary.altered {
        eprintln!("rtpt: changed since it was recorded: {what}");
    }
    if summary.other_device {
        eprintln!("rtpt: recorded on another kind of device, where the last bits may differ");
    }
    let mut out = io::stdout().lock();
    if json {
        return json_line(&mut out, summary);
    }
    let Summary { same_bits, same_label, failed, .. } = summary;
    let frames = counted(summary.frames, "frame");
    if as_it_was {
        writeln!(out, "{frames}: {same_bits} reproduced to the bit, {same_label} with the same answer, {failed} failed")
    } else {
        writeln!(out, "{frames}: {same_label} would have had the same answer, {failed} failed")
    }
}
