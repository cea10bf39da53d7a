//! `rtpt bundle install`, `slots`, `confirm` and `rollback`: through a running daemon, or on the slots' folder where none runs.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use hyper::Method;

use super::bundle::{print_deviations, signature_line};
use super::client::{ClientError, SocketArgument};
use super::printer::json_line;
use super::settings::TrustArgument;
use super::{Completion, Outcome};
use crate::daemon::protocol::BundleRecord;
use crate::error::{Error, Result};
use crate::files::FileError;
use crate::signing::VersionMemory;
use crate::slots::{Installed, Slots, SlotsError, SlotsState, pack};
use crate::stream::unix_ms;

pub(crate) const INSTALL_EXAMPLES: &str = "\
Examples:
  tar --zstd -cf my-bundle.tar.zst -C my-bundle .
  rtpt bundle install my-bundle.tar.zst
  rtpt bundle slots";

/// Which slots: a running daemon's, or a folder.
#[derive(Args)]
pub(crate) struct SlotsArgument {
    #[command(flatten)]
    socket: SocketArgument,
    /// Folder of the slots, where no daemon runs that has them in use
    #[arg(long, value_name = "DIR", conflicts_with = "socket")]
    slots: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct InstallArguments {
    #[command(flatten)]
    place: SlotsArgument,
    #[command(flatten)]
    trust: TrustArgument,
    /// Wait for the end of the trial, and fail if the bundle is given up
    #[arg(long, conflicts_with = "slots")]
    wait: bool,
    /// A bundle's folder, or a .tar or .tar.zst of its files
    #[arg(value_name = "PATH")]
    source: PathBuf,
}

/// Pause before the state is asked for again, and time without an answer after which it is given up.
const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));

