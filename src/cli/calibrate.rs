//! `rtpt calibrate`: the tamper score's threshold and the probabilities' temperature, from a deployment's own images.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::bundle::Bundle;
use crate::calibration::{Calibration, RoundsCalibration, TamperThreshold, Target, Temperature, labels_digest};
use crate::classifier::{Classifier, ClassifierSettings};
use crate::error::{Category, Class, Error, ProgramLayer, Result};
use crate::eval::{Answered, Observed, confidences, fit_rounds, fit_temperature, fit_threshold};
use crate::extractor::Features;
use crate::method::ViewUse;
use crate::metrics::calibration_error;
use crate::rounds::{FIRST_ROUND, RoundSettings};
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
  rtpt calibrate photos/                        photos/ has one folder per class
  rtpt calibrate --unlabelled --views 16 frames/
  rtpt calibrate --labels my.txt --fpr 0.01 photos/
  rtpt calibrate --views-max 64 photos/         fits the gate and the end of rounds

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
    /// views, which needs fewer --views; rounds are fitted to agree with those of --views-max
    #[arg(long)]
    unlabelled: bool,
    /// Share of right answers (0 to 0.5) that rounds may cost, with --views-max; one standard error is always allowed [default: 0.003; of
    /// answers that may differ 0.02 with --unlabelled]
    #[arg(long, value_name = "SHARE", value_parser = number::<f64>("a number, 0 to 0.5"))]
    loss: Option<f64>,
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
    let within = |what, found: f64| match (0.0..=0.5).contains(&found) {
        true => Ok(()),
        false => Err(SettingError { what, expected: "0 to 0.5".into(), found: found.to_string() }),
    };
    within("--fpr", arguments.fpr)?;
    arguments.loss.map_or(Ok(()), |loss| within("--loss", loss))?;
    let bundle = arguments.settings.bundle.open()?;
    let settings = arguments.settings.settings(&bundle)?;
    settings.check()?;
    let (calibration, failed) = match settings.rounds {
        Some(rounds) => calibrate_rounds(arguments, &bundle, &settings, rounds)?,
        None => calibrate_views(arguments, &bundle, &settings)?,
    };
    print(&calibration, settings.rounds.is_some())?;
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
    Ok(if failed == 0 { Completion::All } else { Completion::SomeFailed })
}

/// The images with their labels, and a classifier among these.
struct Labelled {
    classifier: Classifier,
    inputs: Vec<Input>,
    truths: Vec<usize>,
}

fn labelled(arguments: &Arguments, bundle: &Bundle) -> Result<Labelled> {
    let set = arguments.data.open(&arguments.dataset, "train")?;
    let renamed = arguments.data.class_names()?;
    let list = arguments.settings.labels.list_for(bundle, &[&set], &renamed)?;
    let truths = set.truths(&list, &renamed)?;
    let classifier = arguments.settings.classifier_among(bundle, Some(list))?.with_cache(arguments.cache.open(true));
    let inputs = set.items.iter().map(|item| Input::file(&item.path)).collect();
    Ok(Labelled { classifier, inputs, truths })
}

/// The calibration with threshold and temperature of one number of views fitted anew, and the number of images that failed.
fn calibrate_views(
    arguments: &Arguments,
    bundle: &Bundle,
    settings: &ClassifierSettings,
) -> Result<(Calibration, usize)> {
    if settings.extractor.views.count == 1 {
        let expected = "at least 2: the tamper score compares views".into();
        return Err(SettingError { what: "--views", expected, found: "1".into() }.into());
    }
    let (measured, target, classifier) = if arguments.unlabelled {
        measure_unlabelled(arguments, bundle, settings)?
    } else {
        let Labelled { classifier, inputs, truths } = labelled(arguments, bundle)?;
        let measured = measure(&classifier, inputs, |place, _| Some(truths[place]))?;
        (measured, Target::Truth, classifier)
    };
    let count = enough(measured.tampers.len())?;
    let before = Calibration::of(bundle);
    let mut calibration = Calibration::new(bundle, &settings.extractor.views);
    let threshold = fit_threshold(&measured.tampers, arguments.fpr);
    calibration.tamper = Some(TamperThreshold { threshold, false_positive_rate: arguments.fpr, images: count });
    if measured.answers.is_empty() {
        // What could not be fitted now may have been fitted before: it is not lost.
        let like = before.as_ref().filter(|before| before.views.is_like(&calibration.views));
        calibration.temperature = like.and_then(|before| before.temperature.clone());
    } else {
        calibration.temperature = helpful(temperature(&measured.answers, target, settings, &classifier));
    }
    // Rounds are another matter.
    calibration.rounds = before.and_then(|before| before.rounds);
    Ok((calibration, measured.failed))
}

