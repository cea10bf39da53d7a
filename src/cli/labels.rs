//! `rtpt labels`: the labels of a running daemon, and labels by example, the daemon's or a file's.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::daemon::protocol::{ExampleQuery, LabelsRecord, LabelsRequest};
use crate::daemon::request_of;
use crate::error::{Category, Error, Result};
use crate::examples::{Examples, ExamplesError};
use crate::extractor::{Extractor, ExtractorSettings};
use crate::files::{read_up_to, write_file};
use crate::labels::{LabelsError, labels_of_file, with_line};
use crate::limits::LABELS_FILE_BYTES_MAX;
use crate::views::ViewSettings;
use crate::wording::counted;
use clap::{Args, Subcommand};
use hyper::Method;
use serde::Deserialize;

use super::client::SocketArgument;
use super::inputs::{self, Input};
use super::printer::{json_line, shown};
use super::settings::{BundleArgument, cache_folder};
use super::{Completion, Outcome};

pub(crate) const EXAMPLES: &str = "\
Examples:
  rtpt labels show
  rtpt labels set my.txt
  rtpt labels add 'my mug' mug-1.jpg mug-2.jpg                     to the running daemon's labels
  rtpt labels add 'my mug' mug-1.jpg mug-2.jpg --file my.txt       to a file, for --labels my.txt

