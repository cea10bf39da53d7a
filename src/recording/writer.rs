//! Writing a recording, beside the work.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::part::{DECISIONS, FRAMES, RecordedDecision, RecordedSettings, part_folder, part_number};
use crate::error::{Error, Result};
use crate::files::{FileError, sync_folder};
use crate::limits::{RECORD_MB, RECORD_PARTS, RECORD_PENDING_MAX, RECORD_RETRY_MS, RECORD_SYNC_MS};
use crate::lock::{Lock, Resource};
use crate::setting::SettingError;

/// Folder of a recording, and its room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecorderSettings {
    /// The folder.
    pub folder: PathBuf,
    /// Largest size that the recording may have (MiB).
    pub max_mb: u64,
}

/// Counters of a recorder.
#[derive(Debug, Default)]
pub(crate) struct RecorderStatus {
    /// Frames that are on the disk (count).
    pub committed: AtomicU64,
    /// Frames that were not recorded because the disk was slow or full (count).
    pub missed: AtomicU64,
    /// Bytes of the recording.
    pub bytes: AtomicU64,
    /// Problem that keeps it from going on, in words.
    pub problem: Mutex<Option<String>>,
}

impl RecorderStatus {
    /// Problem that keeps it from going on, in words.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A decision to record, with its settings and its image.
struct Entry {
    settings: Arc<RecordedSettings>,
    decision: RecordedDecision,
    file: Arc<Vec<u8>>,
}

/// Records on a thread of its own: a slow disk keeps no frame waiting.
pub(crate) struct Recorder {
    entries: Option<SyncSender<Box<Entry>>>,
    thread: Option<JoinHandle<()>>,
    status: Arc<RecorderStatus>,
    // Given up after `drop` has joined the thread, which writes until then.
    _lock: Lock,
}

impl RecorderSettings {
    /// Checks that every setting is in its range.
    ///
    /// # Errors
    /// A setting is out of its range.
    pub(crate) fn check(&self) -> Result<()> {
        let (least, most) = RECORD_MB;
        if (least..=most).contains(&self.max_mb) {
            return Ok(());
        }
        let expected = format!("{least} to {most}");
        Err(SettingError { what: "the room for the recording (MB)", expected, found: self.max_mb.to_string() }.into())
    }
}

impl Recorder {
    /// Prepares to record; parts that are there already count and are kept.
    ///
    /// # Errors
    /// The room is out of range, the folder cannot be made or listed, or another daemon records there.
    pub(crate) fn start(settings: &RecorderSettings) -> Result<Self> {
        settings.check()?;
        fs::create_dir_all(&settings.folder)
            .map_err(|source| FileError::Unwritable { path: settings.folder.clone(), source })?;
        // Two writers in one folder would remove each other's parts.
        let lock = Lock::take(&settings.folder.join("recording.lock"), &settings.folder, Resource::Recording)?;
        let status = Arc::<RecorderStatus>::default();
        let ring = Ring::open(&settings.folder, settings.max_mb << 20)
            .map_err(|source| FileError::Unwritable { path: settings.folder.clone(), source })?;
        status.bytes.store(ring.bytes(), Ordering::Relaxed);
        let (sender, receiver) = sync_channel(RECORD_PENDING_MAX);
        let shared = Arc::clone(&status);
        let thread = thread::Builder::new()
            .name("rtpt-record".into())
            .spawn(move || Writer { ring, status: shared, unsynced: 0, rest_until: None }.run(&receiver))
            .map_err(|source| Error::Thread { what: "the recorder's thread", source })?;
        Ok(Self { entries: Some(sender), thread: Some(thread), status, _lock: lock })
    }

