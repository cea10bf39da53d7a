//! The HTTP interface: every route and what it answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event as SentEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::oneshot;
use tokio_stream::wrappers::BroadcastStream;

use super::body::{BodyBudget, read_body};
use super::engine::{Job, Request as ClassifyRequest};
use super::guard::{COOKIE_NAME, Peer, check_head, check_peer};
use super::metrics::MEDIA_TYPE;
use super::page;
use super::protocol::{ClassifyQuery, LabelsRecord, LabelsRequest, SCHEMA};
use super::refusal::Refused;
use super::shared::{Event, Shared};
use super::update::Updater;
use super::{Access, edited_labels::labels_of};
use crate::cancellation::CancellationToken;
use crate::labels::{Labels, parse_labels};
use crate::limits::{DEADLINE_MS, HTTP_LABELS_BYTES_MAX, IMAGE_BYTES_MAX, REQUEST_VIEWS_MAX, TOP_MAX, WATCHERS_MAX};
use crate::report::view_sheet;
use crate::setting::SettingError;

/// Answers listed if nothing is said, as in `rtpt classify --json` (count).
const TOP: usize = 5;

/// What every handler may use.
#[derive(Clone)]
pub(crate) struct Context {
    /// The daemon's state.
    pub shared: Arc<Shared>,
    /// Changes of labels and model.
    pub updater: Arc<Updater>,
    /// Who may ask.
    pub access: Arc<Access>,
    /// Memory for bodies.
    pub bodies: Arc<BodyBudget>,
    /// Becomes true when the daemon stops: what would go on for ever ends then.
    pub stopping: tokio::sync::watch::Receiver<bool>,
}

type Answer = Result<Response, Refused>;

/// All routes.
pub(crate) fn router(context: Context) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/page.css", get(page::style))
        .route("/page.js", get(page::script))
        .route("/icon.svg", get(page::icon))
        .route("/v1/classify", post(classify))
        .route("/v1/labels", get(labels).put(put_labels).delete(reset_labels))
        .route("/v1/reload", post(reload))
        .route("/v1/latest", get(latest))
        .route("/v1/events", get(events))
        .route("/v1/history", get(history))
        .route("/v1/frame.jpg", get(frame))
        .route("/v1/views.jpg", get(views))
        .route("/v1/info", get(info))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(context.clone(), around))
        .with_state(context)
}

/// Around every request: who asks, whether it may be answered, and a line in the log.
async fn around(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_string());
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_string();
    let refused = check_head(request.uri(), request.headers()).err().or_else(|| {
        // Whether it is alive may be asked without a token: a supervisor has none.
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
    headers.entry(CACHE_CONTROL).or_insert(axum::http::HeaderValue::from_static("no-store"));
    let status = response.status().as_u16();
    context.shared.metrics.answered(&route, status);
    let line = format!("{peer}: {method} {path:?} {status} in {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    let level = if method == Method::GET && status < 400 { log::Level::Debug } else { log::Level::Info };
    log::log!(level, "{line}");
    response
}

fn token_in(uri: &Uri) -> Option<String> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("token=")).map(String::from)
}

fn take_in(token: &str) -> Response {
    let cookie = format!("{COOKIE_NAME}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age=31536000");
    (StatusCode::SEE_OTHER, [(LOCATION, "/".to_string()), (SET_COOKIE, cookie)]).into_response()
}

async fn unknown(uri: Uri) -> Refused {
    let message = format!("there is nothing at {:?}; docs/daemon.md lists what there is", uri.path());
    Refused::new(StatusCode::NOT_FOUND, "not_found", message)
}

async fn wrong_method(method: Method, uri: Uri) -> Refused {
    let message = format!("{method} is not what {:?} takes", uri.path());
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

async fn healthz() -> &'static str {
    "alive\n"
}

async fn readyz(State(context): State<Context>) -> Answer {
    require_ready(&context.shared)?;
    Ok("ready\n".into_response())
}

fn require_ready(shared: &Shared) -> Result<(), Refused> {
    if shared.is_ready() {
        return Ok(());
    }
    Err(Refused::for_now("not_ready", "the daemon is starting or stopping", 1))
}

async fn info(State(context): State<Context>) -> Response {
    Json(context.shared.info()).into_response()
}

async fn history(State(context): State<Context>) -> Response {
    Json(context.shared.history.points()).into_response()
}

async fn metrics(State(context): State<Context>) -> Response {
    ([(CONTENT_TYPE, MEDIA_TYPE)], context.shared.metrics.text(&context.shared.sample())).into_response()
}

