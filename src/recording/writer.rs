//! Writing a recording, beside the work.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::chain::Link;
use super::part::{RecordedDecision, RecordedSettings};
use super::ring::{Entry, Ring};
use crate::error::{Error, Result};
use crate::limits::{RECORD_MB, RECORD_PENDING_MAX, RECORD_RETRY_MS, RECORD_SYNC_MS};
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
    /// The link of the last line that is on the disk.
    pub head: Mutex<Option<Link>>,
}

impl RecorderStatus {
    /// Problem that keeps it from going on, in words.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The link of the last line that is on the disk, 64 hex digits.
    pub(crate) fn head(&self) -> Option<String> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).map(|link| link.to_hex().to_string())
    }
}

/// Records on a thread of its own: a slow disk keeps no frame waiting.
pub(crate) struct Recorder {
    entries: Option<SyncSender<Box<Entry>>>,
    thread: Option<JoinHandle<()>>,
    status: Arc<RecorderStatus>,
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
        Err(SettingError { what: "the room for the recording (MiB)", expected, found: self.max_mb.to_string() }.into())
    }
}

impl Recorder {
    /// Prepares to record; parts that are there already count and are kept.
    ///
    /// # Errors
    /// The room is out of range, the folder cannot be made or listed, or another daemon records there.
    pub(crate) fn start(settings: &RecorderSettings) -> Result<Self> {
        settings.check()?;
        let status = Arc::<RecorderStatus>::default();
        let ring = Ring::open(&settings.folder, settings.max_mb << 20)?;
        status.bytes.store(ring.bytes(), Ordering::Relaxed);
        let (sender, receiver) = sync_channel(RECORD_PENDING_MAX);
        let shared = Arc::clone(&status);
        let thread = thread::Builder::new()
            .name("rtpt-record".into())
            .spawn(move || Writer { ring, status: shared, unsynced: 0, rest_until: None }.run(&receiver))
            .map_err(|source| Error::Thread { what: "the recorder's thread", source })?;
        Ok(Self { entries: Some(sender), thread: Some(thread), status })
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
                *self.status.head.lock().unwrap_or_else(PoisonError::into_inner) = self.ring.head();
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
        // What was removed is made anew at once: a disk that is full or ill needs the pause.
        let pause = if error.kind() == io::ErrorKind::NotFound { 0 } else { RECORD_RETRY_MS };
        log::warn!("{problem}; trying again in {} s", pause / 1000);
        *self.status.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
        self.rest_until = Some(Instant::now() + Duration::from_millis(pause));
        // What was written before may yet reach the disk; if not, it was missed.
        let counter = if self.ring.sync().is_ok() { &self.status.committed } else { &self.status.missed };
        counter.fetch_add(std::mem::take(&mut self.unsynced), Ordering::Relaxed);
        // A failed write may have got half-way. Going on behind it would put every further image elsewhere than its
        // line says.
        self.ring.close();
    }
}