#[derive(Args)]
pub(crate) struct ShowArguments {
    #[command(flatten)]
    place: SlotsArgument,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn install(arguments: &InstallArguments) -> Outcome {
    let InstallArguments { place, trust, wait, source } = arguments;
    if let Some(folder) = &place.slots {
        let slots = Slots::in_folder(folder)?;
        let _claim = slots.claim()?;
        slots.tidy()?;
        let versions = VersionMemory::in_folder(folder);
        let Installed { id, slot, signed, deviations } =
            slots.install(source, &source.display().to_string(), trust.keys()?.as_ref(), &versions, unix_ms())?;
        let mut out = io::stdout().lock();
        print_deviations(&mut out, &deviations)?;
        let signed = signed
            .map_or("no keys are trusted, so its signature was not looked at".into(), |signed| signature_line(&signed));
        writeln!(out, "{id} ({signed}) is in slot {}; the next daemon tries it", slot.name())?;
        return Ok(Completion::All);
    }
    let found = source.metadata().map_err(|error| FileError::Unreadable { path: source.clone(), source: error })?;
    let packed = found.is_dir().then(|| Packed::of(source)).transpose()?;
    let archive = packed.as_ref().map_or(source.as_path(), |packed| &packed.0);
    let client = place.socket.client()?;
    let record = client.send_file(Method::PUT, "/v1/bundle", archive)?.json(client.socket()).map_err(refused)?;
    if *wait { print(&end_of_trial(place, record)?) } else { print(&record) }
}

/// What the daemon refuses to install is no fault of an image, whose exit code other refusals have.
fn refused(error: Error) -> Error {
    match error.of_program() {
        Some(ClientError::Refused { status: 422, message, .. }) => {
            SlotsError::Refused { message: message.clone() }.into()
        }
        _ => error,
    }
}

/// The record of the bundle that was installed when its trial has ended.
fn end_of_trial(place: &SlotsArgument, installed: BundleRecord) -> Result<BundleRecord> {
    let mut now = installed.clone();
    let mut answered = Instant::now();
    while now.is_on_trial() {
        thread::sleep(POLL.0);
        // The daemon may be started again in between.
        match ask(place, Method::GET, "/v1/bundle") {
            Ok(record) => (now, answered) = (record, Instant::now()),
            Err(_) if answered.elapsed() < POLL.1 => {}
            Err(error) => return Err(error),
        }
    }
    match now.given_up {
        Some(given_up) if now.slot != installed.slot => {
            Err(SlotsError::GivenUp { slot: given_up.slot, why: given_up.why }.into())
        }
        _ => Ok(now),
    }
}

pub(crate) fn show(arguments: &ShowArguments) -> Outcome {
    let record = match &arguments.place.slots {
        Some(folder) => return print_state(folder, &Slots::in_folder(folder)?.state()?),
        None => ask(&arguments.place, Method::GET, "/v1/bundle")?,
    };
    if arguments.json {
        json_line(&mut io::stdout().lock(), &record)?;
        return Ok(Completion::All);
    }
    print(&record)
}

pub(crate) fn confirm(place: &SlotsArgument) -> Outcome {
    match &place.slots {
        Some(folder) => {
            let slots = Slots::in_folder(folder)?;
            let _claim = slots.claim()?;
            print_state(folder, &slots.confirm()?)
        }
        None => print(&ask(place, Method::POST, "/v1/bundle/confirm")?),
    }
}

pub(crate) fn roll_back(place: &SlotsArgument) -> Outcome {
    match &place.slots {
        Some(folder) => {
            let slots = Slots::in_folder(folder)?;
            let _claim = slots.claim()?;
            print_state(folder, &slots.go_back("it was asked for", unix_ms())?)
        }
        None => print(&ask(place, Method::POST, "/v1/bundle/rollback")?),
    }
}

fn ask(place: &SlotsArgument, method: Method, path: &str) -> Result<BundleRecord> {
    place.socket.client()?.json(method, path, None, Vec::new())
}

fn print(record: &BundleRecord) -> Outcome {
    let mut out = io::stdout().lock();
    let BundleRecord { bundle, signed, folder, slot, state, given_up, .. } = record;
    writeln!(out, "bundle     {}", bundle.as_deref().unwrap_or("none"))?;
    if let Some(signed) = signed {
        let expires = signed.expires.as_ref().map_or(String::new(), |date| format!(", valid to {date}"));
        writeln!(out, "signed     version {}, by the key {}{expires}", signed.version, signed.key)?;
    }
    let slot =
        slot.as_ref().map_or("none: the bundle that the device came with".into(), |slot| format!("{slot}, {state}"));
    writeln!(out, "slot       {slot}")?;
    writeln!(out, "folder     {folder}")?;
    if let Some(given_up) = given_up {
        writeln!(out, "given up   slot {}: {}", given_up.slot, given_up.why)?;
    }
    Ok(Completion::All)
}

fn print_state(folder: &Path, state: &SlotsState) -> Outcome {
    let mut out = io::stdout().lock();
    let on_trial = if state.trial.is_some() { "trial" } else { "confirmed" };
    let slot = state.active.map(|slot| format!("{}, {on_trial}", slot.name()));
    writeln!(out, "slot       {}", slot.unwrap_or("none: the bundle that the device came with".into()))?;
    writeln!(out, "folder     {}", folder.display())?;
    if let Some(given_up) = &state.given_up {
        writeln!(out, "given up   slot {}: {}", given_up.slot.name(), given_up.why)?;
    }
    Ok(Completion::All)
}

/// A bundle's folder as a temporary archive, which is removed with this value.
struct Packed(PathBuf);

impl Packed {
    fn of(folder: &Path) -> Result<Self> {
        let path = env::temp_dir().join(format!("rtpt-bundle-{}.tar", std::process::id()));
        // New, so that nobody else's file is written into, whatever its name leads to.
        let file = File::create_new(&path).map_err(|source| FileError::Unwritable { path: path.clone(), source })?;
        let this = Self(path);
        pack(folder, file)?;
        Ok(this)
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
