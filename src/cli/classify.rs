//! `rtpt classify`: photos in, answers out.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use rtpt_edge::error::{Error, Result};
use rtpt_edge::files::write_file;
use rtpt_edge::limits::TOP_MAX;
use rtpt_edge::report::{ErrorRecord, ImageRecord, explain, png_bytes};
use rtpt_edge::views::decode;
use rtpt_edge::{Classifier, Outcome};

use super::Completion;
use super::inputs::{self, Input};
use super::progress_bar;
use super::settings::{CacheArguments, SettingsArguments};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    settings: SettingsArguments,
    #[command(flatten)]
    cache: CacheArguments,
    /// List the K most probable answers [default: 1 in the table, 5 in JSON]
    #[arg(long, value_name = "K")]
    top: Option<usize>,
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
    /// Write a picture that shows why; for one image only
    #[arg(long, value_name = "OUT.png")]
    explain: Option<PathBuf>,
    /// Images (JPEG, PNG, BMP, WebP), folders of images, or - for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub fn run(arguments: &Arguments) -> super::Outcome {
    if let Some(found) = arguments.top.filter(|top| !(1..=TOP_MAX).contains(top)) {
        let expected = format!("1 to {TOP_MAX}");
        return Err(Error::Setting { what: "--top", expected, found: found.to_string() }.into());
    }
    let mut inputs = inputs::list(&arguments.paths);
    if arguments.explain.is_some() && inputs.len() != 1 {
        let expected = "one image, whose picture is written".to_string();
        let found = format!("asked for with {} images", inputs.len());
        return Err(Error::Setting { what: "--explain", expected, found }.into());
    }
    // The picture shows the views, which the cache does not keep.
    let cache = match arguments.explain {
        Some(_) => None,
        None => arguments.cache.open(arguments.paths.iter().any(|path| path.is_dir())),
    };
    let mut classifier = arguments.settings.classifier()?.with_cache(cache);
    let began = Instant::now();
    let bar = progress_bar(inputs.len());
    let mut printer = Printer::new(arguments, &inputs, &classifier);
    let mut failed = 0;
    for input in &mut inputs {
        let result = classify_one(&mut classifier, input, arguments);
        failed += usize::from(result.is_err());
        bar.suspend(|| printer.print(input, &classifier, &result))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    printer.summary(inputs.len(), failed, began.elapsed().as_secs_f64())?;
    Ok(if failed == 0 { Completion::All } else { Completion::SomeFailed })
}

fn classify_one(classifier: &mut Classifier, input: &mut Input, arguments: &Arguments) -> Result<Outcome> {
    let bytes = input.read()?;
    let outcome = classifier.classify(&bytes)?;
    if let Some(path) = &arguments.explain {
        let name = input.path.file_name().unwrap_or(input.path.as_os_str()).to_string_lossy().into_owned();
        let picture = explain(&name, &decode(&bytes)?, classifier, &outcome);
        write_file(path, &png_bytes(&picture))?;
    }
    Ok(outcome)
}

/// Prints results as they come, as a table or as JSON lines.
struct Printer {
    json: bool,
    top: usize,
    path_width: usize,
    label_width: usize,
    headed: bool,
}

impl Printer {
    fn new(arguments: &Arguments, inputs: &[Input], classifier: &Classifier) -> Self {
        let longest_path = inputs.iter().map(|input| shown(&input.path).chars().count()).max().unwrap_or(0);
        let longest_label = classifier.labels().names().iter().map(|name| name.chars().count()).max().unwrap_or(0);
        Self {
            json: arguments.json,
            top: arguments.top.unwrap_or(if arguments.json { 5 } else { 1 }),
            path_width: longest_path.clamp(5, 48),
            label_width: longest_label.clamp(5, 32),
            headed: false,
        }
    }

    fn print(&mut self, input: &Input, classifier: &Classifier, result: &Result<Outcome>) -> io::Result<()> {
        let record = result.as_ref().map(|outcome| ImageRecord::new(&input.path, classifier, outcome, self.top));
        let mut out = io::stdout().lock();
        match record {
            Ok(record) if self.json => json_line(&mut out, &record),
            Err(error) if self.json => json_line(&mut out, &ErrorRecord::new(&input.path, error)),
            Ok(record) => self.row(&mut out, &record),
            Err(error) => {
                eprintln!("rtpt: {}: {error}", shown(&input.path));
                Ok(())
            }
        }
    }

    fn row(&mut self, out: &mut impl Write, record: &ImageRecord) -> io::Result<()> {
        let (path_width, label_width) = (self.path_width, self.label_width);
        if !self.headed {
            let answer_width = label_width + 8;
            writeln!(
                out,
                "{:path_width$}  {:answer_width$}    {:answer_width$}       time",
                "image", "R-TPT", "zero-shot"
            )?;
            self.headed = true;
        }
        let mark = if record.label == record.zero_shot.label { ' ' } else { '≠' };
        writeln!(
            out,
            "{:path_width$}  {}  {mark} {}  {:6.0} ms{}",
            clipped(&shown(Path::new(&record.path)), path_width),
            answer(&record.label, record.probability, label_width),
            answer(&record.zero_shot.label, record.zero_shot.probability, label_width),
            record.timings_ms.total(),
            if record.tamper.is_some_and(|tamper| tamper.suspicious == Some(true)) { "  tampered?" } else { "" },
        )?;
        for (rank, next) in record.top.iter().enumerate().skip(1) {
            let rank = format!("{}.", rank + 1);
            writeln!(out, "{rank:>path_width$}  {}", answer(&next.label, next.probability, label_width))?;
        }
        Ok(())
    }

    fn summary(&self, count: usize, failed: usize, seconds: f64) -> io::Result<()> {
        if !self.json && count > 1 {
            let failures = if failed == 0 { String::new() } else { format!(", {failed} not classified") };
            writeln!(io::stdout(), "{count} images in {seconds:.1} s{failures}")?;
        }
        io::stdout().flush()
    }
}

fn json_line(out: &mut impl Write, record: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    writeln!(out)
}

fn answer(label: &str, probability: f32, width: usize) -> String {
    format!("{:width$} {:5.1} %", clipped(label, width), probability * 100.0)
}

/// A path as it can be shown on a terminal: control characters could move the cursor.
fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The end of `text` where it is longer than `width` characters: of a path the end tells most.
fn clipped(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_string();
    }
    let kept: String = text.chars().skip(count - width + 1).collect();
    format!("…{kept}")
}
