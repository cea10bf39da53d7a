//! The daemon: frames and requests in, decisions out, all day.
//!
//! One thread, the engine, owns the model and takes requests and frames from an inbox; a thread supervises the source;
//! one writes the recording; the first runs HTTP. None waits for another longer than it must: a request that finds the
//! queue full is refused, a frame that comes too early is dropped for the next, a decision that the disk cannot take
//! is not recorded.

mod archive;
mod body;
mod bundles;
mod bundles_in_force;
mod classify;
mod client_stream;
mod connections;
mod edited_labels;
mod ending;
mod engine;
mod events;
mod feed;
mod guard;
mod health;
mod history;
mod http;
mod labels;
mod listen;
mod metrics;
mod model;
mod model_in_force;
mod page;
mod progress;
pub(crate) mod protocol;
mod queue;
mod refusal;
mod reporter;
mod service;
mod signals;
mod update;
mod view_sheets;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::watch;

pub(crate) use bundles_in_force::SlotsSettings;
pub(crate) use classify::query_of as classify_query;
pub(crate) use client_stream::ClientStream;
pub(crate) use guard::{Peer, Token, check_head, check_peer};
pub(crate) use health::TrialSettings;
pub(crate) use update::{Loaded, Loader};

use crate::cache::FeatureCache;
use crate::encoder::EncoderError;
use crate::error::{Error, Result};
use crate::heap;
use crate::limits::QUEUE;
use crate::lock::{Lock, Resource};
use crate::setting::SettingError;
use archive::Archive;
use bundles_in_force::Bundles;
use edited_labels::EditedLabels;
pub(crate) use edited_labels::request_of;
use ending::Ending;
use engine::Engine;
use events::Events;
use feed::Feed;
use health::Health;
use history::History;
use http::{Context, router};
use listen::{Listener, Listeners};
use metrics::Metrics;
use model_in_force::ModelInForce;
use progress::Progress;
use queue::Queue;
use reporter::Reporter;
use service::{Liveness, notify, notify_reloading};
pub(crate) use signals::Abrupt;
use signals::Asked;
use update::{Changeable, Updater};

/// Settings that stay the same as long as a daemon runs.
pub(crate) struct DaemonSettings {
    /// The Unix socket.
    pub socket: PathBuf,
    /// A TCP address to listen on as well.
    pub listen: Option<SocketAddr>,
    /// Secret of clients over TCP.
    pub token: Option<Token>,
    /// Folder for what must outlast the daemon: the labels that were edited.
    pub state: PathBuf,
    /// Requests that may wait.
    pub queue: usize,
    /// Cache of features.
    pub cache: Option<Arc<FeatureCache>>,
    /// Folder of this device's choices and label embeddings.
    pub cache_folder: Option<PathBuf>,
    /// Slots of bundles, if there are any.
    pub slots: Option<SlotsSettings>,
    /// Longest wait for a bundle that is not there when the daemon starts.
    pub bundle_wait: Duration,
    /// Ends the process, where the daemon does not end by itself.
    pub give_up: fn(Abrupt),
}

/// The token that is asked for over TCP.
pub(crate) struct Access {
    token: Option<Token>,
}

impl Access {
    /// True if this is the token.
    fn admits(&self, guess: &str) -> bool {
        self.token.as_ref().is_some_and(|token| token.is(guess))
    }
}

