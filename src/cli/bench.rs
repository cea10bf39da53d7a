//! `rtpt bench`: where the time goes on this device.

use std::io::{self, Write};

use crate::device::{rss_now, rss_peak};
use crate::setting::SettingError;
use crate::timings::Timings;
use crate::wording::counted;
use clap::Args;
use serde::Serialize;

use super::settings::{SettingsArguments, whole};
use super::{Completion, Outcome};

const REPEATS_MAX: usize = 10_000;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// Counted runs, after one that is not counted
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = whole::<usize>(1, REPEATS_MAX))]
    repeat: usize,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Milliseconds of one stage over all runs.
#[derive(Serialize)]
struct Spread {
    stage: &'static str,
    min_ms: f64,
    median_ms: f64,
    max_ms: f64,
}

#[derive(Serialize)]
struct Report {
    schema: u32,
    bundle: String,
    method: &'static str,
    views: usize,
    classes: usize,
    threads: usize,
    batch: usize,
    runs: usize,
    stages: Vec<Spread>,
    views_per_second: f64,
    rss_now_bytes: Option<u64>,
    rss_peak_bytes: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    if !(1..=REPEATS_MAX).contains(&arguments.repeat) {
        let expected = format!("1 to {REPEATS_MAX}");
        return Err(SettingError { what: "--repeat", expected, found: arguments.repeat.to_string() }.into());
    }
    let report = measure(arguments)?;
    let mut out = io::stdout().lock();
    if arguments.json {
        serde_json::to_writer(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        print(&mut out, &report)?;
    }
    Ok(Completion::All)
}

/// Classifies the bundle's own golden image again and again, as a PNG file in memory so that decoding counts.
fn measure(arguments: &Arguments) -> crate::error::Result<Report> {
    let bundle = arguments.settings.bundle.open()?;
    let classifier = arguments.settings.classifier_of(&bundle)?;
    let file = crate::report::png_bytes(&bundle.goldens.image);
    // The first run meets cold memory and idle threads.
    let first = classifier.classify(&file)?;
    let runs = (0..arguments.repeat).map(|_| classifier.classify(&file).map(|answer| answer.timings()));
    let timings: Vec<Timings> = runs.collect::<Result<_, _>>()?;
    let stages: Vec<Spread> = [
        // The cast makes the five closures one type.
        ("decode", (|t| t.decode) as fn(&Timings) -> f64),
        ("views", |t| t.views),
        ("encode", |t| t.encode),
        ("tune", |t| t.tune),
        ("total", |t| t.total),
    ]
    .map(|(stage, of)| spread(stage, timings.iter().map(of).collect()))
    .into();
    // In rounds not all of them, and the low-passed one besides.
    let (views, now) = (first.views(), rss_now());
    let encoded = views + usize::from(classifier.plan().rounds.is_some());
    Ok(Report {
        schema: 1,
        bundle: classifier.extractor().bundle_id().into(),
        method: classifier.method().method().name(),
        views,
        classes: classifier.labels().names().len(),
        threads: classifier.extractor().pool().current_num_threads(),
        batch: classifier.extractor().batch(),
        runs: timings.len(),
        // The third stage is the encoder's.
        views_per_second: encoded as f64 * 1e3 / stages[2].median_ms,
        stages,
        rss_now_bytes: now,
        // The system's peak lags behind by some pages.
        rss_peak_bytes: rss_peak().max(now),
    })
}

fn spread(stage: &'static str, mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median_ms = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
    Spread { stage, min_ms: values[0], median_ms, max_ms: values[values.len() - 1] }
}

fn print(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(
        out,
        "{}: {}, {}, method {}, {}, batch {}, {}",
        report.bundle,
        counted(report.views, "view"),
        counted(report.classes, "label"),
        report.method,
        counted(report.threads, "thread"),
        report.batch,
        counted(report.runs, "run")
    )?;
    writeln!(out, "{:8} {:>10} {:>10} {:>10}", "ms", "min", "median", "max")?;
    for Spread { stage, min_ms, median_ms, max_ms } in &report.stages {
        writeln!(out, "{stage:8} {min_ms:10.3} {median_ms:10.3} {max_ms:10.3}")?;
    }
    writeln!(out, "{:.1} views per second through the encoder", report.views_per_second)?;
    let mebibytes = |bytes: Option<u64>| bytes.map_or("unknown".into(), |b| format!("{:.1} MiB", b as f64 / 1048576.0));
    writeln!(out, "memory: {} now, {} at most", mebibytes(report.rss_now_bytes), mebibytes(report.rss_peak_bytes))
}
