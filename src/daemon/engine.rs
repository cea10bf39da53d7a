//! The thread that owns the model: requests and frames, one at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::protocol::{DecisionRecord, HistoryPoint, SCHEMA, ViewRecord};
use super::shared::{Latest, ModelInfo, Shared};
use crate::answerer::{Answerer, Outcome};
use crate::bundle::Bundle;
use crate::classifier::{CacheUse, Classifier};
use crate::device::temperature;
use crate::error::Result;
use crate::head::HeadKind;
use crate::limits::CACHE_FLUSH_MS;
use crate::pulse::Pulse;
use crate::recording::{RecordedFrame, RecordedSettings};
use crate::report::{ImageRecord, png_bytes};
use crate::rows::{argmax, softmax, top};
use crate::stream::{Decision, Frame, Taken, decide};

/// Answers listed for a frame (count).
const TOP_OF_FRAMES: usize = 5;
/// How often an idle engine shows that it lives (milliseconds).
const IDLE_MS: u64 = 500;

/// What a client wants.
pub struct Request {
    /// The image file.
    pub bytes: Vec<u8>,
    /// Another number of views.
    pub views: Option<usize>,
    /// Another head.
    pub head: Option<HeadKind>,
    /// Answers to list.
    pub top: usize,
    /// Cancelled when the client is gone or its deadline has passed.
    pub pulse: Pulse,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<ImageRecord>>,
}

/// What the engine does besides looking at frames.
pub enum Job {
    /// Classifies a client's image.
    Classify(Box<Request>),
    /// Takes on a model.
    Install(Box<Model>, oneshot::Sender<()>),
    /// Takes on other labels.
    Relabel(Arc<Answerer>, oneshot::Sender<()>),
}

/// A loaded model with its settings.
pub struct Model {
    bundle: Arc<Bundle>,
    classifier: Classifier,
    /// Heads that requests asked for, beside the model's own.
    heads: Vec<(HeadKind, Arc<Answerer>)>,
    recorded: Arc<RecordedSettings>,
    info: Arc<ModelInfo>,
}

impl Model {
    /// A model that has classified the bundle's golden image once, so that the first request is as fast as the next.
    ///
    /// # Errors
    /// The golden image cannot be classified.
    pub fn warmed_up(bundle: Arc<Bundle>, mut classifier: Classifier, pulse: &Pulse) -> Result<Self> {
        let views = classifier.extractor().settings().views;
        let golden = png_bytes(&bundle.goldens.image);
        let answerer = Arc::clone(classifier.answerer());
        classifier.classify_as(&golden, &views, &answerer, CacheUse::Bypass, pulse)?;
        let (recorded, info) = describe(&bundle, &classifier);
        Ok(Self { bundle, classifier, heads: Vec::new(), recorded, info })
    }

    /// What others may know of it.
    pub fn info(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    /// Answers with other labels from now on.
    fn relabel(&mut self, answerer: Arc<Answerer>) {
        self.classifier.answer_with(answerer);
        self.heads.clear();
        (self.recorded, self.info) = describe(&self.bundle, &self.classifier);
    }

    /// What answers with this head, made when it is first asked for.
    fn answerer(&mut self, head: Option<HeadKind>) -> Result<Arc<Answerer>> {
        let own = self.classifier.answerer();
        let Some(head) = head.filter(|&head| head != own.tuning().head) else { return Ok(Arc::clone(own)) };
        if let Some((_, answerer)) = self.heads.iter().find(|(kind, _)| *kind == head) {
            return Ok(Arc::clone(answerer));
        }
        let (labels, tuning) = (Arc::clone(own.labels()), own.tuning().with_head(head));
        let pool = self.classifier.extractor().pool();
        let answerer = Arc::new(pool.install(|| Answerer::new(&self.bundle, labels, tuning))?);
        self.heads.push((head, Arc::clone(&answerer)));
        Ok(answerer)
    }
}

fn describe(bundle: &Arc<Bundle>, classifier: &Classifier) -> (Arc<RecordedSettings>, Arc<ModelInfo>) {
    let recorded = Arc::new(RecordedSettings::of(classifier, &bundle.folder, &bundle.digest));
    (recorded, Arc::new(ModelInfo::of(Arc::clone(bundle), classifier)))
}

/// Works until the inbox is closed and empty.
pub fn run(shared: &Shared) {
    let mut model: Option<Box<Model>> = None;
    let mut flushed = Instant::now();
    loop {
        shared.beats.fetch_add(1, Ordering::Relaxed);
        match shared.inbox.take(Duration::from_millis(IDLE_MS)) {
            Taken::Job(Job::Classify(request)) => survive(|| classify(shared, model.as_deref_mut(), *request)),
            Taken::Job(Job::Install(new, done)) => {
                shared.set_model(new.info());
                model = Some(new);
                let _ = done.send(());
            }
            Taken::Job(Job::Relabel(answerer, done)) => {
                if let Some(model) = &mut model {
                    model.relabel(answerer);
                    shared.set_model(model.info());
                }
                let _ = done.send(());
            }
            Taken::Frame(frame) => {
                if let Some(model) = &mut model {
                    survive(|| look(shared, model, frame));
                }
            }
            Taken::Nothing => {}
            Taken::Closed => break,
        }
        if flushed.elapsed() >= Duration::from_millis(CACHE_FLUSH_MS) {
            shared.flush_cache();
            flushed = Instant::now();
        }
    }
    shared.flush_cache();
}

/// Runs something that a bug may make panic: the daemon goes on, and a client whose request it was is told.
fn survive(act: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(act)).is_err() {
        log::error!("the engine panicked over an image, and goes on with the next");
    }
}

