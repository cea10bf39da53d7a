//! The daemon: frames and requests in, decisions out, all day.
//!
//! One thread, the engine, owns the model and takes requests and frames from an inbox; a thread supervises the source;
//! one writes the recording; the first runs HTTP. None waits for another longer than it must: a request that finds the
//! queue full is refused, a frame that comes too early is dropped for the next, a decision that the disk cannot take
//! is not recorded.

mod body;
mod client_stream;
mod connections;
mod edited_labels;
mod engine;
mod guard;
mod history;
mod http;
mod listen;
mod metrics;
mod page;
pub(crate) mod protocol;
mod refusal;
mod service;
mod shared;
mod update;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub(crate) use guard::Token;
pub(crate) use update::{Loaded, Loader};

use crate::cache::FeatureCache;
use crate::encoder::EncoderError;
use crate::error::{Error, Result};
use crate::files::FileError;
use crate::limits::{QUEUE, SHUTDOWN_MS};
use crate::lock::Lock;
use crate::setting::SettingError;
use body::BodyBudget;
use edited_labels::EditedLabels;
use engine::run;
use http::{Context, router};
use listen::Listeners;
use service::{Liveness, tell, tell_reloading};
use shared::Shared;
use update::Updater;

/// What stays the same as long as a daemon runs.
pub(crate) struct DaemonSettings {
    /// The Unix socket.
    pub socket: PathBuf,
    /// A TCP address to listen on as well.
    pub listen: Option<SocketAddr>,
    /// What clients over TCP must know.
    pub token: Option<Token>,
    /// Folder for what must outlast the daemon: the labels that were edited.
    pub state: PathBuf,
    /// Requests that may wait.
    pub queue: usize,
    /// Where features are remembered.
    pub cache: Option<Arc<FeatureCache>>,
    /// Where this device's choices and label embeddings are remembered.
    pub cache_folder: Option<PathBuf>,
}

/// Who may ask over TCP.
pub(crate) struct Access {
    token: Option<Token>,
}

impl Access {
    /// Whether this is the token.
    fn admits(&self, guess: &str) -> bool {
        self.token.as_ref().is_some_and(|token| token.is(guess))
    }
}

/// How often watchers are told how the daemon is.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Runs a daemon until it is told to end by SIGTERM or SIGINT.
///
/// # Errors
/// A setting is out of range, another daemon has the socket or the folder, an address cannot be had, or the model cannot
/// be loaded at the start. Later nothing ends it.
pub(crate) fn serve(settings: DaemonSettings, loader: Loader) -> Result<()> {
    check(&settings)?;
    let DaemonSettings { socket, listen, token, state, queue, cache, cache_folder } = settings;
    let mut listeners = Listeners::open(&socket, listen)?;
    let failed = |source| FileError::Unwritable { path: state.clone(), source };
    fs::create_dir_all(&state).map_err(|error| SettingError {
        what: "the daemon's folder",
        expected: "one that can be written; name it with --state DIR".into(),
        found: format!("{} ({error})", state.display()),
    })?;
    let _one = Lock::take(&state.join("daemon.lock"), &state, "--state")?;
    let shared = Arc::new(Shared::new(queue, cache, listeners.places()));
    let for_engine = Arc::clone(&shared);
    let engine = thread::Builder::new().name("rtpt-engine".into()).spawn(move || run(&for_engine)).map_err(failed)?;
    let updater = Arc::new(Updater::new(Arc::clone(&shared), loader, EditedLabels::in_folder(&state), cache_folder));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build();
    let runtime = runtime.map_err(failed)?;
    let taken = std::mem::take(&mut listeners.all);
    let outcome = runtime.block_on(run_until_told(&shared, &updater, taken, Access { token }, &engine));
    shared.stop();
    updater.finish();
    // Clients that are still there lose their connection, and their work is cancelled.
    runtime.shutdown_timeout(Duration::from_millis(100));
    let until = Instant::now() + Duration::from_millis(SHUTDOWN_MS);
    while !engine.is_finished() && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
    shared.cancel_frame();
    let panicked = engine.join().is_err();
    if panicked { outcome.and(Err(engine_gone())) } else { outcome }
}

