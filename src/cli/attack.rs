//! `rtpt attack`: altered copies of labelled images, and how often they mislead.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::attack::{AttackOutcome, Budget, Corruption, Query, random_signs, spsa, square, target_answer};
use crate::bundle::Bundle;
use crate::classifier::{Classifier, ClassifierSettings};
use crate::error::Result;
use crate::eval::dataset::Item;
use crate::files::{FileError, read_up_to, write_file};
use crate::limits::IMAGE_BYTES_MAX;
use crate::method::Method;
use crate::metrics::wilson;
use crate::report::{success_curve, write_png};
use crate::rows::argmax;
use crate::setting::SettingError;
use crate::views::{Pixels, Sampler, clean_view_pixels, decode};
use crate::wording::counted;
use clap::{Args, Subcommand};
use rayon::prelude::*;
use serde::Serialize;

use super::datasets::DataSetArguments;
use super::outputs::check_folder;
use super::settings::{BundleArgument, ExtractorArguments, LabelArguments, cache_folder, method_parser, number, whole};
use super::{Completion, Outcome, progress_bar};

pub(crate) const EXAMPLES: &str = "\
Examples:
  rtpt attack square photos/ --queries 200 --out attacked       photos/ has one folder per class
  rtpt attack noise photos/ --eps 8/255 --out noisy
  rtpt attack spsa photos/ --target view-shift --views 16 --queries 100 --count 4 --out stronger
  rtpt attack corruptions photos/ --kinds fog,jpeg-compression --severities 1,3 --out corrupted

How long: images × queries × the time of one classification, which `rtpt bench --views N` measures.
An image that is misled, or wrong from the start, needs no more queries. Against zero-shot with the
demo model, 1000 queries take about 10 seconds per image on a PC; against 64 views, many minutes.";

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Square Attack: squares of changed colour, kept where they lower the true answer's lead
    Square(Queries),
    /// A gradient guessed from random differences
    Spsa(Queries),
    /// Random noise: the baseline
    Noise(Queries),
    /// The fifteen corruptions of ImageNet-C at five severities
    Corruptions(Corruptions),
}

#[derive(Args)]
struct Common {
    #[command(flatten)]
    bundle: BundleArgument,
    #[command(flatten)]
    labels: LabelArguments,
    #[command(flatten)]
    extractor: ExtractorArguments,
    /// Method that is attacked, whose right answers are counted
    #[arg(long, value_name = "METHOD", default_value = "zero-shot", value_parser = method_parser())]
    target: Method,
    /// New folder for the altered images, with one folder per class, and for the results
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Alter the image as the model sees it, R×R pixels, instead of the whole file
    #[arg(long)]
    at_model_resolution: bool,
    /// Take only N images, evenly spaced
    #[arg(long, value_name = "N", value_parser = number::<usize>("a whole number of at least 1"))]
    count: Option<usize>,
    #[command(flatten)]
    data: DataSetArguments,
    /// The images, as for rtpt eval
    #[arg(value_name = "DATASET")]
    dataset: PathBuf,
}

#[derive(Args)]
struct Queries {
    #[command(flatten)]
    common: Common,
    /// Largest change of a value, as a fraction of its range
    #[arg(long, value_name = "EPS", default_value = "4/255")]
    eps: String,
    /// Answers that the attacker may ask for, per image; each takes as long as classifying the image once, and the attack
    /// on an image ends when it succeeds [default: 1000; 50 for noise, which does not search]
    #[arg(long, value_name = "N", value_parser = number::<usize>("a whole number of at least 1"))]
    queries: Option<usize>,
}

#[derive(Args)]
struct Corruptions {
    #[command(flatten)]
    common: Common,
    /// Which corruptions [default: all fifteen]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    kinds: Vec<String>,
    /// Which severities, 1 to 5
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_values_t = [1, 2, 3, 4, 5], value_parser = whole::<usize>(1, 5))]
    severities: Vec<usize>,
}

/// The attacks with a budget of queries.
#[derive(Clone, Copy)]
enum Attack {
    Square,
    Spsa,
    Noise,
}

