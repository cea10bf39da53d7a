//! `rtpt bundle`: what is in a bundle, and whether it works on this device.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::bundle::{Bundle, locate_bundle};
use crate::check::{Deviation, check_goldens, require_goldens};
use crate::wording::counted;
use clap::{Args, Subcommand};

use super::settings::BundleArgument;
use super::{Completion, Outcome, import};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Verify every file and run the bundle's own goldens on this device
    Check(Folder),
    /// Make a bundle of a published CLIP model
    #[command(after_help = import::EXAMPLES)]
    Import(Box<import::Arguments>),
    /// Show what the bundle holds
    Info {
        #[command(flatten)]
        folder: Folder,
        /// List the class names, one a line, and nothing else
        #[arg(long)]
        classes: bool,
    },
}

#[derive(Args)]
struct Folder {
    /// The bundle's folder, as --bundle names it too [default: the demo bundle]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    bundle: BundleArgument,
}

impl Folder {
    fn open(&self) -> crate::error::Result<Bundle> {
        // What stands on the command line is meant before what stands in the environment.
        Ok(Bundle::open(&locate_bundle(self.folder.as_deref().or(self.bundle.bundle.as_deref()))?)?)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.command {
        Command::Check(folder) => check(&folder.open()?),
        Command::Import(arguments) => import::run(arguments),
        Command::Info { folder, classes: false } => info(&folder.open()?),
        Command::Info { folder, classes: true } => list_classes(&folder.open()?),
    }
}

fn check(bundle: &Bundle) -> Outcome {
    let mut out = io::stdout().lock();
    let files = counted(bundle.manifest.files.len(), "file");
    writeln!(out, "{}: {files}, sizes and digests as recorded", bundle.id())?;
    let deviations = check_goldens(bundle)?;
    print_deviations(&mut out, &deviations)?;
    require_goldens(&deviations)?;
    writeln!(out, "the bundle gives its golden results on this device")?;
    Ok(Completion::All)
}

/// A table of how far each stage is from its golden.
pub(crate) fn print_deviations(out: &mut impl Write, deviations: &[Deviation]) -> io::Result<()> {
    writeln!(out, "{:10} {:>20} {:>12}", "stage", "largest difference", "tolerance")?;
    for deviation in deviations {
        let verdict = if deviation.passes() { "ok" } else { "FAILED" };
        writeln!(
            out,
            "{:10} {:>20.3e} {:>12.0e}  {verdict}",
            deviation.stage, deviation.difference, deviation.tolerance
        )?;
    }
    Ok(())
}

fn info(bundle: &Bundle) -> Outcome {
    let mut out = io::stdout().lock();
    print_info(&mut out, bundle)?;
    Ok(Completion::All)
}

/// Prints a bundle's contents, a line each.
pub(crate) fn print_info(out: &mut impl Write, bundle: &Bundle) -> io::Result<()> {
    let manifest = &bundle.manifest;
    let mut line = |name: &str, value: String| writeln!(out, "{name:14} {value}");
    line("bundle", bundle.id())?;
    line("folder", bundle.folder.display().to_string())?;
    line("description", manifest.description.clone())?;
    line("licence", manifest.license.clone())?;
    let image = &manifest.image;
    line(
        "image encoder",
        format!("{}, {1}×{1} pixels to {2} numbers", image.file, image.resolution, manifest.embedding),
    )?;
    match &manifest.text {
        Some(text) => {
            let shape =
                format!("{} of width {}, {}", counted(text.layers, "layer"), text.width, counted(text.heads, "head"));
            line("text tower", format!("{}, {shape}, {} tokens at most", text.file, text.context_length))?;
        }
        None => line("text tower", "none".into())?,
    }
    line("logit scale", manifest.logit_scale.to_string())?;
    // A bundle's prompt is a context, which is one template.
    line("prompt", format!("{:?}", bundle.prompt().templates()[0]))?;
    match (&bundle.classes, &bundle.labels) {
        (Some(classes), Some(labels)) => {
            line("classes", format!("{}, of which {} by default", classes.names.len(), labels.names().len()))?;
        }
        _ => line("classes", "none precomputed; give --labels".into())?,
    }
    let views = &manifest.views;
    line("views", format!("{} ({:?})", views.count, views.augment).to_lowercase())?;
    line("method", manifest.method.method().to_string())?;
    for (name, value) in manifest.method.iter() {
        line("", format!("{} = {value}", name.replace('_', " ")))?;
    }
    for (name, record) in &manifest.files {
        line("file", format!("{name}, {} bytes, BLAKE3 {}", record.size, record.blake3))?;
    }
    Ok(())
}

fn list_classes(bundle: &Bundle) -> Outcome {
    let mut out = io::stdout().lock();
    for name in bundle.classes.iter().flat_map(|classes| &classes.names) {
        writeln!(out, "{name}")?;
    }
    Ok(Completion::All)
}
