//! The thread that owns the model: requests and frames, one at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::protocol::{DecisionRecord, HistoryPoint, SCHEMA, ViewRecord};
use super::shared::{Latest, ModelInfo, Shared};
use crate::answer::Answer;
use crate::bundle::BundleContents;
use crate::cancellation::CancellationToken;
use crate::classifier::Classifier;
use crate::device::temperature;
use crate::error::Result;
use crate::extractor::CacheUse;
use crate::limits::CACHE_FLUSH_MS;
use crate::method::Method;
use crate::predictor::Predictor;
use crate::recording::{RecordedFrame, RecordedSettings};
use crate::report::{ImageRecord, png_bytes};
use crate::rows::{argmax, softmax, top};
use crate::stream::{Decision, Frame, Taken, decide};

/// Answers listed for a frame (count).
const TOP_OF_FRAMES: usize = 5;
/// How often an idle engine shows that it lives (milliseconds).
const IDLE_MS: u64 = 500;

/// What a client wants.
pub(crate) struct Request {
    /// The image file.
    pub bytes: Vec<u8>,
    /// Another number of views.
    pub views: Option<usize>,
    /// Another method.
    pub method: Option<Method>,
    /// Answers to list.
    pub top: usize,
    /// Cancelled when the client is gone or its deadline has passed.
    pub token: CancellationToken,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<ImageRecord>>,
}

/// What the engine does besides looking at frames.
pub(crate) enum Job {
    /// Classifies a client's image.
    Classify(Box<Request>),
    /// Takes on a model.
    Install(Box<Model>, oneshot::Sender<()>),
    /// Takes on other labels.
    Relabel(Arc<Predictor>, oneshot::Sender<()>),
}

/// A loaded model with its settings.
pub(crate) struct Model {
    bundle: Arc<BundleContents>,
    classifier: Classifier,
    /// Methods that requests asked for, beside the model's own.
    others: Vec<Classifier>,
    recorded: Arc<RecordedSettings>,
    info: Arc<ModelInfo>,
}

impl Model {
    /// A model that has classified the bundle's golden image once, so that the first request is as fast as the next.
    ///
    /// # Errors
    /// The golden image cannot be classified.
    pub(crate) fn warmed_up(
        bundle: Arc<BundleContents>,
        classifier: Classifier,
        token: &CancellationToken,
    ) -> Result<Self> {
        let golden = png_bytes(&bundle.goldens.image);
        classifier.classify_in(&golden, classifier.views(), CacheUse::Bypass, token)?;
        let (recorded, info) = describe(&bundle, &classifier);
        Ok(Self { bundle, classifier, others: Vec::new(), recorded, info })
    }

    /// What others may know of it.
    pub(crate) fn info(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    /// Answers with other labels from now on.
    fn relabel(&mut self, predictor: Arc<Predictor>) {
        self.classifier = self.classifier.with_predictor(predictor);
        self.others.clear();
        (self.recorded, self.info) = describe(&self.bundle, &self.classifier);
    }

    /// The classifier with this method, made when it is first asked for.
    fn classifier(&mut self, method: Option<Method>) -> Result<Classifier> {
        let own = &self.classifier;
        let Some(method) = method.filter(|&method| method != own.method().method()) else { return Ok(own.clone()) };
        if let Some(other) = self.others.iter().find(|other| other.method().method() == method) {
            return Ok(other.clone());
        }
        let (labels, settings) = (Arc::clone(own.predictor().labels()), own.method().with_method(method));
        let pool = own.extractor().pool();
        let predictor = pool.install(|| Predictor::new(&self.bundle, labels, settings))?;
        let other = own.with_predictor(Arc::new(predictor));
        self.others.push(other.clone());
        Ok(other)
    }
}

fn describe(bundle: &Arc<BundleContents>, classifier: &Classifier) -> (Arc<RecordedSettings>, Arc<ModelInfo>) {
    let recorded = Arc::new(RecordedSettings::of(classifier, &bundle.folder, &bundle.digest));
    (recorded, Arc::new(ModelInfo::of(Arc::clone(bundle), classifier)))
}

/// Works until the inbox is closed and empty.
pub(crate) fn run(shared: &Shared) {
    let mut model: Option<Box<Model>> = None;
    let mut flushed = Instant::now();
    loop {
        shared.checkpoints.fetch_add(1, Ordering::Relaxed);
        match shared.inbox.take(Duration::from_millis(IDLE_MS)) {
            Taken::Job(Job::Classify(request)) => survive(|| classify(shared, model.as_deref_mut(), *request)),
            Taken::Job(Job::Install(new, done)) => {
                shared.set_model(new.info());
                model = Some(new);
                let _ = done.send(());
            }
            Taken::Job(Job::Relabel(predictor, done)) => {
                if let Some(model) = &mut model {
                    model.relabel(predictor);
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
    let Request { bytes, views, method, top, token, reply } = request;
    let result = model.classifier(method).and_then(|classifier| {
        let mut settings = classifier.extractor().settings().views;
        settings.count = views.unwrap_or(settings.count);
        let answer = classifier.classify_in(&bytes, settings, CacheUse::LookUp, &token)?;
        let features = &answer.features;
        shared.metrics.classified(&answer.timings, features.views.count, shared.has_cache(), features.cached);
        Ok(ImageRecord::new(Path::new("-"), &answer, top))
    });
    shared.note_service(began.elapsed());
    let _ = reply.send(result);
}

fn look(shared: &Shared, model: &mut Model, frame: Frame) {
    let name = frame.picture.name.clone().unwrap_or_else(|| format!("frame {}", frame.sequence));
    let asked = !frame.live && shared.has_cache();
    match decide(frame, &model.classifier, &shared.frame_token()) {
        Ok(decision) => {
            shared.source_status().judge(true);
            shared.metrics.frames_classified.inc();
            let Answer { timings, features, .. } = &decision.answer;
            shared.metrics.classified(timings, features.views.count, asked, features.cached);
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
    let Decision { sequence, unix_ms, name, file, answer } = decision;
    let path = name.clone().unwrap_or_else(|| format!("frame {sequence}"));
    let image = ImageRecord::new(Path::new(&path), &answer, TOP_OF_FRAMES);
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
            tamper: answer.tamper.map(|tamper| tamper.score),
            bits: blake3::Hash::from(answer.digest()).to_hex().to_string(),
        };
        recorder.record(&model.recorded, frame, &file);
    }
    shared.history.add(HistoryPoint { unix_ms, timings: answer.timings, temperature_c: temperature() });
    let views = view_records(&answer);
    let plain = answer.zero_shot_probabilities();
    let listed = top(answer.decision.prediction.view(), TOP_OF_FRAMES);
    let zero_shot = listed.into_iter().map(|class| plain[class]).collect();
    let dropped = shared.inbox.dropped();
    let record = DecisionRecord { schema: SCHEMA, sequence, unix_ms, dropped, image, zero_shot, views };
    shared.publish(Latest::new(&record, file, answer.features.digest, answer.features.views));
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
