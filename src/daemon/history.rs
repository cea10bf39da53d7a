//! The last minutes, for whoever opens the page later.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::protocol::HistoryPoint;
use crate::limits::HISTORY;

/// A bounded number of points, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<VecDeque<HistoryPoint>>);

impl History {
    /// Adds a point, unless the last is too recent.
    pub(crate) fn add(&self, point: HistoryPoint) {
        let (most, apart_ms) = HISTORY;
        let mut points = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back must not stop the history.
        if points.back().is_some_and(|last| (last.unix_ms..last.unix_ms + apart_ms).contains(&point.unix_ms)) {
            // A point a frame would fill the bounded list within seconds; the page shows minutes.
            return;
        }
        if points.len() >= most {
            points.pop_front();
        }
        points.push_back(point);
    }

    /// All points.
    pub(crate) fn points(&self) -> Vec<HistoryPoint> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_thinned_and_bounded() {
        let (most, apart_ms) = HISTORY;
        let history = History::default();
        let point =
            |unix_ms| HistoryPoint { unix_ms, timings: crate::timings::Timings::default(), temperature_c: None };
        history.add(point(10_000_000));
        history.add(point(10_000_000 + apart_ms - 1));
        assert_eq!(history.points().len(), 1);
        history.add(point(5));
        assert_eq!(history.points().len(), 2, "the clock was set back");
        (0..2 * most as u64).for_each(|index| history.add(point(6 + (index + 1) * apart_ms)));
        assert_eq!(history.points().len(), most);
        assert_eq!(history.points()[most - 1], point(6 + 2 * most as u64 * apart_ms));
    }
}