fn engine_gone() -> Error {
    EncoderError::Run { source: "the engine's thread ended; see the log".into() }.into()
}

fn check(settings: &DaemonSettings) -> Result<()> {
    let (_, most) = QUEUE;
    if !(1..=most).contains(&settings.queue) {
        let (expected, found) = (format!("1 to {most}"), settings.queue.to_string());
        return Err(SettingError { what: "--queue", expected, found }.into());
    }
    match settings.listen {
        Some(address) if !address.ip().is_loopback() && settings.token.is_none() => Err(SettingError {
            what: "--listen",
            expected: "a loopback address such as 127.0.0.1:8080, or --token-file FILE with any other".into(),
            found: address.to_string(),
        }
        .into()),
        _ => Ok(()),
    }
}

async fn run_until_told(
    shared: &Arc<Shared>,
    updater: &Arc<Updater>,
    listeners: Vec<listen::Listener>,
    access: Access,
    engine: &thread::JoinHandle<()>,
) -> Result<()> {
    let failed = |source| Error::Listen { address: "the daemon's signals and sockets".into(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(failed)?;
    let (stop, stopping) = watch::channel(false);
    let context = Context {
        shared: Arc::clone(shared),
        updater: Arc::clone(updater),
        access: Arc::new(access),
        bodies: Arc::new(BodyBudget::default()),
        stopping: stopping.clone(),
    };
    let mut connections =
        tokio::spawn(connections::serve(listeners, router(context), Arc::clone(shared), stopping.clone()));
    let mut loading = {
        let updater = Arc::clone(updater);
        tokio::task::spawn_blocking(move || updater.load_all())
    };
    tokio::spawn(feed_watchdog(Arc::clone(shared)));
    let mut status = tokio::time::interval(STATUS_EVERY);
    let mut loaded = false;
    let outcome = loop {
        tokio::select! {
            result = &mut loading, if !loaded => match result {
                Ok(Ok(())) => {
                    loaded = true;
                    log::info!("ready: {}", shared.in_short());
                    tell(&[NotifyState::Ready]);
                }
                Ok(Err(error)) => break Err(error),
                Err(_) => break Err(engine_gone()),
            },
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = hang_up.recv(), if loaded => {
                let updater = Arc::clone(updater);
                tokio::spawn(async move {
                    tell_reloading();
                    match updater.reload().await {
                        Ok(()) => log::info!("reloaded"),
                        Err(refused) => log::error!("not reloaded, going on as before: {refused}"),
                    }
                    tell(&[NotifyState::Ready]);
                });
            }
            _ = status.tick() => {
                if shared.watchers() > 0 {
                    let json = serde_json::to_string(&shared.status()).expect("a record is always JSON");
                    shared.tell("status", json.into());
                }
                if engine.is_finished() {
                    break Err(engine_gone());
                }
            }
        }
    };
    if outcome.is_ok() {
        log::info!("ending");
    }
    tell(&[NotifyState::Stopping]);
    shared.stop();
    let _ = stop.send(true);
    let _ = (&mut connections).await;
    outcome
}

/// Feeds the service manager's watchdog, if it has one, as long as the engine makes progress.
async fn feed_watchdog(shared: Arc<Shared>) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let mut liveness = Liveness::new(&shared.checkpoints, patience, Instant::now());
    let mut every = tokio::time::interval((patience / 4).max(Duration::from_millis(10)));
    let mut warned = false;
    loop {
        every.tick().await;
        // Until the model is loaded the engine has nothing to do and is alive.
        let alive = liveness.is_alive(Instant::now());
        if alive {
            tell(&[NotifyState::Watchdog]);
        } else if !warned {
            log::error!("the engine has made no progress for {} s", patience.as_secs());
        }
        warned = !alive;
    }
}
