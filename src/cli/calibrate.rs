//! `rtpt calibrate`: the tamper score's threshold and the probabilities' temperature, from a deployment's own images.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::bundle::Bundle;
use crate::calibration::{Calibration, TamperThreshold, Target, Temperature, labels_digest};
use crate::classifier::{Classifier, ClassifierSettings};
use crate::error::{Category, Class, Error, ProgramLayer, Result};
use crate::eval::{Answered, confidences, fit_temperature, fit_threshold};
use crate::metrics::calibration_error;
use crate::setting::SettingError;
use crate::signing::SIGNATURE;
use crate::wording::counted;
use clap::Args;

use super::datasets::DataSetArguments;
use super::inputs::Input;
use super::settings::{CacheArguments, SettingsArguments, cache_folder, number};
use super::{Completion, Outcome, inputs, progress_bar};

/// Least number of images that say something about a rate.
const IMAGES_MIN: usize = 20;

pub(crate) const EXAMPLES: &str = "\
Examples:
  rtpt calibrate --dry-run photos/              photos/ has one folder per class
  rtpt calibrate photos/
  rtpt calibrate --unlabelled --views 16 frames/
  rtpt calibrate --labels my.txt --fpr 0.01 photos/

The labels are chosen as for rtpt eval: those of --labels, else the bundle's. Where the bundle's
lack one of the folders' names, those names are the labels.";

#[derive(Args)]
#[command(mut_arg("cache", |cache| cache.help("Where features are kept [default: on disk]")))]
pub(crate) struct Arguments {
    #[command(flatten)]
    cache: CacheArguments,
    #[command(flatten)]
    settings: SettingsArguments,
    /// Share of clean images (0 to 0.5) that may be marked as suspicious
    #[arg(long, value_name = "RATE", default_value_t = 0.05, value_parser = number::<f64>("a number, 0 to 0.5"))]
    fpr: f64,
    /// The images are not labelled: the temperature is fitted to agree with the answers of the bundle's full number of
    /// views, which needs fewer --views
    #[arg(long)]
    unlabelled: bool,
    #[command(flatten)]
    data: DataSetArguments,
    /// Show what would be kept with the bundle, and keep nothing
    #[arg(long)]
    dry_run: bool,
    /// Clean images like those of the deployment: a data set as for rtpt eval, or with --unlabelled a file or folder
    #[arg(value_name = "DATASET")]
    dataset: PathBuf,
}

/// Too few clean images to calibrate with.
#[derive(Debug, thiserror::Error)]
#[error("calibrating needs at least {IMAGES_MIN} clean images, found {found}")]
struct TooFewImages {
    found: usize,
}

impl ProgramLayer for TooFewImages {
    fn class(&self) -> Class {
        (Category::Usage, "setting")
    }
}

/// Measurements of the images.
#[derive(Default)]
struct Measured {
    tampers: Vec<f32>,
    answers: Vec<Answered>,
    failed: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    if !(0.0..=0.5).contains(&arguments.fpr) {
        let found = arguments.fpr.to_string();
        return Err(SettingError { what: "--fpr", expected: "0 to 0.5".into(), found }.into());
    }
    let bundle = arguments.settings.bundle.open()?;
    let settings = arguments.settings.settings(&bundle)?;
    if settings.extractor.views.count == 1 {
        let expected = "at least 2: the tamper score compares views".into();
        return Err(SettingError { what: "--views", expected, found: "1".into() }.into());
    }
    let cache = || arguments.cache.open(true);
    let (measured, target, classifier) = if arguments.unlabelled {
        measure_unlabelled(arguments, &bundle, &settings)?
    } else {
        let set = arguments.data.open(&arguments.dataset, "train")?;
        let renamed = arguments.data.class_names()?;
        let list = arguments.settings.labels.list_for(&bundle, &[&set], &renamed)?;
        let truths = set.truths(&list, &renamed)?;
        let classifier = arguments.settings.classifier_among(&bundle, Some(list))?.with_cache(cache());
        let inputs = set.items.iter().map(|item| Input::file(&item.path)).collect();
        let measured = measure(&classifier, inputs, |place, _| Some(truths[place]))?;
        (measured, Target::Truth, classifier)
    };
    let count = measured.tampers.len();
    if count < IMAGES_MIN {
        return Err(Error::from(TooFewImages { found: count }).into());
    }
    let mut calibration = Calibration::new(&bundle, &settings.extractor.views);
    let threshold = fit_threshold(&measured.tampers, arguments.fpr);
    calibration.tamper = Some(TamperThreshold { threshold, false_positive_rate: arguments.fpr, images: count });
    if measured.answers.is_empty() {
        // What could not be fitted now may have been fitted before: it is not lost.
        let before = Calibration::of(&bundle).filter(|before| before.views.is_like(&calibration.views));
        calibration.temperature = before.and_then(|before| before.temperature);
    } else {
        let fitted = temperature(&measured.answers, target, &settings, &classifier);
        if fitted.ece_after < fitted.ece_before {
            calibration.temperature = Some(fitted);
        } else {
            log::warn!(
                "no temperature is kept: on images that it was not fitted to, {:.3} brings the calibration error (ECE) from {:.3} to {:.3}",
                fitted.temperature,
                fitted.ece_before,
                fitted.ece_after
            );
        }
    }
    print(&calibration)?;
    let mut out = io::stdout().lock();
    if arguments.dry_run {
        writeln!(out, "nothing was kept (--dry-run)")?;
    } else {
        calibration.write(&bundle)?;
        writeln!(out, "kept in {}", Calibration::path(&bundle).display())?;
        if bundle.folder.join(SIGNATURE).exists() {
            log::warn!("the bundle's signature is not over this calibration; sign the bundle again");
        }
    }
    Ok(if measured.failed == 0 { Completion::All } else { Completion::SomeFailed })
}

