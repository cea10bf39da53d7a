//! The HTTP interface: every route and what it answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRef, MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LOCATION, SET_COOKIE};
use axum::http::{HeaderName, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event as SentEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tokio_stream::wrappers::BroadcastStream;

use super::Access;
use super::body::BodyBudget;
use super::bundles::{self, Uploads};
use super::classify::classify;
use super::events::{Event, Events};
use super::guard::{COOKIE_NAME, Peer, check_head, check_peer};
use super::history::History;
use super::labels::{add_example, forget_example, labels, put_labels, reset_labels};
use super::metrics::{MEDIA_TYPE, Metrics};
use super::model_in_force::ModelInForce;
use super::page;
use super::progress::Progress;
use super::queue::Queue;
use super::refusal::Refused;
use super::reporter::Reporter;
use super::update::Updater;
use super::view_sheets::ViewSheets;
use crate::limits::WATCHERS_MAX;

/// The parts of the daemon that handlers use. Each handler takes those it needs.
#[derive(Clone)]
pub(crate) struct Context {
    /// Requests for the engine.
    pub queue: Arc<Queue>,
    /// Tokens that count as the engine's progress.
    pub progress: Arc<Progress>,
    /// The model in force.
    pub model: Arc<ModelInForce>,
    /// Events, and the latest decision.
    pub events: Arc<Events>,
    /// Measurements of the last minutes.
    pub history: Arc<History>,
    /// Counters of requests.
    pub metrics: Arc<Metrics>,
    /// Reports of the daemon.
    pub reporter: Arc<Reporter>,
    /// Changes of labels and model.
    pub updater: Arc<Updater>,
    /// Tokens of clients over TCP.
    pub access: Arc<Access>,
    /// Memory for bodies.
    pub bodies: Arc<BodyBudget>,
    /// The upload of a bundle.
    pub uploads: Arc<Uploads>,
    /// The picture of the latest frame's views.
    pub sheets: Arc<ViewSheets>,
    /// Becomes true when the daemon stops: endless answers end then.
    pub stopping: watch::Receiver<bool>,
}

/// An answer, or the reason for a refusal.
pub(crate) type Answer = Result<Response, Refused>;

impl FromRef<Context> for Arc<Events> {
    fn from_ref(context: &Context) -> Self {
        Arc::clone(&context.events)
    }
}

impl FromRef<Context> for Arc<History> {
    fn from_ref(context: &Context) -> Self {
        Arc::clone(&context.history)
    }
}

impl FromRef<Context> for Arc<Uploads> {
    fn from_ref(context: &Context) -> Self {
        Arc::clone(&context.uploads)
    }
}

impl FromRef<Context> for Arc<ViewSheets> {
    fn from_ref(context: &Context) -> Self {
        Arc::clone(&context.sheets)
    }
}

impl FromRef<Context> for Arc<Reporter> {
    fn from_ref(context: &Context) -> Self {
        Arc::clone(&context.reporter)
    }
}

impl FromRef<Context> for Arc<Updater> {
    fn from_ref(context: &Context) -> Self {
        Arc::clone(&context.updater)
    }
}

impl FromRef<Context> for watch::Receiver<bool> {
    fn from_ref(context: &Context) -> Self {
        context.stopping.clone()
    }
}

/// All routes.
pub(crate) fn router(context: Context) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/page.css", get(page::style))
        .route("/page.js", get(page::script))
        .route("/icon.svg", get(page::icon))
        .route("/v1/classify", post(classify))
        .route("/v1/labels", get(labels).put(put_labels).delete(reset_labels))
        .route("/v1/labels/examples", post(add_example).delete(forget_example))
        .route("/v1/reload", post(reload))
        .route("/v1/bundle", get(bundles::bundle).put(bundles::install))
        .route("/v1/bundle/confirm", post(bundles::confirm))
        .route("/v1/bundle/rollback", post(bundles::roll_back))
        .route("/v1/latest", get(latest))
        .route("/v1/events", get(watch_events))
        .route("/v1/history", get(history))
        .route("/v1/frame.jpg", get(frame))
        .route("/v1/views.jpg", get(views))
        .route("/v1/info", get(info))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        // Around the fallbacks as well: what is refused there is guarded and logged like the rest.
        .layer(from_fn_with_state(context.clone(), around))
        .with_state(context)
}

