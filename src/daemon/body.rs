//! Reading a request's body, within bounds of size, time and memory.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::guard::Peer;
use super::queue::Queue;
use super::refusal::Refused;
use crate::limits::{BODIES_BYTES_MAX, BODY_MS};

/// Memory is handed out in pieces of this size (bytes).
const PIECE: usize = 4 << 10;

/// The memory that all bodies together may take, the Unix socket's and those over TCP apart.
pub(crate) struct BodyBudget {
    local: Arc<Semaphore>,
    remote: Arc<Semaphore>,
}

impl Default for BodyBudget {
    fn default() -> Self {
        let (local, remote) = BODIES_BYTES_MAX;
        let pieces = |bytes: usize| Arc::new(Semaphore::new(bytes / PIECE));
        Self { local: pieces(local), remote: pieces(remote) }
    }
}

/// A body, with its share of the memory.
pub(crate) struct Body {
    /// The content.
    pub bytes: Vec<u8>,
    _room: Vec<OwnedSemaphorePermit>,
}

/// Reads the whole body of a request.
///
/// # Errors
/// It is longer than `limit` (bytes), does not come in time or not to its end, or there is no memory for it now.
pub(crate) async fn read_body(
    request: Request,
    limit: u64,
    budget: &BodyBudget,
    queue: &Queue,
) -> Result<Body, Refused> {
    let too_large = || {
        let message = format!("the body is larger than {limit} bytes");
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    // Refused by its length before any of it is read: a client that sends `Expect: 100-continue` keeps its megabytes.
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|announced| announced > limit) {
        return Err(too_large());
    }
    let memory = if is_local(&request) { &budget.local } else { &budget.remote };
    // Frame by frame, not by axum's extractors: these buffer the whole body before anybody has counted its memory.
    let reading = async {
        let mut stream = request.into_body();
        let mut body = Body { bytes: Vec::new(), _room: Vec::new() };
        let mut room = 0;
        while let Some(frame) = stream.frame().await {
            let broken = |error: axum::Error| {
                let message = format!("the body did not come to its end: {error}");
                Refused::new(StatusCode::BAD_REQUEST, "body_incomplete", message)
            };
            // What is no data are trailers, which nothing here uses.
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            let length = body.bytes.len() + data.len();
            if length as u64 > limit {
                return Err(too_large());
            }
            if length > room {
                let pieces = (length - room).div_ceil(PIECE);
                // Refused and not waited for: bodies that hold a part each and wait for the rest would wait for one
                // another for ever.
                let permit = Arc::clone(memory).try_acquire_many_owned(pieces as u32).map_err(|_| {
                    let message = "other requests' bodies take all the memory there is for them; try again later";
                    Refused::for_now("busy", message, queue.retry_after_s())
                })?;
                room += pieces * PIECE;
                body._room.push(permit);
            }
            body.bytes.extend_from_slice(&data);
        }
        Ok(body)
    };
    timeout(Duration::from_millis(BODY_MS), reading).await.unwrap_or_else(|_| {
        let message = format!("the body did not come within {} s", BODY_MS / 1000);
        Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message))
    })
}

/// True if a request came over the Unix socket.
pub(crate) fn is_local(request: &Request) -> bool {
    matches!(request.extensions().get(), Some(Peer::Local { .. }))
}

/// The content type of a request, if it has one; without one the content decides.
///
/// # Errors
/// It is of another kind than `fits`; `expected` is used in the message.
pub(crate) fn expect_type(
    headers: &HeaderMap,
    fits: impl Fn(&str) -> bool,
    expected: &str,
) -> Result<Option<String>, Refused> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(None) };
    let kind = value.to_str().unwrap_or("?").split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if fits(&kind) {
        return Ok(Some(kind));
    }
    let message = format!("the content type is {kind:?}, expected {expected}");
    Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message))
}
