//! `rtpt ask`: a running daemon classifies images.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::protocol::ClassifyQuery;
use crate::error::{Category, Result};
use crate::limits::{DEADLINE_MS, TOP_MAX, VIEWS_MAX};
use crate::method::Method;
use crate::report::ImageRecord;
use clap::Args;
use hyper::Method as HttpMethod;

use super::client::{Client, SocketArgument};
use super::inputs::{self, Input};
use super::printer::Printer;
use super::settings::{method_parser, whole};
use super::{Completion, Outcome};

/// Time beyond the deadline for the daemon to report that it passed.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    socket: SocketArgument,
    /// Views of the image, 1 to 256, or as many as the daemon's own [default: the daemon's]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1, VIEWS_MAX))]
    views: Option<usize>,
    /// Method [default: the daemon's]
    #[arg(long, alias = "head", value_name = "NAME", value_parser = method_parser())]
    method: Option<Method>,
    /// List the K most probable answers [default: 1 in the table, 5 in JSON]
    #[arg(long, value_name = "K", value_parser = whole::<usize>(1, TOP_MAX))]
    top: Option<usize>,
    /// How long to wait for the answer to an image
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    patience: u64,
    /// One JSON object per line instead of a table
    #[arg(long)]
    json: bool,
    /// Images (JPEG, PNG, BMP, WebP), folders of images, or - for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let client = arguments.socket.client()?;
    let mut inputs = inputs::list(&arguments.paths);
    let mut printer = Printer::new(arguments.json, &inputs, &[]);
    let (began, mut failed) = (Instant::now(), 0);
    for input in &mut inputs {
        let result = ask(&client, input, arguments);
        // Without a daemon, or with flags that it refuses, the other images fare no better.
        if result.as_ref().is_err_and(|error| matches!(error.category(), Category::Daemon | Category::Usage)) {
            result?;
            continue;
        }
        failed += usize::from(result.is_err());
        printer.print(&input.path, &result)?;
    }
    printer.summary(inputs.len(), failed, &format!("{:.1} s", began.elapsed().as_secs_f64()))?;
    Ok(if failed == 0 { Completion::All } else { Completion::SomeFailed })
}

fn ask(client: &Client, input: &mut Input, arguments: &Arguments) -> Result<ImageRecord> {
    let bytes = input.read()?;
    let until = Instant::now() + Duration::from_secs(arguments.patience);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let query = ClassifyQuery {
            views: arguments.views,
            method: arguments.method,
            // The numbers that `rtpt classify` lists.
            top: arguments.top.or(Some(if arguments.json { 5 } else { 1 })),
            deadline_ms: Some((left.as_millis() as u64).clamp(1, DEADLINE_MS.1)),
        };
        let query = serde_urlencoded::to_string(query).expect("numbers and names can be written");
        let path = format!("/v1/classify?{query}");
        // A copy, since a busy daemon is asked again. A daemon that is well answers by the deadline, if only that it
        // passed.
        let kind = Some("application/octet-stream");
        let answer = client.send(HttpMethod::POST, &path, kind, bytes.clone(), Some(left + GRACE))?;
        let pause = Duration::from_secs(answer.retry_after.unwrap_or(1));
        // Only 503 passes by itself: the queue is full, or the model loads. Other refusals would be the same later.
        if answer.status == 503 && Instant::now() + pause < until {
            thread::sleep(pause);
            continue;
        }
        let mut record: ImageRecord = answer.json(client.socket())?;
        record.path = input.path.to_string_lossy().into_owned();
        return Ok(record);
    }
}
