//! The ring of parts on disk: what is added, what makes room, and what was forced to the disk.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chain::{Continued, Head, Link, seal};
use super::part::{DECISIONS, FRAMES, HEADS, Opening, RecordedDecision, RecordedSettings, part_folder, part_number};
use super::reader::last_head;
use crate::error::Result;
use crate::files::{FileError, sync_folder};
use crate::limits::RECORD_PARTS;
use crate::lock::{Lock, Resource};
use crate::setting::SettingError;

/// A decision to record, with its settings and its image.
pub(super) struct Entry {
    pub(super) settings: Arc<RecordedSettings>,
    pub(super) decision: RecordedDecision,
    pub(super) file: Arc<Vec<u8>>,
}

/// File by which a recording's folder is locked.
const LOCK_NAME: &str = "recording.lock";

/// The parts of a recording.
pub(super) struct Ring {
    pub(super) folder: PathBuf,
    bytes_max: u64,
    /// Parts that are finished, the oldest first.
    finished: Vec<FinishedPart>,
    open: Option<OpenPart>,
    next: u64,
    /// The end of the last part that is known, which the next one continues.
    continues: Option<Continued>,
    /// Lock of the folder: two writers would remove each other's parts.
    _lock: Lock,
    /// The folder as it was locked, by device and inode.
    locked: (u64, u64),
}

struct FinishedPart {
    number: u64,
    bytes: u64,
}

struct OpenPart {
    number: u64,
    settings: Arc<RecordedSettings>,
    frames: File,
    decisions: File,
    heads: File,
    frame_bytes: u64,
    line_bytes: u64,
    head_bytes: u64,
    /// Lines that were written, and the end of their chain.
    written: Head,
    /// The head that is on the disk.
    synced: Head,
}

impl OpenPart {
    fn bytes(&self) -> u64 {
        self.frame_bytes + self.line_bytes + self.head_bytes
    }

    /// Adds a line to the chain, and to the file.
    fn write_line(&mut self, json: &str) -> io::Result<()> {
        let (line, chain) = seal(json, &self.written.chain);
        self.decisions.write_all(line.as_bytes())?;
        self.line_bytes += line.len() as u64;
        self.written = Head { lines: self.written.lines + 1, chain };
        Ok(())
    }

    /// Forces to the disk what was written, then the head that says so.
    fn sync(&mut self) -> io::Result<()> {
        self.frames.sync_data()?;
        self.decisions.sync_data()?;
        if self.synced != self.written {
            let mut line = serde_json::to_vec(&self.written)?;
            line.push(b'\n');
            self.heads.write_all(&line)?;
            self.head_bytes += line.len() as u64;
            self.heads.sync_data()?;
            self.synced = self.written;
        }
        Ok(())
    }
}

/// True for a name that no recording has. What is hidden, and the folder that file systems make, may be there.
fn is_foreign(name: &OsString) -> bool {
    name.to_str().is_none_or(|name| {
        part_number(name).is_none() && !name.starts_with('.') && !matches!(name, LOCK_NAME | "lost+found")
    })
}

