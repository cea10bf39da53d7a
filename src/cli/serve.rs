//! `rtpt serve`: the daemon.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::daemon::{Abrupt, DaemonSettings, Loaded, SlotsSettings, Token, TrialSettings, serve};
use crate::error::{Category, Result};
use crate::files::read_up_to;
use crate::limits::{QUEUE, RECORD_MB, SOURCE_TIMEOUT_S, TOKEN_BYTES};
use crate::recording::RecorderSettings;
use crate::setting::SettingError;
use crate::signing::{Opened, TrustedKeys};
use crate::slots::Slots;
use crate::source::{SourceSettings, SourceSpec};
use clap::Args;

use super::client::default_socket;
use super::settings::{CacheArguments, SettingsArguments, cache_folder, headings, number, whole};
use super::{Cli, Command, Completion, Outcome, config, exit_code};

/// Default room for a recording (MiB).
const RECORD_MAX_MB: u64 = 256;

/// Headings of `--help`.
const LISTENING: &str = "Listening";
const RECORDING: &str = "Source, recording and state";

pub(crate) const EXAMPLES: &str = "\
Examples:
  rtpt serve --source models/everyday/photos --listen 127.0.0.1:8080
  rtpt serve --source /dev/video0 --views 16 --record field
  rtpt serve --source 'exec:ffmpeg -loglevel error -i rtsp://camera/1 -c:v mjpeg -f mjpeg -'
  rtpt serve --config /etc/rtpt/rtpt.toml";

#[derive(Args)]
#[command(mut_arg("cache", |cache| cache.help("Where features are kept [default: in memory]")))]
pub(crate) struct Arguments {
    /// TOML file with any of these settings under their long names; flags and environment variables win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Unix socket to listen on [default: rtpt.sock in $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR, or /run/rtpt for root]
    #[arg(long, env = "RTPT_SOCKET", value_name = "PATH", help_heading = LISTENING)]
    socket: Option<PathBuf>,
    /// TCP address to listen on as well; any address other than loopback needs --token-file
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    listen: Option<SocketAddr>,
    /// File with the token that clients over TCP must send
    #[arg(long, value_name = "FILE", help_heading = LISTENING)]
    token_file: Option<PathBuf>,
    /// Where frames come from: /dev/video0, v4l2:DEVICE?size=640x480&fps=15&format=mjpg, exec:COMMAND that prints MJPEG,
    /// - for MJPEG on standard input, watch:FOLDER, or an image or folder, with ?every=SECONDS
    #[arg(long, value_name = "SPEC")]
    source: Option<String>,
    /// Time without a frame after which a camera or command is opened again
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = number::<f64>("a number of seconds"), help_heading = RECORDING)]
    source_timeout: f64,
    /// Folder of two slots for bundles that are installed, tried and confirmed or given up; until one is, --bundle is used
    #[arg(long, value_name = "DIR", help_heading = headings::TRUST)]
    slots: Option<PathBuf>,
    /// Time after which a bundle on trial that does well is confirmed
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(..=604_800), help_heading = headings::TRUST)]
    trial_seconds: u64,
    /// How many times as long as the bundle before it a bundle on trial may take per view
    #[arg(long, value_name = "FACTOR", default_value_t = 3.0, value_parser = number::<f64>("a number"), help_heading = headings::TRUST)]
    trial_slower: f64,
    /// Time to wait for the bundle at the start if it is not there, as on a disk that is mounted later; with it, a source
    /// that is not there is waited for as well
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=86_400), help_heading = RECORDING)]
    bundle_wait: u64,
    /// Number of requests that may wait; further ones are refused with 503
    #[arg(long, value_name = "N", default_value_t = QUEUE.0, value_parser = whole::<usize>(1, QUEUE.1), help_heading = LISTENING)]
    queue: usize,
    /// Folder for what must outlast the daemon, such as edited labels
    /// [default: $STATE_DIRECTORY, $XDG_STATE_HOME/rtpt or ~/.local/state/rtpt]
    #[arg(long, value_name = "DIR", help_heading = RECORDING)]
    state: Option<PathBuf>,
    /// Folder to record frames and decisions in
    #[arg(long, value_name = "DIR", help_heading = RECORDING)]
    record: Option<PathBuf>,
    /// Size limit of the recording (MiB); the oldest frames are removed
    #[arg(long, value_name = "N", default_value_t = RECORD_MAX_MB, value_parser = whole::<u64>(RECORD_MB.0, RECORD_MB.1), help_heading = RECORDING)]
    record_max_mb: u64,
    #[command(flatten)]
    cache: CacheArguments,
    #[command(flatten)]
    settings: SettingsArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    // Asked once before anything is opened, so that a wrong flag is refused at once.
    // A daemon that waits for a disk waits for the source on it as well.
    if let Some(source) = arguments.source()?.filter(|_| arguments.bundle_wait == 0) {
        check_presence(&source.spec)?;
    }
    let unknown = |what, expected: &str| SettingError { what, expected: expected.into(), found: "unknown".into() };
    let socket = match &arguments.socket {
        Some(socket) => socket.clone(),
        None => {
            let expected = "XDG_RUNTIME_DIR or RUNTIME_DIRECTORY to be set";
            let usual = default_socket().ok_or_else(|| unknown("the socket", expected))?;
            // The usual folder is made; one that was named may be a typing mistake.
            let _ = usual.parent().map(fs::create_dir_all);
            usual
        }
    };
    let state = arguments.state.clone().or_else(state_folder);
    let settings = DaemonSettings {
        socket,
        listen: arguments.listen,
        token: arguments.token()?,
        state: state.ok_or_else(|| unknown("the daemon's folder", "XDG_STATE_HOME or HOME to be set"))?,
        queue: arguments.queue,
        cache: arguments.cache.open_or_memory(),
        cache_folder: cache_folder(),
        slots: arguments.slots()?,
        bundle_wait: Duration::from_secs(arguments.bundle_wait),
        give_up,
    };
    let started = arguments.lasting();
    serve(settings, Box::new(move || load(&started)))?;
    Ok(Completion::All)
}