/// The work around every request: the check of the peer, and a line in the log.
async fn around(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    // The path alone goes to the log: the query may hold the token.
    let (method, path) = (request.method().clone(), request.uri().path().to_string());
    // Counted by route and not by path, of which clients could make any number.
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_string();
    let refused = check_head(request.uri(), request.headers()).err().or_else(|| {
        // A supervisor, which has no token, may check that the daemon is alive.
        let open = path == "/healthz";
        let checked = check_peer(&peer, context.access.token.as_ref(), &method, request.headers());
        checked.err().filter(|_| !open)
    });
    let mut response = match refused {
        // A browser cannot send a header with an address: it brings the token once, and keeps it.
        Some(_) if path == "/" && token_in(request.uri()).is_some_and(|guess| context.access.admits(&guess)) => {
            take_in(&token_in(request.uri()).unwrap_or_default())
        }
        Some(refused) => refused.into_response(),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in page::SECURITY_HEADERS {
        headers.insert(HeaderName::from_static(name), axum::http::HeaderValue::from_static(value));
    }
    // Frames and states are out of date within a second.
    headers.entry(CACHE_CONTROL).or_insert(axum::http::HeaderValue::from_static("no-store"));
    let status = response.status().as_u16();
    context.metrics.answered(&route, status);
    let line = format!("{peer}: {method} {path:?} {status} in {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    // The page and Prometheus ask all the time: what went well is no news.
    let level = if method == Method::GET && status < 400 { log::Level::Debug } else { log::Level::Info };
    log::log!(level, "{line}");
    response
}

fn token_in(uri: &Uri) -> Option<String> {
    // Decoded: a token may have characters that a browser escapes.
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(uri.query()?).ok()?;
    pairs.into_iter().find(|(name, _)| name == "token").map(|(_, token)| token)
}

fn take_in(token: &str) -> Response {
    // Without `Secure`, since there is no TLS here and a browser would not send it back.
    let cookie = format!("{COOKIE_NAME}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age=31536000");
    // A redirect, so that the token leaves the address bar.
    (StatusCode::SEE_OTHER, [(LOCATION, "/".to_string()), (SET_COOKIE, cookie)]).into_response()
}

async fn unknown(uri: Uri) -> Refused {
    let message = format!("there is nothing at {:?}; docs/daemon.md lists what there is", uri.path());
    Refused::new(StatusCode::NOT_FOUND, "not_found", message)
}

async fn wrong_method(method: Method, uri: Uri) -> Refused {
    let takes = match uri.path() {
        "/v1/classify" | "/v1/reload" | "/v1/bundle/confirm" | "/v1/bundle/rollback" => "POST",
        "/v1/labels" => "GET, PUT and DELETE",
        "/v1/labels/examples" => "POST and DELETE",
        "/v1/bundle" => "GET and PUT",
        _ => "GET",
    };
    let message = format!("{} takes {takes}, not {method}", uri.path());
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

async fn healthz() -> &'static str {
    "alive\n"
}

async fn readyz(State(reporter): State<Arc<Reporter>>) -> Answer {
    require_ready(&reporter)?;
    Ok("ready\n".into_response())
}

/// Refuses what needs a model while there is none.
pub(crate) fn require_ready(reporter: &Reporter) -> Result<(), Refused> {
    if reporter.is_ready() {
        return Ok(());
    }
    Err(Refused::for_now("not_ready", "the daemon is starting or stopping", 1))
}

async fn info(State(reporter): State<Arc<Reporter>>) -> Response {
    Json(reporter.info()).into_response()
}

async fn history(State(history): State<Arc<History>>) -> Response {
    Json(history.points()).into_response()
}

async fn metrics(State(reporter): State<Arc<Reporter>>) -> Response {
    ([(CONTENT_TYPE, MEDIA_TYPE)], reporter.metrics_text()).into_response()
}

async fn reload(State(reporter): State<Arc<Reporter>>, State(updater): State<Arc<Updater>>) -> Answer {
    require_ready(&reporter)?;
    updater.reload().await?;
    Ok(Json(reporter.info()).into_response())
}

async fn latest(State(events): State<Arc<Events>>) -> Answer {
    let latest = events.latest().ok_or_else(no_frame)?;
    Ok(([(CONTENT_TYPE, "application/json")], latest.json.to_string()).into_response())
}

fn no_frame() -> Refused {
    Refused::new(
        StatusCode::NOT_FOUND,
        "no_frame",
        "no frame was classified yet; is there a source, and does it give frames?",
    )
}

/// The latest frame's image file. Its content decides its type; nearly always it is a JPEG.
async fn frame(State(events): State<Arc<Events>>) -> Answer {
    let latest = events.latest().ok_or_else(no_frame)?;
    let kind = match latest.file.as_slice() {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [b'B', b'M', ..] => "image/bmp",
        [b'R', b'I', b'F', b'F', ..] => "image/webp",
        _ => "image/jpeg",
    };
    Ok(([(CONTENT_TYPE, kind)], latest.file.as_ref().clone()).into_response())
}

/// The views of the latest frame as one picture, made anew: they follow from the frame's digest and the settings. The tag
/// is the digest, which says whose views they are when the latest frame has become another meanwhile.
async fn views(State(events): State<Arc<Events>>, State(sheets): State<Arc<ViewSheets>>) -> Answer {
    let latest = events.latest().ok_or_else(no_frame)?;
    let tag = format!("\"{}\"", latest.digest);
    let sheet = sheets.sheet(latest).await?;
    Ok(([(CONTENT_TYPE, "image/jpeg".to_string()), (ETAG, tag)], sheet).into_response())
}

async fn watch_events(
    State(events): State<Arc<Events>>,
    State(reporter): State<Arc<Reporter>>,
    State(mut stopping): State<watch::Receiver<bool>>,
) -> Answer {
    // Nothing is awaited from here to the subscription, and one thread runs all handlers: no other watcher comes in
    // between.
    if events.watchers() >= WATCHERS_MAX {
        return Err(Refused::for_now("too_many_watchers", format!("{WATCHERS_MAX} clients watch already"), 10));
    }
    // Subscribed before the latest decision is read: one that comes in between is seen twice rather than never.
    let following = BroadcastStream::new(events.subscribe());
    let status = serde_json::to_string(&reporter.status()).expect("a record is always JSON");
    let mut first = vec![Event { name: "status", json: status.into() }];
    let latest = events.latest();
    first.extend(latest.iter().map(|latest| Event { name: "decision", json: Arc::clone(&latest.json) }));
    // Events that a slow client missed are left out: the next ones say how things are. The latest decision may come as
    // an event as well, since both were asked for one after the other.
    let following = following.filter_map(move |event| {
        let sent = |event: &Event| latest.as_ref().is_some_and(|latest| Arc::ptr_eq(&latest.json, &event.json));
        std::future::ready(event.ok().filter(|event| !sent(event)))
    });
    let sent = stream::iter(first)
        .chain(following)
        .map(|event| Ok::<_, Infallible>(SentEvent::default().event(event.name).data(event.json.as_ref())));
    let until = async move {
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    // Comment lines are sent while there is no event, so that a connection that is gone is noticed.
    Ok(Sse::new(ending(sent, until)).keep_alive(KeepAlive::default()).into_response())
}

/// A stream that ends when `until` is done.
fn ending<S: Stream + Send>(stream: S, until: impl Future<Output = ()> + Send) -> impl Stream<Item = S::Item> + Send {
    stream.take_until(Box::pin(until))
}
