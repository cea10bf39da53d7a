//! The end of a daemon: every part is waited for, and none for ever.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::archive::Archive;
use super::feed::Feed;
use super::progress::Progress;
use crate::limits::{FRAME_END_MS, PARTS_END_MS};

/// The parts that have to end, the engine's inbox being closed.
pub(super) struct Ending {
    /// The engine's thread.
    pub engine: JoinHandle<()>,
    /// The frame that it works on.
    pub progress: Arc<Progress>,
    /// The source.
    pub feed: Arc<Feed>,
    /// The recording.
    pub archive: Arc<Archive>,
}

/// Interval at which the engine is looked at.
const LOOK: Duration = Duration::from_millis(5);

impl Ending {
    /// Waits for all parts, within a bound; false if the engine panicked.
    ///
    /// What does not end is left behind, as the process ends.
    pub(super) fn wait(self) -> bool {
        let waiting_for = Arc::new(Mutex::new("the engine"));
        let (sender, receiver) = sync_channel(1);
        let said = Arc::clone(&waiting_for);
        // On a thread of its own, because a thread can be joined only without a bound.
        let spawned = thread::Builder::new().name("rtpt-ending".into()).spawn(move || {
            let _ = sender.send(self.end(|part| *said.lock().unwrap_or_else(PoisonError::into_inner) = part));
        });
        let ended = spawned.is_ok().then(|| receiver.recv_timeout(Duration::from_millis(PARTS_END_MS)));
        match ended {
            Some(Ok(intact)) => intact,
            _ => {
                let part = *waiting_for.lock().unwrap_or_else(PoisonError::into_inner);
                log::error!("{part} does not end; ending without it");
                true
            }
        }
    }

    fn end(self, mut wait_for: impl FnMut(&'static str)) -> bool {
        let Self { engine, progress, feed, archive } = self;
        feed.ask_to_stop();
        // A frame has no client whose hang-up would cancel it: it may run to its end within a bound.
        let until = Instant::now() + Duration::from_millis(FRAME_END_MS);
        while !engine.is_finished() && Instant::now() < until {
            thread::sleep(LOOK);
        }
        progress.cancel_frame();
        let intact = engine.join().is_ok();
        wait_for("the source");
        feed.stop();
        // After the engine, whose last decision is recorded as well.
        wait_for("the recording");
        archive.replace(None);
        intact
    }
}
