//! Changes of a running daemon: its model, labels, source and recording.
//!
//! A new part is made beside the one in force and put in its place when it is whole; where that fails, the old stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use super::archive::{Archive, Running};
use super::bundles_in_force::Bundles;
use super::edited_labels::EditedLabels;
use super::engine::Job;
use super::events::Events;
use super::feed::Feed;
use super::health::Verdict;
use super::model::Model;
use super::model_in_force::ModelInForce;
use super::protocol::{BundleRecord, LabelsOrigin};
use super::queue::Queue;
use super::refusal::Refused;
use crate::bundle::{Bundle, BundleError};
use crate::cache::FeatureCache;
use crate::cancellation::{CancellationToken, Cancelled};
use crate::classifier::{Classifier, ClassifierSettings};
use crate::error::{Category, Error, Result};
use crate::extractor::{Features, worker_pool};
use crate::label_set::LabelSet;
use crate::labels::Labels;
use crate::predictor::Predictor;
use crate::recording::{Recorder, RecorderSettings};
use crate::signing::SignedFacts;
use crate::source::SourceSettings;
use crate::text::Prompt;
use crate::wording::{counted, quoted};

/// The choices of flags and configuration.
pub(crate) struct Loaded {
    /// The model.
    pub bundle: Bundle,
    /// What its signature says, if keys are trusted.
    pub signed: Option<SignedFacts>,
    /// Settings of the model.
    pub settings: ClassifierSettings,
    /// The labels; the bundle's if there are none.
    pub labels: Option<Labels>,
    /// Prompt around a label.
    pub prompt: Prompt,
    /// The source of frames.
    pub source: Option<SourceSettings>,
    /// The recording.
    pub recording: Option<RecorderSettings>,
}

/// Function that reads flags and configuration and opens the bundle, anew with each call.
pub(crate) type Loader = Box<dyn Fn() -> Result<Loaded> + Send + Sync>;

/// Pause before a bundle that is not there is looked for again.
const RETRY: Duration = Duration::from_millis(500);

/// Changes to a running daemon, one at a time.
pub(crate) struct Updater {
    parts: Changeable,
    loader: Loader,
    edited: EditedLabels,
    /// Folder of this device's choices and label embeddings.
    cache_folder: Option<PathBuf>,
    bundles: Bundles,
    one: AsyncMutex<()>,
}

/// The parts of the daemon that a change reaches.
pub(crate) struct Changeable {
    /// The way to the engine.
    pub queue: Arc<Queue>,
    /// The model in force.
    pub model: Arc<ModelInForce>,
    /// The source.
    pub feed: Arc<Feed>,
    /// The recording.
    pub archive: Arc<Archive>,
    /// Watchers, who get an event when the labels change.
    pub events: Arc<Events>,
    /// Cache of features, if there is one.
    pub cache: Option<Arc<FeatureCache>>,
}

impl Updater {
    /// An updater that has changed nothing yet.
    pub(crate) fn new(
        parts: Changeable,
        loader: Loader,
        edited: EditedLabels,
        cache_folder: Option<PathBuf>,
        bundles: Bundles,
    ) -> Self {
        Self { parts, loader, edited, cache_folder, bundles, one: AsyncMutex::default() }
    }

    /// Loads everything as flags and configuration say, and puts it in force.
    ///
    /// # Errors
    /// Something cannot be loaded; what was in force stays.
    pub(crate) async fn reload(self: &Arc<Self>) -> std::result::Result<(), Refused> {
        self.change(|this| Ok(this.load_all()?)).await
    }

    /// How the bundle's slots are, if there are any.
    pub(crate) fn bundle_record(&self) -> Option<BundleRecord> {
        self.parts.model.bundle()
    }

    /// Folder of the slots, if there are any.
    pub(crate) fn slots_folder(&self) -> Option<PathBuf> {
        self.bundles.folder()
    }

