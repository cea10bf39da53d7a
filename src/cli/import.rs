//! `rtpt bundle import`: from a published model to a bundle.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::import::{ImportRequest, Imported, import};
use crate::limits::RESOLUTION_RANGE;
use crate::views::decode;
use clap::Args;

use super::bundle::{print_deviations, print_info};
use super::inputs::Input;
use super::settings::whole;
use super::{Completion, Outcome};

/// Headings of `--help`.
const PARTS: &str = "Files elsewhere";
const ABOUT: &str = "About the model";

pub(crate) const EXAMPLES: &str = "\
Examples:
  rtpt bundle import clip-vit-base-patch32/ --output clip
  rtpt bundle import clip/ -o bundle --labels my.txt --context 'a blurry photo of a'
  rtpt bundle import vision/ -o bundle --classes classes.npy --names names.txt --logit-scale 100";

#[derive(Args)]
pub(crate) struct Arguments {
    /// The model's folder: config.json, model.safetensors, tokenizer files, onnx/vision_model.onnx
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// The bundle to make; must not exist yet
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The vision model [default: onnx/vision_model.onnx or vision_model.onnx in SRC]
    #[arg(long, value_name = "FILE", help_heading = PARTS)]
    image_onnx: Option<PathBuf>,
    /// Class embeddings computed elsewhere (safetensors or npy); then no text tower is taken
    #[arg(long, value_name = "FILE", help_heading = PARTS)]
    classes: Option<PathBuf>,
    /// Names of those embeddings, one per line, if the file has none
    #[arg(long, value_name = "FILE", requires = "classes", help_heading = PARTS)]
    names: Option<PathBuf>,
    /// The bundle's default labels, one per line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Words before a label [default: a photo of a]
    #[arg(long, value_name = "WORDS")]
    context: Option<String>,
    /// A photo for the bundle's self-check [default: a drawn image]
    #[arg(long, value_name = "PHOTO")]
    image: Option<PathBuf>,
    /// Name of the bundle [default: the folder's]
    #[arg(long, help_heading = ABOUT)]
    name: Option<String>,
    /// One sentence about the model
    #[arg(long, help_heading = ABOUT)]
    description: Option<String>,
    /// License of the weights
    #[arg(long, help_heading = ABOUT)]
    license: Option<String>,
    /// Input side in pixels, if no file has it
    #[arg(long, value_name = "PIXELS", value_parser = whole::<usize>(RESOLUTION_RANGE.0, RESOLUTION_RANGE.1), help_heading = ABOUT)]
    resolution: Option<usize>,
    /// Logit scale, already exponentiated, if no file has it
    #[arg(long, value_name = "S", value_parser = parse_scale, help_heading = ABOUT)]
    logit_scale: Option<f32>,
}

fn parse_scale(text: &str) -> Result<f32, String> {
    let scale = text.parse().ok().filter(|scale: &f32| scale.is_finite() && *scale > 0.0);
    scale.ok_or_else(|| "expected a number above 0; OpenAI's CLIP has 100".into())
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let photo = arguments
        .image
        .as_deref()
        .map(|path| Ok::<_, crate::Error>(decode(&Input::file(path).read()?)?))
        .transpose()?;
    let request = ImportRequest {
        source: arguments.source.clone(),
        image_onnx: arguments.image_onnx.clone(),
        classes: arguments.classes.clone(),
        names: arguments.names.clone(),
        labels: arguments.labels.clone(),
        context: arguments.context.clone(),
        image: photo,
        name: arguments.name.clone(),
        description: arguments.description.clone(),
        license: arguments.license.clone(),
        resolution: arguments.resolution,
        logit_scale: arguments.logit_scale,
    };
    let Imported { bundle, deviations } = import(&request, &arguments.output)?;
    let mut out = io::stdout().lock();
    print_info(&mut out, &bundle)?;
    writeln!(out)?;
    print_deviations(&mut out, &deviations)?;
    let labels = if bundle.labels.is_some() { "" } else { "--labels FILE " };
    writeln!(out, "imported; try: rtpt classify --bundle {} {labels}PHOTO", arguments.output.display())?;
    Ok(Completion::All)
}