fn classify(shared: &Shared, model: Option<&mut Model>, request: Request) {
    // A client that is gone while its request waited costs nothing.
    let Some(model) = model.filter(|_| !request.reply.is_closed()) else { return };
    let began = Instant::now();
    let Request { bytes, views, head, top, pulse, reply } = request;
    let result = model.answerer(head).and_then(|answerer| {
        let mut settings = model.classifier.extractor().settings().views;
        settings.count = views.unwrap_or(settings.count);
        let outcome = model.classifier.classify_as(&bytes, &settings, &answerer, CacheUse::Ask, &pulse)?;
        shared.metrics.classified(&outcome.timings, settings.count, shared.has_cache(), outcome.cached);
        let bundle = model.classifier.extractor().bundle_id();
        Ok(ImageRecord::new(Path::new("-"), bundle, &answerer, &outcome, top))
    });
    shared.note_service(began.elapsed());
    let _ = reply.send(result);
}

fn look(shared: &Shared, model: &mut Model, frame: Frame) {
    let name = frame.picture.name.clone().unwrap_or_else(|| format!("frame {}", frame.sequence));
    let asked = !frame.live && shared.has_cache();
    match decide(frame, &mut model.classifier, &shared.frame_pulse()) {
        Ok(decision) => {
            shared.source_status().judge(true);
            shared.metrics.frames_classified.inc();
            let Outcome { timings, views, cached, .. } = &decision.outcome;
            shared.metrics.classified(timings, views.count, asked, *cached);
            publish(shared, model, decision);
        }
        Err(error) => {
            shared.source_status().judge(false);
            shared.metrics.frames_failed.inc();
            log::warn!("{name} is not classified: {error}");
        }
    }
}

/// Hands a decision to all who want it: the page, the history, the recording.
fn publish(shared: &Shared, model: &Model, decision: Decision) {
    let Decision { sequence, unix_ms, name, file, outcome } = decision;
    let answerer = model.classifier.answerer();
    let path = name.clone().unwrap_or_else(|| format!("frame {sequence}"));
    let bundle = model.classifier.extractor().bundle_id();
    let image = ImageRecord::new(Path::new(&path), bundle, answerer, &outcome, TOP_OF_FRAMES);
    let file = Arc::new(file);
    if let Some(recorder) = shared.recorder.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
        let frame = RecordedFrame {
            sequence,
            unix_ms,
            name,
            offset: 0,
            length: 0,
            digest: image.digest.clone(),
            answer: image.top[0].clone(),
            zero_shot: image.zero_shot.clone(),
            tamper: outcome.tamper.map(|tamper| tamper.score),
            bits: outcome.answer_digest().to_hex().to_string(),
        };
        recorder.record(&model.recorded, frame, &file);
    }
    shared.history.add(HistoryPoint {
        unix_ms,
        decode: outcome.timings.decode,
        views: outcome.timings.views,
        encode: outcome.timings.encode,
        tune: outcome.timings.tune,
        total: outcome.timings.total,
        temperature_c: temperature(),
    });
    let views = view_records(answerer, &outcome);
    let plain = outcome.zero_shot();
    let listed = top(outcome.episode.prediction.view(), TOP_OF_FRAMES);
    let zero_shot = listed.into_iter().map(|class| plain[class]).collect();
    let dropped = shared.inbox.dropped();
    let record = DecisionRecord { schema: SCHEMA, sequence, unix_ms, dropped, image, zero_shot, views };
    shared.publish(Latest::new(&record, file, outcome.digest, outcome.views));
}

fn view_records(answerer: &Answerer, outcome: &Outcome) -> Vec<ViewRecord> {
    let names = answerer.labels().names();
    let rows = outcome.episode.logits.rows().into_iter().zip(&outcome.episode.weights).enumerate();
    rows.map(|(view, (logits, &weight))| {
        let best = argmax(logits);
        let (label, probability) = (names[best].clone(), softmax(logits)[best]);
        ViewRecord { label, probability, weight, selected: outcome.episode.selected.contains(&view) }
    })
    .collect()
}
