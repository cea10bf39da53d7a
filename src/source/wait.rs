//! Waiting for input, until a deadline or until stopped.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::SourceFailure;

/// Interval at which a waiting source checks for a stop (milliseconds).
const SLICE_MS: u8 = 100;

/// Bounds of the wait for a picture.
pub(crate) struct Wait<'a> {
    /// Deadline, if there is one.
    pub until: Option<Instant>,
    /// Set when no more pictures are wanted.
    pub stop: &'a AtomicBool,
}

impl Wait<'_> {
    /// Waits until there is something to read, or the other end hung up.
    ///
    /// # Errors
    /// It takes too long, the source is stopped, or the system cannot wait.
    pub(crate) fn readable(&self, input: impl AsFd) -> Result<(), SourceFailure> {
        loop {
            self.check()?;
            let mut polled = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
            // In slices, because nothing wakes `poll` when the stop is set.
            match poll(&mut polled, PollTimeout::from(SLICE_MS)) {
                Ok(0) | Err(Errno::EINTR) => {}
                // POLLHUP and POLLERR count as readable: the read that follows says what happened.
                Ok(_) => return Ok(()),
                Err(problem) => return Err(SourceFailure::Failed(format!("cannot wait for it: {}", problem.desc()))),
            }
        }
    }

    /// Waits for `time`, or until stopped.
    ///
    /// # Errors
    /// It was stopped.
    pub(crate) fn sleep(stop: &AtomicBool, time: Duration) -> Result<(), SourceFailure> {
        let until = Instant::now() + time;
        // `Relaxed`: the flag guards no data, and whoever sets it joins the thread afterwards.
        while !stop.load(Ordering::Relaxed) {
            match until.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => thread::sleep(left.min(Duration::from_millis(SLICE_MS.into()))),
                _ => return Ok(()),
            }
        }
        Err(SourceFailure::Stopped)
    }

    /// Ends the wait if it is over.
    ///
    /// # Errors
    /// It took too long, or was stopped.
    pub(crate) fn check(&self) -> Result<(), SourceFailure> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(SourceFailure::Stopped);
        }
        match self.until {
            Some(until) if Instant::now() >= until => Err(SourceFailure::TimedOut),
            _ => Ok(()),
        }
    }
}