    /// Installs an archive into the free slot and puts it in force, on trial.
    ///
    /// # Errors
    /// It is no bundle that may be installed, or cannot be loaded; what was in force stays.
    pub(crate) async fn install_bundle(self: &Arc<Self>, archive: PathBuf) -> std::result::Result<(), Refused> {
        self.change(move |this| {
            this.install(&archive).map_err(Refused::of_sent)?;
            this.load_all()?;
            // Loading it may have been its end.
            match this.bundles.why_given_up() {
                Some(why) => Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "bundle_given_up", why)),
                None => Ok(()),
            }
        })
        .await
    }

    fn install(&self, archive: &Path) -> Result<()> {
        let _changing = self.parts.model.begin_change("bundle", None);
        self.bundles.install(archive)
    }

    /// Confirms the bundle on trial.
    ///
    /// # Errors
    /// The state of the slots cannot be written.
    pub(crate) async fn confirm_bundle(self: &Arc<Self>) -> std::result::Result<(), Refused> {
        self.change(|this| Ok(this.bundles.confirm()?)).await
    }

    /// Gives up the bundle in force for the one before it.
    ///
    /// # Errors
    /// There is none before it, or it cannot be loaded.
    pub(crate) async fn give_up_bundle(self: &Arc<Self>, why: String) -> std::result::Result<(), Refused> {
        self.change(move |this| {
            this.bundles.go_back(&why)?;
            Ok(this.load()?)
        })
        .await
    }

    /// Ends the trial of the bundle in force, where what it has shown decides.
    pub(crate) fn judge_trial(self: &Arc<Self>) {
        let is_fed = self.parts.feed.settings().is_some();
        match self.bundles.verdict(is_fed) {
            Verdict::Open => {}
            Verdict::Confirm => {
                let this = Arc::clone(self);
                tokio::spawn(async move {
                    if let Err(refused) = this.confirm_bundle().await {
                        log::error!("the bundle on trial cannot be confirmed: {refused}");
                    }
                });
            }
            Verdict::GiveUp(why) => {
                let this = Arc::clone(self);
                tokio::spawn(async move {
                    if let Err(refused) = this.give_up_bundle(why).await {
                        log::error!("the bundle on trial cannot be given up: {refused}");
                    }
                });
            }
        }
    }

    /// Notes that the daemon ends as it should.
    pub(crate) fn note_end(&self) {
        self.bundles.note_end();
    }

    /// Changes the labels, or goes back to the configured ones; if a tag is given, only if those in force have it. If examples
    /// are kept, labels that stay have theirs as before.
    ///
    /// # Errors
    /// The labels in force have another tag, or the labels cannot be embedded or kept; those in force stay.
    pub(crate) async fn edit_labels(
        self: &Arc<Self>,
        list: Option<Labels>,
        keep_examples: bool,
        tag: Option<String>,
    ) -> std::result::Result<(), Refused> {
        self.change(move |this| {
            // Looked at here, where no other change comes in between.
            this.check_tag(tag)?;
            let in_force = this.list_in_force()?;
            let list = list.map(|list| if keep_examples { list.with_examples(in_force.examples()) } else { list });
            Ok(this.relabel(list)?)
        })
        .await
    }

    /// Adds a photo to the examples of a label, which is added to the labels if it is not among them; if a tag is given, only
    /// if the labels in force have it.
    ///
    /// # Errors
    /// As [`Self::edit_labels`], or the bundle cannot have such labels.
    pub(crate) async fn add_example(
        self: &Arc<Self>,
        label: String,
        features: Features,
        tag: Option<String>,
    ) -> std::result::Result<(), Refused> {
        self.change(move |this| {
            this.check_tag(tag)?;
            let list = this.list_in_force()?;
            Ok(this.relabel(Some(list.with_feature(&label, &features.encoder, features.matrix.row(0))?))?)
        })
        .await
    }

    /// Forgets the examples of a label, which stays as a text; if a tag is given, only if the labels in force have it.
    ///
    /// # Errors
    /// As [`Self::edit_labels`], or the label has no examples.
    pub(crate) async fn forget_example(
        self: &Arc<Self>,
        label: String,
        tag: Option<String>,
    ) -> std::result::Result<(), Refused> {
        self.change(move |this| {
            this.check_tag(tag)?;
            let Some(list) = this.list_in_force()?.without_examples(&label) else {
                let message = format!("the label {} has no examples", quoted(&label));
                return Err(Refused::new(StatusCode::NOT_FOUND, "no_examples", message));
            };
            Ok(this.relabel(Some(list))?)
        })
        .await
    }

    fn list_in_force(&self) -> Result<Labels> {
        self.parts.model.info().map(|model| model.labels.list.clone()).ok_or(Cancelled.into())
    }

    /// Refuses a change of other labels than those that the client has seen. `*` fits whatever labels there are (RFC 9110,
    /// section 13.1.1).
    fn check_tag(&self, tag: Option<String>) -> std::result::Result<(), Refused> {
        if tag.is_some_and(|tag| tag != "*" && tag != self.parts.model.labels_tag()) {
            let message = "somebody else changed the labels in between; get them again";
            return Err(Refused::new(StatusCode::PRECONDITION_FAILED, "changed_meanwhile", message));
        }
        Ok(())
    }

    async fn change(
        self: &Arc<Self>,
        act: impl FnOnce(&Self) -> std::result::Result<(), Refused> + Send + 'static,
    ) -> std::result::Result<(), Refused> {
        let this = Arc::clone(self);
        // On a task of its own: a client that hangs up must not leave half a change behind.
        let changing = tokio::spawn(async move {
            // An async lock, because it is held across the blocking work; changes wait for one another in the order
            // they came.
            let _one = this.one.lock().await;
            let worker = Arc::clone(&this);
            tokio::task::spawn_blocking(move || act(&worker)).await
        });
        match changing.await {
            // Nobody cancels a change but the end of the daemon.
            Ok(Ok(Err(refused))) if refused.is_cancelled() => {
                Err(Refused::for_now("not_ready", "the daemon is stopping", 1))
            }
            Ok(Ok(result)) => result,
            _ => Err(Refused::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "panicked",
                "the change could not be made; see the log",
            )),
        }
    }

    /// Loads everything for the first time; a bundle that is not there yet is waited for, up to `patience`.
    ///
    /// # Errors
    /// As [`Self::reload`].
    pub(crate) async fn load_first(self: &Arc<Self>, patience: Duration) -> Result<()> {
        // As any change: labels that a client sets when the model is there must not be set back by the rest of this.
        let _one = self.one.lock().await;
        let this = Arc::clone(self);
        let loading = tokio::task::spawn_blocking(move || this.load_patiently(patience));
        // The thread panicked, and the log says where.
        loading.await.unwrap_or_else(|_| Err(super::engine_gone()))
    }

    fn load_patiently(&self, patience: Duration) -> Result<()> {
        self.bundles.count_start();
        let began = Instant::now();
        let mut said = false;
        loop {
            match self.load_all() {
                // A disk may be mounted after the daemon has started: then there is no folder, or an empty one.
                Err(Error::Bundle(error @ (BundleError::NotFolder { .. } | BundleError::NotFound { .. })))
                    if began.elapsed() < patience =>
                {
                    if !said {
                        log::warn!("{error}; waiting for it, {} s at most", patience.as_secs());
                        said = true;
                    }
                    thread::sleep(RETRY.min(patience));
                }
                // What cannot be opened would keep the device from ever starting again. Each way back leads further, to the bundle that the
                // device came with at last.
                Err(error) if error.category() == Category::Bundle && self.bundles.is_in_slot() => {
                    self.bundles.go_back(&format!("it cannot be opened: {error}"))?;
                }
                outcome => return outcome,
            }
        }
    }

    /// Loads everything and puts it in force; blocks.
    ///
    /// # Errors
    /// As [`Self::reload`].
    pub(crate) fn load_all(&self) -> Result<()> {
        match self.load() {
            // A bundle on trial that cannot even be loaded needs no further trial.
            Err(error) if !matches!(error, Error::Cancelled(_)) && self.bundles.is_on_trial() => {
                self.bundles.go_back(&error.to_string())?;
                self.load()
            }
            outcome => outcome,
        }
    }

    fn load(&self) -> Result<()> {
        let _changing = self.parts.model.begin_change("model", None);
        let Loaded { bundle, signed, settings, labels: configured, prompt, source, recording } = (self.loader)()?;
        self.bundles.check(&bundle, signed.as_ref())?;
        let pool = worker_pool(settings.extractor.threads)?;
        let embed = |list| pool.install(|| LabelSet::new(&bundle, list, prompt.clone(), self.cache_folder.as_deref()));
        // A reload may bring another bundle, which need not know the edited labels. They stay in the file: the next
        // bundle may.
        let edited = self.edited.read().and_then(|list| {
            let warn = |error: &Error| {
                log::warn!("the edited labels do not fit this bundle, going on with the configured ones: {error}")
            };
            embed(list).inspect_err(warn).ok()
        });
        let (labels, origin) = match (edited, configured) {
            (Some(labels), configured) => {
                if configured.is_some_and(|list| list != labels.list) {
                    log::warn!(
                        "using the {} that were edited on this daemon, not the configured ones; reset the labels to use those",
                        counted(labels.list.names().len(), "label")
                    );
                }
                (labels, LabelsOrigin::Edited)
            }
            (None, Some(list)) => (embed(list)?, LabelsOrigin::Configured),
            (None, None) => (LabelSet::of(&bundle)?, LabelsOrigin::Configured),
        };
        let classifier = Classifier::new(&bundle, labels, settings, self.cache_folder.as_deref())?;
        let classifier = classifier.with_cache(self.parts.cache.clone());
        let model = Model::warmed_up(bundle.into_contents(), classifier, &CancellationToken::default())?;
        // Before the model is handed over: a recording that cannot begin must leave the old model in force.
        let recorder = self.new_recorder(recording)?;
        // From here on nothing can fail but by the daemon's end. The recording first, so that whoever sees the model sees it.
        if let Some(recorder) = recorder {
            self.parts.archive.replace(recorder);
        }
        self.bundles.note_in_force(model.info().record.bundle.clone(), signed);
        self.hand_over(|done| Job::Install(Box::new(model), done))?;
        self.set_labels_origin(origin);
        self.parts.feed.set_source(source, &self.parts.queue);
        Ok(())
    }

    /// The recorder to put in the place of the present one, if the recording is to change.
    fn new_recorder(&self, wanted: Option<RecorderSettings>) -> Result<Option<Option<Running>>> {
        let present = self.parts.archive.settings();
        if present == wanted {
            return Ok(None);
        }
        wanted.as_ref().map_or(Ok(()), RecorderSettings::check)?;
        // Two cannot write in one folder: there the old one goes first.
        if present.as_ref().map(|present| &present.folder) == wanted.as_ref().map(|wanted| &wanted.folder) {
            self.parts.archive.replace(None);
        }
        let start = |settings: RecorderSettings| Ok(Running { recorder: Recorder::start(&settings)?, settings });
        let started = wanted.map(start).transpose();
        // What was in force stays, where it had to make way.
        if let (Err(_), Some(present), None) = (&started, present, self.parts.archive.settings()) {
            match start(present) {
                Ok(running) => self.parts.archive.replace(Some(running)),
                Err::<_, Error>(error) => log::error!("the recording does not go on: {error}"),
            }
        }
        started.map(Some)
    }

    fn relabel(&self, list: Option<Labels>) -> Result<()> {
        let _changing = self.parts.model.begin_change("labels", list.as_ref().map(|list| list.names().len()));
        let Some(model) = self.parts.model.info() else { return Err(Cancelled.into()) };
        let (prompt, cache_folder) = (model.labels.prompt.clone(), self.cache_folder.as_deref());
        let origin = if list.is_some() { LabelsOrigin::Edited } else { LabelsOrigin::Configured };
        let configured = || -> Result<LabelSet> {
            // It opens the bundle of now as well, of which only labels and prompt are taken: the model stays.
            let loaded = (self.loader)()?;
            match loaded.labels {
                Some(list) => LabelSet::new(&model.bundle, list, loaded.prompt, cache_folder),
                None => LabelSet::of(&model.bundle),
            }
        };
        // The number of threads is the model's, so that typed labels are embedded no slower than those of the start.
        let predictor = worker_pool(Some(model.record.threads))?.install(|| {
            let labels = match &list {
                Some(list) => LabelSet::new(&model.bundle, list.clone(), prompt, cache_folder)?,
                None => configured()?,
            };
            Predictor::new(&model.bundle, Arc::new(labels), model.method)
        })?;
        // Kept before they are in force: labels that a client has seen in force are there after a power cut.
        match &list {
            Some(list) => self.edited.keep(list)?,
            None => self.edited.forget()?,
        }
        self.hand_over(|done| Job::Relabel(Arc::new(predictor), done))?;
        self.set_labels_origin(origin);
        log::info!("{} labels are in force", self.parts.model.info().map_or(0, |model| model.record.labels));
        Ok(())
    }

    /// Sets the origin of the labels, and tells watchers to fetch the labels again.
    fn set_labels_origin(&self, origin: LabelsOrigin) {
        self.parts.model.set_labels_origin(origin);
        self.parts.events.send("labels", "{}".into());
    }

    /// Gives the engine something new and waits until it has it.
    fn hand_over(&self, job: impl FnOnce(oneshot::Sender<()>) -> Job) -> Result<()> {
        let (done, taken) = oneshot::channel();
        // The only error is that the daemon ends.
        self.parts.queue.inbox.push_own(job(done)).map_err(|_| Cancelled)?;
        Ok(taken.blocking_recv().map_err(|_| Cancelled)?)
    }
}
