//! The service manager: ready, alive, stopping. Without one nothing is said.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Tells the service manager, if there is one.
pub fn tell(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        log::debug!("the service manager was not told: {error}");
    }
}

/// Tells that the configuration is being loaded again, as newer versions of systemd ask it to be told.
pub fn tell_reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// Decides whether the daemon is alive: the engine must have made progress within the watchdog's time.
///
/// The engine beats before every batch of the encoder and at least twice a second while it is idle. One that hangs in a
/// frame or a request beats no more, and the service manager starts the daemon anew.
#[derive(Debug)]
pub struct Liveness {
    beats: Arc<AtomicU64>,
    seen: u64,
    since: Instant,
    patience: Duration,
}

impl Liveness {
    /// Watches `beats`; without any for `patience` the engine counts as stuck.
    pub fn new(beats: &Arc<AtomicU64>, patience: Duration, now: Instant) -> Self {
        Self { beats: Arc::clone(beats), seen: beats.load(Ordering::Relaxed), since: now, patience }
    }

    /// Whether the engine is alive at this moment.
    pub fn is_alive(&mut self, now: Instant) -> bool {
        let beats = self.beats.load(Ordering::Relaxed);
        if beats != self.seen {
            (self.seen, self.since) = (beats, now);
        }
        now.duration_since(self.since) < self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_without_progress_is_not_alive() {
        let beats = Arc::<AtomicU64>::default();
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(&beats, Duration::from_secs(10), began);
        assert!(liveness.is_alive(at(9)));
        assert!(!liveness.is_alive(at(10)));
        beats.fetch_add(1, Ordering::Relaxed);
        assert!(liveness.is_alive(at(11)), "it goes on");
        assert!(liveness.is_alive(at(20)) && !liveness.is_alive(at(21)));
    }
}
