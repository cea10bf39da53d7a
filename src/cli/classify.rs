//! `rtpt classify`: photos in, answers out.

use std::path::PathBuf;
use std::time::Instant;

use crate::answer::Answer;
use crate::classifier::Classifier;
use crate::error::Result;
use crate::files::write_file;
use crate::limits::TOP_MAX;
use crate::report::{ImageRecord, explain, png_bytes};
use crate::setting::SettingError;
use crate::views::{DamagedImages, Pixels, decode_as};
use crate::wording::counted;
use clap::Args;

use super::Completion;
use super::inputs::{self, Input};
use super::outputs::check_file;
use super::printer::Printer;
use super::progress_bar;
use super::settings::{CacheArguments, SettingsArguments, whole};

pub(crate) const EXAMPLES: &str = "\
Examples:
  rtpt classify photo.jpg
  rtpt classify --top 3 --views 16 photos/
  rtpt classify --labels my.txt --explain why.png photo.jpg
  rtpt classify --json photos/";

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    cache: CacheArguments,
    #[command(flatten)]
    settings: SettingsArguments,
    /// Number of answers listed, the most probable first [default: 1 in the table, 5 in JSON]
    #[arg(long, value_name = "K", value_parser = whole::<usize>(1, TOP_MAX))]
    top: Option<usize>,
    /// One JSON object per line instead of a table
    #[arg(long)]
    json: bool,
    /// PNG file to write, a picture that shows why; for one image only
    #[arg(long, value_name = "OUT.png")]
    explain: Option<PathBuf>,
    /// Images (JPEG, PNG, BMP, WebP), folders of images, or - for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> super::Outcome {
    if let Some(found) = arguments.top.filter(|top| !(1..=TOP_MAX).contains(top)) {
        let expected = format!("1 to {TOP_MAX}");
        return Err(SettingError { what: "--top", expected, found: found.to_string() }.into());
    }
    let mut inputs = inputs::list(&arguments.paths);
    // Before the model is loaded, which takes longer than to see this.
    if arguments.explain.is_some() && inputs.len() != 1 {
        let expected = "one image, whose picture is written".to_string();
        let found = format!("asked for with {}", counted(inputs.len(), "image"));
        return Err(SettingError { what: "--explain", expected, found }.into());
    }
    if let Some(picture) = &arguments.explain {
        check_file("--explain", picture, true, inputs.iter().map(|input| input.path.as_path()))?;
    }
    let cache = arguments.cache.open(arguments.paths.iter().any(|path| path.is_dir()));
    let classifier = arguments.settings.classifier()?.with_cache(cache);
    let began = Instant::now();
    let bar = progress_bar(inputs.len());
    let top = arguments.top.unwrap_or(if arguments.json { 5 } else { 1 });
    let mut printer = Printer::new(arguments.json, &inputs, classifier.labels().names());
    let mut failed = 0;
    for input in &mut inputs {
        let result = classify_one(&classifier, input, arguments);
        failed += usize::from(result.is_err());
        let record = result.map(|answer| ImageRecord::new(&input.path, &answer, top));
        bar.suspend(|| printer.print(&input.path, &record))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let seconds = began.elapsed().as_secs_f64();
    printer.summary(inputs.len(), failed, &format!("{seconds:.1} s"))?;
    Ok(if failed == 0 { Completion::All } else { Completion::SomeFailed })
}

fn classify_one(classifier: &Classifier, input: &mut Input, arguments: &Arguments) -> Result<Answer> {
    let bytes = input.read()?;
    let answer = classifier.classify(&bytes)?;
    if let Some(path) = &arguments.explain {
        let name = input.path.file_name().unwrap_or(input.path.as_os_str()).to_string_lossy().into_owned();
        write_file(path, &png_bytes(&explained(&name, &bytes, classifier, &answer)?))?;
    }
    Ok(answer)
}

/// The picture that explains an answer about the image file `bytes`.
pub(crate) fn explained(name: &str, bytes: &[u8], classifier: &Classifier, answer: &Answer) -> Result<Pixels> {
    let (image, extractor, features) =
        (decode_as(bytes, DamagedImages::Answer)?.pixels, classifier.extractor(), answer.features());
    // No answer keeps its views. They follow from digest and settings, so that these are the same bits.
    let views = extractor.views_of(&image, &features.digest, &features.views);
    Ok(explain(name, &image, views.view(), extractor.preprocessing(), answer))
}
