//! Reader of a recording: its whole frames, and the number of frames that are not whole.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::RecordingError;
use super::chain::{Continued, Head, Link, START, link, unseal};
use super::part::{
    DECISIONS, FORMAT, FORMAT_ALL_VIEWS, FORMAT_UNCHAINED, FRAMES, HEADS, Opening, RecordedFrame, RecordedSettings,
    part_number,
};
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
    /// What was changed, removed or damaged after it had been on the disk, in words. A power cut does none of it.
    pub altered: Vec<String>,
    /// The link of the last line, 64 hex digits; none if the last part has no chain.
    pub head: Option<String>,
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
        let mut recording = Self { parts: Vec::new(), left_out: Vec::new(), altered: Vec::new(), head: None };
        let mut before = None;
        for (number, part) in &numbered {
            let chain = recording.read_part(part)?;
            recording.check_continuation(part, chain.as_ref(), before.as_ref());
            recording.head = chain
                .as_ref()
                .and_then(|chain| chain.links.last().copied().flatten())
                .map(|link| link.to_hex().to_string());
            before = Some((*number, chain));
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

    /// Reads a part; returns its chain, if it has one.
    fn read_part(&mut self, folder: &Path) -> Result<Option<ReadChain>> {
        let name = folder.display();
        let BegunPart { lines, settings, mut chain } = match begin_part(folder)? {
            Ok(begun) => begun,
            Err(why) => {
                self.left_out.push(format!("{name}: {why}"));
                let lines = last_head(folder).lines;
                if lines > 0 {
                    self.altered.push(format!("{name}: {why}, and {lines} lines were on the disk"));
                }
                return Ok(None);
            }
        };
        // Only the sizes are compared here: hashing every image would read the whole recording before the first answer.
        let image_bytes = folder.join(FRAMES).metadata().map_or(0, |found| found.len());
        let (frames, bad) = read_frames(lines, chain.as_mut(), image_bytes);
        if bad > 0 {
            self.left_out.push(format!("{name}: {bad} line(s) that are damaged or whose image was cut off"));
        }
        let problems = chain.as_ref().map(ReadChain::problems).unwrap_or_default();
        self.altered.extend(problems.into_iter().map(|what| format!("{name}: {what}")));
        self.parts.push(RecordingPart { folder: folder.into(), settings, frames });
        Ok(chain)
    }

    /// Checks that a part continues the one before it, if there is one.
    fn check_continuation(
        &mut self,
        folder: &Path,
        chain: Option<&ReadChain>,
        before: Option<&(u64, Option<ReadChain>)>,
    ) {
        // The oldest part may continue one that had to make room.
        let (Some(chain), Some((number, before))) = (chain, before) else { return };
        let Some(Continued { part, head }) = chain.continues else { return };
        let what = if part != *number {
            format!("continues part {part}, and part {number} comes before it: parts are missing")
        } else if before.as_ref().is_some_and(|before| !before.has(&head)) {
            format!("continues part {part} with another end than the part has: lines are changed or missing there")
        } else {
            return;
        };
        self.altered.push(format!("{}: {what}", folder.display()));
    }
}

/// A part after its first line.
struct BegunPart {
    lines: BufReader<File>,
    settings: RecordedSettings,
    chain: Option<ReadChain>,
}

/// Reads the first line of a part; a reason, in words, if the part cannot be used.
///
/// # Errors
/// The part is of a later version.
fn begin_part(folder: &Path) -> Result<std::result::Result<BegunPart, String>> {
    let mut lines = match open_regular(&folder.join(DECISIONS)) {
        Ok(file) => BufReader::new(file),
        Err(error) => return Ok(Err(format!("no decisions ({error})"))),
    };
    let Line::Whole(first) = next_line(&mut lines) else {
        return Ok(Err("cut off before its first line ended".into()));
    };
    let sealed = unseal(&first);
    let json = sealed.as_ref().map_or(first.as_slice(), |(json, _)| json);
    let Opening { settings, continues } = match serde_json::from_slice::<Opening<RecordedSettings>>(json) {
        Ok(opening) if [FORMAT, FORMAT_ALL_VIEWS].contains(&opening.settings.format) && sealed.is_some() => opening,
        Ok(opening) if opening.settings.format == FORMAT_UNCHAINED => opening,
        // A later format may have other fields. Its number is looked for alone, so that it is refused by name and
        // not passed over as damaged.
        other => {
            let format = serde_json::from_slice::<serde_json::Value>(&first).ok().and_then(|v| v["format"].as_u64());
            if let Some(format) = format.filter(|&format| format > u64::from(FORMAT)) {
                let problem = format!("has format {format}, expected {FORMAT}; use the rtpt that made it");
                return Err(RecordingError::Unreadable { path: folder.into(), problem }.into());
            }
            let why = other.err().map_or_else(|| "their chain is missing".into(), |error| error.to_string());
            return Ok(Err(format!("its settings cannot be read ({why})")));
        }
    };
    let mut chain = (settings.format != FORMAT_UNCHAINED).then(|| ReadChain::begin(folder, continues));
    if let (Some(chain), Some((json, stated))) = (&mut chain, &sealed) {
        chain.add(Some((json, *stated)));
    }
    Ok(Ok(BegunPart { lines, settings, chain }))
}