/// Compares the answers of the views asked for with those of the bundle's full number of views.
fn measure_unlabelled(
    arguments: &Arguments,
    bundle: &Bundle,
    settings: &ClassifierSettings,
) -> Result<(Measured, Target, Classifier)> {
    let full = bundle.manifest.views.count;
    let classifier = arguments.settings.classifier_of(bundle)?;
    let list = || inputs::list(std::slice::from_ref(&arguments.dataset));
    let measured = if settings.extractor.views.count < full {
        let mut reference = *settings;
        reference.extractor.views.count = full;
        let labels = classifier.labels().clone();
        let reference = Classifier::new(bundle, labels, reference, cache_folder().as_deref())?
            .with_cache(arguments.cache.open(true));
        // An image's answer at all views, by the order of the images; what fails here fails below as well.
        let mut wanted = Vec::new();
        for mut input in list() {
            let outcome = input.read().and_then(|bytes| reference.classify(&bytes));
            wanted.push(outcome.ok().map(|answer| answer.best_class()));
        }
        measure(&classifier, list(), |place, _| wanted[place])?
    } else {
        log::warn!(
            "no temperature is fitted: without labels it needs fewer --views than the {full} whose answers it is fitted to"
        );
        measure(&classifier, list(), |_, _| None)?
    };
    Ok((measured, Target::FullViews, classifier))
}

/// Classifies the images. `wanted` gives the class that the answer at a place should be, if it is known.
fn measure(
    classifier: &Classifier,
    inputs: Vec<Input>,
    wanted: impl Fn(usize, &Input) -> Option<usize>,
) -> Result<Measured> {
    let mut measured = Measured::default();
    let bar = progress_bar(inputs.len());
    for (place, mut input) in inputs.into_iter().enumerate() {
        match input.read().and_then(|bytes| classifier.classify(&bytes)) {
            Ok(answer) => {
                measured.tampers.extend(answer.tamper().map(|tamper| tamper.score.score));
                let wanted = wanted(place, &input);
                measured.answers.extend(wanted.map(|wanted| (answer.into_prediction(), wanted)));
            }
            Err(error) => {
                bar.suspend(|| eprintln!("rtpt: {}: {error}", input.path.display()));
                measured.failed += 1;
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(measured)
}

/// Temperature of all answers, and the calibration error on answers that it was not fitted to.
fn temperature(
    answers: &[Answered],
    target: Target,
    settings: &ClassifierSettings,
    classifier: &Classifier,
) -> Temperature {
    // Every other image: data sets come in order of class, and each half must have all classes.
    let half = |parity: usize| -> Vec<Answered> { answers.iter().skip(parity).step_by(2).cloned().collect() };
    let (even, odd) = (half(0), half(1));
    let mut after = confidences(&even, fit_temperature(&odd));
    after.extend(confidences(&odd, fit_temperature(&even)));
    Temperature {
        temperature: fit_temperature(answers),
        labels: labels_digest(classifier.labels()),
        target,
        images: answers.len(),
        ece_before: calibration_error(&confidences(answers, 1.0)),
        ece_after: calibration_error(&after),
        method: settings.method,
    }
}

fn print(calibration: &Calibration) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if let Some(tamper) = calibration.tamper {
        let rate = tamper.false_positive_rate * 100.0;
        writeln!(
            out,
            "tamper score: an image above {:.3} is suspicious, as at most {rate} % of {} are",
            tamper.threshold,
            counted(tamper.images, "clean image")
        )?;
    }
    if let Some(fitted) = &calibration.temperature {
        writeln!(
            out,
            "temperature: {:.3} ({}), fitted to {}; ECE {:.3} before, {:.3} after (cross-validated in two halves)",
            fitted.temperature,
            fitted.method,
            counted(fitted.images, "image"),
            fitted.ece_before,
            fitted.ece_after
        )?;
    }
    Ok(())
}
