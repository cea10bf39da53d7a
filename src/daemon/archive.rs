//! The recording in force.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};

use super::protocol::RecordingRecord;
use crate::recording::{RecordedDecision, RecordedSettings, Recorder, RecorderSettings};

/// The recorder in force, if there is one.
#[derive(Default)]
pub(crate) struct Archive(RwLock<Option<Running>>);

/// A recorder and the settings it was started with.
pub(crate) struct Running {
    /// Folder and room.
    pub settings: RecorderSettings,
    /// The recorder.
    pub recorder: Recorder,
}

impl Archive {
    /// Settings of the recording, if there is one.
    pub(crate) fn settings(&self) -> Option<RecorderSettings> {
        let running = self.0.read().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(|running| running.settings.clone())
    }

    /// Puts a recorder in the place of the present one, which finishes what it has.
    pub(crate) fn replace(&self, running: Option<Running>) {
        let old = std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), running);
        // Finishing takes the disk's time, in which the engine must not wait for the lock.
        drop(old);
    }

    /// Records a decision, which `decision` makes, if there is a recorder.
    pub(crate) fn record(
        &self,
        settings: &Arc<RecordedSettings>,
        file: &Arc<Vec<u8>>,
        decision: impl FnOnce() -> RecordedDecision,
    ) {
        // Held while a decision is handed over, which never blocks: the recorder's own queue takes it or counts it as
        // missed.
        if let Some(running) = self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            running.recorder.record(settings, decision(), file);
        }
    }

    /// The record for clients, if there is a recorder.
    pub(crate) fn report(&self) -> Option<RecordingRecord> {
        let running = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Running { settings, recorder } = running.as_ref()?;
        let status = recorder.status();
        Some(RecordingRecord {
            folder: settings.folder.display().to_string(),
            bytes: status.bytes.load(Ordering::Relaxed),
            bytes_max: settings.max_mb << 20,
            committed: status.committed.load(Ordering::Relaxed),
            missed: status.missed.load(Ordering::Relaxed),
            problem: status.problem(),
            head: status.head(),
        })
    }
}
