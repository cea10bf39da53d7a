//! Keeps a source open: whatever happens to it, it is opened again, after longer and longer waits.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::camera::Camera;
use super::command::Command;
use super::images::Images;
use super::jpegs::Jpegs;
use super::watched::Watched;
use super::{Picture, Source, SourceFailure, SourceSpec, Wait};
use crate::limits::{BAD_FRAMES_MAX, REOPEN_MS, SETTLED_MS};

/// Most failing files that are remembered (count).
const FAILING_FILES_MAX: usize = 10_000;

/// A source and its timeout.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SourceSettings {
    /// The source.
    pub spec: SourceSpec,
    /// Time without a frame after which a live source is opened again.
    pub timeout: Duration,
}

/// State of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourceState {
    /// There is none.
    Absent,
    /// It is open; no frame has come yet.
    Opening,
    /// Frames come.
    Streaming,
    /// It failed for this reason, and is opened again after a wait.
    Reopening(String),
}

/// State and counters of a source, for reports.
#[derive(Debug)]
pub(crate) struct SourceStatus {
    state: Mutex<(SourceState, SystemTime)>,
    frames: AtomicU64,
    reopens: AtomicU64,
    waiting: AtomicU64,
    cut: AtomicU64,
    bad_in_a_row: AtomicU32,
    /// Files that failed when they were last read.
    failing: Mutex<HashSet<String>>,
}

impl Default for SourceStatus {
    fn default() -> Self {
        Self {
            state: Mutex::new((SourceState::Absent, SystemTime::now())),
            frames: AtomicU64::new(0),
            reopens: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            bad_in_a_row: AtomicU32::new(0),
            failing: Mutex::default(),
        }
    }
}

/// A source's state at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceHealth {
    /// State.
    pub state: SourceState,
    /// Time at which the state began.
    pub since: SystemTime,
    /// Frames that it gave (count).
    pub frames: u64,
    /// Times it was opened again (count).
    pub reopens: u64,
    /// Files of a watched folder that wait for their turn (count).
    pub waiting: u64,
    /// Frames of a stream that were cut short or too long, and never came to be frames (count).
    pub cut: u64,
}

impl SourceStatus {
    /// State and counters at this moment.
    pub(crate) fn health(&self) -> SourceHealth {
        let (state, since) = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // `Relaxed` throughout: the counters are for display, and no other memory is read on the strength of them.
        let (frames, reopens) = (self.frames.load(Ordering::Relaxed), self.reopens.load(Ordering::Relaxed));
        let (waiting, cut) = (self.waiting.load(Ordering::Relaxed), self.cut.load(Ordering::Relaxed));
        SourceHealth { state, since, frames, reopens, waiting, cut }
    }

