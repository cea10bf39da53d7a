//! Inbox of the encoder: requests in a bounded queue, and the latest frame.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Frame;

/// Inbox that requests and frames are put in, and taken from by one worker.
pub(crate) struct Inbox<J> {
    inner: Mutex<Inner<J>>,
    /// Signalled when something came.
    came: Condvar,
    /// Signalled when the frame was taken.
    taken: Condvar,
}

struct Inner<J> {
    jobs: VecDeque<J>,
    capacity: usize,
    frame: Option<Frame>,
    dropped: u64,
    /// A frame's turn is next: neither frames nor requests keep the other waiting for more than one.
    frame_next: bool,
    closed: bool,
}

/// Item that the worker gets.
pub(crate) enum Taken<J> {
    /// A request.
    Job(J),
    /// The latest frame.
    Frame(Frame),
    /// Nothing came in time.
    Nothing,
    /// Nothing comes any more, and nothing is left.
    Closed,
}

impl<J> Inbox<J> {
    /// One that holds at most `capacity` requests.
    pub(crate) fn new(capacity: usize) -> Self {
        let inner =
            Inner { jobs: VecDeque::new(), capacity, frame: None, dropped: 0, frame_next: false, closed: false };
        Self { inner: Mutex::new(inner), came: Condvar::new(), taken: Condvar::new() }
    }

    /// Puts a request at the end of the queue, if `left` places are free besides; gives it back if not, or if the queue is
    /// closed.
    ///
    /// # Errors
    /// The request.
    pub(crate) fn push(&self, job: J, left: usize) -> Result<(), J> {
        let mut inner = self.lock();
        if inner.closed || inner.jobs.len() + left >= inner.capacity {
            // Refused at once and not waited for: the caller is an HTTP handler, which answers 503 with `Retry-After`.
            return Err(job);
        }
        inner.jobs.push_back(job);
        self.came.notify_one();
        Ok(())
    }

    /// Puts a request of the daemon itself, such as other labels, at the end of the queue, even past its capacity.
    ///
    /// # Errors
    /// The request, if the inbox is closed.
    pub(crate) fn push_own(&self, job: J) -> Result<(), J> {
        // Without a bound: whoever has such a request waits until the engine has taken it, so there are never many.
        let mut inner = self.lock();
        if inner.closed {
            return Err(job);
        }
        inner.jobs.push_back(job);
        self.came.notify_one();
        Ok(())
    }

    /// Puts a frame in place of the one that waits, if one does: that one is dropped and counted.
    pub(crate) fn offer(&self, frame: Frame) {
        let mut inner = self.lock();
        if inner.closed {
            return;
        }
        if inner.frame.replace(frame).is_some() {
            inner.dropped += 1;
        }
        self.came.notify_one();
    }

    /// Puts a frame into the slot once it is empty, within `patience`.
    ///
    /// # Errors
    /// The frame, if `patience` ran out or the inbox is closed.
    pub(crate) fn offer_in_turn(&self, frame: Frame, patience: Duration) -> Result<(), Box<Frame>> {
        let inner = self.lock();
        let waited = self.taken.wait_timeout_while(inner, patience, |inner| inner.frame.is_some() && !inner.closed);
        // Whether the time ran out is read off the state itself: a slot that was freed at the last moment still counts.
        let (mut inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if inner.frame.is_some() || inner.closed {
            return Err(Box::new(frame));
        }
        inner.frame = Some(frame);
        self.came.notify_one();
        Ok(())
    }

    /// Takes a request or the frame, by turns where there are both; waits up to `patience`.
    pub(crate) fn take(&self, patience: Duration) -> Taken<J> {
        let inner = self.lock();
        let empty = |inner: &mut Inner<J>| inner.jobs.is_empty() && inner.frame.is_none() && !inner.closed;
        let (mut inner, _) =
            self.came.wait_timeout_while(inner, patience, empty).unwrap_or_else(PoisonError::into_inner);
        // Without a frame the flag stays set, and the next frame that comes goes before the requests that wait.
        if (inner.frame_next || inner.jobs.is_empty())
            && let Some(frame) = inner.frame.take()
        {
            inner.frame_next = false;
            self.taken.notify_all();
            return Taken::Frame(frame);
        }
        match inner.jobs.pop_front() {
            Some(job) => {
                inner.frame_next = true;
                Taken::Job(job)
            }
            None if inner.closed => Taken::Closed,
            None => Taken::Nothing,
        }
    }

    /// Closes the inbox to everything new. What is in the queue is still given out, the frame is not.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        // A request has a client that waits for its answer; nobody waits for a frame.
        inner.frame = None;
        self.came.notify_all();
        self.taken.notify_all();
    }

