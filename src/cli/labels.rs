//! `rtpt labels`: the labels of a running daemon.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::daemon::protocol::{LabelsRecord, LabelsRequest};
use crate::error::Result;
use crate::files::read_up_to;
use crate::labels::{LabelsError, labels_of_file};
use crate::limits::LABELS_FILE_BYTES_MAX;
use crate::wording::counted;
use clap::{Args, Subcommand};
use hyper::Method;
use serde::Deserialize;

use super::client::SocketArgument;
use super::printer::json_line;
use super::{Completion, Outcome};

pub(crate) const EXAMPLES: &str = "\
Examples:
  rtpt labels show
  rtpt labels set my.txt
  rtpt labels reset";

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
        writeln!(out, "{} are in force", counted(record.labels.len(), "label"))?;
    }
    Ok(Completion::All)
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
        return Ok(LabelsRequest { labels: record.labels, ids: record.ids });
    }
    let list = labels_of_file(&bytes, file)?;
    let (labels, ids) = list.rows();
    Ok(LabelsRequest { labels, ids })
}