A label by example stands for what its photos show, whatever it is called. The photos themselves are
not kept, but for one mean of what the model sees in them: it holds for that model alone, in a file
beside FILE or in the daemon's folder.";

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the labels in force, as a labels file
    Show(Common),
    /// Put the labels of a file in force; they stay after a restart
    Set {
        /// Labels, one per line, or an identifier, a tab and a label, or JSON as `show --json` prints it; - for standard
        /// input
        file: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Go back to the labels of the daemon's flags and configuration
    Reset(Common),
    /// Add photos of a thing: its label stands for what they show. A new label is added to the others
    Add {
        /// The label
        name: String,
        /// Photos of it (JPEG, PNG, BMP, WebP), folders of photos, or - for standard input
        #[arg(required = true, value_name = "PHOTO")]
        photos: Vec<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Forget the photos of a label, which is a text again
    Forget {
        /// The label
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Whose labels are changed.
#[derive(Args)]
struct Place {
    #[command(flatten)]
    common: Common,
    /// A labels file, instead of a running daemon's labels; made if it is not there
    #[arg(long, conflicts_with = "socket")]
    file: Option<PathBuf>,
    #[command(flatten)]
    bundle: BundleArgument,
}

#[derive(Args)]
struct Common {
    #[command(flatten)]
    socket: SocketArgument,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Labels in JSON; whatever stands beside them is passed over.
#[derive(Deserialize)]
struct JsonLabels {
    labels: Vec<String>,
    ids: Option<Vec<String>>,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let (common, record) = match &arguments.command {
        Command::Show(common) => (common, ask(common, Method::GET, None)?),
        Command::Reset(common) => (common, ask(common, Method::DELETE, None)?),
        Command::Set { file, common } => (common, ask(common, Method::PUT, Some(request(file)?))?),
        Command::Add { name, photos, place } => return add(name, photos, place),
        Command::Forget { name, place } => return forget(name, place),
    };
    let mut out = io::stdout().lock();
    if common.json {
        json_line(&mut out, &record)?;
    } else if matches!(arguments.command, Command::Show(_)) {
        for (index, label) in record.labels.iter().enumerate() {
            match record.ids.as_ref().and_then(|ids| ids.get(index)) {
                Some(id) => writeln!(out, "{id}\t{label}")?,
                None => writeln!(out, "{label}")?,
            }
        }
    } else {
        // Identifiers that stand several times are groups, each of them a label.
        let labels = record.ids.as_ref().map_or(record.labels.len(), |ids| ids.iter().collect::<HashSet<_>>().len());
        writeln!(out, "{} are in force", counted(labels, "label"))?;
    }
    Ok(Completion::All)
}

fn add(name: &str, photos: &[PathBuf], place: &Place) -> Outcome {
    let mut inputs = inputs::list(photos);
    let (found, failed) = match &place.file {
        Some(file) => add_to_file(name, &mut inputs, file, &place.bundle)?,
        None => add_to_daemon(name, &mut inputs, place)?,
    };
    let mut out = io::stdout().lock();
    if place.common.json {
        json_line(&mut out, &serde_json::json!({ "label": name, "photos": found, "failed": failed }))?;
    } else {
        writeln!(out, "{name}: by {}", counted(found, "photo"))?;
    }
    Ok(if failed == 0 { Completion::All } else { Completion::SomeFailed })
}

/// Adds photos to a labels file; gives the number of the label's photos, and of those that could not be used.
fn add_to_file(name: &str, inputs: &mut [Input], file: &Path, bundle: &BundleArgument) -> Result<(usize, usize)> {
    let bundle = bundle.open()?;
    let settings = ExtractorSettings::of(&bundle);
    let clean = ViewSettings { count: 1, ..settings.views };
    let extractor = Extractor::new(&bundle, ExtractorSettings { views: clean, ..settings }, cache_folder().as_deref())?;
    // Everything that can be wrong with the file is found before anything is encoded.
    let lines = with_line(&lines_of(file)?, file, name)?;
    let (mut examples, encoder) = (Examples::beside(file)?, bundle.encoder_digest());
    let mut failed = 0;
    for input in inputs {
        match input.read().and_then(|bytes| extractor.features(&bytes)) {
            Ok(features) => examples.add(name.trim(), &encoder, features.matrix.row(0))?,
            Err(error) => failed += reported(&input.path, &error),
        }
    }
    let found = examples.of(&encoder, name.trim()).map_or(0, |example| example.photos);
    if found > 0 {
        examples.write_beside(file)?;
        // Afterwards: a file without the examples would take the name for a text.
        write_file(file, &lines)?;
    }
    Ok((found, failed))
}

/// The bytes of a labels file, which need not be there yet.
fn lines_of(file: &Path) -> Result<Vec<u8>> {
    match read_up_to(file, LABELS_FILE_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => Ok(read.map_err(|source| LabelsError::Unreadable { path: file.into(), source })?),
    }
}

/// Adds photos to the daemon's labels.
fn add_to_daemon(name: &str, inputs: &mut [Input], place: &Place) -> Result<(usize, usize)> {
    let client = place.common.socket.client()?;
    client.info()?;
    let path = examples_path(name);
    let (mut found, mut failed) = (0, 0);
    for input in inputs {
        let sent = input.read().and_then(|bytes| {
            client.json::<LabelsRecord>(Method::POST, &path, Some("application/octet-stream"), bytes)
        });
        match sent {
            Ok(record) => found = record.examples.get(name.trim()).copied().unwrap_or(0),
            // Without a daemon, or with a label that it refuses, the other photos fare no better.
            Err(error) if matches!(error.category(), Category::Daemon | Category::Usage) => return Err(error),
            Err(error) => failed += reported(&input.path, &error),
        }
    }
    Ok((found, failed))
}

/// Says why a photo cannot be used, and counts it.
fn reported(path: &Path, error: &Error) -> usize {
    eprintln!("rtpt: {}: {error}", shown(path));
    1
}

fn examples_path(name: &str) -> String {
    let query = ExampleQuery { label: name.trim().into() };
    format!("/v1/labels/examples?{}", serde_urlencoded::to_string(query).expect("a text can be written"))
}

fn forget(name: &str, place: &Place) -> Outcome {
    match &place.file {
        Some(file) => forget_in_file(name, file)?,
        None => {
            let client = place.common.socket.client()?;
            client.info()?;
            client.json::<LabelsRecord>(Method::DELETE, &examples_path(name), None, Vec::new())?;
        }
    }
    let mut out = io::stdout().lock();
    if place.common.json {
        json_line(&mut out, &serde_json::json!({ "label": name, "photos": 0 }))?;
    } else {
        writeln!(out, "{name}: a text again")?;
    }
    Ok(Completion::All)
}

fn forget_in_file(name: &str, file: &Path) -> Result<()> {
    let mut examples = Examples::beside(file)?;
    if !examples.forget(name.trim()) {
        let problem = format!("is not beside {}: no photos of such a label are there to be forgotten", file.display());
        return Err(ExamplesError::Unusable { label: name.into(), problem }.into());
    }
    Ok(examples.write_beside(file)?)
}

fn ask(common: &Common, method: Method, request: Option<LabelsRequest>) -> Result<LabelsRecord> {
    let body = request.map_or_else(Vec::new, |request| serde_json::to_vec(&request).expect("strings are always JSON"));
    let client = common.socket.client()?;
    if method != Method::GET {
        // A change has no bound in time, so that a daemon that hangs is noticed before it.
        client.info()?;
    }
    client.json(method, "/v1/labels", Some("application/json"), body)
}

/// The labels of a file, text or JSON as `show --json` prints it; checked here first, so that a line that is wrong is
/// named.
fn request(file: &Path) -> Result<LabelsRequest> {
    let unreadable = |source| LabelsError::Unreadable { path: file.into(), source };
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().take(LABELS_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        bytes
    } else {
        read_up_to(file, LABELS_FILE_BYTES_MAX).map_err(unreadable)?
    };
    // As the daemon tells the two apart: no label begins with a brace.
    if bytes.trim_ascii_start().starts_with(b"{") {
        let malformed = |error: serde_json::Error| LabelsError::Malformed {
            path: file.into(),
            problem: format!("is not JSON with labels: {error}"),
        };
        let record: JsonLabels = serde_json::from_slice(&bytes).map_err(malformed)?;
        return Ok(LabelsRequest { labels: record.labels, ids: record.ids, examples: None });
    }
    Ok(request_of(&labels_of_file(&bytes, file)?.with_examples(&Examples::beside(file)?)))
}