impl Attack {
    fn name(self) -> &'static str {
        match self {
            Self::Square => "square",
            Self::Spsa => "spsa",
            Self::Noise => "noise",
        }
    }

    /// Default number of queries an image. Each draw of noise is as good as any other: more of them find little more.
    fn queries(self) -> usize {
        match self {
            Self::Square | Self::Spsa => 1000,
            Self::Noise => 50,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.command {
        Command::Square(arguments) => with_queries(Attack::Square, arguments),
        Command::Spsa(arguments) => with_queries(Attack::Spsa, arguments),
        Command::Noise(arguments) => with_queries(Attack::Noise, arguments),
        Command::Corruptions(arguments) => corrupt(arguments),
    }
}

/// The images, and the target that they are tried on.
struct Scene {
    target: Classifier,
    items: Vec<Item>,
    truths: Vec<usize>,
    /// Paths of the altered copies, below the output folder.
    copies: Vec<PathBuf>,
    at_model_resolution: bool,
    seed: u64,
}

impl Common {
    fn open(&self) -> Result<Scene> {
        if self.count == Some(0) {
            return Err(SettingError { what: "--count", expected: "at least 1".into(), found: "0".into() }.into());
        }
        check_folder("--out", &self.out, &self.dataset)?;
        let bundle = self.bundle.open()?;
        let set = self.data.open(&self.dataset, "test")?;
        let renamed = self.data.class_names()?;
        let list = self.labels.list_for(&bundle, &[&set], &renamed)?;
        let truths = set.truths(&list, &renamed)?;
        let target = self.target(&bundle, list)?;
        let places = spread(set.items.len(), self.count);
        let items: Vec<Item> = places.iter().map(|&place| set.items[place].clone()).collect();
        Ok(Scene {
            copies: copy_names(&items),
            items,
            truths: places.iter().map(|&place| truths[place]).collect(),
            at_model_resolution: self.at_model_resolution,
            seed: self.extractor.settings(&bundle).views.seed,
            target,
        })
    }

    fn target(&self, bundle: &Bundle, list: crate::labels::Labels) -> Result<Classifier> {
        let settings = self.extractor.settings(bundle);
        let labels = self.labels.embed(bundle, Some(list), settings.threads)?;
        let settings =
            ClassifierSettings { extractor: settings, method: bundle.manifest.settings_of(self.target), rounds: None };
        Classifier::new(bundle, labels, settings, cache_folder().as_deref())
    }
}

impl Scene {
    fn image(&self, item: &Item) -> Result<Pixels> {
        let bytes = read_up_to(&item.path, IMAGE_BYTES_MAX)
            .map_err(|source| FileError::Unreadable { path: item.path.clone(), source })?;
        let image = decode(&bytes)?;
        Ok(match self.at_model_resolution {
            true => clean_view_pixels(&image, self.target.extractor().preprocessing()),
            false => image,
        })
    }

    /// Random numbers of one image: they depend on its pixels and the seed, not on the order of the images.
    fn draws(&self, image: &Pixels, stream: usize) -> Sampler {
        Sampler::new(blake3::hash(image.bytes()).as_bytes(), self.seed, stream)
    }

    /// Runs `act` on every image, on all threads; failures are printed and counted. An image moves the bar by `steps`:
    /// `act` counts as it goes, and the rest is counted at its end.
    fn each<T: Send>(
        &self,
        steps: usize,
        act: impl Fn(usize, &Item, &dyn Fn()) -> Result<T> + Sync,
    ) -> (Vec<T>, usize) {
        let bar = progress_bar(self.items.len() * steps);
        let one = |(place, item): (usize, &Item)| {
            let made = Cell::new(0);
            let step = || {
                made.set(made.get() + 1);
                bar.inc(1);
            };
            let result = act(place, item, &step);
            bar.inc((steps - made.get().min(steps)) as u64);
            result.map_err(|error| bar.suspend(|| eprintln!("rtpt: {}: {error}", item.path.display()))).ok()
        };
        let results: Vec<Option<T>> =
            // On the extractor's own threads: a second pool beside them would share the same cores.
            self.target.extractor().pool().install(|| self.items.par_iter().enumerate().map(one).collect());
        bar.finish_and_clear();
        let failed = results.iter().filter(|result| result.is_none()).count();
        (results.into_iter().flatten().collect(), failed)
    }
}

/// Report of an attack, as written to disk.
#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    attack: &'a str,
    target: &'a str,
    bundle: &'a str,
    eps: &'a str,
    queries: usize,
    images: usize,
    failed: usize,
    right_before: usize,
    right_after: usize,
    /// Queries it took to mislead the target, for each image that was right before; `null` where it was not misled.
    queries_to_success: Vec<Option<usize>>,
}

