//! `rtpt trace`: every intermediate of one image, for recomputing elsewhere.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::files::write_file;
use crate::report::trace_bytes;
use crate::views::{DamagedImages, decode_as};
use clap::Args;

use super::outputs::check_file;
use super::settings::SettingsArguments;
use super::{Completion, Outcome, inputs};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// The file to write (safetensors)
    #[arg(short, long, value_name = "F.safetensors")]
    output: PathBuf,
    /// The image, or - for standard input
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    check_file("--output", &arguments.output, false, [arguments.image.as_path()])?;
    let classifier = arguments.settings.classifier()?;
    let bytes = inputs::Input::file(&arguments.image).read()?;
    let answer = classifier.classify(&bytes)?;
    let features = answer.features();
    let views = classifier.extractor().views_of(
        &decode_as(&bytes, DamagedImages::Answer)?.pixels,
        &features.digest,
        &features.views,
    );
    let trace = trace_bytes(&classifier, &answer, views.view());
    write_file(&arguments.output, &trace)?;
    writeln!(io::stdout(), "{}: {} bytes", arguments.output.display(), trace.len())?;
    Ok(Completion::All)
}
