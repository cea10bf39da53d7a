//! The queue before the engine, and the time its requests take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::engine::Job;
use crate::stream::Inbox;

/// Requests and frames for the engine.
pub(crate) struct Queue {
    /// The inbox, which the engine empties.
    pub inbox: Inbox<Job>,
    /// Moving mean of the time that the engine takes over a request (microseconds); 0 before the first.
    service_us: AtomicU64,
}

impl Queue {
    /// A queue with room for `capacity` requests.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { inbox: Inbox::new(capacity), service_us: AtomicU64::new(0) }
    }

    /// Notes the time that the engine took over a request.
    pub(crate) fn note_service(&self, took: Duration) {
        // Read and written without a lock, since the engine's thread alone writes.
        let (took, mean) = (took.as_micros() as u64, self.service_us.load(Ordering::Relaxed));
        // The weight of 1/8 is that of TCP's smoothed round trip (RFC 6298), so that one slow image does not count for
        // much.
        self.service_us.store(if mean == 0 { took } else { (7 * mean + took) / 8 }, Ordering::Relaxed);
    }

    /// Seconds until a refused client may find room (1–60): the time that half of the queue takes.
    pub(crate) fn retry_after_s(&self) -> u64 {
        let half = self.inbox.waiting() as u64 / 2;
        // Half of it: by then there is room, and the engine is not idle yet.
        (half * self.service_us.load(Ordering::Relaxed)).div_ceil(1_000_000).clamp(1, 60)
    }
}
