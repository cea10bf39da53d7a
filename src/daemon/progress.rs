//! The engine's progress, which the watchdog follows, and the frame that it works on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::cancellation::CancellationToken;

/// The engine's signs of life, and a way to make it give up a frame.
#[derive(Default)]
pub(crate) struct Progress {
    checkpoints: Arc<AtomicU64>,
    frame: Mutex<CancellationToken>,
}

impl Progress {
    /// Checkpoints that the engine has passed (count): while it grows the engine is alive.
    pub(crate) fn checkpoints(&self) -> &Arc<AtomicU64> {
        &self.checkpoints
    }

    /// Passes a checkpoint.
    pub(crate) fn checkpoint(&self) {
        // `Relaxed`: only that the number grows is read off it.
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
    }

    /// A token for a request, whose checkpoints count.
    pub(crate) fn request_token(&self) -> CancellationToken {
        CancellationToken::counted_in(&self.checkpoints)
    }

    /// A token for the frame that the engine begins with, whose checkpoints count.
    pub(crate) fn frame_token(&self) -> CancellationToken {
        let token = self.request_token();
        *self.frame.lock().unwrap_or_else(PoisonError::into_inner) = token.clone();
        token
    }

    /// Makes the engine give up the frame that it works on.
    pub(crate) fn cancel_frame(&self) {
        self.frame.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }
}
