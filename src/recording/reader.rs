//! Reader of a recording: its whole frames, and the number of frames that are not whole.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::RecordingError;
use super::part::{DECISIONS, FORMAT, FRAMES, RecordedFrame, RecordedSettings, part_number};
use crate::error::{Error, Result};
use crate::files::{FileError, open_regular, read_range};
use crate::limits::{IMAGE_BYTES_MAX, RECORD_LINE_BYTES_MAX};

/// A recording on disk.
#[derive(Debug)]
pub struct Recording {
    /// Parts that can be read, the oldest first.
    pub parts: Vec<RecordingPart>,
    /// Parts and lines that were left out because they were cut off or damaged, in words.
    pub left_out: Vec<String>,
}

/// One part: frames that were decided with the same settings.
#[derive(Debug)]
pub struct RecordingPart {
    /// Folder.
    pub folder: PathBuf,
    /// Settings that the decisions depend on.
    pub settings: RecordedSettings,
    /// The frames whose lines are whole, in order. Their images are checked when they are read.
    pub frames: Vec<RecordedFrame>,
}

impl Recording {
    /// Opens the recording in a folder.
    ///
    /// # Errors
    /// The folder cannot be listed or has no part, or a part is of a later version.
    pub fn open(folder: &Path) -> Result<Self> {
        let problem = |problem: String| Error::from(RecordingError::Unreadable { path: folder.into(), problem });
        let entries = fs::read_dir(folder).map_err(|error| problem(format!("cannot be listed: {error}")))?;
        let mut numbered: Vec<(u64, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                // What is no part is passed over: the lock file is there as well.
                Some((part_number(entry.file_name().to_str()?)?, entry.path()))
            })
            .collect();
        // Order of age: a part's number is one more than the highest before it.
        numbered.sort();
        let mut recording = Self { parts: Vec::new(), left_out: Vec::new() };
        for (_, part) in &numbered {
            recording.read_part(part)?;
        }
        if recording.parts.is_empty() {
            let found = match recording.left_out.first() {
                Some(first) => format!("has no part that can be read: {first}"),
                None => "has no parts; expected folders such as part-00000001, as a recording daemon makes".into(),
            };
            return Err(problem(found));
        }
        Ok(recording)
    }

    fn read_part(&mut self, folder: &Path) -> Result<()> {
        let mut leave_out = |what: String| self.left_out.push(format!("{}: {what}", folder.display()));
        let file = match open_regular(&folder.join(DECISIONS)) {
            Ok(file) => file,
            Err(error) => {
                leave_out(format!("no decisions ({error})"));
                return Ok(());
            }
        };
        let mut lines = BufReader::new(file);
        let Line::Whole(first) = next_line(&mut lines) else {
            leave_out("cut off before its first line ended".into());
            return Ok(());
        };
        let settings = match serde_json::from_slice::<RecordedSettings>(&first) {
            Ok(settings) if settings.format == FORMAT => settings,
            // A later format may have other fields. Its number is looked for alone, so that it is refused by name and
            // not passed over as damaged.
            other => {
                let format =
                    serde_json::from_slice::<serde_json::Value>(&first).ok().and_then(|v| v["format"].as_u64());
                if let Some(format) = format.filter(|&format| format != u64::from(FORMAT)) {
                    let problem = format!("has format {format}, expected {FORMAT}; use the rtpt that made it");
                    return Err(RecordingError::Unreadable { path: folder.into(), problem }.into());
                }
                leave_out(format!(
                    "its settings cannot be read ({})",
                    other.err().map_or_else(String::new, |e| e.to_string())
                ));
                return Ok(());
            }
        };
        // Only the sizes are compared here: hashing every image would read the whole recording before the first answer.
        let image_bytes = folder.join(FRAMES).metadata().map_or(0, |found| found.len());
        let mut frames = Vec::new();
        let mut bad = 0;
        loop {
            let line = match next_line(&mut lines) {
                Line::Whole(line) => line,
                // A line without its end is the last one: a write that was cut off.
                Line::CutOff => {
                    bad += 1;
                    break;
                }
                Line::None => break,
            };
            match serde_json::from_slice::<RecordedFrame>(&line) {
                Ok(frame) if frame.offset.checked_add(frame.length).is_some_and(|end| end <= image_bytes) => {
                    frames.push(frame);
                }
                // Lines before and after are whole by themselves, so one that is not costs itself alone.
                _ => bad += 1,
            }
        }
        if bad > 0 {
            leave_out(format!("{bad} line(s) that are damaged or whose image was cut off"));
        }
        self.parts.push(RecordingPart { folder: folder.into(), settings, frames });
        Ok(())
    }
}

impl RecordingPart {
    /// The image of a frame.
    ///
    /// # Errors
    /// It cannot be read, or is not the one that was recorded.
    pub fn image(&self, frame: &RecordedFrame) -> Result<Vec<u8>> {
        let path = self.folder.join(FRAMES);
        // A line may claim any length: one byte over the bound is enough to refuse it, without reading the rest.
        let bytes = read_range(&path, frame.offset, Some(frame.length.min(IMAGE_BYTES_MAX + 1)), IMAGE_BYTES_MAX)
            .map_err(|source| FileError::Unreadable { path: path.clone(), source })?;
        if blake3::hash(&bytes).to_hex().as_str() != frame.digest {
            let problem = format!("has another image than the one recorded for frame {}", frame.sequence);
            return Err(RecordingError::Unreadable { path: self.folder.clone(), problem }.into());
        }
        Ok(bytes)
    }
}

enum Line {
    /// Without its end.
    Whole(Vec<u8>),
    /// It has no end, cannot be read, or is past the bound.
    CutOff,
    /// There is none any more.
    None,
}

fn next_line(lines: &mut impl BufRead) -> Line {
    let mut line = Vec::new();
    // Bounded, so that a file without line ends cannot fill the memory.
    let read = lines.by_ref().take(RECORD_LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
    match (read, line.pop()) {
        (Ok(0), _) => Line::None,
        (Ok(_), Some(b'\n')) => Line::Whole(line),
        _ => Line::CutOff,
    }
}
