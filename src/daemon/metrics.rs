//! Counters and measurements of the daemon, in the text format of Prometheus (OpenMetrics).

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::timings::Timings;

/// The media type of the text.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper ends of the histograms' bins (seconds): from a cached answer to a large model on a small board.
const BINS_S: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper ends of the bins for views a frame (count).
const VIEW_BINS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    path: String,
    status: u32,
}

/// All metrics.
pub(crate) struct Metrics {
    registry: Registry,
    stages: Family<Stage, Histogram>,
    views: Histogram,
    requests: Family<Answered, Counter>,
    cache_hits: Counter,
    cache_misses: Counter,
    /// Frames that were classified.
    pub frames_classified: Counter,
    /// Frames that could not be classified.
    pub frames_failed: Counter,
    /// Frames among these whose files were damaged.
    pub frames_damaged: Counter,
    /// Connections that are open.
    pub connections: Gauge,
    sampled: Sampled,
    /// Held while a text is made, one at a time: its values are sampled then.
    making: Mutex<()>,
}

/// Values that are read elsewhere when somebody asks.
#[derive(Default)]
struct Sampled {
    frames_dropped: Counter,
    frames_received: Counter,
    reopens: Counter,
    waiting: Gauge<f64, AtomicU64>,
    source_up: Gauge<f64, AtomicU64>,
    queue: Gauge<f64, AtomicU64>,
    rss: Gauge<f64, AtomicU64>,
    temperature: Gauge<f64, AtomicU64>,
    uptime: Gauge<f64, AtomicU64>,
    recorded: Counter,
    record_missed: Counter,
    record_bytes: Gauge<f64, AtomicU64>,
    on_trial: Gauge<f64, AtomicU64>,
    bundle_version: Gauge<f64, AtomicU64>,
}

/// The values of [`Sampled`] at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Frames dropped for later ones (count).
    pub frames_dropped: u64,
    /// Frames that the source gave (count).
    pub frames_received: u64,
    /// Times the source was opened again (count).
    pub reopens: u64,
    /// Files of a watched folder that wait for their turn (count).
    pub waiting: u64,
    /// True while frames come.
    pub source_up: bool,
    /// Requests that wait (count).
    pub queue: usize,
    /// Resident memory (bytes).
    pub rss_bytes: Option<u64>,
    /// The hottest sensor (°C).
    pub temperature_c: Option<f64>,
    /// Time since the start (seconds).
    pub uptime_s: u64,
    /// Frames on the disk, frames missed (count), and size (bytes) of the recording.
    pub recorded: (u64, u64, u64),
    /// True while the bundle in force is on trial.
    pub on_trial: bool,
    /// Version of the bundle in force, if it is signed and keys are trusted.
    pub bundle_version: Option<u64>,
}

