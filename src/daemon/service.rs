//! Notifications to the service manager: ready, alive, stopping. Without one nothing is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Notifies the service manager, if there is one.
pub(crate) fn notify(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        // Only for debugging: a service manager that hears nothing acts by its own timeouts.
        log::debug!("the service manager was not notified: {error}");
    }
}

/// Notifies it that the configuration is being loaded again. Newer versions of systemd require the time as well.
pub(crate) fn notify_reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
}

/// The verdict on whether the daemon is alive: the engine must have made progress within the watchdog's time.
///
/// The engine passes a checkpoint before every batch of the encoder and at least twice a second while it is idle. One that
/// hangs in a frame or a request passes none, and the service manager restarts the daemon.
#[derive(Debug)]
pub(crate) struct Liveness {
    checkpoints: Arc<AtomicU64>,
    seen: u64,
    since: Instant,
    patience: Duration,
}

impl Liveness {
    /// Watches `checkpoints`; without any for `patience` the engine counts as stuck.
    pub(crate) fn new(checkpoints: &Arc<AtomicU64>, patience: Duration, now: Instant) -> Self {
        Self { checkpoints: Arc::clone(checkpoints), seen: checkpoints.load(Ordering::Relaxed), since: now, patience }
    }

    /// True if the engine is alive at this moment.
    pub(crate) fn is_alive(&mut self, now: Instant) -> bool {
        let checkpoints = self.checkpoints.load(Ordering::Relaxed);
        if checkpoints != self.seen {
            (self.seen, self.since) = (checkpoints, now);
        }
        now.duration_since(self.since) < self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_without_progress_is_not_alive() {
        let checkpoints = Arc::<AtomicU64>::default();
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(&checkpoints, Duration::from_secs(10), began);
        assert!(liveness.is_alive(at(9)));
        assert!(!liveness.is_alive(at(10)));
        checkpoints.fetch_add(1, Ordering::Relaxed);
        assert!(liveness.is_alive(at(11)), "it goes on");
        assert!(liveness.is_alive(at(20)) && !liveness.is_alive(at(21)));
    }
}
