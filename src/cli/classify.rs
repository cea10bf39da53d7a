//! `rtpt classify`: photos in, answers out.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use rtpt_edge::error::{Error, Result};
use rtpt_edge::files::write_file;
use rtpt_edge::limits::TOP_MAX;
use rtpt_edge::report::{ImageRecord, explain, png_bytes};
use rtpt_edge::views::decode;
use rtpt_edge::{Classifier, Outcome};

use super::Completion;
use super::inputs::{self, Input};
use super::printer::Printer;
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
    let top = arguments.top.unwrap_or(if arguments.json { 5 } else { 1 });
    let mut printer = Printer::new(arguments.json, &inputs, classifier.labels().names());
    let mut failed = 0;
    for input in &mut inputs {
        let result = classify_one(&mut classifier, input, arguments);
        failed += usize::from(result.is_err());
        let record = result.map(|outcome| {
            let bundle = classifier.extractor().bundle_id();
            ImageRecord::new(&input.path, bundle, classifier.answerer(), &outcome, top)
        });
        bar.suspend(|| printer.print(&input.path, &record))?;
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
