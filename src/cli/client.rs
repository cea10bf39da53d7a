//! A client of a running daemon, over its Unix socket.

use std::env;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::daemon::protocol::{InfoRecord, RefusalRecord};
use crate::error::{Category, Class, Error, ProgramLayer, Result};
use crate::files::{FileError, open_regular};
use crate::limits::ANSWER_BYTES_MAX;
use clap::Args;
use futures_util::stream;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use nix::unistd::Uid;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

/// Socket of the system-wide daemon.
const SYSTEM_SOCKET: &str = "/run/rtpt/rtpt.sock";
/// Socket that systemd listens on, if it starts the daemon on demand.
const ACTIVATION_SOCKET: &str = "/run/rtpt.sock";
/// Longest wait for what a daemon answers at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// A socket's name in a folder.
const SOCKET_NAME: &str = "rtpt.sock";

/// Piece of a file that is sent (bytes).
const PIECE_BYTES: usize = 64 << 10;

/// Which daemon.
#[derive(Args)]
pub(crate) struct SocketArgument {
    /// The daemon's Unix socket [default: the first there is of rtpt.sock in $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR and
    /// /run/rtpt, and /run/rtpt.sock]
    #[arg(long, env = "RTPT_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// Default socket of a daemon of this user.
pub(crate) fn default_socket() -> Option<PathBuf> {
    own_sockets().next().or_else(|| Uid::effective().is_root().then(|| SYSTEM_SOCKET.into()))
}

/// Default sockets, in order: clients and the doctor take the first that is there.
fn usual_sockets() -> impl Iterator<Item = PathBuf> {
    own_sockets().chain([SYSTEM_SOCKET.into(), ACTIVATION_SOCKET.into()])
}

/// Sockets in the folders that the environment names for this user.
fn own_sockets() -> impl Iterator<Item = PathBuf> {
    // A path that is not absolute is to be passed over (XDG Base Directory Specification).
    let folder = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"].into_iter().filter_map(folder).map(|folder| folder.join(SOCKET_NAME))
}

/// A daemon that does not answer, or not as it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No daemon answers.
    #[error("no daemon answers on {}: {problem}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The failure.
        problem: String,
    },
    /// A daemon has the socket and does not answer.
    #[error("the daemon on {} did not answer within {seconds} s; it may hang", path.display())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// Time that was waited.
        seconds: u64,
    },
    /// A daemon's socket may not be used.
    #[error("this user may not use the daemon's socket {}", path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon refused the request.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Name of the error, as the daemon gave it.
        kind: String,
        /// Message of the daemon.
        message: String,
    },
}

impl ClientError {
    /// True if no daemon answers.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Silent { .. })
    }
}

impl ProgramLayer for ClientError {
    fn class(&self) -> Class {
        match self {
            Self::Unreachable { .. } => (Category::Daemon, "unreachable"),
            Self::Silent { .. } => (Category::Daemon, "silent"),
            Self::Denied { .. } => (Category::Daemon, "socket_denied"),
            // The daemon says 400 to what it would refuse as a flag.
            Self::Refused { status: 400, .. } => (Category::Usage, "refused"),
            Self::Refused { .. } => (Category::Input, "refused"),
        }
    }
}

/// A client of one daemon.
pub(crate) struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

/// Response of a daemon.
pub(crate) struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Seconds until a refused request may be sent again, if the daemon says so.
    pub retry_after: Option<u64>,
    /// The body.
    pub body: Vec<u8>,
}

impl SocketArgument {
    /// True if the user named the socket.
    pub(crate) fn is_named(&self) -> bool {
        self.socket.is_some()
    }

    /// A client of that daemon.
    ///
    /// # Errors
    /// The system cannot wait for sockets.
    pub(crate) fn client(&self) -> Result<Client> {
        // Where none is, the one that a daemon of this user would make is named.
        let found = || usual_sockets().find(|path| path.exists()).or_else(default_socket);
        let socket = self.socket.clone().or_else(found).unwrap_or_else(|| SYSTEM_SOCKET.into());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| Error::Thread { what: "the client", source })?;
        Ok(Client { socket, runtime })
    }
}

impl Client {
    /// Sends a request and reads its answer, whatever its status; for `patience` at most, if that is bounded.
    ///
    /// # Errors
    /// No daemon answers.
    pub(crate) fn send(
        &self,
        method: Method,
        path: &str,
        kind: Option<&str>,
        body: Vec<u8>,
        patience: Option<Duration>,
    ) -> Result<Answer> {
        self.exchange(method, path, kind, Full::new(Bytes::from(body)), patience)
    }

    /// Sends a file as it is read, and reads the answer, whatever its status.
    ///
    /// # Errors
    /// The file cannot be opened, or no daemon answers.
    pub(crate) fn send_file(&self, method: Method, path: &str, file: &Path) -> Result<Answer> {
        let unreadable = |source| FileError::Unreadable { path: file.into(), source };
        let mut reader = open_regular(file).map_err(unreadable)?;
        let pieces = std::iter::from_fn(move || {
            let mut piece = vec![0; PIECE_BYTES];
            match reader.read(&mut piece) {
                Ok(0) => None,
                Ok(count) => {
                    piece.truncate(count);
                    Some(Ok(Frame::data(Bytes::from(piece))))
                }
                Err(error) => Some(Err(error)),
            }
        });
        // What a daemon does with a file has no bound in time, so that one that hangs is noticed before it.
        self.info()?;
        self.exchange(method, path, None, StreamBody::new(stream::iter(pieces)), None)
    }

