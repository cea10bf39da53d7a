//! What the parts of the daemon share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use super::engine::Job;
use super::history::History;
use super::metrics::{Metrics, Sample};
use super::protocol::{
    DecisionRecord, InfoRecord, LabelsOrigin, ModelRecord, RecordingRecord, SCHEMA, SourceRecord, StatusRecord,
};
use crate::bundle::BundleContents;
use crate::cache::FeatureCache;
use crate::calibration::labels_digest;
use crate::cancellation::CancellationToken;
use crate::classifier::Classifier;
use crate::device::{rss_now, temperature};
use crate::label_set::LabelSet;
use crate::method::MethodSettings;
use crate::recording::{Recorder, RecorderSettings};
use crate::source::{SourceSettings, SourceState, SourceStatus};
use crate::stream::{Inbox, unix_ms};
use crate::views::{Preprocessing, ViewSettings};

/// Events that wait for a slow watcher (count).
const EVENTS_PENDING: usize = 16;

/// An event for those who watch: its name and its JSON.
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
    /// Its BLAKE3.
    pub digest: blake3::Hash,
    /// The views it was seen in.
    pub views: ViewSettings,
}

impl Latest {
    /// A decision about an image file.
    pub(crate) fn new(record: &DecisionRecord, file: Arc<Vec<u8>>, digest: blake3::Hash, views: ViewSettings) -> Self {
        let json = serde_json::to_string(record).expect("a record is always JSON").into();
        Self { json, file, digest, views }
    }
}

/// What may be known of the model while the engine works with it.
pub(crate) struct ModelInfo {
    /// The bundle, but for its encoder, which is loaded.
    pub bundle: Arc<BundleContents>,
    /// The labels.
    pub labels: Arc<LabelSet>,
    /// The method and its parameters.
    pub method: MethodSettings,
    /// How pixels become the encoder's input.
    pub preprocessing: Preprocessing,
    /// For clients.
    pub record: ModelRecord,
}

impl ModelInfo {
    /// Of a classifier made with `bundle`.
    pub(crate) fn of(bundle: Arc<BundleContents>, classifier: &Classifier) -> Self {
        let extractor = classifier.extractor();
        let views = classifier.views();
        let record = ModelRecord {
            bundle: extractor.bundle_id().into(),
            folder: bundle.folder.display().to_string(),
            labels: classifier.labels().names().len(),
            method: classifier.method().method(),
            head: classifier.method().method(),
            views: views.count,
            seed: views.seed,
            batch: extractor.batch().batch,
            threads: extractor.pool().current_num_threads(),
            resolution: extractor.preprocessing().resolution,
        };
        Self {
            labels: Arc::clone(classifier.predictor().labels()),
            method: *classifier.method(),
            preprocessing: *extractor.preprocessing(),
            bundle,
            record,
        }
    }
}

/// The state of a running daemon.
pub(crate) struct Shared {
    /// Requests and frames for the engine.
    pub inbox: Inbox<Job>,
    /// Checkpoints that the engine has passed (count): where it grows the engine is alive.
    pub checkpoints: Arc<AtomicU64>,
    /// Counters and measurements.
    pub metrics: Metrics,
    /// The last minutes.
    pub history: History,
    /// The recorder, if there is one.
    pub recorder: RwLock<Option<Recorder>>,
    model: RwLock<Option<Arc<ModelInfo>>>,
    labels_origin: RwLock<LabelsOrigin>,
    latest: RwLock<Option<Arc<Latest>>>,
    events: broadcast::Sender<Event>,
    source: RwLock<Option<SourceSettings>>,
    source_status: Arc<SourceStatus>,
    frames: AtomicU64,
    recording: RwLock<Option<RecorderSettings>>,
    cache: Option<Arc<FeatureCache>>,
    listening: Vec<String>,
    stopping: AtomicBool,
    /// The frame the engine works on.
    frame: Mutex<CancellationToken>,
    began: Instant,
    /// How long requests take the engine (microseconds), a moving mean.
    service_us: AtomicU64,
}