    /// True once nothing more is taken.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Requests that wait (count).
    pub(crate) fn waiting(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Requests that may wait (count).
    pub(crate) fn capacity(&self) -> usize {
        self.lock().capacity
    }

    /// Frames that were dropped for later ones (count).
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, Inner<J>> {
        // Nothing under this lock can panic half-way, so the state behind a poisoned one is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Content;

    fn frame(sequence: u64) -> Frame {
        let picture = Picture { name: None, content: Content::File(Vec::new()) };
        Frame { sequence, unix_ms: 0, live: true, picture }
    }

    use crate::source::Picture;

    const NOW: Duration = Duration::ZERO;

    fn next(inbox: &Inbox<u32>) -> String {
        match inbox.take(NOW) {
            Taken::Job(job) => format!("job {job}"),
            Taken::Frame(frame) => format!("frame {}", frame.sequence),
            Taken::Nothing => "nothing".into(),
            Taken::Closed => "closed".into(),
        }
    }

    #[test]
    fn the_latest_frame_wins_and_the_others_are_counted() {
        let inbox = Inbox::new(1);
        for sequence in 1..=5 {
            inbox.offer(frame(sequence));
        }
        assert_eq!((next(&inbox), inbox.dropped()), ("frame 5".into(), 4));
        assert_eq!(next(&inbox), "nothing");
    }

    #[test]
    fn requests_are_bounded_and_take_turns_with_frames() {
        let inbox = Inbox::new(3);
        assert!((1..=3).all(|job| inbox.push(job, 0).is_ok()));
        assert_eq!((inbox.push(4, 0), inbox.waiting()), (Err(4), 3));
        assert!(inbox.push_own(5).is_ok(), "the daemon's own requests are never refused");
        let mut order = Vec::new();
        for sequence in 1..=4 {
            inbox.offer(frame(sequence));
            order.push(next(&inbox));
        }
        assert_eq!(order, ["job 1", "frame 2", "job 2", "frame 4"]);
        assert_eq!([next(&inbox), next(&inbox), next(&inbox)], ["job 3", "job 5", "nothing"]);
    }

    #[test]
    fn places_that_are_to_be_left_are_not_taken() {
        let inbox = Inbox::<u32>::new(4);
        assert_eq!(std::array::from_fn(|job| inbox.push(job as u32, 1)), [Ok(()), Ok(()), Ok(()), Err(3)]);
        assert_eq!((inbox.push(4, 0), inbox.push(5, 0)), (Ok(()), Err(5)));
    }

    #[test]
    fn files_wait_for_their_turn() {
        let inbox = Inbox::<u32>::new(1);
        assert!(inbox.offer_in_turn(frame(1), NOW).is_ok());
        assert_eq!(inbox.offer_in_turn(frame(2), NOW), Err(Box::new(frame(2))));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| inbox.offer_in_turn(frame(2), Duration::from_secs(20)));
            while next(&inbox) != "frame 1" {}
            assert!(second.join().unwrap().is_ok());
        });
        assert_eq!((next(&inbox), inbox.dropped()), ("frame 2".into(), 0));
    }

    #[test]
    fn a_closed_inbox_gives_out_what_it_has() {
        let inbox = Inbox::new(3);
        inbox.push(1, 0).unwrap();
        inbox.offer(frame(1));
        inbox.close();
        assert_eq!((inbox.push(2, 0), inbox.push_own(3)), (Err(2), Err(3)));
        inbox.offer(frame(2));
        assert_eq!([next(&inbox), next(&inbox)], ["job 1", "closed"]);
        assert!(inbox.offer_in_turn(frame(2), NOW).is_err());
    }
}
