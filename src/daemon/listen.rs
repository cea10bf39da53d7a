//! Listening sockets: a Unix socket, TCP, or those that systemd hands over.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::stat::{Mode, umask};

use crate::error::{Category, Class, Error, ProgramLayer, Result};
use crate::files::folder_of;
use crate::lock::{InUse, Lock, Resource};
use crate::setting::SettingError;

/// Mode of the socket: owner and group may connect.
const SOCKET_MODE: u32 = 0o660;

/// A daemon that cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", hint(address))]
pub(super) struct ListenError {
    /// Socket file or TCP address.
    pub address: String,
    /// Error of the system.
    pub source: io::Error,
}

fn hint(address: &str) -> &'static str {
    if address.parse::<SocketAddr>().is_ok() {
        "; another program may use the port, or ports below 1024 are root's"
    } else if address.starts_with('/') {
        "; check that its folder exists and may be written"
    } else {
        ""
    }
}

impl ProgramLayer for ListenError {
    fn class(&self) -> Class {
        (Category::Daemon, "listen")
    }
}

/// A listening socket.
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
    /// All listening sockets.
    pub all: Vec<Listener>,
    own: Option<(PathBuf, Lock)>,
}

impl Listeners {
    /// Takes the sockets that systemd hands over, or makes the Unix socket; and TCP if asked.
    ///
    /// # Errors
    /// Another daemon has the socket, there is another file of that name, or the address cannot be had.
    pub(crate) fn open(socket: &Path, tcp: Option<SocketAddr>) -> Result<Self> {
        // Sockets of systemd stand in place of the own one. Their files are systemd's: they need no lock and are not
        // removed.
        // From here on an error removes what was made.
        let mut this = Self { all: handed_over()?, own: None };
        if this.all.is_empty() {
            let lock = prepare(socket)?;
            let failed = |source| Error::from(ListenError { address: socket.display().to_string(), source });
            // The mode of a new socket follows the mask, which the service manager or a shell may have set to anything. Set
            // before, it is right from the first moment; whatever threads there are make no files yet.
            let before = umask(Mode::from_bits_truncate(!SOCKET_MODE & 0o777));
            let bound = UnixListener::bind(socket);
            umask(before);
            this.all.push(Listener::Unix(bound.map_err(failed)?));
            this.own = Some((socket.to_path_buf(), lock));
            fs::set_permissions(socket, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
        }
        if let Some(address) = tcp {
            let failed = |source| Error::from(ListenError { address: address.to_string(), source });
            this.all.push(Listener::Tcp(std::net::TcpListener::bind(address).map_err(failed)?));
        }
        // Tokio asks for sockets that do not block, and does not set it itself.
        for listener in &this.all {
            let unblocked = match listener {
                Listener::Unix(listener) => listener.set_nonblocking(true),
                Listener::Tcp(listener) => listener.set_nonblocking(true),
            };
            unblocked.map_err(|source| ListenError { address: "a socket".into(), source })?;
        }
        Ok(this)
    }
}

impl Listeners {
    /// The TCP addresses that are listened on.
    ///
    /// # Errors
    /// A socket that was handed over is neither a Unix nor a TCP socket.
    pub(crate) fn addresses(&self) -> Result<Vec<SocketAddr>> {
        let address = |listener: &Listener| match listener {
            Listener::Unix(_) => None,
            Listener::Tcp(listener) => Some(listener.local_addr()),
        };
        let failed = |source| ListenError { address: "a socket that was handed over".into(), source };
        Ok(self.all.iter().filter_map(address).collect::<io::Result<_>>().map_err(failed)?)
    }

    /// Addresses for clients: a socket's path, a page's address.
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
            // The lock file stays: removed while another daemon opens it, there could be two locks of one name.
            let _ = fs::remove_file(path);
        }
    }
}

/// Makes way for the socket: takes its lock, and removes a socket that a dead daemon left behind.
fn prepare(socket: &Path) -> Result<Lock> {
    let failed = |source| Error::from(ListenError { address: socket.display().to_string(), source });
    // Before anything is made beside it.
    if fs::symlink_metadata(socket).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(SettingError {
            what: "the socket",
            expected: "a name that is free, or a socket that was left behind".into(),
            found: format!("{}, which is another kind of file", socket.display()),
        }
        .into());
    }
    if folder_of(socket).metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Err(SettingError {
            what: "the socket",
            expected: "a path in a folder that is there".into(),
            found: format!("{}, whose folder does not exist", socket.display()),
        }
        .into());
    }
    // Appended, not as `with_extension`: `a.sock` and `a.other` would share a lock.
    let mut lock_file = socket.as_os_str().to_owned();
    lock_file.push(".lock");
    // The lock first, and only then a look at the socket: between look and removal another daemon could bind it.
    let lock = Lock::take(Path::new(&lock_file), socket, Resource::Socket)?;
    match fs::symlink_metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        // Without the lock, but alive: another program.
        Ok(_) if UnixStream::connect(socket).is_ok() => {
            return Err(InUse { path: socket.into(), holder: None, resource: Resource::Socket }.into());
        }
        Ok(_) => fs::remove_file(socket).map_err(failed)?,
    }
    Ok(lock)
}

/// Set once the service manager's sockets have their owners. Descriptors belong to the process, hence so does this.
static HANDED_OVER: AtomicBool = AtomicBool::new(false);

/// The sockets that systemd opened for this process; none from the second call on, since the first owns them.
fn handed_over() -> Result<Vec<Listener>> {
    if HANDED_OVER.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    let failed = |source| Error::from(ListenError { address: "the sockets handed over by systemd".into(), source });
    let descriptors = sd_notify::listen_fds().map_err(failed)?;
    let listeners = descriptors.map(|descriptor| {
        // SAFETY: `listen_fds` has found the descriptor open. By the protocol of LISTEN_PID and LISTEN_FDS systemd opened
        // it for this process before the process began, so nothing else in it is its owner; and `HANDED_OVER` lets one
        // call in a process come here, so that it gets no second owner.
        let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let unix = UnixListener::from(owned);
        // The type does not look at what it wraps. The address of a socket of another family is an error.
        if unix.local_addr().is_ok() {
            return Listener::Unix(unix);
        }
        Listener::Tcp(std::net::TcpListener::from(OwnedFd::from(unix)))
    });
    Ok(listeners.collect())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;

    use super::*;

    /// Runs itself in a process that has a listening socket as descriptor 3, as systemd would start it; by the emulator
    /// where the tests run under one.
    #[test]
    fn sockets_are_handed_over_once_in_a_process() {
        if std::env::var_os("LISTEN_PID").is_some() {
            let first = handed_over().unwrap();
            assert!(matches!(&first[..], [Listener::Tcp(_)]), "{first:?}");
            assert!(handed_over().unwrap().is_empty(), "the descriptor would have two owners");
            return;
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let shell = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec $RTPT_TESTS_EMULATOR \"$0\" --exact \"$1\"";
        let name = "daemon::listen::tests::sockets_are_handed_over_once_in_a_process";
        let mut child = Command::new("sh");
        child.args(["-c", shell]).arg(std::env::current_exe().unwrap()).arg(name);
        let output = child.stdin(listener.as_fd().try_clone_to_owned().unwrap()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
}
