//! Bundle slots over HTTP: what is in force, another bundle installed, confirmed, given up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use http_body_util::BodyExt;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use super::http::{Answer, require_ready};
use super::protocol::BundleRecord;
use super::refusal::Refused;
use super::reporter::Reporter;
use super::update::Updater;
use crate::files::{FileError, temporary_beside};
use crate::limits::{ARCHIVE_BYTES_MAX, UPLOAD_MS};

/// Pieces of an upload that wait for the disk (count).
const PENDING: usize = 8;

/// The one upload that may run at a time.
#[derive(Default)]
pub(crate) struct Uploads(Mutex<()>);

/// `GET /v1/bundle`.
pub(crate) async fn bundle(State(updater): State<Arc<Updater>>) -> Answer {
    Ok(Json(record(&updater)?).into_response())
}

/// `POST /v1/bundle/confirm`: the bundle on trial stays.
pub(crate) async fn confirm(State(reporter): State<Arc<Reporter>>, State(updater): State<Arc<Updater>>) -> Answer {
    require_ready(&reporter)?;
    record(&updater)?;
    updater.confirm_bundle().await?;
    Ok(Json(record(&updater)?).into_response())
}

/// `POST /v1/bundle/rollback`: back to the bundle before.
pub(crate) async fn roll_back(State(reporter): State<Arc<Reporter>>, State(updater): State<Arc<Updater>>) -> Answer {
    require_ready(&reporter)?;
    record(&updater)?;
    updater.give_up_bundle("it was asked for".into()).await?;
    Ok(Json(record(&updater)?).into_response())
}

/// `PUT /v1/bundle`: the archive of a bundle, which is installed and put on trial.
pub(crate) async fn install(
    State(reporter): State<Arc<Reporter>>,
    State(updater): State<Arc<Updater>>,
    State(uploads): State<Arc<Uploads>>,
    request: Request,
) -> Answer {
    require_ready(&reporter)?;
    record(&updater)?;
    let Ok(_one) = uploads.0.try_lock() else {
        return Err(Refused::for_now("busy", "another bundle is being installed; try again later", 30));
    };
    let folder = updater.slots_folder().ok_or_else(no_slots)?;
    let upload = Upload(
        temporary_beside(&folder.join("upload")).map_err(|source| FileError::Unwritable { path: folder, source })?,
    );
    receive(request, upload.0.clone()).await?;
    updater.install_bundle(upload.0.clone()).await?;
    Ok(Json(record(&updater)?).into_response())
}

/// An uploaded file, which is removed with this value.
struct Upload(PathBuf);

impl Drop for Upload {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writes the body of a request to a file, within bounds of size and time.
async fn receive(request: Request, path: PathBuf) -> Result<(), Refused> {
    let (sender, mut pieces) = mpsc::channel::<axum::body::Bytes>(PENDING);
    let target = path.clone();
    // Disks block, and this thread answers all clients.
    let writing = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::create(&target)?;
        while let Some(piece) = pieces.blocking_recv() {
            std::io::Write::write_all(&mut file, &piece)?;
        }
        file.sync_all()
    });
    let reading = async move {
        let mut stream = request.into_body();
        let mut bytes = 0_u64;
        while let Some(frame) = stream.frame().await {
            let broken = |error: axum::Error| {
                let message = format!("the bundle did not come to its end: {error}");
                Refused::new(StatusCode::BAD_REQUEST, "body_incomplete", message)
            };
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            bytes += data.len() as u64;
            if bytes > ARCHIVE_BYTES_MAX {
                let message = format!("the bundle is larger than {} MiB", ARCHIVE_BYTES_MAX >> 20);
                return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message));
            }
            // The disk is full or gone: its error is told below.
            if sender.send(data).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    timeout(Duration::from_millis(UPLOAD_MS), reading).await.unwrap_or_else(|_| {
        let message = format!("the bundle did not come within {} s", UPLOAD_MS / 1000);
        Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message))
    })?;
    match writing.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => Err(FileError::Unwritable { path, source }.into()),
        Err(_) => Err(Refused::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "panicked",
            "the bundle could not be kept; see the log",
        )),
    }
}

fn record(updater: &Updater) -> Result<BundleRecord, Refused> {
    updater.bundle_record().ok_or_else(no_slots)
}

fn no_slots() -> Refused {
    let message = "this daemon has no bundle slots; set `slots` in its configuration, and start it again";
    Refused::new(StatusCode::CONFLICT, "no_slots", message)
}