/// The frames of a part whose lines are whole and whose images are within so many bytes, and the number of other lines.
fn read_frames(
    mut lines: BufReader<File>,
    mut chain: Option<&mut ReadChain>,
    image_bytes: u64,
) -> (Vec<RecordedFrame>, usize) {
    let (mut frames, mut bad) = (Vec::new(), 0);
    loop {
        let line = match next_line(&mut lines) {
            Line::Whole(line) => line,
            // A line without its end is the last one: a write that was cut off.
            Line::CutOff => return (frames, bad + 1),
            Line::None => return (frames, bad),
        };
        let sealed = chain.as_ref().and_then(|_| unseal(&line));
        let json = sealed.as_ref().map_or(line.as_slice(), |(json, _)| json);
        let frame = serde_json::from_slice::<RecordedFrame>(json)
            .ok()
            .filter(|frame| frame.offset.checked_add(frame.length).is_some_and(|end| end <= image_bytes));
        if let Some(chain) = &mut chain {
            chain.add(sealed.as_ref().filter(|_| frame.is_some()).map(|(json, stated)| (json.as_slice(), *stated)));
        }
        match frame {
            Some(frame) if chain.is_none() || sealed.is_some() => frames.push(frame),
            // Lines before and after are whole by themselves, so one that is not costs itself alone.
            _ => bad += 1,
        }
    }
}

/// The chain of a part, as it was read.
struct ReadChain {
    continues: Option<Continued>,
    /// What was on the disk by the part's own record; an error, in words, if there is no record.
    synced: std::result::Result<Head, String>,
    /// The link that each line states; what a line that cannot be read would state is not known.
    links: Vec<Option<Link>>,
    /// Lines that do not fit the one before them, from 1.
    misfits: Vec<u64>,
}

impl ReadChain {
    fn begin(folder: &Path, continues: Option<Continued>) -> Self {
        Self { continues, synced: read_heads(folder), links: Vec::new(), misfits: Vec::new() }
    }

    /// Adds a line and the link it states, or one that cannot be read.
    fn add(&mut self, line: Option<(&[u8], Link)>) {
        // Compared with what the line before states and not with what it should: a change is told once.
        let before = self.links.last().copied().unwrap_or(Some(START));
        if let (Some((json, stated)), Some(before)) = (line, before)
            && link(json, &before) != stated
        {
            self.misfits.push(self.links.len() as u64 + 1);
        }
        self.links.push(line.map(|(_, stated)| stated));
    }

    /// True if the chain had this head at that number of lines.
    fn has(&self, head: &Head) -> bool {
        // The number is from a file.
        let Some(last) = head.lines.checked_sub(1) else { return true };
        usize::try_from(last).ok().and_then(|last| self.links.get(last)) == Some(&Some(head.chain))
    }

    /// What was changed, in words.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(first) = self.misfits.first() {
            let (lines, more) = (self.misfits.len(), if self.misfits.len() == 1 { "" } else { " first" });
            problems.push(format!(
                "{} not fit what stands before: changed, moved, or lines are missing{more} at line {first}",
                if lines == 1 { "a line does".to_string() } else { format!("{lines} lines do") },
            ));
        }
        match &self.synced {
            Err(problem) => problems.push(problem.clone()),
            Ok(head) if head.lines > self.links.len() as u64 => {
                let missing = head.lines - self.links.len() as u64;
                problems.push(format!("{missing} of {} lines that were on the disk are missing", head.lines));
            }
            Ok(head) => {
                let unread = self.links.iter().take(head.lines as usize).filter(|link| link.is_none()).count();
                if unread > 0 {
                    problems.push(format!("{unread} of {} lines that were on the disk are damaged", head.lines));
                } else if !self.has(head) && self.misfits.is_empty() {
                    problems.push(format!("its lines have another end than {HEADS} says"));
                }
            }
        }
        problems
    }
}

/// The head that a part last had on the disk; that of no line if it has no record of one.
pub(super) fn last_head(folder: &Path) -> Head {
    read_heads(folder).unwrap_or(Head::NONE)
}

fn read_heads(folder: &Path) -> std::result::Result<Head, String> {
    let file = open_regular(&folder.join(HEADS)).map_err(|error| format!("{HEADS} cannot be read ({error})"))?;
    let (mut lines, mut last) = (BufReader::new(file), Head::NONE);
    // A line that is cut off or damaged is passed over: the power was cut while it was written.
    while let Line::Whole(line) = next_line(&mut lines) {
        last = serde_json::from_slice(&line).unwrap_or(last);
    }
    Ok(last)
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