fn with_queries(attack: Attack, arguments: &Queries) -> Outcome {
    let levels = parse_eps(&arguments.eps)? * 255.0;
    let queries = arguments.queries.unwrap_or(attack.queries());
    if queries == 0 {
        let found = "0".to_string();
        return Err(SettingError { what: "--queries", expected: "at least 1".into(), found }.into());
    }
    let common = &arguments.common;
    let scene = common.open()?;
    let budget = Budget { levels, queries };
    let (images, views) = (counted(scene.items.len(), "image"), counted(scene.target.views().count, "view"));
    eprintln!("rtpt: {images}, at most {} each; a query encodes {views}", queries_of(queries));
    let (outcomes, failed) = scene.each(queries, |place, item, step| {
        let image = scene.image(item)?;
        let ask = |image: &Pixels| {
            step();
            target_answer(&scene.target, image)
        };
        let mut query = Query::new(&image, scene.truths[place], budget, ask)?;
        let mut draws = scene.draws(&image, 0);
        match attack {
            Attack::Square => square(&mut query, &mut draws)?,
            Attack::Spsa => spsa(&mut query, &mut draws)?,
            Attack::Noise => random_signs(&mut query, &mut draws)?,
        }
        let outcome = query.outcome();
        write_png(&common.out.join(&scene.copies[place]), &outcome.image)?;
        Ok(outcome)
    });
    let needed = |outcome: &AttackOutcome| (!outcome.wrong_before).then_some(outcome.misled.then_some(outcome.queries));
    let report = Report {
        schema: 1,
        attack: attack.name(),
        target: common.target.name(),
        bundle: scene.target.extractor().bundle_id(),
        eps: &arguments.eps,
        queries,
        images: outcomes.len(),
        failed,
        right_before: outcomes.iter().filter(|outcome| !outcome.wrong_before).count(),
        right_after: outcomes.iter().filter(|outcome| !outcome.misled).count(),
        queries_to_success: outcomes.iter().filter_map(needed).collect(),
    };
    let mut json = serde_json::to_string(&report).expect("a report is always JSON");
    json.push('\n');
    write_file(&common.out.join("attack.json"), json.as_bytes())?;
    let plot = success_curve(&report.queries_to_success, queries);
    write_file(&common.out.join("success.svg"), plot.as_bytes())?;
    print_success(&report)?;
    writeln!(io::stdout(), "images, attack.json and success.svg: {}", common.out.display())?;
    Ok(if failed == 0 { Completion::All } else { Completion::SomeFailed })
}

fn queries_of(count: usize) -> String {
    if count == 1 { "1 query".into() } else { format!("{count} queries") }
}

fn print_success(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let share = |count: usize| {
        let (low, high) = wilson(count, report.images);
        let percent = |share: f64| share * 100.0;
        let of = percent(count as f64 / report.images.max(1) as f64);
        format!("{of:.1} % ({:.1}–{:.1})", percent(low), percent(high))
    };
    let images = counted(report.images, "image");
    writeln!(out, "{} against {}, eps {}, {images}", report.attack, report.target, report.eps)?;
    writeln!(out, "right before: {}", share(report.right_before))?;
    writeln!(out, "right after:  {}", share(report.right_after))?;
    writeln!(out, "{:>10} {:>10}", "queries", "misled")?;
    let mut budget = 1;
    while budget < report.queries * 10 {
        let at = budget.min(report.queries);
        let misled = report.queries_to_success.iter().flatten().filter(|&&queries| queries <= at).count();
        let percent = misled as f64 / report.queries_to_success.len().max(1) as f64 * 100.0;
        writeln!(out, "{at:>10} {percent:>8.1} %")?;
        budget *= 10;
    }
    Ok(())
}