    /// Notes whether the last frame could be decoded: a source that sends only undecodable bytes is opened again.
    pub(crate) fn judge(&self, decoded: bool) {
        if decoded {
            self.bad_in_a_row.store(0, Ordering::Relaxed);
        } else {
            self.bad_in_a_row.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that a file failed; true if it is news. A folder gives the same files again and again.
    pub(crate) fn is_new_failure(&self, file: Option<&str>) -> bool {
        let Some(file) = file else { return true };
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if failing.len() >= FAILING_FILES_MAX {
            failing.clear();
        }
        failing.insert(file.into())
    }

    /// Notes that a file could be classified.
    pub(crate) fn note_success(&self, file: Option<&str>) {
        if let Some(file) = file {
            self.failing.lock().unwrap_or_else(PoisonError::into_inner).remove(file);
        }
    }

    fn enter(&self, state: SourceState) {
        let mut current = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Entered with every frame, mostly as it was: the time says since when, so it must not move on.
        if current.0 != state {
            *current = (state, SystemTime::now());
        }
    }
}

/// A wait that only a stop ends.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Opens the source and hands its pictures to `deliver`, until `stop` is set; the source may fail as it likes.
pub(crate) fn supervise(
    settings: &SourceSettings,
    status: &SourceStatus,
    stop: &AtomicBool,
    mut deliver: impl FnMut(Picture),
) {
    let mut failures = 0;
    // The failure that was logged last: a source that keeps failing in one way must not fill the log.
    let mut reported = None;
    loop {
        status.enter(SourceState::Opening);
        // Undecodable frames of the last opening must not count against this one.
        status.judge(true);
        let began = Instant::now();
        let failure = run(settings, status, stop, &mut deliver);
        if failure == SourceFailure::Stopped {
            break;
        }
        let settled = began.elapsed() >= Duration::from_millis(SETTLED_MS);
        // A source that gave frames for a while was in order: its next failure is a new one.
        failures = if settled { 0 } else { failures + 1 };
        let pause = reopen_after(failures, &jitter_seed());
        status.enter(SourceState::Reopening(failure.to_string()));
        // Standard input cannot be opened again. The daemon goes on all the same, since requests need no source.
        let over = settings.spec == SourceSpec::Input && matches!(failure, SourceFailure::Ended(_));
        if over {
            log::warn!("{} has ended and cannot be opened again", settings.spec);
        // Said again after a settled time: the source was well in between.
        } else if settled || reported.as_ref() != Some(&failure) {
            log::warn!("no frames from the source {}: {failure}; trying again", settings.spec);
            reported = Some(failure);
        }
        if Wait::sleep(stop, if over { FOR_EVER } else { pause }).is_err() {
            break;
        }
        status.reopens.fetch_add(1, Ordering::Relaxed);
    }
    status.waiting.store(0, Ordering::Relaxed);
    status.enter(SourceState::Absent);
}

/// Opens the source once and delivers its pictures; returns the reason that they ended.
fn run(
    settings: &SourceSettings,
    status: &SourceStatus,
    stop: &AtomicBool,
    deliver: &mut impl FnMut(Picture),
) -> SourceFailure {
    let mut source = match open(&settings.spec) {
        Ok(source) => source,
        Err(failure) => return failure,
    };
    let live = settings.spec.is_live();
    let mut cut = 0;
    loop {
        // Of a folder silence is no fault: there may be nothing new for days.
        let until = live.then(|| Instant::now() + settings.timeout);
        let next = source.next(&Wait { until, stop });
        let dropped = source.dropped();
        if dropped > cut {
            // Once an opening: a stream that loses bytes loses many.
            if cut == 0 {
                log::warn!(
                    "{} sends frames that are cut short or too long; they are counted as damaged",
                    settings.spec
                );
            }
            status.cut.fetch_add(dropped - cut, Ordering::Relaxed);
            cut = dropped;
        }
        match next {
            Ok(picture) => {
                status.enter(SourceState::Streaming);
                status.frames.fetch_add(1, Ordering::Relaxed);
                status.waiting.store(source.waiting() as u64, Ordering::Relaxed);
                deliver(picture);
            }
            Err(failure) => return failure,
        }
        let bad = status.bad_in_a_row.load(Ordering::Relaxed);
        // A folder may have any number of bad files, and opening it again would begin with the same ones.
        if live && bad >= BAD_FRAMES_MAX {
            return SourceFailure::Undecodable(format!("{bad} frames in a row could not be decoded"));
        }
    }
}

fn open(spec: &SourceSpec) -> Result<Box<dyn Source>, SourceFailure> {
    Ok(match spec {
        SourceSpec::Images { path, every } => Box::new(Images::open(path, *every)?),
        SourceSpec::Watched(folder) => Box::new(Watched::open(folder)?),
        SourceSpec::Input => Box::new(Jpegs::new(standard_input()?)),
        SourceSpec::Command(words) => Box::new(Command::start(words)?),
        SourceSpec::Camera(camera) => Box::new(Camera::open(camera)?),
    })
}

/// Standard input without the buffer of the standard library, which would hide bytes from whoever waits for them.
fn standard_input() -> Result<File, SourceFailure> {
    let input = std::io::stdin().as_fd().try_clone_to_owned();
    input.map(File::from).map_err(|error| SourceFailure::Failed(format!("cannot read standard input: {error}")))
}

/// The wait before the next attempt: twice as long after each failure, up to a bound, and between half and all of that
/// so that devices which lost the same server do not come back at once.
fn reopen_after(failures: u32, jitter: &[u8]) -> Duration {
    let (first, longest) = REOPEN_MS;
    // The exponent is bounded so that the shift cannot overflow; the longest wait is reached long before.
    let full = first.saturating_mul(1 << failures.min(20)).min(longest);
    // A hash of clock and process instead of a random number generator, which `views/sampler.rs` alone may use.
    let draw = u64::from_le_bytes(*blake3::hash(jitter).as_bytes().first_chunk().expect("a digest is longer"));
    Duration::from_millis(full / 2 + draw % (full / 2 + 1))
}

/// Bytes that differ from device to device and from time to time.
fn jitter_seed() -> [u8; 20] {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let mut seed = [0; 20];
    seed[..16].copy_from_slice(&now.to_le_bytes());
    seed[16..].copy_from_slice(&std::process::id().to_le_bytes());
    seed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_differ() {
        let (first, longest) = REOPEN_MS;
        for failures in 0..40 {
            let full = (first << failures.min(20)).min(longest);
            let waits: Vec<u64> = (0..50_u8).map(|draw| reopen_after(failures, &[draw]).as_millis() as u64).collect();
            assert!(waits.iter().all(|wait| (full / 2..=full).contains(wait)), "{failures}: {waits:?}");
            assert!(waits.iter().max() > waits.iter().min(), "{failures}");
        }
    }

    #[test]
    fn undecodable_frames_have_a_live_source_opened_again() {
        let settings = SourceSettings {
            spec: SourceSpec::parse("exec:sh -c 'while true; do printf \"\\377\\330\\377\\331\"; sleep 0.01; done'")
                .unwrap(),
            timeout: Duration::from_secs(10),
        };
        let (status, stop) = (SourceStatus::default(), AtomicBool::new(false));
        supervise(&settings, &status, &stop, |_| {
            status.judge(false);
            if status.health().reopens == 1 {
                stop.store(true, Ordering::Relaxed);
            }
        });
        let health = status.health();
        assert_eq!((health.reopens, health.frames), (1, u64::from(BAD_FRAMES_MAX) + 1));
    }
}