/// The calibration with the rules of the rounds fitted anew, and the number of images that failed.
fn calibrate_rounds(
    arguments: &Arguments,
    bundle: &Bundle,
    settings: &ClassifierSettings,
    rounds: RoundSettings,
) -> Result<(Calibration, usize)> {
    if rounds.views_min > 1 || rounds.budget_ms.is_some() {
        let expected = "none of them: the rules are fitted for any".to_string();
        return Err(SettingError { what: "--views-min and --budget-ms", expected, found: "one of them".into() }.into());
    }
    let views = settings.extractor.views;
    if views.count <= FIRST_ROUND || settings.method.method().views() == ViewUse::CleanView {
        let expected = format!("more than {FIRST_ROUND}, and a method that looks at them");
        let found = format!("{} with {}", views.count, settings.method.method());
        return Err(SettingError { what: "--views-max", expected, found }.into());
    }
    let (classifier, inputs, truths) = if arguments.unlabelled {
        let classifier = arguments.settings.classifier_of(bundle)?.with_cache(arguments.cache.open(true));
        (classifier, inputs::list(std::slice::from_ref(&arguments.dataset)), None)
    } else {
        let Labelled { classifier, inputs, truths } = labelled(arguments, bundle)?;
        (classifier, inputs, Some(truths))
    };
    let (mut observed, mut failed) = (Vec::with_capacity(inputs.len()), 0);
    let bar = progress_bar(inputs.len());
    for (place, mut input) in inputs.into_iter().enumerate() {
        let wanted = truths.as_ref().map(|truths| truths[place]);
        let features = input.read().and_then(|bytes| classifier.extractor().features_and_low_pass(&bytes));
        let observe = |features: Features| {
            classifier.extractor().pool().install(|| Observed::of(classifier.predictor(), &features, wanted))
        };
        match features.map(observe) {
            Ok(one) => observed.push(one),
            Err(error) => {
                bar.suspend(|| eprintln!("rtpt: {}: {error}", input.path.display()));
                failed += 1;
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let images = enough(observed.len())?;
    let (target, loss) = if arguments.unlabelled { (Target::FullViews, 0.02) } else { (Target::Truth, 0.003) };
    let fitted = fit_rounds(&observed, arguments.fpr, arguments.loss.unwrap_or(loss));
    let answers: Vec<Answered> = observed.iter().map(|one| one.answered(&fitted)).collect();
    let temperature = helpful(temperature(&answers, target, settings, &classifier));
    let rules = RoundsCalibration {
        augment: views.augment,
        gate: fitted.gate,
        stop: fitted.stop,
        views_max: views.count,
        false_positive_rate: arguments.fpr,
        target,
        images,
        mean_encodes: fitted.mean_encodes,
        right: fitted.right,
        right_with_all: fitted.right_with_all,
        right_with_one: fitted.right_with_one,
        temperature,
    };
    let before = Calibration::of(bundle);
    let calibration = before.unwrap_or_else(|| Calibration::new(bundle, &bundle.manifest.views));
    Ok((Calibration { rounds: Some(rules), ..calibration }, failed))
}

fn enough(found: usize) -> Result<usize> {
    if found < IMAGES_MIN { Err(Error::from(TooFewImages { found })) } else { Ok(found) }
}

/// A temperature, if it helps on images that it was not fitted to; otherwise a warning.
fn helpful(fitted: Temperature) -> Option<Temperature> {
    if fitted.ece_after < fitted.ece_before {
        return Some(fitted);
    }
    log::warn!(
        "no temperature is kept: on images that it was not fitted to, {:.3} brings the calibration error (ECE) from {:.3} to {:.3}",
        fitted.temperature,
        fitted.ece_before,
        fitted.ece_after
    );
    None
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

fn print(calibration: &Calibration, with_rounds: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if let (Some(rounds), true) = (&calibration.rounds, with_rounds) {
        return print_rounds(rounds, &mut out);
    }
    if let Some(tamper) = calibration.tamper {
        let rate = tamper.false_positive_rate * 100.0;
        writeln!(
            out,
            "tamper score: an image above {:.3} is suspicious, as at most {rate} % of {} are",
            tamper.threshold,
            counted(tamper.images, "clean image")
        )?;
    }
    calibration.temperature.as_ref().map_or(Ok(()), |fitted| print_temperature(fitted, &mut out))
}

fn print_temperature(fitted: &Temperature, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "temperature: {:.3} ({}), fitted to {}; ECE {:.3} before, {:.3} after (cross-validated in two halves)",
        fitted.temperature,
        fitted.method,
        counted(fitted.images, "image"),
        fitted.ece_before,
        fitted.ece_after
    )
}

fn print_rounds(rounds: &RoundsCalibration, out: &mut impl Write) -> io::Result<()> {
    let RoundsCalibration { gate, stop, views_max, images, .. } = rounds;
    let then = match gate.answers_from {
        Some(0.0) => "the clean view answers".into(),
        Some(margin) => format!("the clean view answers if both views lead by {:.0} points", margin * 100.0),
        None => String::from("a first round follows"),
    };
    let rate = rounds.false_positive_rate * 100.0;
    writeln!(
        out,
        "gate: at a cosine of {:.3} or more, with the same label, {then}; at most {rate} % of {} are below",
        gate.bound,
        counted(*images, "clean image")
    )?;
    writeln!(
        out,
        "rounds: up to {views_max} views, until the margin is {} standard errors above 0 and {:.0} % of the views agree",
        stop.deviations,
        stop.agreement * 100.0
    )?;
    let right = match rounds.target {
        Target::Truth => "right",
        Target::FullViews => "as with all views",
    };
    writeln!(
        out,
        "on these images {:.1} encoder runs on average; {:.1} % {right}, {:.1} % with all views, {:.1} % with the clean one alone",
        rounds.mean_encodes,
        rounds.right * 100.0,
        rounds.right_with_all * 100.0,
        rounds.right_with_one * 100.0
    )?;
    rounds.temperature.as_ref().map_or(Ok(()), |fitted| print_temperature(fitted, out))
}