/// Interval at which free memory is given back.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(30);
/// Interval of the status events for watchers.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Runs a daemon until SIGTERM or SIGINT.
///
/// # Errors
/// A setting is out of range, another daemon has the socket or the folder, an address cannot be had, or the model cannot
/// be loaded at the start. Later nothing ends it.
pub(crate) fn serve(settings: DaemonSettings, loader: Loader) -> Result<()> {
    check(&settings)?;
    let DaemonSettings { socket, listen, token, state, queue, cache, cache_folder, slots, bundle_wait, give_up } =
        settings;
    // Before anything that could block, and before the model is loaded, so that a signal ends that as well.
    let asked = signals::hear(give_up).map_err(|source| Error::Thread { what: "the signals' thread", source })?;
    // The socket before the folder: daemons with the same flags share both, and the message names the socket.
    let mut listeners = Listeners::open(&socket, listen)?;
    // Those that were handed over are known only now, and no flag names their addresses.
    listeners.addresses()?.into_iter().try_for_each(|address| check_address(address, token.is_some()))?;
    fs::create_dir_all(&state).map_err(|error| SettingError {
        what: "the daemon's folder",
        expected: "one that can be written".into(),
        found: match state.is_file() {
            true => format!("{}, which is a file", state.display()),
            false => format!("{} ({error})", state.display()),
        },
    })?;
    let _one = Lock::take(&state.join("daemon.lock"), &state, Resource::State)?;
    // Commands that change the slots without asking this daemon are kept out.
    let _claim = slots.as_ref().map(|slots| slots.slots.claim()).transpose()?;
    let parts = Parts::new(queue, cache, listeners.places());
    let (engine, feed, archive) = (parts.engine(), Arc::clone(&parts.feed), Arc::clone(&parts.archive));
    let engine = thread::Builder::new().name("rtpt-engine".into()).spawn(move || engine.run());
    let engine = engine.map_err(|source| Error::Thread { what: "the engine's thread", source })?;
    let bundles = Bundles::new(slots, &state, Arc::clone(&parts.model), Arc::clone(&parts.health));
    let updater = Updater::new(parts.changeable(), loader, EditedLabels::in_folder(&state), cache_folder, bundles);
    let (stop, stopping) = watch::channel(false);
    let context = parts.context(updater, Access { token }, stopping);
    // One thread for all clients leaves the cores to the encoder. Blocking threads hold models and decoded images, so
    // there are few.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build();
    let runtime = runtime.map_err(|source| Error::Thread { what: "the threads that answer clients", source })?;
    // Moved out, so that the sockets' lock and file are given up last, when this function ends.
    let taken = std::mem::take(&mut listeners.all);
    let outcome = runtime.block_on(run_until_stopped(&context, taken, stop, &engine, Start { asked, bundle_wait }));
    // Also where an error came before the loop, which closes it otherwise: the engine ends by it.
    context.queue.inbox.close();
    // Clients that are still there lose their connection, and their work is cancelled.
    runtime.shutdown_timeout(Duration::from_millis(100));
    let progress = Arc::clone(&context.progress);
    context.updater.note_end();
    let intact = Ending { engine, progress, feed, archive }.wait();
    if intact { outcome } else { outcome.and(Err(engine_gone())) }
}

/// Every part of a daemon, from which each thread and handler gets those it needs.
struct Parts {
    queue: Arc<Queue>,
    progress: Arc<Progress>,
    model: Arc<ModelInForce>,
    events: Arc<Events>,
    feed: Arc<Feed>,
    archive: Arc<Archive>,
    metrics: Arc<Metrics>,
    history: Arc<History>,
    health: Arc<Health>,
    cache: Option<Arc<FeatureCache>>,
    reporter: Arc<Reporter>,
}

impl Parts {
    /// The parts of a daemon without a model, with room for `capacity` requests, that listens at these places.
    fn new(capacity: usize, cache: Option<Arc<FeatureCache>>, listening: Vec<String>) -> Self {
        let (queue, metrics) = (Arc::new(Queue::new(capacity)), Arc::new(Metrics::new()));
        let (model, feed, archive) =
            (Arc::<ModelInForce>::default(), Arc::<Feed>::default(), Arc::<Archive>::default());
        let reporter = Arc::new(Reporter {
            listening,
            began: Instant::now(),
            queue: Arc::clone(&queue),
            model: Arc::clone(&model),
            feed: Arc::clone(&feed),
            archive: Arc::clone(&archive),
            metrics: Arc::clone(&metrics),
        });
        let (progress, events, history, health) = Default::default();
        Self { queue, progress, model, events, feed, archive, metrics, history, health, cache, reporter }
    }

    fn engine(&self) -> Engine {
        Engine {
            queue: Arc::clone(&self.queue),
            progress: Arc::clone(&self.progress),
            model: Arc::clone(&self.model),
            feed: Arc::clone(&self.feed),
            events: Arc::clone(&self.events),
            archive: Arc::clone(&self.archive),
            metrics: Arc::clone(&self.metrics),
            history: Arc::clone(&self.history),
            health: Arc::clone(&self.health),
            cache: self.cache.clone(),
        }
    }

    fn changeable(&self) -> Changeable {
        Changeable {
            queue: Arc::clone(&self.queue),
            model: Arc::clone(&self.model),
            feed: Arc::clone(&self.feed),
            archive: Arc::clone(&self.archive),
            events: Arc::clone(&self.events),
            cache: self.cache.clone(),
        }
    }

    fn context(self, updater: Updater, access: Access, stopping: watch::Receiver<bool>) -> Context {
        let Self { queue, progress, model, events, metrics, history, reporter, .. } = self;
        let (updater, access) = (Arc::new(updater), Arc::new(access));
        let (bodies, sheets, uploads) = Default::default();
        Context {
            queue,
            progress,
            model,
            events,
            history,
            metrics,
            reporter,
            updater,
            access,
            bodies,
            sheets,
            uploads,
            stopping,
        }
    }
}

fn engine_gone() -> Error {
    EncoderError::Run { source: "the engine's thread ended; see the log".into() }.into()
}

fn check(settings: &DaemonSettings) -> Result<()> {
    let (_, most) = QUEUE;
    if !(1..=most).contains(&settings.queue) {
        let (expected, found) = (format!("1 to {most}"), settings.queue.to_string());
        return Err(SettingError { what: "the length of the queue", expected, found }.into());
    }
    settings.listen.map_or(Ok(()), |address| check_address(address, settings.token.is_some()))
}