impl Shared {
    /// A daemon that has nothing yet, with room for `queue` requests, listening at these places.
    pub(crate) fn new(queue: usize, cache: Option<Arc<FeatureCache>>, listening: Vec<String>) -> Self {
        Self {
            listening,
            inbox: Inbox::new(queue),
            checkpoints: Arc::default(),
            metrics: Metrics::new(),
            history: History::default(),
            recorder: RwLock::default(),
            model: RwLock::default(),
            labels_origin: RwLock::new(LabelsOrigin::Configured),
            latest: RwLock::default(),
            events: broadcast::channel(EVENTS_PENDING).0,
            source: RwLock::default(),
            source_status: Arc::default(),
            frames: AtomicU64::new(0),
            recording: RwLock::default(),
            cache,
            stopping: AtomicBool::new(false),
            frame: Mutex::default(),
            began: Instant::now(),
            service_us: AtomicU64::new(0),
        }
    }

    /// The cache of features, if there is one.
    pub(crate) fn cache(&self) -> Option<&Arc<FeatureCache>> {
        self.cache.as_ref()
    }

    /// Whether there is a cache.
    pub(crate) fn has_cache(&self) -> bool {
        self.cache.is_some()
    }

    /// Writes what the cache has not written yet.
    pub(crate) fn flush_cache(&self) {
        if let Some(cache) = &self.cache {
            cache.flush();
        }
    }

    /// The model, once it is loaded and warm.
    pub(crate) fn model(&self) -> Option<Arc<ModelInfo>> {
        self.model.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says which model answers from now on.
    pub(crate) fn set_model(&self, info: &Arc<ModelInfo>) {
        *self.model.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(info));
    }

