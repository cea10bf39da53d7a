//! The picture of the latest frame's views, drawn when somebody asks, one at a time.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::Mutex;

use super::events::Latest;
use super::refusal::Refused;
use crate::report::view_sheet;

/// The last picture that was drawn.
#[derive(Default)]
pub(crate) struct ViewSheets(Mutex<Option<Drawn>>);

struct Drawn {
    latest: Arc<Latest>,
    sheet: Vec<u8>,
}

impl ViewSheets {
    /// The views of a frame as a JPEG: the one that was drawn, or one that is drawn now.
    ///
    /// # Errors
    /// The views cannot be drawn.
    pub(crate) async fn sheet(&self, latest: Arc<Latest>) -> Result<Vec<u8>, Refused> {
        // Held while it is drawn: whoever asks meanwhile gets the same picture, and a large image is decoded once.
        let mut last = self.0.lock().await;
        if let Some(drawn) = last.as_ref().filter(|drawn| Arc::ptr_eq(&drawn.latest, &latest)) {
            return Ok(drawn.sheet.clone());
        }
        // What was drawn before is let go before another is made.
        *last = None;
        let frame = Arc::clone(&latest);
        // Drawing takes the processor for a while, and this thread answers all clients.
        let drawing = tokio::task::spawn_blocking(move || {
            view_sheet(&frame.file, &frame.digest, &frame.preprocessing, &frame.views)
        });
        let failed =
            |_| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "views", "the views cannot be drawn; see the log");
        let sheet = drawing.await.map_err(failed)??;
        *last = Some(Drawn { latest, sheet: sheet.clone() });
        Ok(sheet)
    }
}