/// Checks that whoever can reach a TCP address must have the token, unless only this device can.
fn check_address(address: SocketAddr, has_token: bool) -> Result<()> {
    // A token is the only guard over TCP: without one nobody but this device may reach the port.
    if address.ip().is_loopback() || has_token {
        return Ok(());
    }
    Err(SettingError {
        what: "the address to listen on",
        expected: "a loopback address such as 127.0.0.1:8080, or a token".into(),
        found: format!("{address}, which can be reached from the network"),
    }
    .into())
}

/// What a daemon begins with.
struct Start {
    asked: watch::Receiver<Asked>,
    bundle_wait: Duration,
}

/// Serves until a signal, or until the daemon cannot go on.
async fn run_until_stopped(
    context: &Context,
    listeners: Vec<Listener>,
    stop: watch::Sender<bool>,
    engine: &thread::JoinHandle<()>,
    Start { mut asked, bundle_wait }: Start,
) -> Result<()> {
    let Context { reporter, events, updater, .. } = context;
    let (mut end, mut reloads) = (asked.clone(), 0);
    let (app, metrics) = (router(context.clone()), Arc::clone(&context.metrics));
    // Served from the start: while the model loads, `/healthz` answers and the rest is told to wait.
    let mut connections = tokio::spawn(connections::serve(listeners, app, metrics, context.stopping.clone()));
    let mut loading = {
        let updater = Arc::clone(updater);
        tokio::spawn(async move { updater.load_first(bundle_wait).await })
    };
    tokio::spawn(feed_watchdog(Arc::clone(&context.progress)));
    tokio::spawn(give_back_memory());
    let mut status = tokio::time::interval(STATUS_EVERY);
    let mut loaded = false;
    let outcome = loop {
        tokio::select! {
            result = &mut loading, if !loaded => match result {
                Ok(Ok(())) => {
                    loaded = true;
                    log::info!("ready: {}", reporter.in_short());
                    notify(&[NotifyState::Ready]);
                }
                Ok(Err(error)) => break Err(error),
                // The thread panicked, and the log says where.
                Err(_) => break Err(engine_gone()),
            },
            _ = end.wait_for(|asked| asked.end) => break Ok(()),
            // One that comes while the model loads is counted, and seen then.
            Ok(seen) = asked.wait_for(|asked| asked.reloads > reloads), if loaded => {
                reloads = seen.reloads;
                drop(seen);
                let updater = Arc::clone(updater);
                // On a task of its own: the loop must see signals while the model loads.
                tokio::spawn(async move {
                    notify_reloading();
                    match updater.reload().await {
                        Ok(()) => log::info!("reloaded"),
                        Err(refused) => log::error!("not reloaded, going on as before: {refused}"),
                    }
                    // Also after a failure: the protocol ends every RELOADING with READY (sd_notify(3)), and the old
                    // model is ready.
                    notify(&[NotifyState::Ready]);
                });
            }
            _ = status.tick() => {
                // The status reads files in `/proc` and `/sys`.
                if events.watchers() > 0 {
                    let json = serde_json::to_string(&reporter.status()).expect("a record is always JSON");
                    events.send("status", json.into());
                }
                updater.judge_trial();
                // It survives panics over images. If it ended nevertheless, a new process is the only remedy.
                if engine.is_finished() {
                    break Err(engine_gone());
                }
            }
        }
    };
    if outcome.is_ok() {
        log::info!("ending");
    }
    notify(&[NotifyState::Stopping]);
    // No new work from here on; what is in the queue is still answered.
    context.queue.inbox.close();
    let _ = stop.send(true);
    let _ = (&mut connections).await;
    outcome
}

/// Gives free memory back to the system from time to time.
async fn give_back_memory() {
    let mut every = tokio::time::interval(GIVE_BACK_EVERY);
    loop {
        every.tick().await;
        // It holds the allocator's lock for some milliseconds, and must not hold this thread.
        let _ = tokio::task::spawn_blocking(heap::give_back).await;
    }
}

/// Feeds the service manager's watchdog, if it has one, as long as the engine makes progress.
async fn feed_watchdog(progress: Arc<Progress>) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let mut liveness = Liveness::new(progress.checkpoints(), patience, Instant::now());
    // Half of the time is recommended (sd_watchdog_enabled(3)); a quarter leaves room for a busy machine. `interval`
    // panics over zero.
    let mut every = tokio::time::interval((patience / 4).max(Duration::from_millis(10)));
    let mut warned = false;
    loop {
        every.tick().await;
        // Until the model is loaded the engine has nothing to do and is alive.
        let alive = liveness.is_alive(Instant::now());
        if alive {
            notify(&[NotifyState::Watchdog]);
        } else if !warned {
            log::error!("the engine has made no progress for {} s", patience.as_secs());
        }
        warned = !alive;
    }
}
