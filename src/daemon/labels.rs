//! The labels in force, read and changed by clients.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;

use super::body::{expect_type, read_body};
use super::edited_labels::labels_of;
use super::http::{Answer, Context, require_ready};
use super::model_in_force::ModelInForce;
use super::protocol::{LabelsRecord, LabelsRequest, SCHEMA};
use super::refusal::Refused;
use crate::labels::{Labels, parse_labels};
use crate::limits::{HTTP_LABELS_BYTES_MAX, HTTP_LABELS_MAX};

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
    let list: Labels = if kind.as_deref() == Some("application/json") || braced {
        let malformed = |error| {
            let message = format!("the body is not {{\"labels\": […]}}: {error}");
            Refused::new(StatusCode::BAD_REQUEST, "labels_malformed", message)
        };
        labels_of(serde_json::from_slice::<LabelsRequest>(&body.bytes).map_err(malformed)?)?
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
    context.updater.edit_labels(Some(list), tag).await?;
    labels_answer(&context.model)
}

/// `DELETE /v1/labels`: back to the configured labels, if the tag in `If-Match` is that of the labels in force.
pub(crate) async fn reset_labels(State(context): State<Context>, headers: HeaderMap) -> Answer {
    require_ready(&context.reporter)?;
    context.updater.edit_labels(None, tag_of(&headers)).await?;
    labels_answer(&context.model)
}

/// The tag in `If-Match`. One that is no text fits none, and is refused as another one.
fn tag_of(headers: &HeaderMap) -> Option<String> {
    headers.get(IF_MATCH).map(|tag| tag.to_str().unwrap_or_default().to_string())
}