impl Metrics {
    /// All metrics, at zero.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("rtpt");
        let stages = Family::<Stage, Histogram>::new_with_constructor(|| Histogram::new(BINS_S));
        let views = Histogram::new(VIEW_BINS);
        let requests = Family::<Answered, Counter>::default();
        let [cache_hits, cache_misses, frames_classified, frames_failed, frames_damaged] =
            std::array::from_fn(|_| Counter::default());
        let connections = Gauge::default();
        let sampled = Sampled::default();
        let stage_help = "Time spent in each stage, of frames and requests";
        // A clone shares its value: the registry reads what the fields of this structure count.
        registry.register_with_unit("stage", stage_help, Unit::Seconds, stages.clone());
        registry.register("views_per_image", "Views an image was seen in", views.clone());
        registry.register("requests", "HTTP requests answered", requests.clone());
        registry.register("cache_hits", "Images whose features were in the cache", cache_hits.clone());
        registry.register("cache_misses", "Images that were encoded though a cache was asked", cache_misses.clone());
        registry.register("frames_classified", "Frames of the source that were classified", frames_classified.clone());
        registry.register("frames_failed", "Frames that could not be classified", frames_failed.clone());
        registry.register(
            "frames_damaged",
            "Frames with damaged files, which were not classified",
            frames_damaged.clone(),
        );
        registry.register("connections", "Open connections", connections.clone());
        let counters = [
            ("frames_received", "Frames the source gave", &sampled.frames_received),
            ("frames_dropped", "Frames dropped for later ones", &sampled.frames_dropped),
            ("source_reopens", "Times the source was opened again", &sampled.reopens),
            ("frames_recorded", "Frames that are on the disk", &sampled.recorded),
            ("frames_unrecorded", "Frames the disk was too slow or too full for", &sampled.record_missed),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let gauges = [
            ("source_up", "Whether frames come (1) or not (0)", &sampled.source_up),
            ("source_backlog", "Files of a watched folder that wait for their turn", &sampled.waiting),
            ("queue_length", "Requests that wait for the encoder", &sampled.queue),
            ("resident_memory_bytes", "Resident memory; NaN where the kernel does not tell", &sampled.rss),
            ("temperature_celsius", "The hottest sensor; NaN without one", &sampled.temperature),
            ("uptime_seconds", "Time since the start", &sampled.uptime),
            ("recording_bytes", "Size of the recording", &sampled.record_bytes),
            ("bundle_on_trial", "Whether the bundle in force is on trial (1) or not (0)", &sampled.on_trial),
            ("bundle_version", "Version of the bundle in force; NaN if none is signed", &sampled.bundle_version),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        Self {
            registry,
            stages,
            views,
            requests,
            cache_hits,
            cache_misses,
            frames_classified,
            frames_failed,
            frames_damaged,
            connections,
            sampled,
            making: Mutex::new(()),
        }
    }

    /// Notes an image that was classified; `asked` says whether a cache was.
    pub(crate) fn classified(&self, timings: &Timings, views: usize, asked: bool, hit: bool) {
        for (stage, milliseconds) in timings.stages() {
            self.stages.get_or_create(&Stage { stage }).observe(milliseconds / 1e3);
        }
        self.views.observe(views as f64);
        if hit {
            self.cache_hits.inc();
        } else if asked {
            self.cache_misses.inc();
        }
    }

    /// Notes a request that was answered; `path` is the route's, so that there are only so many.
    pub(crate) fn answered(&self, path: &str, status: u16) {
        self.requests.get_or_create(&Answered { path: path.into(), status: status.into() }).inc();
    }

    /// The text, with what was sampled just now.
    pub(crate) fn text(&self, sample: &Sample) -> String {
        // Two texts at once would mix their samples.
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let sampled = &self.sampled;
        let (recorded, missed, bytes) = sample.recorded;
        for (counter, value) in [
            (&sampled.frames_dropped, sample.frames_dropped),
            (&sampled.frames_received, sample.frames_received),
            (&sampled.reopens, sample.reopens),
            (&sampled.recorded, recorded),
            (&sampled.record_missed, missed),
        ] {
            // The counts are kept elsewhere; here they are only shown, so they are set and not added to.
            counter.inner().store(value, Ordering::Relaxed);
        }
        sampled.source_up.set(f64::from(u8::from(sample.source_up)));
        sampled.waiting.set(sample.waiting as f64);
        sampled.queue.set(sample.queue as f64);
        sampled.rss.set(sample.rss_bytes.map_or(f64::NAN, |bytes| bytes as f64));
        sampled.temperature.set(sample.temperature_c.unwrap_or(f64::NAN));
        sampled.uptime.set(sample.uptime_s as f64);
        sampled.record_bytes.set(bytes as f64);
        sampled.on_trial.set(f64::from(u8::from(sample.on_trial)));
        sampled.bundle_version.set(sample.bundle_version.map_or(f64::NAN, |version| version as f64));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to memory does not fail");
        text
    }
}
