//! Cancellation of long work, and its progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The end of work that nobody waits for any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work was cancelled: the client hung up or its deadline passed")]
pub struct Cancelled;

/// Cancellation token of one piece of work, which passes checkpoints and stops at one if it was cancelled.
#[derive(Clone, Debug, Default)]
pub struct CancellationToken {
    checkpoints: Arc<AtomicU64>,
    cancelled: Arc<AtomicBool>,
}

impl CancellationToken {
    /// A token whose checkpoints are counted in `checkpoints`, together with those of other work.
    pub fn counted_in(checkpoints: &Arc<AtomicU64>) -> Self {
        Self { checkpoints: Arc::clone(checkpoints), cancelled: Arc::default() }
    }

    /// Counts progress, and stops cancelled work.
    ///
    /// # Errors
    /// The work was cancelled.
    pub fn checkpoint(&self) -> Result<(), Cancelled> {
        // Counted even where the work ends: a watchdog asks for signs of life, not for results. Relaxed is enough,
        // since neither value guards other memory.
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        if self.cancelled.load(Ordering::Relaxed) { Err(Cancelled) } else { Ok(()) }
    }

    /// Cancels the work: it stops at its next checkpoint.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Checkpoints passed so far (count).
    pub fn checkpoints(&self) -> u64 {
        self.checkpoints.load(Ordering::Relaxed)
    }
}
