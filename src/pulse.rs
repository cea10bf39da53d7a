//! A sign of life from long work, and a way to stop it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Goes along with one piece of work: the work beats now and then, and stops where it was cancelled.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    beats: Arc<AtomicU64>,
    cancelled: Arc<AtomicBool>,
}

impl Pulse {
    /// One whose beats are counted in `beats`, with those of other work.
    pub fn counted_in(beats: &Arc<AtomicU64>) -> Self {
        Self { beats: Arc::clone(beats), cancelled: Arc::default() }
    }

    /// Says that the work goes on.
    ///
    /// # Errors
    /// Nobody wants the result any more.
    pub fn beat(&self) -> Result<()> {
        self.beats.fetch_add(1, Ordering::Relaxed);
        if self.cancelled.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Asks the work to stop at its next beat.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Beats so far.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelled_work_stops_at_its_next_beat() {
        let beats = Arc::default();
        let (one, other) = (Pulse::counted_in(&beats), Pulse::counted_in(&beats));
        assert!(one.beat().is_ok() && other.beat().is_ok());
        one.clone().cancel();
        assert!(matches!(one.beat(), Err(Error::Cancelled)));
        assert!(other.beat().is_ok(), "another's work goes on");
        assert_eq!(other.beats(), 4);
    }
}