/// Checks that what a source names on this device is there. A camera may be plugged in later, and a source that was in
/// order may go and come again: this is for typing mistakes, at the start alone.
fn check_presence(spec: &SourceSpec) -> Result<()> {
    let (found, expected) = match spec {
        SourceSpec::Images { path, .. } if !path.exists() => {
            (format!("{}, which does not exist", path.display()), "an image or a folder of images")
        }
        SourceSpec::Watched(folder) if !folder.exists() => {
            (format!("watch:{}, which does not exist", folder.display()), "watch: and a folder")
        }
        SourceSpec::Watched(folder) if !folder.is_dir() => {
            (format!("watch:{}, which is a file", folder.display()), "watch: and a folder")
        }
        SourceSpec::Images { path, .. } if !path.is_file() && !path.is_dir() => {
            (format!("{}, which is neither a file nor a folder", path.display()), "an image or a folder of images")
        }
        SourceSpec::Command(words) if !is_program(&words[0]) => {
            (format!("exec:{} …, which is not installed here", words[0]), "exec: and a program in PATH, or its path")
        }
        _ => return Ok(()),
    };
    Err(SettingError { what: "--source", expected: expected.into(), found }.into())
}

/// True if the system finds a program of this name, or it is the path of a file.
fn is_program(name: &str) -> bool {
    let paths = env::var_os("PATH").unwrap_or_default();
    if name.contains('/') {
        Path::new(name).is_file()
    } else {
        env::split_paths(&paths).any(|path| path.join(name).is_file())
    }
}

/// Ends the process at once. Neither locks nor the log may be waited for: they may be what blocks.
fn give_up(why: Abrupt) {
    let (message, code) = match why {
        Abrupt::Overdue => ("something blocks; ended without it", exit_code(Category::Daemon).into()),
        // As a shell reports a process that a signal ended.
        Abrupt::Again(signal) => ("ended at once, by a second signal", 128 + signal),
    };
    let said = std::thread::spawn(move || log::error!("{message}"));
    let until = Instant::now() + Duration::from_millis(100);
    while !said.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::process::exit(code)
}

/// An address to listen on; `localhost` is this device's.
fn parse_address(text: &str) -> std::result::Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map_or_else(|| text.to_string(), |port| format!("127.0.0.1:{port}"));
    numeric.parse().map_err(|_| {
        "expected an IP address and a port from 1 to 65535, such as 127.0.0.1:8080; of names only localhost is known"
            .into()
    })
}

/// The arguments of the command line and the configuration: the file is read again each time.
fn arguments() -> Result<Arguments> {
    let Cli { command: Command::Serve(arguments) } = config::parse(env::args_os().collect())? else {
        unreachable!("only serve runs a daemon");
    };
    Ok(*arguments)
}

/// The trusted keys of now.
fn trusted_keys() -> Result<Option<TrustedKeys>> {
    arguments()?.settings.bundle.trust.keys()
}

