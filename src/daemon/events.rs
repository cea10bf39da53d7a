//! Events for clients that watch, and the latest decision for those that come later.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::broadcast;

use super::protocol::DecisionRecord;
use crate::views::{Preprocessing, ViewSettings};

/// Events that wait for a slow watcher (count).
const PENDING: usize = 16;

/// An event: its name and its JSON.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// `decision`, `status` or `labels`.
    pub name: &'static str,
    /// A line of JSON.
    pub json: Arc<str>,
}

/// The latest decision.
pub(crate) struct Latest {
    /// The decision, as JSON.
    pub json: Arc<str>,
    /// The image file.
    pub file: Arc<Vec<u8>>,
    /// BLAKE3 of the image file.
    pub digest: blake3::Hash,
    /// Views that were made of the image.
    pub views: ViewSettings,
    /// The preprocessing with which they were made.
    pub preprocessing: Preprocessing,
}

/// The channel from the daemon to its watchers.
pub(crate) struct Events {
    sender: broadcast::Sender<Event>,
    latest: RwLock<Option<Arc<Latest>>>,
}

impl Latest {
    /// A decision about an image file.
    pub(crate) fn new(
        record: &DecisionRecord,
        file: Arc<Vec<u8>>,
        digest: blake3::Hash,
        views: ViewSettings,
        preprocessing: Preprocessing,
    ) -> Self {
        let json = serde_json::to_string(record).expect("a record is always JSON").into();
        Self { json, file, digest, views, preprocessing }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: broadcast::channel(PENDING).0, latest: RwLock::default() }
    }
}

impl Events {
    /// The latest decision.
    pub(crate) fn latest(&self) -> Option<Arc<Latest>> {
        self.latest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a decision the latest and sends it.
    pub(crate) fn publish(&self, latest: Latest) {
        let latest = Arc::new(latest);
        let json = Arc::clone(&latest.json);
        // Before the event is sent: whoever gets it finds its picture at `/v1/frame.jpg`.
        *self.latest.write().unwrap_or_else(PoisonError::into_inner) = Some(latest);
        self.send("decision", json);
    }

    /// Sends an event to all watchers.
    pub(crate) fn send(&self, name: &'static str, json: Arc<str>) {
        // An error means that nobody watches.
        let _ = self.sender.send(Event { name, json });
    }

    /// A receiver of all further events.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }

    /// Clients that watch (count).
    pub(crate) fn watchers(&self) -> usize {
        self.sender.receiver_count()
    }
}
