//! Connections: accepted up to a bound, served until they end or the daemon does.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::client_stream::ClientStream;
use super::guard::Peer;
use super::listen::Listener;
use super::metrics::Metrics;
use super::refusal::final_answer;
use crate::limits::{
    HEAD_HARD_MAX, HEAD_MS, LOCAL_CONNECTIONS_MAX, PEER_CONNECTIONS_MAX, REMOTE_CONNECTIONS_MAX, REQUESTS_END_MS,
    TURNED_AWAY_MAX,
};

/// Wait after a connection could not be accepted, as when the process has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Longest time that a connection is told that there is no room.
const TURN_AWAY: Duration = Duration::from_secs(1);
/// Least time between two messages about connections that cannot be accepted.
const MESSAGE_EVERY: Duration = Duration::from_secs(60);

/// Everything a connection needs.
#[derive(Clone)]
struct Serving {
    app: Router,
    metrics: Arc<Metrics>,
    room: Arc<Room>,
}

/// Places for connections. Those of the Unix socket are its own: whoever can open a TCP connection can take none of them.
struct Room {
    local: Arc<Semaphore>,
    remote: Arc<Semaphore>,
    /// Connections that are told that there is no place.
    turned_away: Arc<Semaphore>,
    /// Connections of each other device.
    peers: Arc<Peers>,
}

/// Open connections (count) by device.
type Peers = Mutex<HashMap<IpAddr, usize>>;

/// A connection's place.
struct Place {
    _permit: OwnedSemaphorePermit,
    _of_peer: Option<PlaceOfPeer>,
}

/// A connection that counts for its device until it is dropped.
struct PlaceOfPeer {
    peers: Arc<Peers>,
    device: IpAddr,
}

impl Room {
    fn new() -> Self {
        Self {
            local: Arc::new(Semaphore::new(LOCAL_CONNECTIONS_MAX)),
            remote: Arc::new(Semaphore::new(REMOTE_CONNECTIONS_MAX)),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
            peers: Arc::default(),
        }
    }

    /// A place for a connection, if there is one.
    fn place(&self, peer: &Peer) -> Option<Place> {
        let Peer::Remote(address) = peer else {
            let permit = Arc::clone(&self.local).try_acquire_owned().ok()?;
            return Some(Place { _permit: permit, _of_peer: None });
        };
        let permit = Arc::clone(&self.remote).try_acquire_owned().ok()?;
        // A proxy on this device speaks for many.
        let of_peer = match address.ip() {
            ip if ip.is_loopback() => None,
            ip => Some(PlaceOfPeer::take(&self.peers, device(ip))?),
        };
        Some(Place { _permit: permit, _of_peer: of_peer })
    }
}

impl PlaceOfPeer {
    fn take(peers: &Arc<Peers>, device: IpAddr) -> Option<Self> {
        let mut open = peers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(device).or_default();
        if *count >= PEER_CONNECTIONS_MAX {
            return None;
        }
        *count += 1;
        Some(Self { peers: Arc::clone(peers), device })
    }
}

impl Drop for PlaceOfPeer {
    fn drop(&mut self) {
        let mut open = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.device) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.device);
            }
        }
    }
}

/// Address that stands for a device: of IPv6 a device has a whole network of 64 bits.
fn device(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => ip.into(),
            None => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        },
    }
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
    let serving = Serving { app, metrics, room: Arc::new(Room::new()) };
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
    if timeout(Duration::from_millis(REQUESTS_END_MS), graceful.shutdown()).await.is_err() {
        log::warn!("some requests did not end within {REQUESTS_END_MS} ms and were cut off");
    }
    Ok(())
}

/// Accepts connections for ever.
async fn accept<S, F>(serving: &Serving, graceful: &GracefulShutdown, mut next: impl FnMut() -> F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<(S, Peer)>>,
{
    let mut said: Option<Instant> = None;
    loop {
        match next().await {
            Ok((stream, peer)) => begin(serving, graceful, stream, peer),
            Err(error) => {
                // Without descriptors it fails ten times a second for as long as that lasts.
                if said.is_none_or(|said| said.elapsed() >= MESSAGE_EVERY) {
                    log::warn!("cannot accept a connection: {error}; trying on, and silent about it for a minute");
                    said = Some(Instant::now());
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn begin<S>(serving: &Serving, graceful: &GracefulShutdown, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(place) = serving.room.place(&peer) else {
        if let Ok(permit) = Arc::clone(&serving.room.turned_away).try_acquire_owned() {
            // On a task of its own: a client that takes nothing must not keep the others from being accepted.
            tokio::spawn(async move {
                turn_away(stream).await;
                drop(permit);
            });
        }
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
    let counted = Counted::new(&serving.metrics);
    tokio::spawn(async move {
        let _counted = counted;
        if let Err(error) = pin!(connection).await {
            // Clients hang up as they like: no news for the log.
            log::debug!("a connection ended: {error}");
        }
        drop(place);
    });
}

/// A connection that counts as open until it is dropped, however its task ends.
struct Counted(Arc<Metrics>);

impl Counted {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// Answers that there is no room, and passes over the request.
async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let message = "too many connections are open already; try again later";
    let answer = final_answer(StatusCode::SERVICE_UNAVAILABLE, "too_many_connections", message, Some(1));
    let _ = timeout(TURN_AWAY, async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        // Closed with bytes unread the answer could be lost on the way.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(address: &str) -> Peer {
        Peer::Remote(format!("{address}:5000").parse().unwrap())
    }

    #[test]
    fn one_device_takes_its_share_and_no_more() {
        let room = Room::new();
        let held: Vec<Place> = (0..PEER_CONNECTIONS_MAX).map(|_| room.place(&remote("192.0.2.7")).unwrap()).collect();
        assert!(room.place(&remote("192.0.2.7")).is_none() && room.place(&remote("192.0.2.8")).is_some());
        drop(held);
        assert!(room.place(&remote("192.0.2.7")).is_some());
        assert!(room.peers.lock().unwrap().is_empty(), "nothing is kept of devices that are gone");
    }

    #[test]
    fn the_socket_has_places_whatever_comes_over_tcp() {
        let room = Room::new();
        let devices = (0..REMOTE_CONNECTIONS_MAX).map(|number| format!("10.0.{}.{}", number / 250, number % 250));
        let held: Vec<Place> = devices.map(|device| room.place(&remote(&device)).unwrap()).collect();
        assert!(room.place(&remote("192.0.2.8")).is_none() && held.len() == REMOTE_CONNECTIONS_MAX);
        assert!(room.place(&Peer::Local { uid: 0, pid: None }).is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_device() {
        let of = |text: &str| device(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
    }
}