    /// Where the labels in force come from.
    pub(crate) fn labels_origin(&self) -> LabelsOrigin {
        *self.labels_origin.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says where the labels in force come from, and has watchers look at them again.
    pub(crate) fn set_labels_origin(&self, origin: LabelsOrigin) {
        *self.labels_origin.write().unwrap_or_else(PoisonError::into_inner) = origin;
        self.tell("labels", "{}".into());
    }

    /// A tag for the labels in force, which changes when they do.
    pub(crate) fn labels_tag(&self) -> String {
        self.model().map_or_else(String::new, |model| format!("\"{}\"", &labels_digest(&model.labels)[..16]))
    }

    /// The latest decision.
    pub(crate) fn latest(&self) -> Option<Arc<Latest>> {
        self.latest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a decision the latest and tells all who watch.
    pub(crate) fn publish(&self, latest: Latest) {
        let latest = Arc::new(latest);
        let json = Arc::clone(&latest.json);
        *self.latest.write().unwrap_or_else(PoisonError::into_inner) = Some(latest);
        self.tell("decision", json);
    }

    /// Tells all who watch.
    pub(crate) fn tell(&self, name: &'static str, json: Arc<str>) {
        // That nobody watches is no failure.
        let _ = self.events.send(Event { name, json });
    }

    /// Future events.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Clients that watch (count).
    pub(crate) fn watchers(&self) -> usize {
        self.events.receiver_count()
    }

    /// The state of the source, whichever it is.
    pub(crate) fn source_status(&self) -> &Arc<SourceStatus> {
        &self.source_status
    }

    /// The source there is.
    pub(crate) fn source(&self) -> Option<SourceSettings> {
        self.source.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says which source there is.
    pub(crate) fn set_source(&self, settings: Option<SourceSettings>) {
        *self.source.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// The number of a new frame.
    pub(crate) fn next_frame(&self) -> u64 {
        self.frames.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What is recorded.
    pub(crate) fn recording(&self) -> Option<RecorderSettings> {
        self.recording.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a recorder in the place of the present one, which finishes what it has.
    pub(crate) fn set_recorder(&self, settings: Option<RecorderSettings>, recorder: Option<Recorder>) {
        *self.recording.write().unwrap_or_else(PoisonError::into_inner) = settings;
        let old = std::mem::replace(&mut *self.recorder.write().unwrap_or_else(PoisonError::into_inner), recorder);
        drop(old);
    }

    /// Says that the daemon is about to end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.inbox.close();
    }

    /// A token for a frame that the engine begins with.
    pub(crate) fn frame_token(&self) -> CancellationToken {
        let token = CancellationToken::counted_in(&self.checkpoints);
        *self.frame.lock().unwrap_or_else(PoisonError::into_inner) = token.clone();
        token
    }

    /// Has the engine give up the frame it works on.
    pub(crate) fn cancel_frame(&self) {
        self.frame.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    /// Whether requests are answered.
    pub(crate) fn is_ready(&self) -> bool {
        !self.stopping.load(Ordering::Relaxed) && self.model().is_some()
    }

    /// Notes how long the engine took over a request.
    pub(crate) fn note_service(&self, took: Duration) {
        let (took, mean) = (took.as_micros() as u64, self.service_us.load(Ordering::Relaxed));
        self.service_us.store(if mean == 0 { took } else { (7 * mean + took) / 8 }, Ordering::Relaxed);
    }

    /// After how many seconds a refused client may find room: when half of the queue is done, at least one.
    pub(crate) fn retry_after_s(&self) -> u64 {
        let half = self.inbox.waiting() as u64 / 2;
        (half * self.service_us.load(Ordering::Relaxed)).div_ceil(1_000_000).clamp(1, 60)
    }

    /// How the daemon is.
    pub(crate) fn status(&self) -> StatusRecord {
        let recording = self.recording();
        let recorder = self.recorder.read().unwrap_or_else(PoisonError::into_inner);
        let recording = recording.zip(recorder.as_ref()).map(|(settings, recorder)| {
            let status = recorder.status();
            RecordingRecord {
                folder: settings.folder.display().to_string(),
                bytes: status.bytes.load(Ordering::Relaxed),
                bytes_max: settings.max_mb << 20,
                committed: status.committed.load(Ordering::Relaxed),
                missed: status.missed.load(Ordering::Relaxed),
                problem: status.problem(),
            }
        });
        StatusRecord {
            schema: SCHEMA,
            unix_ms: unix_ms(),
            uptime_s: self.began.elapsed().as_secs(),
            ready: self.is_ready(),
            source: self.source_record(),
            queue: self.inbox.waiting(),
            queue_max: self.inbox.capacity(),
            rss_bytes: rss_now(),
            temperature_c: temperature(),
            recording,
        }
    }

    fn source_record(&self) -> SourceRecord {
        let (settings, health) = (self.source(), self.source_status.health());
        let (state, problem) = match health.state {
            SourceState::Absent => ("none", None),
            SourceState::Opening => ("opening", None),
            SourceState::Streaming => ("streaming", None),
            SourceState::Reopening(problem) => ("lost", Some(problem)),
        };
        let since = health.since.duration_since(std::time::SystemTime::UNIX_EPOCH);
        SourceRecord {
            name: settings.map(|settings| settings.spec.to_string()),
            state: state.into(),
            problem,
            since_unix_ms: since.map_or(0, |since| since.as_millis() as u64),
            frames: health.frames,
            classified: self.metrics.frames_classified.get(),
            failed: self.metrics.frames_failed.get(),
            dropped: self.inbox.dropped(),
            reopens: health.reopens,
        }
    }

    /// What the daemon is.
    pub(crate) fn info(&self) -> InfoRecord {
        InfoRecord {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            listening: self.listening.clone(),
            model: self.model().map(|model| model.record.clone()),
            status: self.status(),
        }
    }

    /// What the daemon is, in a line.
    pub(crate) fn in_short(&self) -> String {
        let model = self
            .model()
            .map_or_else(String::new, |model| format!("{} with {} labels", model.record.bundle, model.record.labels));
        let source = self.source().map_or_else(|| "no source".into(), |settings| format!("source {}", settings.spec));
        format!("{model}, {source}, listening on {}", self.listening.join(" and "))
    }

    /// What the metrics sample.
    pub(crate) fn sample(&self) -> Sample {
        let status = self.status();
        let recorded =
            status.recording.map_or((0, 0, 0), |recording| (recording.committed, recording.missed, recording.bytes));
        Sample {
            frames_dropped: status.source.dropped,
            frames_received: status.source.frames,
            reopens: status.source.reopens,
            source_up: status.source.state == "streaming",
            queue: status.queue,
            rss_bytes: status.rss_bytes,
            temperature_c: status.temperature_c,
            uptime_s: status.uptime_s,
            recorded,
        }
    }
}
