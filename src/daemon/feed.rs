//! The source of frames: the thread that has it, its settings, its state, and the numbers of its frames.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::queue::Queue;
use crate::source::{SourceSettings, SourceStatus, supervise};
use crate::stream::{Frame, unix_ms};

/// Interval at which a source that waits for the encoder checks for a stop.
const TURN: Duration = Duration::from_millis(100);

/// The source in force. Numbers and counters go on when another takes its place.
#[derive(Default)]
pub(crate) struct Feed {
    /// Apart from the thread, whose lock is held while one is waited for.
    settings: RwLock<Option<SourceSettings>>,
    running: Mutex<Option<RunningSource>>,
    status: SourceStatus,
    frames: AtomicU64,
}

struct RunningSource {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl RunningSource {
    fn end(running: Option<Self>) {
        if let Some(Self { stop, thread }) = running {
            stop.store(true, Ordering::Relaxed);
            let _ = thread.join();
        }
    }
}

impl Feed {
    /// Settings of the source, if there is one.
    pub(crate) fn settings(&self) -> Option<SourceSettings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// State and counters.
    pub(crate) fn status(&self) -> &SourceStatus {
        &self.status
    }

    /// Puts another source in force, whose frames go to `queue`, unless it is the same.
    pub(crate) fn set_source(self: &Arc<Self>, wanted: Option<SourceSettings>, queue: &Arc<Queue>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_some() == wanted.is_some() && self.settings() == wanted {
            return;
        }
        // Ended before the next is opened: a camera has one user at a time.
        RunningSource::end(running.take());
        self.settings.write().unwrap_or_else(PoisonError::into_inner).clone_from(&wanted);
        let Some(settings) = wanted else { return };
        let stop = Arc::<AtomicBool>::default();
        let (feed, queue, stopped) = (Arc::clone(self), Arc::clone(queue), Arc::clone(&stop));
        let spawned =
            thread::Builder::new().name("rtpt-source".into()).spawn(move || feed.run(&settings, &queue, &stopped));
        match spawned {
            Ok(thread) => *running = Some(RunningSource { stop, thread }),
            Err(error) => log::error!("cannot start a thread for the source: {error}"),
        }
    }

    fn run(&self, settings: &SourceSettings, queue: &Queue, stopped: &AtomicBool) {
        let live = settings.spec.is_live();
        supervise(settings, &self.status, stopped, |picture| {
            // Numbers begin at 1.
            let sequence = self.frames.fetch_add(1, Ordering::Relaxed) + 1;
            let frame = Frame { sequence, unix_ms: unix_ms(), live, picture };
            if live {
                return queue.inbox.offer(frame);
            }
            // Files do not go stale: each waits for its turn.
            let mut waiting = Box::new(frame);
            while let Err(frame) = queue.inbox.offer_in_turn(*waiting, TURN) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                waiting = frame;
            }
        });
    }

    /// Tells the source to stop, and does not wait for it.
    pub(crate) fn ask_to_stop(&self) {
        // A reload that is under way has the lock while it waits for the source that it replaces.
        if let Ok(running) = self.running.try_lock()
            && let Some(source) = running.as_ref()
        {
            source.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Ends the source.
    pub(crate) fn stop(&self) {
        RunningSource::end(self.running.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
