//! Connections: accepted up to a bound, served until they end or the daemon does.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::client_stream::ClientStream;
use super::guard::Peer;
use super::listen::Listener;
use super::metrics::Metrics;
use super::refusal::final_answer;
use crate::limits::{CONNECTIONS_MAX, HEAD_HARD_MAX, HEAD_MS, SHUTDOWN_MS};

/// Wait after a connection could not be accepted, as when the process has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Everything a connection needs.
#[derive(Clone)]
struct Serving {
    app: Router,
    metrics: Arc<Metrics>,
    room: Arc<Semaphore>,
}

/// Serves all listeners until `stopping` is true; then lets what runs come to its end, within a bound.
///
/// # Errors
/// A listener cannot be used.
pub(crate) async fn serve(
    listeners: Vec<Listener>,
    app: Router,
    metrics: Arc<Metrics>,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let serving = Serving { app, metrics, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
    let graceful = Arc::new(GracefulShutdown::new());
    let mut accepting = JoinSet::new();
    for listener in listeners {
        match listener {
            Listener::Unix(listener) => {
                let listener = UnixListener::from_std(listener)?;
                let (serving, graceful) = (serving.clone(), Arc::clone(&graceful));
                accepting.spawn(async move {
                    accept(&serving, &graceful, || async {
                        let (stream, _) = listener.accept().await?;
                        // The kernel's word on the other end is for the log alone. Without it the peer is local all the
                        // same.
                        let peer = stream.peer_cred().map_or(Peer::Local { uid: u32::MAX, pid: None }, |peer| {
                            Peer::Local { uid: peer.uid(), pid: peer.pid() }
                        });
                        Ok((stream, peer))
                    })
                    .await;
                });
            }
            Listener::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                let (serving, graceful) = (serving.clone(), Arc::clone(&graceful));
                accepting.spawn(async move {
                    accept(&serving, &graceful, || async {
                        let (stream, address) = listener.accept().await?;
                        // Events are small and should not wait for one another.
                        let _ = stream.set_nodelay(true);
                        Ok((stream, Peer::Remote(address)))
                    })
                    .await;
                });
            }
        }
    }
    // An error means that the sender is gone, as it is when the daemon ends in another way.
    let _ = stopping.wait_for(|stopping| *stopping).await;
    accepting.shutdown().await;
    // `shutdown` has waited for the tasks that shared it, so nobody else has it.
    let Some(graceful) = Arc::into_inner(graceful) else { return Ok(()) };
    if timeout(Duration::from_millis(SHUTDOWN_MS), graceful.shutdown()).await.is_err() {
        log::warn!("some requests did not end within {} s and were cut off", SHUTDOWN_MS / 1000);
    }
    Ok(())
}

/// Accepts connections for ever.
async fn accept<S, F>(serving: &Serving, graceful: &GracefulShutdown, mut next: impl FnMut() -> F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<(S, Peer)>>,
{
    loop {
        match next().await {
            Ok((stream, peer)) => begin(serving, graceful, stream, peer),
            Err(error) => {
                log::warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn begin<S>(serving: &Serving, graceful: &GracefulShutdown, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok(place) = Arc::clone(&serving.room).try_acquire_owned() else {
        // On a task of its own: a client that takes nothing must not keep the others from being accepted.
        tokio::spawn(turn_away(stream));
        return;
    };
    let service = TowerToHyperService::new(serving.app.clone());
    let service = service_fn(move |mut request: axum::http::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        service.call(request)
    });
    // Wider than the limits of `check_head`: what lies between them gets an answer that says by how much. hyper panics
    // over a timeout without a timer.
    let (headers, head_bytes) = HEAD_HARD_MAX;
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HEAD_MS))
        .max_headers(headers)
        .max_buf_size(head_bytes)
        .serve_connection(TokioIo::new(ClientStream::new(stream)), service);
    // Watched, so that a connection that is kept alive ends after its current answer when the daemon does.
    let connection = graceful.watch(connection);
    let metrics = Arc::clone(&serving.metrics);
    tokio::spawn(async move {
        metrics.connections.inc();
        if let Err(error) = pin!(connection).await {
            // Clients hang up as they like: no news for the log.
            log::debug!("a connection ended: {error}");
        }
        metrics.connections.dec();
        drop(place);
    });
}

/// Answers that there is no room, without reading the request.
async fn turn_away<S: AsyncWrite + Unpin>(mut stream: S) {
    let message = format!("{CONNECTIONS_MAX} connections are open already; try again later");
    let answer = final_answer(StatusCode::SERVICE_UNAVAILABLE, "too_many_connections", &message, Some(1));
    let _ = timeout(Duration::from_secs(1), stream.write_all(&answer)).await;
}
