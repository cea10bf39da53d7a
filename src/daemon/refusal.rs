//! Refusals: a status and a reason in JSON.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::protocol::RefusalRecord;
use crate::cancellation::Cancelled;
use crate::error::{Category, Error};
use crate::views::ImageError;

/// Reason that a request is not answered as it was asked.
#[derive(Debug)]
pub(crate) struct Refused {
    status: StatusCode,
    kind: &'static str,
    message: String,
    /// Seconds after which to try again.
    retry_after: Option<u64>,
}

impl Refused {
    /// A refusal with a stable name and a message.
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), retry_after: None }
    }

    /// A refusal that passes: the client should try again after `seconds`.
    pub(crate) fn for_now(kind: &'static str, message: impl Into<String>, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, message) }
    }

    /// The refusal of something that was sent: a bundle that is none is the client's, and no error of this daemon.
    pub(crate) fn of_sent(error: Error) -> Self {
        let of_client = error.category() == Category::Bundle;
        let refused = Self::from(error);
        if of_client { Self { status: StatusCode::UNPROCESSABLE_ENTITY, ..refused } } else { refused }
    }

    /// True if the work was cancelled.
    pub(super) fn is_cancelled(&self) -> bool {
        self.kind == Error::from(Cancelled).kind()
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: Into<Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        let error = error.into();
        let status = match &error {
            Error::Image(ImageError::FileTooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Error::Image(ImageError::FormatUnknown { .. }) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Error::Cancelled(_) => StatusCode::GATEWAY_TIMEOUT,
            _ => match error.category() {
                Category::Input => StatusCode::UNPROCESSABLE_ENTITY,
                Category::Usage => StatusCode::BAD_REQUEST,
                Category::Bundle | Category::Output | Category::Daemon => StatusCode::INTERNAL_SERVER_ERROR,
            },
        };
        Self::new(status, error.kind(), error.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(RefusalRecord::new(self.kind, self.message))).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The bytes of a whole HTTP/1.1 answer that ends its connection: for where there is no request to answer.
pub(crate) fn final_answer(status: StatusCode, kind: &str, message: &str, retry_after: Option<u64>) -> Vec<u8> {
    let body = serde_json::to_string(&RefusalRecord::new(kind, message)).expect("strings are always JSON");
    let reason = status.canonical_reason().unwrap_or_default();
    let retry = retry_after.map_or(String::new(), |seconds| format!("retry-after: {seconds}\r\n"));
    format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{retry}connection: close\r\n\r\n{body}",
        status.as_str(),
        body.len(),
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::EncoderError;

    #[test]
    fn work_that_the_encoder_gave_up_is_a_timeout() {
        let refused = Refused::from(EncoderError::from(Cancelled));
        assert_eq!((refused.status, refused.kind), (StatusCode::GATEWAY_TIMEOUT, "cancelled"));
    }
}
