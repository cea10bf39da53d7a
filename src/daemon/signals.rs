//! Signals, heard by a thread of their own: whatever else blocks, the daemon ends within its bound.

use std::io;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

use crate::limits::SHUTDOWN_MS;

/// What signals have asked of the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// To end: SIGTERM or SIGINT.
    pub end: bool,
    /// To load everything again: signals SIGHUP (count).
    pub reloads: u64,
}

/// The reason that the process ends without waiting any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abrupt {
    /// Something did not end within the bound.
    Overdue,
    /// A second signal to end, by its number.
    Again(i32),
}

/// Hears signals from here on; `give_up` ends the process where the daemon does not end by itself, and does not return.
///
/// # Errors
/// Error of the system.
pub(super) fn hear(give_up: fn(Abrupt)) -> io::Result<watch::Receiver<Asked>> {
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, receiver) = watch::channel(Asked::default());
    thread::Builder::new().name("rtpt-signals".into()).spawn(move || pass_on(signals, &sender, give_up))?;
    Ok(receiver)
}

fn pass_on(mut signals: Signals, sender: &watch::Sender<Asked>, give_up: fn(Abrupt)) {
    let mut ending = false;
    for signal in signals.forever() {
        // Nothing here may block: not even a message, since the terminal may be what blocks.
        match signal {
            SIGHUP => sender.send_modify(|asked| asked.reloads += 1),
            _ if ending => give_up(Abrupt::Again(signal)),
            _ => {
                ending = true;
                sender.send_modify(|asked| asked.end = true);
                let overdue = move || {
                    thread::sleep(Duration::from_millis(SHUTDOWN_MS));
                    give_up(Abrupt::Overdue);
                };
                if thread::Builder::new().name("rtpt-overdue".into()).spawn(overdue).is_err() {
                    give_up(Abrupt::Overdue);
                }
            }
        }
    }
}