    fn exchange<B>(
        &self,
        method: Method,
        path: &str,
        kind: Option<&str>,
        body: B,
        patience: Option<Duration>,
    ) -> Result<Answer>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let answer = async {
            let response = exchange(&self.socket, method, path, kind, body).await?;
            let status = response.status().as_u16();
            let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| self.unreachable(error))?.to_bytes().to_vec();
            Ok(Answer { status, retry_after, body })
        };
        self.runtime.block_on(self.within(patience, answer))
    }

    /// The outcome of `asked`, if it comes in time.
    async fn within<T>(&self, patience: Option<Duration>, asked: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(patience) = patience else { return asked.await };
        tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| {
            let seconds = patience.as_secs_f64().round() as u64;
            Err(ClientError::Silent { path: self.socket.clone(), seconds }.into())
        })
    }

    /// Sends a request and reads its answer as JSON.
    ///
    /// # Errors
    /// No daemon answers, it refuses, or its answer is not what it should be.
    pub(crate) fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        kind: Option<&str>,
        body: Vec<u8>,
    ) -> Result<T> {
        // What is asked for is there at once; a change may take minutes.
        let patience = (method == Method::GET).then_some(PATIENCE);
        self.send(method, path, kind, body, patience)?.json(&self.socket)
    }

    /// Status of the daemon.
    ///
    /// # Errors
    /// No daemon answers, or it refuses.
    pub(crate) fn info(&self) -> Result<InfoRecord> {
        self.json(Method::GET, "/v1/info", None, Vec::new())
    }

    /// Hands the events of a daemon, name and data, to `take` until that says to stop; or until the daemon ends.
    ///
    /// # Errors
    /// No daemon answers, it refuses, or `take` fails.
    pub(crate) fn events(&self, mut take: impl FnMut(&str, &str) -> io::Result<bool>) -> Result<io::Result<()>> {
        self.runtime.block_on(async {
            let asked = exchange(&self.socket, Method::GET, "/v1/events", None, Full::default());
            let mut response = self.within(Some(PATIENCE), asked).await?;
            if response.status() != 200 {
                let status = response.status().as_u16();
                let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
                let body = body.map_err(|error| self.unreachable(error))?;
                let answer = Answer { status, retry_after: None, body: body.to_bytes().to_vec() };
                // No success comes here, so that this is always an error.
                return answer.json::<()>(&self.socket).map(Ok);
            }
            let mut text = Vec::new();
            // A connection that breaks off is an end as any other: whoever watches waits for the next daemon.
            while let Some(Ok(frame)) = response.body_mut().frame().await {
                text.extend_from_slice(&frame.into_data().unwrap_or_default());
                if text.len() > ANSWER_BYTES_MAX {
                    return Err(self.unreachable("an event without its end"));
                }
                // An event ends with an empty line. The standard allows other line ends, which this daemon does not
                // write.
                while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                    let event: Vec<u8> = text.drain(..end + 2).collect();
                    let event = String::from_utf8_lossy(&event);
                    let field = |name| event.lines().find_map(|line| line.strip_prefix(name));
                    // What keeps the connection alive is a comment, without a name or data.
                    if let (Some(name), Some(data)) = (field("event: "), field("data: ")) {
                        match take(name, data) {
                            Ok(true) => {}
                            Ok(false) => return Ok(Ok(())),
                            Err(error) => return Ok(Err(error)),
                        }
                    }
                }
            }
            Ok(Ok(()))
        })
    }

    /// The daemon's socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    fn unreachable(&self, problem: impl ToString) -> Error {
        ClientError::Unreachable { path: self.socket.clone(), problem: problem.to_string() }.into()
    }
}

impl Answer {
    /// The body as JSON, if the daemon did as it was asked.
    ///
    /// # Errors
    /// It refused, or the body is something else.
    pub(crate) fn json<T: DeserializeOwned>(&self, socket: &Path) -> Result<T> {
        if self.status < 400 {
            return serde_json::from_slice(&self.body).map_err(|error| {
                let problem = format!("its answer is not the JSON it should be ({error}); is it of another version?");
                ClientError::Unreachable { path: socket.into(), problem }.into()
            });
        }
        Err(match serde_json::from_slice::<RefusalRecord>(&self.body) {
            Ok(refusal) => {
                ClientError::Refused { status: self.status, kind: refusal.error.kind, message: refusal.error.message }
            }
            Err(_) => ClientError::Unreachable { path: socket.into(), problem: format!("HTTP status {}", self.status) },
        }
        .into())
    }
}

/// Sends a request over a connection of its own.
async fn exchange<B>(
    socket: &Path,
    method: Method,
    path: &str,
    kind: Option<&str>,
    body: B,
) -> Result<Response<Incoming>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let unreachable = |problem: String| Error::from(ClientError::Unreachable { path: socket.into(), problem });
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Denied { path: socket.into() }.into(),
        _ => unreachable(error.to_string()),
    })?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| unreachable(error.to_string()))?;
    // The connection moves the bytes: unless something drives it, no answer comes.
    tokio::spawn(connection);
    // HTTP/1.1 asks for a host (RFC 9112, section 3.2); over a Unix socket any will do.
    let mut request = Request::builder().method(method).uri(path).header(HOST, "localhost");
    if let Some(kind) = kind {
        request = request.header(CONTENT_TYPE, kind);
    }
    let request = request.body(body).expect("the parts are well-formed");
    sender.send_request(request).await.map_err(|error| unreachable(error.to_string()))
}
