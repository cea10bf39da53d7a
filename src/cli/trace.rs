//! `rtpt trace`: every intermediate of one image, for recomputing elsewhere.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use rtpt_edge::files::write_file;
use rtpt_edge::report::trace_bytes;

use super::settings::SettingsArguments;
use super::{Completion, Outcome, inputs};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// The file to write (safetensors)
    #[arg(short, long, value_name = "F.safetensors")]
    output: PathBuf,
    /// The image, or - for standard input
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let mut classifier = arguments.settings.classifier()?;
    let bytes = inputs::Input::file(&arguments.image).read()?;
    let outcome = classifier.classify(&bytes)?;
    let trace = trace_bytes(&classifier, &outcome);
    write_file(&arguments.output, &trace)?;
    writeln!(io::stdout(), "{}: {} bytes", arguments.output.display(), trace.len())?;
    Ok(Completion::All)
}
