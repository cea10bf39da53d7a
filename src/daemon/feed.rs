//! The source of frames: its settings, its state, and the numbers of its frames.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::source::{SourceSettings, SourceStatus};

/// The source in force. Numbers and counters go on when another takes its place.
#[derive(Default)]
pub(crate) struct Feed {
    settings: RwLock<Option<SourceSettings>>,
    status: SourceStatus,
    frames: AtomicU64,
}

impl Feed {
    /// Settings of the source, if there is one.
    pub(crate) fn settings(&self) -> Option<SourceSettings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the source.
    pub(crate) fn set_settings(&self, settings: Option<SourceSettings>) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// State and counters.
    pub(crate) fn status(&self) -> &SourceStatus {
        &self.status
    }

    /// The number of a new frame, from 1.
    pub(crate) fn next_frame(&self) -> u64 {
        self.frames.fetch_add(1, Ordering::Relaxed) + 1
    }
}