async fn classify(State(context): State<Context>, request: Request) -> Answer {
    let shared = &context.shared;
    require_ready(shared)?;
    let query = query_of(request.uri())?;
    check_query(&query, shared)?;
    expect_type(
        request.headers(),
        |kind| {
            kind.starts_with("image/")
                || kind == "application/octet-stream"
                || kind == "application/x-www-form-urlencoded"
        },
        "an image: image/jpeg, image/png, image/bmp, image/webp or application/octet-stream",
    )?;
    let body = read_body(request, IMAGE_BYTES_MAX, &context.bodies, shared).await?;
    let token = CancellationToken::counted_in(&shared.checkpoints);
    let (reply, answer) = oneshot::channel();
    let job = Job::Classify(Box::new(ClassifyRequest {
        bytes: body.bytes,
        views: query.views,
        method: query.method,
        top: query.top.unwrap_or(TOP),
        token: token.clone(),
        reply,
    }));
    if shared.inbox.push(job).is_err() {
        let message = format!("{} requests wait already; try again later", shared.inbox.capacity());
        return Err(Refused::for_now("busy", message, shared.retry_after_s()));
    }
    // Dropped with this handler, when the client hangs up or the deadline passes: then the work stops.
    let _guard = Cancelling(token);
    let deadline = Duration::from_millis(query.deadline_ms.unwrap_or(DEADLINE_MS.0));
    match tokio::time::timeout(deadline, answer).await {
        Ok(Ok(result)) => Ok(Json(result?).into_response()),
        // The engine let go of the request: it panicked over it, or the daemon stops.
        Ok(Err(_)) if shared.is_ready() => {
            let message = "the image could not be classified; the daemon's log has more";
            Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "panicked", message))
        }
        Ok(Err(_)) => Err(Refused::for_now("not_ready", "the daemon is stopping", 1)),
        Err(_) => {
            let message = format!("no answer within {} ms; ask for fewer views or wait longer", deadline.as_millis());
            Err(Refused::new(StatusCode::GATEWAY_TIMEOUT, "deadline", message))
        }
    }
}

/// Cancels work when it is dropped.
struct Cancelling(CancellationToken);

impl Drop for Cancelling {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn query_of(uri: &Uri) -> Result<ClassifyQuery, Refused> {
    let Query(query) = Query::<ClassifyQuery>::try_from_uri(uri).map_err(|error| {
        Refused::new(StatusCode::BAD_REQUEST, "query", format!("the query cannot be used: {error}"))
    })?;
    Ok(query)
}

fn check_query(query: &ClassifyQuery, shared: &Shared) -> Result<(), Refused> {
    let own = shared.model().map_or(0, |model| model.record.views);
    let within = |what: &'static str, found: Option<u64>, most: u64| match found {
        Some(found) if !(1..=most).contains(&found) => {
            Err(Refused::from(SettingError { what, expected: format!("1 to {most}"), found: found.to_string() }))
        }
        _ => Ok(()),
    };
    within("views", query.views.map(|views| views as u64), REQUEST_VIEWS_MAX.max(own) as u64)?;
    within("top", query.top.map(|top| top as u64), TOP_MAX as u64)?;
    within("deadline_ms", query.deadline_ms, DEADLINE_MS.1)
}

/// Refuses a body of another kind; a client that says nothing of it is trusted, the content is looked at anyway.
fn expect_type(headers: &HeaderMap, fits: impl Fn(&str) -> bool, expected: &str) -> Result<Option<String>, Refused> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(None) };
    let kind = value.to_str().unwrap_or("?").split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if fits(&kind) {
        return Ok(Some(kind));
    }
    let message = format!("the content type is {kind:?}, expected {expected}");
    Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message))
}

async fn labels(State(context): State<Context>) -> Answer {
    require_ready(&context.shared)?;
    labels_answer(&context.shared)
}

/// The labels in force, with a tag that changes when they do.
fn labels_answer(shared: &Shared) -> Answer {
    let Some(model) = shared.model() else { return Err(Refused::for_now("not_ready", "no model is loaded", 1)) };
    let record = LabelsRecord {
        schema: SCHEMA,
        labels: model.labels.names().to_vec(),
        ids: model.labels.list.ids().map(<[String]>::to_vec),
        prompts: model.labels.prompt.templates(),
        origin: shared.labels_origin(),
    };
    Ok(([(ETAG, shared.labels_tag())], Json(record)).into_response())
}

