//! The labels in force, read and changed by clients.

use std::time::Duration;

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;

use super::body::{expect_type, read_body};
use super::classify::{expect_image, found, reserved_from};
use super::edited_labels::labels_of;
use super::engine::{Job, Look};
use super::http::{Answer, Context, require_ready};
use super::model_in_force::ModelInForce;
use super::protocol::{ExampleQuery, LabelsRecord, LabelsRequest, SCHEMA};
use super::refusal::Refused;
use crate::labels::{Labels, parse_labels};
use crate::limits::{DEADLINE_MS, HTTP_LABELS_BYTES_MAX, HTTP_LABELS_MAX, IMAGE_BYTES_MAX};

/// `GET /v1/labels`.
pub(crate) async fn labels(State(context): State<Context>) -> Answer {
    require_ready(&context.reporter)?;
    labels_answer(&context.model)
}

/// The labels in force, with a tag that changes when they do.
fn labels_answer(in_force: &ModelInForce) -> Answer {
    let Some(model) = in_force.info() else { return Err(Refused::for_now("not_ready", "no model is loaded", 1)) };
    let (labels, ids) = model.labels.list.rows();
    let record = LabelsRecord {
        schema: SCHEMA,
        labels,
        ids,
        prompts: model.labels.prompt.templates(),
        examples: model.labels.list.examples().counts(&model.bundle.encoder_digest()),
        origin: in_force.labels_origin(),
    };
    Ok(([(ETAG, in_force.labels_tag())], Json(record)).into_response())
}

/// `PUT /v1/labels`: other labels, if the tag in `If-Match` is that of the labels in force.
pub(crate) async fn put_labels(State(context): State<Context>, request: Request) -> Answer {
    require_ready(&context.reporter)?;
    let kind = expect_type(
        request.headers(),
        |kind| {
            // The last two are what curl and other clients name where they are given no type.
            matches!(
                kind,
                "text/plain" | "application/json" | "application/octet-stream" | "application/x-www-form-urlencoded"
            )
        },
        "text/plain with one label per line, or application/json as {\"labels\": […]}",
    )?;
    let tag = tag_of(request.headers());
    let body = read_body(request, HTTP_LABELS_BYTES_MAX, &context.bodies, &context.queue).await?;
    // No label begins with a brace: what does is JSON whose type was forgotten.
    let braced = body.bytes.trim_ascii_start().starts_with(b"{");
    let mut keep_examples = true;
    let list: Labels = if kind.as_deref() == Some("application/json") || braced {
        let malformed = |error| {
            let message = format!("the body is not {{\"labels\": […]}}: {error}");
            Refused::new(StatusCode::BAD_REQUEST, "labels_malformed", message)
        };
        let request: LabelsRequest = serde_json::from_slice(&body.bytes).map_err(malformed)?;
        keep_examples = request.examples.is_none();
        labels_of(request)?
    } else {
        parse_labels(&body.bytes, "of the request".as_ref())?
    };
    if list.texts().len() > HTTP_LABELS_MAX {
        let found = list.texts().len();
        let message = format!(
            "{found} labels are too many over HTTP, expected at most {HTTP_LABELS_MAX}; write them into the labels file of the daemon's configuration, and reload"
        );
        return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_labels", message));
    }
    // Embedding may take seconds, in which other bodies can have the memory.
    drop(body);
    context.updater.edit_labels(Some(list), keep_examples, tag).await?;
    labels_answer(&context.model)
}

/// `DELETE /v1/labels`: back to the configured labels, if the tag in `If-Match` is that of the labels in force.
pub(crate) async fn reset_labels(State(context): State<Context>, headers: HeaderMap) -> Answer {
    require_ready(&context.reporter)?;
    context.updater.edit_labels(None, false, tag_of(&headers)).await?;
    labels_answer(&context.model)
}

/// `POST /v1/labels/examples?label=NAME`: a photo in, of which the label is a class by example from now on.
pub(crate) async fn add_example(State(context): State<Context>, request: Request) -> Answer {
    require_ready(&context.reporter)?;
    let label = label_of(request.uri())?;
    expect_image(request.headers())?;
    let (tag, reserved) = (tag_of(request.headers()), reserved_from(&request, &context));
    let body = read_body(request, IMAGE_BYTES_MAX, &context.bodies, &context.queue).await?;
    let deadline = Duration::from_millis(DEADLINE_MS.0);
    let features = found(&context, reserved, deadline, |token, reply| Job::See(Look { body, token, reply })).await?;
    context.updater.add_example(label, features, tag).await?;
    labels_answer(&context.model)
}

/// `DELETE /v1/labels/examples?label=NAME`: the label is a text again.
pub(crate) async fn forget_example(State(context): State<Context>, uri: Uri, headers: HeaderMap) -> Answer {
    require_ready(&context.reporter)?;
    context.updater.forget_example(label_of(&uri)?, tag_of(&headers)).await?;
    labels_answer(&context.model)
}

fn label_of(uri: &Uri) -> Result<String, Refused> {
    let Query(ExampleQuery { label }) = Query::try_from_uri(uri).map_err(|_| {
        let message = "the query cannot be used: expected ?label=NAME, the label that the photo is an example of";
        Refused::new(StatusCode::BAD_REQUEST, "query", message)
    })?;
    Ok(label.trim().to_string())
}

/// The tag in `If-Match`. One that is no text fits none, and is refused as another one.
fn tag_of(headers: &HeaderMap) -> Option<String> {
    headers.get(IF_MATCH).map(|tag| tag.to_str().unwrap_or_default().to_string())
}
