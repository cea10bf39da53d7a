//! A program whose standard output is MJPEG.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command as Process, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getppid};

use super::jpegs::Jpegs;
use super::{Picture, Source, SourceFailure, Wait};
use crate::limits::COMMAND_END_MS;

/// Longest part of a program's last line that is kept (characters).
const COMPLAINT_MAX: usize = 300;

/// A running program. It ends with this value, and with the daemon, however the daemon ends.
pub(crate) struct Command {
    child: Child,
    output: Jpegs<ChildStdout>,
    complaint: Arc<Mutex<String>>,
}

impl Command {
    pub(crate) fn start(words: &[String]) -> Result<Self, SourceFailure> {
        // Read before the fork: in the child it would be the child's own.
        let daemon = Pid::this();
        let mut process = Process::new(&words[0]);
        // Nothing on standard input: ffmpeg would take keys from the daemon's terminal.
        process.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        // SAFETY: the closure runs between fork and exec, where other threads may have held locks. It takes none and
        // allocates nothing: it makes two system calls, and an error is a number.
        unsafe {
            process.pre_exec(move || {
                // The kernel sends it when the thread that forked ends, not the process (prctl(2)). That is the
                // source's thread, which starts the command and drops it before it ends.
                set_pdeathsig(Signal::SIGKILL)?;
                // The daemon may have died before that call.
                if getppid() == daemon { Ok(()) } else { Err(std::io::ErrorKind::NotFound.into()) }
            });
        }
        let mut child =
            process.spawn().map_err(|error| SourceFailure::Failed(format!("cannot start {}: {error}", words[0])))?;
        let output = Jpegs::new(child.stdout.take().expect("standard output was asked for"));
        let errors = child.stderr.take().expect("standard error was asked for");
        let complaint = Arc::<Mutex<String>>::default();
        let (kept, name) = (Arc::clone(&complaint), words[0].clone());
        // Not waited for: what the program left behind may hold its standard error open.
        let reading = thread::Builder::new().name("rtpt-complaint".into()).spawn(move || {
            // Lines are bounded by what a program may print at once; a program that never ends a line is cut.
            let mut lines = BufReader::new(errors);
            let mut line = Vec::new();
            while next_line(&mut lines, &mut line) {
                let text: String = String::from_utf8_lossy(&line).trim().chars().take(COMPLAINT_MAX).collect();
                log::debug!("{name}: {text}");
                if !text.is_empty() {
                    *kept.lock().unwrap_or_else(PoisonError::into_inner) = text;
                }
            }
        });
        // Without the thread its last words are not known, and it may wait for somebody to read them.
        if let Err(error) = reading {
            log::warn!("what {} says on its standard error is not read: {error}", words[0]);
        }
        Ok(Self { child, output, complaint })
    }

    /// Description of its end, with the last line of its standard error.
    fn end(&mut self) -> String {
        // A program closes its output a moment before it can be waited for, and its status says more than the end of a
        // stream.
        let how = match self.wait(Duration::from_millis(COMMAND_END_MS)) {
            Some(status) => status.to_string(),
            None => "it closed its output and runs on".into(),
        };
        let complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if complaint.is_empty() { how } else { format!("{how}; it said: {complaint}") }
    }

    fn wait(&mut self, patience: Duration) -> Option<std::process::ExitStatus> {
        let until = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                // Polled: the standard library has no wait with a deadline.
                Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(10)),
                _ => return None,
            }
        }
    }
}

/// Reads up to a line's end, at most some kilobytes of it; false at the end.
fn next_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> bool {
    line.clear();
    loop {
        let Ok(buffer) = lines.fill_buf() else { return false };
        if buffer.is_empty() {
            return !line.is_empty();
        }
        // A carriage return ends a line as well: ffmpeg's progress rewrites one line for ever.
        let end = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let taken = end.map_or(buffer.len(), |end| end + 1);
        // The rest of a longer line is read and dropped: a full pipe would block the program.
        let room = 4096_usize.saturating_sub(line.len());
        line.extend_from_slice(&buffer[..taken.min(room)]);
        lines.consume(taken);
        if end.is_some() {
            return true;
        }
    }
}

impl Source for Command {
    fn next(&mut self, wait: &Wait) -> Result<Picture, SourceFailure> {
        self.output.next(wait).map_err(|failure| match failure {
            SourceFailure::Ended(_) => SourceFailure::Ended(self.end()),
            other => other,
        })
    }

    fn dropped(&self) -> u64 {
        self.output.dropped()
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        // The whole group: a shell's children are not the daemon's.
        let group = Pid::from_raw(self.child.id().cast_signed());
        // First politely, so that the program can give its camera back.
        let _ = killpg(group, Signal::SIGTERM);
        if self.wait(Duration::from_millis(COMMAND_END_MS)).is_none() {
            let _ = killpg(group, Signal::SIGKILL);
            let _ = self.child.wait();
        }
        // Children of the program that ignored SIGTERM would keep the camera from the next attempt.
        let _ = killpg(group, Signal::SIGKILL);
    }
}
