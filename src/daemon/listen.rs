//! Where clients come in: a Unix socket, TCP, or what systemd hands over.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::setting::SettingError;

/// Who may connect to the socket: owner and group.
const SOCKET_MODE: u32 = 0o660;

/// A place where clients come in.
#[derive(Debug)]
pub(crate) enum Listener {
    /// A Unix socket.
    Unix(UnixListener),
    /// A TCP port.
    Tcp(std::net::TcpListener),
}

/// The sockets of a daemon. Those it made itself are removed with this value.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// All of them.
    pub all: Vec<Listener>,
    own: Option<(PathBuf, Lock)>,
}

impl Listeners {
    /// Takes the sockets that systemd hands over, or makes the Unix socket; and TCP if asked.
    ///
    /// # Errors
    /// Another daemon has the socket, there is another file of that name, or the address cannot be had.
    pub(crate) fn open(socket: &Path, tcp: Option<SocketAddr>) -> Result<Self> {
        let mut all = handed_over()?;
        let mut own = None;
        if all.is_empty() {
            let lock = prepare(socket)?;
            let failed = |source| Error::Listen { address: socket.display().to_string(), source };
            let listener = UnixListener::bind(socket).map_err(failed)?;
            own = Some((socket.to_path_buf(), lock));
            fs::set_permissions(socket, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
            all.push(Listener::Unix(listener));
        }
        if let Some(address) = tcp {
            let failed = |source| Error::Listen { address: address.to_string(), source };
            all.push(Listener::Tcp(std::net::TcpListener::bind(address).map_err(failed)?));
        }
        let this = Self { all, own };
        for listener in &this.all {
            let unblocked = match listener {
                Listener::Unix(listener) => listener.set_nonblocking(true),
                Listener::Tcp(listener) => listener.set_nonblocking(true),
            };
            unblocked.map_err(|source| Error::Listen { address: "a socket".into(), source })?;
        }
        Ok(this)
    }
}

impl Listeners {
    /// Where clients find them: a socket's path, a page's address.
    pub(crate) fn places(&self) -> Vec<String> {
        let place = |listener: &Listener| match listener {
            Listener::Unix(listener) => Some(listener.local_addr().ok()?.as_pathname()?.display().to_string()),
            Listener::Tcp(listener) => Some(format!("http://{}/", listener.local_addr().ok()?)),
        };
        self.all.iter().filter_map(place).collect()
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.own {
            let _ = fs::remove_file(path);
        }
    }
}

/// Makes way for the socket: takes its lock, and removes a socket that a dead daemon left behind.
fn prepare(socket: &Path) -> Result<Lock> {
    let failed = |source| Error::Listen { address: socket.display().to_string(), source };
    // Before anything is made beside it.
    if fs::symlink_metadata(socket).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(SettingError {
            what: "--socket",
            expected: "a name that is free, or a socket that was left behind".into(),
            found: format!("{}, which is another kind of file", socket.display()),
        }
        .into());
    }
    let mut lock_file = socket.as_os_str().to_owned();
    lock_file.push(".lock");
    let lock = Lock::take(Path::new(&lock_file), socket, "--socket")?;
    match fs::symlink_metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        // Without the lock, but alive: another program.
        Ok(_) if UnixStream::connect(socket).is_ok() => {
            return Err(Error::InUse { path: socket.into(), holder: None, flag: "--socket" });
        }
        Ok(_) => fs::remove_file(socket).map_err(failed)?,
    }
    Ok(lock)
}

/// The sockets that systemd opened for this process.
fn handed_over() -> Result<Vec<Listener>> {
    let failed = |source| Error::Listen { address: "the sockets handed over by systemd".into(), source };
    let descriptors = sd_notify::listen_fds().map_err(failed)?;
    let listeners = descriptors.map(|descriptor| {
        // SAFETY: systemd opened it for this process, and nothing else here uses it.
        let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let unix = UnixListener::from(owned);
        if unix.local_addr().is_ok() {
            return Listener::Unix(unix);
        }
        Listener::Tcp(std::net::TcpListener::from(OwnedFd::from(unix)))
    });
    Ok(listeners.collect())
}