/// Settings of the command line and the configuration, for a daemon that was started with those of `started`.
fn load(started: &[(&'static str, String)]) -> Result<Loaded> {
    let arguments = arguments()?;
    arguments.warn_of_what_stays(started);
    let slot = arguments.slots.as_deref().map(|folder| Slots::in_folder(folder)?.active()).transpose()?.flatten();
    let Opened { bundle, signed } = arguments.settings.bundle.open_signed(slot.as_deref())?;
    Ok(Loaded {
        signed,
        settings: arguments.settings.settings(&bundle)?,
        labels: arguments.settings.labels.list(&bundle)?,
        prompt: arguments.settings.labels.prompt(&bundle),
        source: arguments.source()?,
        recording: arguments.recording(),
        bundle,
    })
}

impl Arguments {
    /// The settings that a running daemon keeps as it was started with them, by name.
    fn lasting(&self) -> Vec<(&'static str, String)> {
        vec![
            ("socket", format!("{:?}", self.socket)),
            ("listen", format!("{:?}", self.listen)),
            ("token-file", format!("{:?}", self.token_file)),
            ("queue", self.queue.to_string()),
            ("state", format!("{:?}", self.state)),
            ("cache", format!("{:?}", self.cache)),
            ("slots", format!("{:?}", self.slots)),
        ]
    }

    /// Warns of settings that differ from those of the start, and that a reload does not put in force.
    fn warn_of_what_stays(&self, started: &[(&'static str, String)]) {
        let now = self.lasting();
        let pairs = started.iter().zip(&now);
        let changed: Vec<&str> = pairs.filter(|(before, now)| before != now).map(|(_, (name, _))| *name).collect();
        match &changed[..] {
            [] => {}
            [one] => log::warn!("{one} changed; it takes effect after a restart"),
            [others @ .., last] => {
                log::warn!("{} and {last} changed; they take effect after a restart", others.join(", "));
            }
        }
    }

    fn source(&self) -> Result<Option<SourceSettings>> {
        let (least, most) = SOURCE_TIMEOUT_S;
        if !(least..=most).contains(&self.source_timeout) {
            let (expected, found) = (format!("{least} to {most} seconds"), self.source_timeout.to_string());
            return Err(SettingError { what: "--source-timeout", expected, found }.into());
        }
        let timeout = Duration::from_secs_f64(self.source_timeout);
        let spec = self.source.as_deref().map(SourceSpec::parse).transpose()?;
        Ok(spec.map(|spec| SourceSettings { spec, timeout }))
    }

    fn recording(&self) -> Option<RecorderSettings> {
        let folder = self.record.clone()?;
        Some(RecorderSettings { folder, max_mb: self.record_max_mb })
    }

    fn slots(&self) -> Result<Option<SlotsSettings>> {
        let Some(folder) = &self.slots else { return Ok(None) };
        if !(self.trial_slower >= 1.0 && self.trial_slower.is_finite()) {
            let (expected, found) = ("1 or more".into(), self.trial_slower.to_string());
            return Err(SettingError { what: "--trial-slower", expected, found }.into());
        }
        let trial = TrialSettings { seconds: self.trial_seconds, slower: self.trial_slower };
        Ok(Some(SlotsSettings { slots: Slots::in_folder(folder)?, keys: Box::new(trusted_keys), trial }))
    }

    fn token(&self) -> Result<Option<Token>> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let unreadable = |error| SettingError {
            what: "--token-file",
            expected: "a file with a token".into(),
            found: format!("{} ({error})", path.display()),
        };
        // Room for the longest token and its line end; more is refused by its length.
        let bytes = read_up_to(path, TOKEN_BYTES.1 as u64 + 2).map_err(unreadable)?;
        if path.metadata().is_ok_and(|found| found.mode() & 0o004 != 0) {
            log::warn!("every user of this device can read the token: chmod o-r {}", path.display());
        }
        Token::parse(&String::from_utf8_lossy(&bytes)).map(Some)
    }
}

/// Folder of the state that outlasts the daemon: `$STATE_DIRECTORY`, which systemd sets, or as XDG has it.
fn state_folder() -> Option<PathBuf> {
    let folder = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || folder("HOME").map(|home| home.join(".local/state"));
    // The service manager's folder is this service's alone; the user's is shared with other programs.
    folder("STATE_DIRECTORY").or_else(|| folder("XDG_STATE_HOME").or_else(home).map(|path| path.join("rtpt")))
}
