//! The thread that owns the model: requests and frames, one at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::archive::Archive;
use super::body::Body;
use super::events::{Events, Latest};
use super::feed::Feed;
use super::health::Health;
use super::history::History;
use super::metrics::Metrics;
use super::model::Model;
use super::model_in_force::{ModelInForce, ModelInfo};
use super::progress::Progress;
use super::protocol::{DecisionRecord, HistoryPoint, SCHEMA, ViewRecord};
use super::queue::Queue;
use crate::answer::Answer;
use crate::cache::FeatureCache;
use crate::cancellation::CancellationToken;
use crate::classifier::ViewPlan;
use crate::device::temperature;
use crate::encoder::EncoderError;
use crate::error::{Category, Error, Result};
use crate::extractor::{CacheUse, Features};
use crate::limits::CACHE_FLUSH_MS;
use crate::method::Method;
use crate::predictor::Predictor;
use crate::recording::RecordedDecision;
use crate::report::ImageRecord;
use crate::rows::{argmax, softmax, top};
use crate::stream::{Decision, Frame, Taken, decide};
use crate::views::{ImageError, ViewSettings};

/// Answers listed for a frame (count).
const TOP_OF_FRAMES: usize = 5;
/// Interval at which an idle engine shows that it lives (milliseconds).
const IDLE_MS: u64 = 500;

/// A client's request.
pub(crate) struct Request {
    /// The image file, with its share of the memory: that is taken until the engine lets go of it, whether the client
    /// waits or not.
    pub body: Body,
    /// Another number of views.
    pub views: Option<usize>,
    /// Another method.
    pub method: Option<Method>,
    /// Answers to list (count).
    pub top: usize,
    /// Cancelled when the client is gone or its deadline has passed.
    pub token: CancellationToken,
    /// The way back to the client.
    pub reply: oneshot::Sender<Result<ImageRecord>>,
}

/// A client's image whose features are asked for.
pub(crate) struct Look {
    /// The image file, as that of a [`Request`].
    pub body: Body,
    /// Cancelled when the client is gone or its deadline has passed.
    pub token: CancellationToken,
    /// The way back to the client.
    pub reply: oneshot::Sender<Result<Features>>,
}

/// Work for the engine besides frames.
pub(crate) enum Job {
    /// Classifies a client's image.
    Classify(Box<Request>),
    /// Encodes the clean view of a client's image.
    See(Look),
    /// Takes on a model.
    Install(Box<Model>, oneshot::Sender<()>),
    /// Takes on other labels.
    Relabel(Arc<Predictor>, oneshot::Sender<()>),
}

/// The engine: the parts of the daemon that it works with.
pub(crate) struct Engine {
    /// Requests and frames.
    pub queue: Arc<Queue>,
    /// Progress for the watchdog.
    pub progress: Arc<Progress>,
    /// The model in force.
    pub model: Arc<ModelInForce>,
    /// Source of the frames, which notes those that cannot be decoded.
    pub feed: Arc<Feed>,
    /// Watchers of the decisions.
    pub events: Arc<Events>,
    /// Recording of the decisions.
    pub archive: Arc<Archive>,
    /// Counters and measurements.
    pub metrics: Arc<Metrics>,
    /// Measurements of the last minutes.
    pub history: Arc<History>,
    /// What a trial is judged by.
    pub health: Arc<Health>,
    /// Cache of features, if there is one.
    pub cache: Option<Arc<FeatureCache>>,
}

impl Engine {
    /// Works until the inbox is closed and empty.
    pub(crate) fn run(&self) {
        let mut model: Option<Box<Model>> = None;
        let mut flushed = Instant::now();
        loop {
            self.progress.checkpoint();
            match self.queue.inbox.take(Duration::from_millis(IDLE_MS)) {
                Taken::Job(Job::Classify(request)) => self.survive(|| self.classify(model.as_deref_mut(), *request)),
                Taken::Job(Job::See(look)) => self.survive(|| self.see(model.as_deref(), look)),
                Taken::Job(Job::Install(new, done)) => {
                    // Set by the engine and not by the updater: what is read as in force is what the next image is
                    // answered with.
                    let id = |info: &ModelInfo| info.record.bundle.clone();
                    self.health.take_on(self.model.info().map(|old| id(&old)) != Some(id(new.info())));
                    self.model.set(new.info());
                    model = Some(new);
                    // Whoever waited may be gone when the daemon ends; the model is in force all the same.
                    let _ = done.send(());
                }
                Taken::Job(Job::Relabel(predictor, done)) => {
                    if let Some(model) = &mut model {
                        model.relabel(predictor);
                        self.model.set(model.info());
                    }
                    let _ = done.send(());
                }
                Taken::Frame(frame) => {
                    if let Some(model) = &model {
                        self.survive(|| self.look(model, frame));
                    }
                }
                Taken::Nothing => {}
                Taken::Closed => break,
            }
            // Features are written in groups. An engine with little to do would keep a group from the disk for hours.
            if flushed.elapsed() >= Duration::from_millis(CACHE_FLUSH_MS) {
                self.flush_cache();
                flushed = Instant::now();
            }
        }
        self.flush_cache();
    }

    fn flush_cache(&self) {
        if let Some(cache) = &self.cache {
            cache.flush();
        }
    }