fn corrupt(arguments: &Corruptions) -> Outcome {
    let kinds: Vec<Corruption> = match &arguments.kinds[..] {
        [] => Corruption::ALL.into(),
        names => names.iter().map(|name| named_corruption(name)).collect::<Result<_>>()?,
    };
    if let Some(found) = arguments.severities.iter().find(|severity| !(1..=5).contains(*severity)) {
        let found = found.to_string();
        return Err(SettingError { what: "--severities", expected: "numbers from 1 to 5".into(), found }.into());
    }
    let common = &arguments.common;
    let scene = common.open()?;
    let (right, failed) = scene.each(1, |place, item, _| {
        let image = scene.image(item)?;
        let mut right = Vec::new();
        // Numbered among all corruptions and not among those asked for: each draws the same alone and with others.
        for (number, kind) in Corruption::ALL.into_iter().enumerate().filter(|(_, kind)| kinds.contains(kind)) {
            for &severity in &arguments.severities {
                let corrupted = kind.apply(&image, severity, &mut scene.draws(&image, number * 5 + severity));
                let folder = common.out.join(kind.name()).join(severity.to_string());
                write_png(&folder.join(&scene.copies[place]), &corrupted)?;
                right.push(argmax(target_answer(&scene.target, &corrupted)?.view()) == scene.truths[place]);
            }
        }
        Ok(right)
    });
    let mut out = io::stdout().lock();
    writeln!(out, "right answers (%) of {} to {}, by severity", common.target, counted(right.len(), "image"))?;
    let heading: String = arguments.severities.iter().map(|severity| format!("{severity:>8}")).collect();
    writeln!(out, "{:18}{heading}{:>8}", "corruption", "mean")?;
    let mut table = Vec::new();
    // The order of the answers above, whatever order was asked for.
    let ordered = Corruption::ALL.into_iter().filter(|kind| kinds.contains(kind));
    for (row, kind) in ordered.enumerate() {
        let share = |column: usize| {
            let place = row * arguments.severities.len() + column;
            right.iter().filter(|image| image[place]).count() as f64 / right.len().max(1) as f64 * 100.0
        };
        let shares: Vec<f64> = (0..arguments.severities.len()).map(share).collect();
        let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
        let cells: String = shares.iter().chain([&mean]).map(|share| format!("{share:8.1}")).collect();
        writeln!(out, "{:18}{cells}", kind.name())?;
        table.push(serde_json::json!({"corruption": kind.name(), "right_percent": shares}));
    }
    let report = serde_json::json!({
        "schema": 1, "target": common.target.name(), "bundle": scene.target.extractor().bundle_id(), "images": right.len(),
        "failed": failed, "severities": arguments.severities, "corruptions": table,
    });
    write_file(&common.out.join("corruptions.json"), format!("{report}\n").as_bytes())?;
    writeln!(out, "images and corruptions.json: {}", common.out.display())?;
    Ok(if failed == 0 { Completion::All } else { Completion::SomeFailed })
}

fn named_corruption(name: &str) -> Result<Corruption> {
    Ok(Corruption::named(name).ok_or_else(|| SettingError {
        what: "--kinds",
        expected: format!("some of {}", Corruption::ALL.map(Corruption::name).join(", ")),
        found: name.into(),
    })?)
}

/// Paths of the images' altered copies below the output folder: a folder a class, as the data set calls it.
///
/// Files that differ only in how their names end keep that end: `a.jpg` and `a.png` become `a.jpg.png` and `a.png.png`.
fn copy_names(items: &[Item]) -> Vec<PathBuf> {
    // The names are the data set's: a copy must not lead out of the output folder, nor be hidden.
    let safe = |text: &str| text.replace(['/', '\\', '\0'], "_").trim_start_matches('.').to_string();
    let name = |item: &Item, keep_end: bool| {
        let name = item.name.strip_prefix(&format!("{}/", item.class)).unwrap_or(&item.name);
        let stem = if keep_end { PathBuf::from(name) } else { Path::new(name).with_extension("") };
        PathBuf::from(safe(&item.class)).join(format!("{}.png", safe(&stem.to_string_lossy())))
    };
    let mut uses: HashMap<PathBuf, usize> = HashMap::new();
    items.iter().for_each(|item| *uses.entry(name(item, false)).or_default() += 1);
    items.iter().map(|item| name(item, uses[&name(item, false)] > 1)).collect()
}

/// `count` places of 0..`length`, evenly spaced, or all.
fn spread(length: usize, count: Option<usize>) -> Vec<usize> {
    match count {
        Some(count) if count < length => (0..count).map(|place| place * length / count).collect(),
        _ => (0..length).collect(),
    }
}

/// A fraction such as 4/255, or a number, above 0 and up to 1.
fn parse_eps(text: &str) -> Result<f64> {
    let value = match text.split_once('/') {
        Some((above, below)) => {
            above.trim().parse::<f64>().ok().zip(below.trim().parse::<f64>().ok()).map(|(a, b)| a / b)
        }
        None => text.parse().ok(),
    };
    Ok(value.filter(|value| *value > 0.0 && *value <= 1.0).ok_or_else(|| SettingError {
        what: "--eps",
        expected: "a fraction such as 4/255, or a number, above 0 and up to 1".into(),
        found: text.into(),
    })?)
}
