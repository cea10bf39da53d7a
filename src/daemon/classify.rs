//! Images of clients.

use std::time::Duration;

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use tokio::sync::oneshot;

use super::body::{expect_type, is_local, read_body};
use super::engine::{Job, Request as ClassifyRequest};
use super::http::{Answer, Context, require_ready};
use super::protocol::ClassifyQuery;
use super::refusal::Refused;
use crate::cancellation::CancellationToken;
use crate::limits::{DEADLINE_MS, IMAGE_BYTES_MAX, QUEUE_RESERVED_PART, REQUEST_VIEWS_MAX, TOP_MAX};
use crate::setting::SettingError;

/// Answers listed if a query does not say (count), as in `rtpt classify --json`.
const TOP: usize = 5;

/// `POST /v1/classify`: an image in, an answer out.
pub(crate) async fn classify(State(context): State<Context>, request: Request) -> Answer {
    // All that can be refused without the body is refused before it is read.
    require_ready(&context.reporter)?;
    let query = query_of(request.uri())?;
    check_query(&query, context.model.info().map_or(0, |model| model.record.views))?;
    expect_image(request.headers())?;
    let (queue, reserved) = (&context.queue, reserved_from(&request, &context));
    let body = read_body(request, IMAGE_BYTES_MAX, &context.bodies, queue).await?;
    // Counted from here: the body has a bound of its own.
    let deadline = Duration::from_millis(query.deadline_ms.unwrap_or(DEADLINE_MS.0));
    let record = found(&context, reserved, deadline, |token, reply| {
        let ClassifyQuery { views, method, top, .. } = query;
        Job::Classify(Box::new(ClassifyRequest { body, views, method, top: top.unwrap_or(TOP), token, reply }))
    });
    Ok(Json(record.await?).into_response())
}

/// What the engine finds about an image; `job` makes its work, and `reserved` places of the queue are left to others.
///
/// # Errors
/// The queue is full, the image cannot be used, or the deadline passes.
pub(super) async fn found<T>(
    context: &Context,
    reserved: usize,
    deadline: Duration,
    job: impl FnOnce(CancellationToken, oneshot::Sender<crate::error::Result<T>>) -> Job,
) -> Result<T, Refused> {
    let queue = &context.queue;
    let token = context.progress.request_token();
    let (reply, answer) = oneshot::channel();
    if queue.inbox.push(job(token.clone(), reply), reserved).is_err() {
        let message = format!("{} requests wait already; try again later", queue.inbox.capacity());
        return Err(Refused::for_now("busy", message, queue.retry_after_s()));
    }
    // Dropped with this handler, when the client hangs up or the deadline passes: then the work stops.
    let _guard = Cancelling(token);
    match tokio::time::timeout(deadline, answer).await {
        Ok(Ok(result)) => Ok(result?),
        // The engine let go of the request: it panicked over it, or the daemon stops.
        Ok(Err(_)) if context.reporter.is_ready() => {
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

/// Refuses a body that says that it is no image.
///
/// # Errors
/// It says so.
pub(super) fn expect_image(headers: &HeaderMap) -> Result<(), Refused> {
    expect_type(
        headers,
        |kind| {
            // The last is what curl names where it is given none.
            kind.starts_with("image/")
                || kind == "application/octet-stream"
                || kind == "application/x-www-form-urlencoded"
        },
        "an image: image/jpeg, image/png, image/bmp, image/webp or application/octet-stream",
    )?;
    Ok(())
}

/// Places of the queue that a request leaves to those over the Unix socket.
pub(super) fn reserved_from(request: &Request, context: &Context) -> usize {
    if is_local(request) { 0 } else { context.queue.inbox.capacity() / QUEUE_RESERVED_PART }
}

/// Cancels work when it is dropped.
struct Cancelling(CancellationToken);

impl Drop for Cancelling {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The query of a request to classify.
///
/// # Errors
/// It is none.
pub(crate) fn query_of(uri: &Uri) -> Result<ClassifyQuery, Refused> {
    let Query(query) = Query::<ClassifyQuery>::try_from_uri(uri).map_err(|error| {
        // The framework's words, without those about its own work.
        let text = error.body_text().replace("Failed to deserialize query string: ", "");
        let text = text.replace("invalid digit found in string", "expected a whole number");
        Refused::new(StatusCode::BAD_REQUEST, "query", format!("the query cannot be used: {text}"))
    })?;
    Ok(query)
}

/// Checks a query's ranges. The model's `own` number of views may be asked for whatever the limit is.
fn check_query(query: &ClassifyQuery, own: usize) -> Result<(), Refused> {
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
