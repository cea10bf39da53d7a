//! Answers as a table or as JSON lines.

use std::io::{self, Write};
use std::path::Path;

use crate::error::Result;
use crate::report::{ErrorRecord, ImageRecord};
use crate::wording::counted;

use super::advice::advised;
use super::inputs::Input;

/// Width of labels that are not known yet (characters).
const LABEL_WIDTH: usize = 20;

/// Prints results as they come, as a table or as JSON lines.
pub(crate) struct Printer {
    json: bool,
    path_width: usize,
    label_width: usize,
    headed: bool,
}

impl Printer {
    /// A printer for these inputs and for answers among `labels`, if they are known.
    pub(crate) fn new(json: bool, inputs: &[Input], labels: &[String]) -> Self {
        let longest_path = inputs.iter().map(|input| shown(&input.path).chars().count()).max().unwrap_or(0);
        let longest_label = labels.iter().map(|name| name.chars().count()).max().unwrap_or(LABEL_WIDTH);
        Self { json, path_width: longest_path.clamp(5, 48), label_width: longest_label.clamp(5, 32), headed: false }
    }

    /// Prints the answer to one input, or why there is none.
    pub(crate) fn print(&mut self, path: &Path, result: &Result<ImageRecord>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match result {
            Ok(record) if self.json => json_line(&mut out, record),
            Err(error) if self.json => json_line(&mut out, &ErrorRecord::new(path, error)),
            Ok(record) => self.row(&mut out, record),
            Err(error) => {
                let (path, message) = (shown(path), advised(error));
                // Errors of files name their path already.
                let named = if message.contains(&path) { String::new() } else { format!("{path}: ") };
                eprintln!("rtpt: {named}{message}");
                Ok(())
            }
        }
    }

    fn row(&mut self, out: &mut impl Write, record: &ImageRecord) -> io::Result<()> {
        let (path_width, label_width) = (self.path_width, self.label_width);
        if !self.headed {
            let answer_width = label_width + 8;
            writeln!(
                out,
                "{:path_width$}  {:answer_width$}  {:answer_width$}       time  note",
                "image",
                record.method.name(),
                "zero-shot"
            )?;
            self.headed = true;
        }
        let tampered = record.is_suspicious();
        let notes = [
            (record.best.label != record.zero_shot.label, "answers differ"),
            (tampered, "tampered?"),
            (record.damage.is_some(), "damaged file"),
        ];
        let notes: Vec<&str> = notes.into_iter().filter_map(|(holds, note)| holds.then_some(note)).collect();
        writeln!(
            out,
            "{:path_width$}  {}  {}  {:6.0} ms{}",
            clipped(&shown(Path::new(&record.path)), path_width),
            answer(&record.best.label, record.best.probability, label_width),
            answer(&record.zero_shot.label, record.zero_shot.probability, label_width),
            record.timings_ms.total,
            if notes.is_empty() { String::new() } else { format!("  {}", notes.join(", ")) }
        )?;
        for (rank, next) in record.top.iter().enumerate().skip(1) {
            let rank = format!("{}.", rank + 1);
            writeln!(out, "{rank:>path_width$}  {}", answer(&next.label, next.probability, label_width))?;
        }
        Ok(())
    }

    /// Prints the number of inputs and of failures.
    pub(crate) fn summary(&self, count: usize, failed: usize, time: &str) -> io::Result<()> {
        if !self.json && count > 1 {
            let failures = if failed == 0 { String::new() } else { format!(", {failed} not classified") };
            writeln!(io::stdout(), "{} in {time}{failures}", counted(count, "image"))?;
        }
        // What is written at exit is lost without an error if it cannot be.
        io::stdout().flush()
    }
}

/// Writes a record as a line of JSON.
pub(crate) fn json_line(out: &mut impl Write, record: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    writeln!(out)
}

/// A label and its probability, `width` and 8 characters wide.
pub(crate) fn answer(label: &str, probability: f32, width: usize) -> String {
    format!("{:width$} {:5.1} %", clipped(label, width), probability * 100.0)
}

/// A path as it can be shown on a terminal: control characters could move the cursor.
pub(crate) fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The beginning of `text` where it is longer than `width` characters.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_string();
    }
    let kept: String = text.chars().take(width - 1).collect();
    format!("{kept}…")
}

/// The end of `text` where it is longer than `width` characters: of a path the end tells most.
fn clipped(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_string();
    }
    let kept: String = text.chars().skip(count - width + 1).collect();
    format!("…{kept}")
}
