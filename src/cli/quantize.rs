//! `rtpt bundle quantize`: a smaller and faster bundle of another.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ndarray::{Array4, Axis};

use crate::bundle::Bundle;
use crate::encoder::StoredIn;
use crate::error::Error;
use crate::quantise::{FeatureChange, LayerCost, QuantiseRequest, Quantised, TextChange, quantise};
use crate::setting::SettingError;
use crate::views::{clean_view_array, decode};
use crate::wording::counted;

use super::bundle::{Folder, print_deviations};
use super::settings::number;
use super::{Completion, Outcome, inputs, progress_bar};

/// Images that are measured on; of more, as many are taken from all over the folder.
const IMAGES_MAX: usize = 256;
/// Layers that are listed.
const LISTED: usize = 8;

pub(crate) const EXAMPLES: &str = "\
Examples:
  rtpt bundle quantize my-bundle --output my-bundle-int8 --images photos/
  rtpt bundle quantize my-bundle -o small --max-deviation 0.002 --images photos/
  rtpt bundle quantize my-bundle -o small --keep /visual/conv1 --images photos/
  rtpt bundle quantize my-bundle -o half --to f16

The deviation of an image is 1 - cosine of its features before and after. Signature and calibration
are not taken over: both are of the features before.";

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    folder: Folder,
    /// The bundle to make; must not exist yet
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// What weights are stored in
    #[arg(long, value_enum, default_value_t = Precision::Int8)]
    to: Precision,
    /// Images to measure the features on: a file or folder [default: the bundle's golden image alone]
    #[arg(long, value_name = "PATH")]
    images: Option<PathBuf>,
    /// Layers that stay in f32: the beginning of their names, or of the text tower's file; may be given several times
    #[arg(long, value_name = "NAME")]
    keep: Vec<String>,
    /// Largest deviation (0 to 1) of an image; layers that cost most stay in f32 where it would be larger
    #[arg(long, value_name = "D", default_value_t = 0.01, value_parser = number::<f32>("a number, 0 to 1"))]
    max_deviation: f32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Precision {
    /// A quarter of the size; the encoder's products in int8, the text tower's in f32
    Int8,
    /// Half of the size, computed in f32
    F16,
}

impl Precision {
    /// What it is, and its name.
    fn of(self) -> (StoredIn, &'static str) {
        match self {
            Self::Int8 => (StoredIn::Int8, "int8"),
            Self::F16 => (StoredIn::F16, "f16"),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let limit = arguments.max_deviation;
    if !(0.0..=1.0).contains(&limit) {
        let (expected, found) = ("0 to 1".into(), limit.to_string());
        return Err(SettingError { what: "--max-deviation", expected, found }.into());
    }
    let bundle = arguments.folder.open()?.bundle;
    let (views, failed) = match &arguments.images {
        Some(path) => views(&bundle, path)?,
        None => {
            log::warn!("the features are measured on one image alone; --images measures them on yours");
            (None, 0)
        }
    };
    let (stored, _) = arguments.to.of();
    let request = QuantiseRequest { stored, keep: arguments.keep.clone(), max_deviation: limit, views };
    let mut bar = None;
    let quantised = quantise(&bundle, &request, &arguments.output, &mut |done, count| {
        bar.get_or_insert_with(|| progress_bar(count)).set_position(done as u64);
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    print(arguments, &bundle, &quantised?)?;
    Ok(if failed == 0 { Completion::All } else { Completion::SomeFailed })
}

/// Clean views of the images of a folder, and how many of them cannot be read.
fn views(bundle: &Bundle, path: &PathBuf) -> Result<(Option<Array4<f32>>, usize), Error> {
    let all = inputs::list(std::slice::from_ref(path));
    let count = all.len();
    let step = count.div_ceil(IMAGES_MAX).max(1);
    if step > 1 {
        eprintln!("rtpt: measuring on every {step}th of {}", counted(count, "image"));
    }
    let preprocessing = bundle.manifest.preprocessing();
    let side = preprocessing.resolution;
    let mut views = Array4::zeros((0, 3, side, side));
    let mut failed = None;
    let mut failures = 0;
    let bar = progress_bar(count.div_ceil(step));
    for mut input in all.into_iter().step_by(step) {
        match input.read().and_then(|bytes| Ok(decode(&bytes)?)) {
            Ok(pixels) => {
                let view = clean_view_array(&pixels, &preprocessing).insert_axis(Axis(0));
                views.append(Axis(0), view.view()).expect("every view has the same size");
            }
            Err(error) => {
                bar.suspend(|| eprintln!("rtpt: {}: {error}", input.path.display()));
                failures += 1;
                failed = Some(error);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    match failed {
        Some(error) if views.is_empty() => Err(error),
        _ => Ok((Some(views), failures)),
    }
}

fn print(arguments: &Arguments, before: &Bundle, quantised: &Quantised) -> io::Result<()> {
    let Quantised { bundle, deviations, costs, kept, stored, change, texts } = quantised;
    let mut out = io::stdout().lock();
    if !costs.is_empty() {
        let listed = &costs[..costs.len().min(LISTED)];
        let width = listed.iter().map(|cost| cost.layer.name.len()).max().unwrap_or(0).max(5);
        writeln!(out, "{:width$} {:>10} {:>12}", "layer", "weights", "costs alone")?;
        for LayerCost { layer, cost } in listed {
            writeln!(out, "{:width$} {:>10} {:>12.1e}", layer.name, layer.weights, cost)?;
        }
        if costs.len() > listed.len() {
            writeln!(out, "and {} that cost less", counted(costs.len() - listed.len(), "layer"))?;
        }
        writeln!(out)?;
    }
    let (_, precision) = arguments.to.of();
    writeln!(out, "{} in {precision}, {} in f32", counted(*stored, "layer"), kept.len())?;
    for name in kept {
        writeln!(out, "kept in f32: {name}")?;
    }
    let FeatureChange { images, least, mean, agreement } = change;
    write!(out, "features of {}: cosine at least {least:.5}, {mean:.5} on average", counted(*images, "image"))?;
    match agreement {
        Some(agreement) => writeln!(out, "; the same best class for {:.1} %", agreement * 100.0)?,
        None => writeln!(out)?,
    }
    if let Some(TextChange { texts, least, is_stored }) = texts {
        write!(out, "embeddings of {}: cosine at least {least:.6}", counted(*texts, "text"))?;
        let outcome = if *is_stored { "" } else { ", past the bound: the text tower stays as it was" };
        writeln!(out, "{outcome}")?;
    }
    let size = |bundle: &Bundle, file: &str| bundle.manifest.files[file].size as f64 / 1e6;
    let files = bundle.manifest.text.iter().map(|section| ("text tower", &section.file));
    for (part, file) in [("image encoder", &bundle.manifest.image.file)].into_iter().chain(files) {
        writeln!(out, "{part}: {:.1} MB, before {:.1} MB", size(bundle, file), size(before, file))?;
    }
    writeln!(out)?;
    print_deviations(&mut out, deviations)?;
    writeln!(out, "made {}; try: rtpt bench --bundle {}", bundle.id(), arguments.output.display())
}