    /// Records a decision about an image; where the disk does not keep up it is missed, and counted.
    pub(crate) fn record(&self, settings: &Arc<RecordedSettings>, decision: RecordedDecision, file: &Arc<Vec<u8>>) {
        let entry = Box::new(Entry { settings: Arc::clone(settings), decision, file: Arc::clone(file) });
        // Never blocks: the engine must not wait for a disk.
        let sent = self.entries.as_ref().map(|entries| entries.try_send(entry));
        if matches!(sent, Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_)))) {
            self.status.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counters.
    pub(crate) fn status(&self) -> &Arc<RecorderStatus> {
        &self.status
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Without a sender the thread finishes what waits and ends; joined while the sender lives, it never would.
        self.entries = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writer {
    ring: Ring,
    status: Arc<RecorderStatus>,
    unsynced: u64,
    rest_until: Option<Instant>,
}

impl Writer {
    fn run(&mut self, entries: &Receiver<Box<Entry>>) {
        let patience = Duration::from_millis(RECORD_SYNC_MS);
        let mut synced = Instant::now();
        loop {
            let received = entries.recv_timeout(patience.saturating_sub(synced.elapsed()));
            if let Ok(entry) = &received {
                self.add(entry);
            }
            // Also when frames keep coming, so that a power cut never costs more than the interval.
            if synced.elapsed() >= patience || received.is_err() {
                self.sync();
                synced = Instant::now();
            }
            if received.is_err_and(|error| error == RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    fn add(&mut self, entry: &Entry) {
        if self.rest_until.is_some_and(|until| Instant::now() < until) {
            self.status.missed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        match self.ring.add(entry) {
            Ok(()) => self.unsynced += 1,
            Err(error) => {
                self.status.missed.fetch_add(1, Ordering::Relaxed);
                self.rest(&error);
            }
        }
    }

    fn sync(&mut self) {
        match self.ring.sync() {
            Ok(()) if self.unsynced > 0 => {
                // A sync with nothing written since proves nothing: the problem stands until a frame has reached the
                // disk.
                *self.status.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
                self.status.committed.fetch_add(self.unsynced, Ordering::Relaxed);
            }
            Ok(()) => {}
            Err(error) => self.rest(&error),
        }
        self.unsynced = 0;
        self.status.bytes.store(self.ring.bytes(), Ordering::Relaxed);
    }

    /// Leaves the disk alone for a while; what was begun is not added to any more.
    fn rest(&mut self, error: &io::Error) {
        let problem = format!("cannot record in {}: {error}", self.ring.folder.display());
        log::warn!("{problem}; trying again in {} s", RECORD_RETRY_MS / 1000);
        *self.status.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
        self.rest_until = Some(Instant::now() + Duration::from_millis(RECORD_RETRY_MS));
        // What was written before may yet reach the disk; if not, it was missed.
        let counter = if self.ring.sync().is_ok() { &self.status.committed } else { &self.status.missed };
        counter.fetch_add(std::mem::take(&mut self.unsynced), Ordering::Relaxed);
        // A failed write may have got half-way. Going on behind it would put every further image elsewhere than its
        // line says.
        self.ring.close();
    }
}

/// The parts of a recording.
struct Ring {
    folder: PathBuf,
    bytes_max: u64,
    /// Numbers and sizes (bytes) of the parts that are finished, the oldest first.
    finished: Vec<(u64, u64)>,
    open: Option<OpenPart>,
    next: u64,
}

struct OpenPart {
    number: u64,
    settings: Arc<RecordedSettings>,
    frames: File,
    decisions: File,
    frame_bytes: u64,
    line_bytes: u64,
}

impl Ring {
    fn open(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        let mut finished = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Some(number) = entry.file_name().to_str().and_then(part_number) else { continue };
            let size = |name: &str| entry.path().join(name).metadata().map_or(0, |found| found.len());
            finished.push((number, size(FRAMES) + size(DECISIONS)));
        }
        finished.sort_unstable();
        // Past the highest, never in a gap: numbers say which part is older.
        let next = finished.last().map_or(1, |(number, _)| number + 1);
        let mut ring = Self { folder: folder.into(), bytes_max, finished, open: None, next };
        // The room may be smaller than that of the last run.
        ring.make_room(0);
        Ok(ring)
    }

    fn bytes(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |part| part.frame_bytes + part.line_bytes);
        self.finished.iter().map(|(_, bytes)| bytes).sum::<u64>() + open
    }

    fn add(&mut self, entry: &Entry) -> io::Result<()> {
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
        let mut line = serde_json::to_vec(&frame)?;
        line.push(b'\n');
        // The image goes first: a line says that it is there.
        part.frames.write_all(&entry.file)?;
        part.frame_bytes += length;
        part.decisions.write_all(&line)?;
        part.line_bytes += line.len() as u64;
        Ok(())
    }

    fn begin(&mut self, settings: &Arc<RecordedSettings>) -> io::Result<()> {
        // Once closed, the part is not synced any more.
        self.sync()?;
        self.close();
        let mut line = serde_json::to_vec(settings.as_ref())?;
        line.push(b'\n');
        self.make_room(line.len() as u64);
        let number = self.next;
        self.next += 1;
        let folder = part_folder(&self.folder, number);
        fs::create_dir(&folder)?;
        let create = |name: &str| OpenOptions::new().append(true).create_new(true).mode(0o600).open(folder.join(name));
        let (frames, mut decisions) = (create(FRAMES)?, create(DECISIONS)?);
        decisions.write_all(&line)?;
        // Names outlast a power cut once their folders are synced: the files' in the part, then the part's.
        sync_folder(&folder)?;
        sync_folder(&self.folder)?;
        let (settings, line_bytes) = (Arc::clone(settings), line.len() as u64);
        self.open = Some(OpenPart { number, settings, frames, decisions, frame_bytes: 0, line_bytes });
        Ok(())
    }

    /// Adds nothing more to the open part.
    fn close(&mut self) {
        if let Some(part) = self.open.take() {
            let size = |file: &File| file.metadata().map_or(0, |found| found.len());
            // As it is on the disk: a write that failed may have got half-way.
            let written = size(&part.frames) + size(&part.decisions);
            self.finished.push((part.number, written.max(part.frame_bytes + part.line_bytes)));
        }
    }

    /// Removes the oldest parts until `more` bytes fit; false if they do not with all finished parts gone.
    fn make_room(&mut self, more: u64) -> bool {
        while !self.finished.is_empty() && self.bytes() + more > self.bytes_max {
            let (number, _) = self.finished.remove(0);
            // The decisions go first: without them the images are no part of a recording.
            let folder = part_folder(&self.folder, number);
            let _ = fs::remove_file(folder.join(DECISIONS));
            let removed = fs::remove_dir_all(&folder);
            if let Err(error) = removed.as_ref().map_err(io::Error::kind) {
                log::warn!("cannot remove {}: {error}", folder.display());
            }
        }
        self.bytes() + more <= self.bytes_max
    }

    fn sync(&mut self) -> io::Result<()> {
        let Some(part) = &self.open else { return Ok(()) };
        part.frames.sync_data()?;
        part.decisions.sync_data()
    }
}

/// Room for a line (bytes).
const LINE_ROOM: u64 = 4096;