/// What tells a file or a folder from every other.
fn identity(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

impl Ring {
    pub(super) fn open(folder: &Path, bytes_max: u64) -> Result<Self> {
        let failed = |source| FileError::Unwritable { path: folder.into(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        // Before the lock is made: in a folder that is used for something else nothing is left behind.
        let foreign = fs::read_dir(folder).map_err(failed)?.flatten().map(|entry| entry.file_name()).find(is_foreign);
        if let Some(name) = foreign {
            let (folder, name) = (folder.display(), name.to_string_lossy());
            return Err(SettingError {
                what: "the folder of the recording",
                expected: "an empty folder or a recording".into(),
                found: format!("{folder}, which has other files, such as {name:?}"),
            }
            .into());
        }
        let lock = Lock::take(&folder.join(LOCK_NAME), folder, Resource::Recording)?;
        let locked = identity(&folder.metadata().map_err(failed)?);
        let mut finished = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(number) = entry.file_name().to_str().and_then(part_number) else { continue };
            let size = |name: &str| entry.path().join(name).metadata().map_or(0, |found| found.len());
            finished.push(FinishedPart { number, bytes: size(FRAMES) + size(DECISIONS) + size(HEADS) });
        }
        finished.sort_unstable_by_key(|part| part.number);
        let last = finished.last().map(|part| part.number);
        let continues = last.map(|part| Continued { part, head: last_head(&part_folder(folder, part)) });
        // Past the highest, never in a gap: numbers say which part is older.
        let next = last.map_or(1, |number| number + 1);
        let (folder, open) = (folder.into(), None);
        let mut ring = Self { folder, bytes_max, finished, open, next, continues, _lock: lock, locked };
        // The room may be smaller than that of the last run.
        ring.make_room(0);
        Ok(ring)
    }

    pub(super) fn bytes(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, OpenPart::bytes);
        self.finished.iter().map(|part| part.bytes).sum::<u64>() + open
    }

    /// The link of the last line that is on the disk.
    pub(super) fn head(&self) -> Option<Link> {
        self.open.as_ref().map(|part| part.synced.chain)
    }

    pub(super) fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let part_max = self.bytes_max / RECORD_PARTS;
        let fits = |part: &OpenPart| {
            // The pointers first: with thousands of labels a comparison of settings is dear, and nearly always they are
            // the same.
            part.frame_bytes < part_max
                && (Arc::ptr_eq(&part.settings, &entry.settings) || part.settings == entry.settings)
        };
        if !self.open.as_ref().is_some_and(fits) {
            self.begin(&entry.settings)?;
        }
        let length = entry.file.len() as u64;
        // All finished parts are gone by now. The open one is finished, too, so that it can make room.
        if !self.make_room(length + LINE_ROOM) {
            self.begin(&entry.settings)?;
            if !self.make_room(length + LINE_ROOM) {
                return Err(io::Error::other("a frame with its labels is larger than the recording may be"));
            }
        }
        let part = self.open.as_mut().expect("a part was begun");
        let frame = entry.decision.clone().placed(part.frame_bytes, length);
        // The image goes first: a line says that it is there.
        part.frames.write_all(&entry.file)?;
        part.frame_bytes += length;
        part.write_line(&serde_json::to_string(&frame)?)
    }

    fn begin(&mut self, settings: &Arc<RecordedSettings>) -> io::Result<()> {
        // Once closed, the part is not synced any more.
        self.sync()?;
        self.close();
        self.make_anew_if_removed()?;
        let json = serde_json::to_string(&Opening { settings: settings.as_ref(), continues: self.continues })?;
        self.make_room(json.len() as u64 + LINE_ROOM);
        let number = self.next;
        // The number is used up also where this fails: the folder may be there.
        self.next += 1;
        let folder = part_folder(&self.folder, number);
        fs::create_dir(&folder)?;
        let begun = begin_part(&folder, number, settings, &json);
        if begun.is_err() {
            // Without a whole first line it is no part, and nobody would count it.
            let _ = fs::remove_dir_all(&folder);
        }
        self.open = Some(begun?);
        // Names outlast a power cut once their folders are synced: the files' in the part, then the part's.
        sync_folder(&folder)?;
        sync_folder(&self.folder)
    }

    /// Makes the folder anew, and locks it, if it was removed or another took its place.
    fn make_anew_if_removed(&mut self) -> io::Result<()> {
        if self.folder.metadata().is_ok_and(|found| identity(&found) == self.locked) {
            return Ok(());
        }
        let anew = Self::open(&self.folder, self.bytes_max).map_err(io::Error::other)?;
        // Numbers go on, so that a part of the removed folder and a later one are never mistaken for each other.
        let (next, continues) = (self.next.max(anew.next), anew.continues.or(self.continues));
        *self = Self { next, continues, ..anew };
        Ok(())
    }

    /// Adds nothing more to the open part.
    pub(super) fn close(&mut self) {
        if let Some(part) = self.open.take() {
            let size = |file: &File| file.metadata().map_or(0, |found| found.len());
            // As it is on the disk: a write that failed may have got half-way.
            let written = size(&part.frames) + size(&part.decisions) + size(&part.heads);
            self.finished.push(FinishedPart { number: part.number, bytes: written.max(part.bytes()) });
            self.continues = Some(Continued { part: part.number, head: part.synced });
        }
    }

    /// Removes the oldest parts until `more` bytes fit; false if they do not with all finished parts gone.
    fn make_room(&mut self, more: u64) -> bool {
        while self.bytes() + more > self.bytes_max {
            let Some(oldest) = self.finished.first() else { break };
            // The decisions go first: without them the images are no part of a recording.
            let folder = part_folder(&self.folder, oldest.number);
            let _ = fs::remove_file(folder.join(DECISIONS));
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    // It still takes its room: nothing is recorded until it can go.
                    log::warn!("cannot remove {}: {error}", folder.display());
                    break;
                }
                _ => self.finished.remove(0),
            };
        }
        self.bytes() + more <= self.bytes_max
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        let Some(part) = &mut self.open else { return Ok(()) };
        // Writing into a file that was removed, or whose folder was moved away, succeeds, and nobody finds it.
        let path = part_folder(&self.folder, part.number).join(DECISIONS);
        let there = path
            .metadata()
            .is_ok_and(|found| part.decisions.metadata().is_ok_and(|own| identity(&own) == identity(&found)));
        if !there {
            let what = format!("{} was removed while it was written", path.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        part.sync()
    }
}

/// Makes a part's files in its folder, and writes its first line.
fn begin_part(folder: &Path, number: u64, settings: &Arc<RecordedSettings>, opening: &str) -> io::Result<OpenPart> {
    let create = |name: &str| OpenOptions::new().append(true).create_new(true).mode(0o600).open(folder.join(name));
    // The heads before the decisions: a part with a line and without this file had its heads removed.
    let (heads, frames, decisions) = (create(HEADS)?, create(FRAMES)?, create(DECISIONS)?);
    let settings = Arc::clone(settings);
    let (frame_bytes, line_bytes, head_bytes) = (0, 0, 0);
    let (written, synced) = (Head::NONE, Head::NONE);
    let mut part =
        OpenPart { number, settings, frames, decisions, heads, frame_bytes, line_bytes, head_bytes, written, synced };
    part.write_line(opening)?;
    Ok(part)
}

/// Room for a line and its head (bytes).
const LINE_ROOM: u64 = 4096;