    fn classify(&self, model: Option<&mut Model>, request: Request) {
        // A client that is gone while its request waited costs nothing.
        let Some(model) = model.filter(|_| !request.reply.is_closed()) else { return };
        let began = Instant::now();
        let Request { body, views, method, top, token, reply } = request;
        // One expression, so that every way to fail reaches the client that waits.
        let result = model.with_method(method).and_then(|classifier| {
            let mut plan = classifier.plan();
            if let Some(count) = views {
                // Who names a number has exactly that.
                plan =
                    ViewPlan { views: ViewSettings { count, ..classifier.extractor().settings().views }, rounds: None };
            }
            let answer = classifier.classify_in(&body.bytes, plan, CacheUse::LookUp, &token)?;
            self.health.note_answer(&answer);
            let features = &answer.features;
            self.metrics.classified(&answer.timings, features.views.count, self.cache.is_some(), features.cached);
            Ok(ImageRecord::new(Path::new("-"), &answer, top))
        });
        result.as_ref().err().inspect(|error| self.note_error(error));
        self.queue.note_service(began.elapsed());
        let _ = reply.send(result);
    }

    fn see(&self, model: Option<&Model>, look: Look) {
        let Some(model) = model.filter(|_| !look.reply.is_closed()) else { return };
        let began = Instant::now();
        let Look { body, token, reply } = look;
        let extractor = model.own().extractor();
        let clean = ViewSettings { count: 1, ..extractor.settings().views };
        let result = extractor.features_in(&body.bytes, &clean, CacheUse::LookUp, &token);
        result.as_ref().err().inspect(|error| self.note_error(error));
        self.queue.note_service(began.elapsed());
        let _ = reply.send(result);
    }

    fn look(&self, model: &Model, frame: Frame) {
        let file = frame.picture.name.clone();
        let name = file.clone().unwrap_or_else(|| format!("frame {}", frame.sequence));
        // A camera's frames bypass the cache, and would count as misses.
        let asked = !frame.live && self.cache.is_some();
        match decide(frame, model.own(), &self.progress.frame_token()) {
            Ok(decision) => {
                self.feed.status().judge(true);
                self.feed.status().note_success(file.as_deref());
                self.health.note_answer(&decision.answer);
                self.metrics.frames_classified.inc();
                let Answer { timings, features, .. } = &decision.answer;
                self.metrics.classified(timings, features.views.count, asked, features.cached);
                self.publish(model, decision);
            }
            Err(error) => {
                self.feed.status().judge(false);
                self.note_error(&error);
                self.metrics.frames_failed.inc();
                if matches!(error, Error::Image(ImageError::Damaged { .. })) {
                    self.metrics.frames_damaged.inc();
                }
                if self.feed.status().is_new_failure(file.as_deref()) {
                    log::warn!("{name} is not classified: {error}");
                }
            }
        }
    }

    /// Notes an error that is the model's and not the image's.
    fn note_error(&self, error: &Error) {
        let of_features = matches!(error, Error::Encoder(EncoderError::NotFinite { .. } | EncoderError::Zero { .. }));
        if of_features || error.category() == Category::Bundle {
            self.health.note_fault();
        }
    }

    /// Runs something that may panic because of a bug. The daemon goes on; the client whose request it was gets an error.
    fn survive(&self, act: impl FnOnce()) {
        // Going on is safe: the state of an image is its own, and what images share is put in place when it is whole.
        if catch_unwind(AssertUnwindSafe(act)).is_err() {
            self.health.note_fault();
            log::error!("the engine panicked over an image, and goes on with the next");
        }
    }

    /// Hands a decision to the recording, the history and the watchers.
    fn publish(&self, model: &Model, decision: Decision) {
        let Decision { sequence, unix_ms, name, file, answer } = decision;
        let path = name.clone().unwrap_or_else(|| format!("frame {sequence}"));
        let image = ImageRecord::new(Path::new(&path), &answer, TOP_OF_FRAMES);
        let file = Arc::new(file);
        self.archive.record(model.recorded(), &file, || RecordedDecision {
            sequence,
            unix_ms,
            name,
            digest: image.digest.clone(),
            answer: image.top[0].clone(),
            zero_shot: image.zero_shot.clone(),
            views_used: image.views_used,
            tamper: answer.tamper.map(|tamper| tamper.score),
            bits: blake3::Hash::from(answer.digest()).to_hex().to_string(),
        });
        self.history.add(HistoryPoint { unix_ms, timings: answer.timings, temperature_c: temperature() });
        let views = view_records(&answer);
        let plain = answer.zero_shot_probabilities();
        let listed = top(answer.decision.prediction.view(), TOP_OF_FRAMES);
        let zero_shot = listed.into_iter().map(|class| plain[class]).collect();
        let dropped = self.queue.inbox.dropped();
        let record = DecisionRecord { schema: SCHEMA, sequence, unix_ms, dropped, image, zero_shot, views };
        let preprocessing = *model.own().extractor().preprocessing();
        let features = &answer.features;
        self.events.publish(Latest::new(&record, file, features.digest, features.views, preprocessing));
    }
}

fn view_records(answer: &Answer) -> Vec<ViewRecord> {
    let names = answer.labels.names();
    let rows = answer.decision.logits.rows().into_iter().zip(&answer.decision.weights).enumerate();
    rows.map(|(view, (logits, &weight))| {
        let best = argmax(logits);
        let (label, probability) = (names[best].clone(), softmax(logits)[best]);
        ViewRecord { label, probability, weight, selected: answer.decision.selected.contains(&view) }
    })
    .collect()
}
