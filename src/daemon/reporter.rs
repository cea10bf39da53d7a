//! Reports of the daemon: for clients, for the metrics, and for the log.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::archive::Archive;
use super::feed::Feed;
use super::metrics::{Metrics, Sample};
use super::model_in_force::ModelInForce;
use super::protocol::{InfoRecord, SCHEMA, SourceRecord, StatusRecord};
use super::queue::Queue;
use crate::device::{rss_now, temperature};
use crate::source::SourceState;
use crate::stream::unix_ms;

/// The parts that reports are made of, which it reads and never changes.
pub(crate) struct Reporter {
    /// Places where the daemon listens.
    pub listening: Vec<String>,
    /// Start of the daemon.
    pub began: Instant,
    /// Requests that wait.
    pub queue: Arc<Queue>,
    /// The model.
    pub model: Arc<ModelInForce>,
    /// The source.
    pub feed: Arc<Feed>,
    /// The recording.
    pub archive: Arc<Archive>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Reporter {
    /// True while requests are answered: once a model is loaded, and until the daemon stops.
    pub(crate) fn is_ready(&self) -> bool {
        // The inbox is closed first when the daemon ends, and no request could be taken from then on.
        !self.queue.inbox.is_closed() && self.model.info().is_some()
    }

    /// The state of the daemon.
    pub(crate) fn status(&self) -> StatusRecord {
        StatusRecord {
            schema: SCHEMA,
            unix_ms: unix_ms(),
            uptime_s: self.began.elapsed().as_secs(),
            ready: self.is_ready(),
            source: self.source(),
            queue: self.queue.inbox.waiting(),
            queue_max: self.queue.inbox.capacity(),
            rss_bytes: rss_now(),
            temperature_c: temperature(),
            bundle: self.model.bundle(),
            changing: self.model.change(),
            recording: self.archive.report(),
        }
    }

    fn source(&self) -> SourceRecord {
        let (settings, health) = (self.feed.settings(), self.feed.status().health());
        let (state, problem) = match health.state {
            SourceState::Absent => ("none", None),
            SourceState::Opening => ("opening", None),
            SourceState::Streaming => ("streaming", None),
            SourceState::Reopening(problem) => ("lost", Some(problem)),
        };
        let since = health.since.duration_since(SystemTime::UNIX_EPOCH);
        SourceRecord {
            name: settings.map(|settings| settings.spec.to_string()),
            state: state.into(),
            problem,
            since_unix_ms: since.map_or(0, |since| since.as_millis() as u64),
            frames: health.frames + health.cut,
            classified: self.metrics.frames_classified.get(),
            failed: self.metrics.frames_failed.get() + health.cut,
            damaged: self.metrics.frames_damaged.get() + health.cut,
            dropped: self.queue.inbox.dropped(),
            reopens: health.reopens,
            waiting: health.waiting,
        }
    }

    /// The daemon, its model and its state.
    pub(crate) fn info(&self) -> InfoRecord {
        InfoRecord {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            listening: self.listening.clone(),
            model: self.model.info().map(|model| model.record.clone()),
            status: self.status(),
        }
    }

    /// A line for the log: model, source and places.
    pub(crate) fn in_short(&self) -> String {
        let model = self.model.info();
        let model = model
            .map_or_else(String::new, |model| format!("{} with {} labels", model.record.bundle, model.record.labels));
        let source = self.feed.settings();
        let source = source.map_or_else(|| "no source".into(), |settings| format!("source {}", settings.spec));
        format!("{model}, {source}, listening on {}", self.listening.join(" and "))
    }

    /// The metrics' text, sampled now.
    pub(crate) fn metrics_text(&self) -> String {
        self.metrics.text(&self.sample())
    }

    fn sample(&self) -> Sample {
        let status = self.status();
        let recorded =
            status.recording.map_or((0, 0, 0), |recording| (recording.committed, recording.missed, recording.bytes));
        Sample {
            frames_dropped: status.source.dropped,
            frames_received: status.source.frames,
            reopens: status.source.reopens,
            waiting: status.source.waiting,
            source_up: status.source.state == "streaming",
            queue: status.queue,
            rss_bytes: status.rss_bytes,
            temperature_c: status.temperature_c,
            uptime_s: status.uptime_s,
            recorded,
            on_trial: status.bundle.as_ref().is_some_and(|bundle| bundle.is_on_trial()),
            bundle_version: status.bundle.and_then(|bundle| Some(bundle.signed?.version)),
        }
    }
}