async fn put_labels(State(context): State<Context>, request: Request) -> Answer {
    let shared = &context.shared;
    require_ready(shared)?;
    let kind = expect_type(
        request.headers(),
        |kind| {
            matches!(
                kind,
                "text/plain" | "application/json" | "application/octet-stream" | "application/x-www-form-urlencoded"
            )
        },
        "text/plain with a label a line, or application/json as {\"labels\": […]}",
    )?;
    let tag = request.headers().get(IF_MATCH).map(|tag| tag.to_str().unwrap_or_default().to_string());
    let body = read_body(request, HTTP_LABELS_BYTES_MAX, &context.bodies, shared).await?;
    // No label begins with a brace: what does is JSON whose type was forgotten.
    let braced = body.bytes.trim_ascii_start().starts_with(b"{");
    let list: Labels = if kind.as_deref() == Some("application/json") || braced {
        let malformed = |error| {
            let message = format!("the body is not {{\"labels\": […]}}: {error}");
            Refused::new(StatusCode::BAD_REQUEST, "labels_malformed", message)
        };
        labels_of(serde_json::from_slice::<LabelsRequest>(&body.bytes).map_err(malformed)?)?
    } else {
        parse_labels(&body.bytes, "of the request".as_ref())?
    };
    drop(body);
    context.updater.edit_labels(Some(list), tag).await?;
    labels_answer(shared)
}

async fn reset_labels(State(context): State<Context>) -> Answer {
    require_ready(&context.shared)?;
    context.updater.edit_labels(None, None).await?;
    labels_answer(&context.shared)
}

async fn reload(State(context): State<Context>) -> Answer {
    require_ready(&context.shared)?;
    context.updater.reload().await?;
    Ok(Json(context.shared.info()).into_response())
}

async fn latest(State(context): State<Context>) -> Answer {
    let latest = context.shared.latest().ok_or_else(no_frame)?;
    Ok(([(CONTENT_TYPE, "application/json")], latest.json.to_string()).into_response())
}

fn no_frame() -> Refused {
    Refused::new(
        StatusCode::NOT_FOUND,
        "no_frame",
        "no frame was classified yet; is there a source, and does it give frames?",
    )
}

/// The latest frame's image file. Its type is told by its content; nearly always it is a JPEG.
async fn frame(State(context): State<Context>) -> Answer {
    let latest = context.shared.latest().ok_or_else(no_frame)?;
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
async fn views(State(context): State<Context>) -> Answer {
    let latest = context.shared.latest().ok_or_else(no_frame)?;
    let model = context.shared.model().ok_or_else(no_frame)?;
    let tag = format!("\"{}\"", latest.digest);
    let drawn = tokio::task::spawn_blocking(move || {
        view_sheet(&latest.file, &latest.digest, &model.preprocessing, &latest.views)
    });
    let sheet = drawn
        .await
        .map_err(|_| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "views", "the views cannot be drawn"))??;
    Ok(([(CONTENT_TYPE, "image/jpeg".to_string()), (ETAG, tag)], sheet).into_response())
}

async fn events(State(context): State<Context>) -> Answer {
    if context.shared.watchers() >= WATCHERS_MAX {
        return Err(Refused::for_now("too_many_watchers", format!("{WATCHERS_MAX} clients watch already"), 10));
    }
    let events = BroadcastStream::new(context.shared.watch());
    let status = serde_json::to_string(&context.shared.status()).expect("a record is always JSON");
    let mut first = vec![Event { name: "status", json: status.into() }];
    let latest = context.shared.latest();
    first.extend(latest.iter().map(|latest| Event { name: "decision", json: Arc::clone(&latest.json) }));
    // Events that a slow client missed are left out: the next ones say how things are. The latest decision may come as
    // an event as well, since both were asked for one after the other.
    let following = events.filter_map(move |event| {
        let told = |event: &Event| latest.as_ref().is_some_and(|latest| Arc::ptr_eq(&latest.json, &event.json));
        std::future::ready(event.ok().filter(|event| !told(event)))
    });
    let sent = stream::iter(first)
        .chain(following)
        .map(|event| Ok::<_, Infallible>(SentEvent::default().event(event.name).data(event.json.as_ref())));
    let mut stopping = context.stopping.clone();
    let until = async move {
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    Ok(Sse::new(ending(sent, until)).keep_alive(KeepAlive::default()).into_response())
}

/// A stream that ends when `until` is done.
fn ending<S: Stream + Send>(stream: S, until: impl Future<Output = ()> + Send) -> impl Stream<Item = S::Item> + Send {
    stream.take_until(Box::pin(until))
}
