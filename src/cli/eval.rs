//! `rtpt eval`: methods on labelled images, and the parts of an evaluation put together.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::eval::dataset::{DataSet, read_subset};
use crate::eval::{
    EvalError, Evaluation, Journal, Measurement, Record, Results, Shots, Summary, Task, merge, read_results, shard,
    write_all,
};
use crate::extractor::Extractor;
use crate::files::{FileError, write_file};
use crate::labels::Labels;
use crate::limits::{SHARDS_MAX, SHOTS_MAX};
use crate::method::{Method, MethodSettings, Needs};
use crate::predictor::Predictor;
use crate::report::{evaluation_html, features_bytes};
use crate::rounds::RoundSettings;
use crate::setting::SettingError;
use crate::wording::counted;
use clap::{Args, Subcommand};

use super::datasets::DataSetArguments;
use super::settings::{
    BundleArgument, CacheArguments, ExtractorArguments, LabelArguments, RoundsArguments, cache_folder, headings,
    method_parser, number, whole,
};
use super::{Completion, Outcome, progress_bar};

/// Extension of a folder's result files.
const RESULTS: &str = "jsonl";

/// Heading of `--help`.
const EXAMPLES_OF: &str = "Classes by example";
/// Heading of `--help`.
const PARTS: &str = "Parts and more output";

pub(crate) const EXAMPLES: &str = "\
Examples:
  rtpt eval clean=photos/ attacked=attacked/ --views 16 --report out     photos/ has one folder per class
  rtpt eval list.csv --shard 1/2 --report part-1
  rtpt eval merge part-1 part-2 --report out
  rtpt eval test/ --shots 0,1,4,16 --examples train/ --report out        by text, and by 1, 4 and 16 photos

The labels are those of --labels, else the bundle's. Where the bundle's lack one of the folders'
names, those names are the labels. With --examples they are the classes of that data set.";

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    measure: Measure,
}

#[derive(Subcommand)]
enum Command {
    /// Put the shards of an evaluation together
    Merge(Merge),
}

#[derive(Args)]
pub(crate) struct Merge {
    /// Folder for the whole results and the report
    #[arg(long, value_name = "DIR")]
    report: PathBuf,
    /// The shards' report folders
    #[arg(required = true, value_name = "DIR")]
    parts: Vec<PathBuf>,
}

#[derive(Args)]
#[command(mut_arg("cache", |cache| cache.help("Where features are kept [default: on disk]")))]
pub(crate) struct Measure {
    #[command(flatten)]
    bundle: BundleArgument,
    #[command(flatten)]
    labels: LabelArguments,
    #[command(flatten)]
    extractor: ExtractorArguments,
    #[command(flatten)]
    rounds: RoundsArguments,
    #[command(flatten)]
    cache: CacheArguments,
    /// Methods to measure [default: all that the bundle can do]
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = method_parser())]
    methods: Vec<Method>,
    /// A parameter of one method, as in class-shift.lr=0.01
    #[arg(long = "set", value_name = "METHOD.NAME=VALUE", help_heading = headings::TUNING)]
    settings: Vec<String>,
    /// Smaller numbers of views at which right answers are counted as well, as in 4,8,16,32
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = number::<usize>("whole numbers, as in 4,8,16"), help_heading = PARTS)]
    curve: Vec<usize>,
    /// Folder for results and report; an interrupted evaluation goes on from what is there
    #[arg(long, value_name = "DIR", required = true)]
    report: Option<PathBuf>,
    /// Part of the images to measure, I of N, as in 1/4
    #[arg(long, value_name = "I/N", help_heading = PARTS)]
    shard: Option<String>,
    #[command(flatten)]
    data: DataSetArguments,
    /// The places in --labels, from 0, that a variant of ImageNet uses
    #[arg(long, value_name = "FILE", requires = "labels", help_heading = headings::DATA)]
    subset: Option<PathBuf>,
    /// Measure classes by example, of so many photos of every label, as in 1,4,16; 0 is by text
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = whole::<usize>(0, SHOTS_MAX), requires = "examples", help_heading = EXAMPLES_OF)]
    shots: Vec<usize>,
    /// Data set that the photos of --shots are drawn from
    #[arg(long, value_name = "DATASET", requires = "shots", help_heading = EXAMPLES_OF)]
    examples: Option<PathBuf>,
    /// Which draw of them: another number draws other photos
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = EXAMPLES_OF)]
    draw: u64,
    /// Also write each data set's features and truths to NAME.safetensors in the report's folder
    #[arg(long, help_heading = PARTS)]
    save_features: bool,
    /// Data sets, each with a name for its row if you like (clean=photos/): a folder with one folder per class, a CoOp
    /// split (.json), a table with the columns path and label (.csv), FGVC Aircraft's list (.txt)
    #[arg(required = true, value_name = "[NAME=]DATASET")]
    datasets: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.command {
        Some(Command::Merge(arguments)) => merge_parts(arguments),
        None => measure(&arguments.measure),
    }
}

/// One data set with its name.
struct Condition<'a> {
    name: String,
    set: &'a DataSet,
    truths: &'a [usize],
}

fn measure(arguments: &Measure) -> Outcome {
    // An `Option` for clap alone, which fills this structure for the subcommand `merge` as well.
    let folder = arguments.report.as_deref().expect("the command line requires it");
    let part = arguments.shard.as_deref().map(parse_shard).transpose()?;
    let bundle = arguments.bundle.open()?;
    // Everything that can be wrong with the data is found before anything is encoded.
    let renamed = arguments.data.class_names()?;
    let mut sets = Vec::new();
    for argument in &arguments.datasets {
        let (name, path) = named(argument);
        if sets.iter().any(|(other, _)| *other == name) {
            let expected = "a name of its own for each data set, as in clean=photos/".to_string();
            return Err(
                SettingError { what: "the name of a data set", expected, found: format!("{name:?} twice") }.into()
            );
        }
        sets.push((name, arguments.data.open(&path, "test")?));
    }
    let photos = arguments.examples.as_deref().map(|path| arguments.data.open(path, "train")).transpose()?;
    let list = match (&arguments.labels.labels, &arguments.subset, &photos) {
        (Some(labels), Some(subset), _) => read_subset(labels, subset)?,
        // What there are photos of is what can be told apart by them.
        (None, _, Some(photos)) => photos.labels(&renamed)?,
        _ => {
            let sets: Vec<&DataSet> = sets.iter().map(|(_, set)| set).collect();
            arguments.labels.list_for(&bundle, &sets, &renamed)?
        }
    };
    let examples = photos.map(|set| Ok::<_, Error>((set.truths(&list, &renamed)?, set))).transpose()?;
    let truths = sets.iter().map(|(_, set)| set.truths(&list, &renamed)).collect::<Result<Vec<_>>>()?;
    let mut settings = arguments.extractor.settings(&bundle);
    let rounds = arguments.rounds.rounds(&bundle, &mut settings.views);
    settings.check()?;
    rounds.map_or(Ok(()), |rounds| rounds.check(settings.views.count))?;
    let curve = checked_curve(&arguments.curve, settings.views.count)?;
    let extractor = Extractor::new(&bundle, settings, cache_folder().as_deref())?;
    let extractor = extractor.with_cache(arguments.cache.open(true));
    let lists = match &examples {
        Some((truths, set)) => by_example(arguments, &extractor, &list, (set, truths))?,
        None => vec![(String::new(), list)],
    };
    fs::create_dir_all(folder).map_err(|source| FileError::Unwritable { path: folder.into(), source })?;
    let mut results = Vec::new();
    for (suffix, list) in lists {
        let evaluation =
            evaluation(arguments, &bundle, extractor.with_cache(extractor.cache()), (list, curve.clone(), rounds))?;
        for ((name, set), truths) in sets.iter().zip(&truths) {
            let condition = Condition { name: format!("{name}{suffix}"), set, truths };
            results.push(measure_one(&evaluation, (results.len(), &condition), part, folder)?);
            if arguments.save_features {
                save_features(&evaluation, &condition, folder)?;
            }
        }
    }
    report(folder, &results, bundle.manifest.method.method().name())
}

/// The labels by each number of photos, and what is added to the names of data sets that are measured with them.
fn by_example(
    arguments: &Measure,
    extractor: &Extractor,
    list: &Labels,
    set: (&DataSet, &[usize]),
) -> Result<Vec<(String, Labels)>> {
    let most = arguments.shots.iter().copied().max().unwrap_or_default();
    let bar = progress_bar(most * list.names().len());
    bar.set_message("examples");
    let shots = Shots::draw(extractor, list, set, (arguments.draw, most), || bar.inc(1));
    bar.finish_and_clear();
    let shots = shots?;
    let named = |&count: &usize| {
        let suffix = if count == 0 { "-by-text".into() } else { format!("-{count}-shot") };
        Ok((suffix, shots.labels(count)?))
    };
    arguments.shots.iter().map(named).collect()
}

/// The numbers of views to measure besides `views`, in order, so that the same ones in another order go on with the results that are there.
fn checked_curve(asked: &[usize], views: usize) -> Result<Vec<usize>> {
    let mut curve = asked.to_vec();
    curve.sort_unstable();
    curve.dedup();
    if let Some(&found) = curve.iter().find(|&&count| count == 0 || count >= views) {
        let expected = format!("numbers of views from 1 to {}", views - 1);
        return Err(SettingError { what: "--curve", expected, found: found.to_string() }.into());
    }
    Ok(curve)
}

fn evaluation(
    arguments: &Measure,
    bundle: &Bundle,
    extractor: Extractor,
    (list, curve, rounds): (Labels, Vec<usize>, Option<RoundSettings>),
) -> Result<Evaluation> {
    let settings = *extractor.settings();
    let labels = Arc::new(arguments.labels.embed(bundle, Some(list), settings.threads)?);
    let is_tunable = labels.prompt.templates().len() == 1 && !labels.words.is_empty();
    let methods = chosen_methods(&arguments.methods, bundle, is_tunable)?;
    let mut all: Vec<MethodSettings> = methods.iter().map(|&method| bundle.manifest.settings_of(method)).collect();
    for text in &arguments.settings {
        change_setting(&mut all, text)?;
    }
    let prepared =
        |&settings: &MethodSettings| extractor.pool().install(|| Predictor::new(bundle, Arc::clone(&labels), settings));
    let predictors: Vec<Predictor> = all.iter().map(prepared).collect::<Result<_>>()?;
    // A calibration holds for one method with its parameters, so that there is one at most.
    let temperature = predictors.iter().find_map(|predictor| {
        let temperature = predictor.calibration(&settings.views).temperature?;
        Some((predictor.settings().method().name().to_string(), f64::from(temperature)))
    });
    Evaluation::new(extractor, Measurement { predictors, curve, rounds, temperature })
}

/// The methods asked for; or all that the bundle and the labels allow.
fn chosen_methods(asked: &[Method], bundle: &Bundle, is_tunable: bool) -> Result<Vec<Method>> {
    if asked.is_empty() {
        // The method that tunes a context has nothing to tune in an ensemble of templates, or where no class is a text.
        let has_tower = bundle.manifest.text.is_some() && is_tunable;
        return Ok(Method::all().filter(|method| has_tower || method.needs() != Needs::TextTower).collect());
    }
    let mut methods = Vec::new();
    for &method in asked {
        if methods.contains(&method) {
            let expected = "each method once".to_string();
            return Err(SettingError { what: "--methods", expected, found: format!("{method} twice") }.into());
        }
        methods.push(method);
    }
    Ok(methods)
}

/// Changes a parameter of one of the methods, as in `class-shift.lr=0.01`.
fn change_setting(all: &mut [MethodSettings], text: &str) -> Result<()> {
    let refused = |expected: &str| SettingError { what: "--set", expected: expected.into(), found: text.into() };
    let shape = "METHOD.NAME=VALUE, as in class-shift.lr=0.01";
    let (place, value) = text.split_once('=').ok_or_else(|| refused(shape))?;
    let (method, name) = place.split_once('.').ok_or_else(|| refused(shape))?;
    let method = Method::named(method)?;
    let settings = all.iter_mut().find(|settings| settings.method() == method);
    let settings = settings.ok_or_else(|| refused("a method that is measured"))?;
    Ok(settings.set(name, value.parse().map_err(|_| refused("a number after the ="))?)?)
}

fn measure_one(
    evaluation: &Evaluation,
    (condition_place, condition): (usize, &Condition),
    part: Option<(usize, usize)>,
    folder: &Path,
) -> Result<Results> {
    let Condition { name, set, truths } = condition;
    let shard_name = part.map(|(number, count)| format!("{number}/{count}"));
    let plan = evaluation.plan((condition_place, name), &set.digest(truths), set.items.len(), shard_name);
    let mut journal = Journal::open(&results_path(folder, name), &plan)?;
    let (number, count) = part.unwrap_or((1, 1));
    let places = shard(set.items.len(), number, count);
    let bar = progress_bar(places.len());
    let done = places.iter().filter(|place| journal.results.records.contains_key(place)).count();
    if done > 0 {
        eprintln!("{name}: {done} of {} were measured before", counted(places.len(), "image"));
        bar.set_position(done as u64);
        // What was measured before took no time in this run, and would make the rest look quick.
        bar.reset_eta();
    }
    bar.set_message(name.clone());
    let open: Vec<Task> = places
        .into_iter()
        .filter(|place| !journal.results.records.contains_key(place))
        .map(|place| (place, &set.items[place], truths[place]))
        .collect();
    // A group at a time, so that records reach the disk as they come.
    for group in open.chunks(evaluation.group()) {
        for record in evaluation.measure(group) {
            if let Record::Failed(failure) = &record {
                bar.suspend(|| eprintln!("rtpt: {name}: {}: {}", failure.name, failure.error));
            }
            journal.add(record)?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(journal.results)
}

/// Writes the features in the order of the data set, from the cache where there is one.
fn save_features(evaluation: &Evaluation, condition: &Condition, folder: &Path) -> Result<()> {
    let mut all = Vec::with_capacity(condition.set.items.len());
    for item in &condition.set.items {
        all.push(evaluation.features(item, true)?);
    }
    let (classes, scale) = evaluation.classes();
    Ok(write_file(
        &folder.join(format!("{}.safetensors", condition.name)),
        &features_bytes(&all, condition.truths, classes, scale),
    )?)
}

fn merge_parts(arguments: &Merge) -> Outcome {
    let mut names: Vec<(usize, String)> = Vec::new();
    for path in arguments.parts.iter().map(|part| result_files(part)).collect::<Result<Vec<_>>>()?.concat() {
        let plan = read_results(&path)?.plan;
        if !names.iter().any(|(_, name)| *name == plan.condition) {
            names.push((plan.place, plan.condition));
        }
    }
    // By place: the first condition is the one that the others are compared with.
    names.sort();
    fs::create_dir_all(&arguments.report)
        .map_err(|source| FileError::Unwritable { path: arguments.report.clone(), source })?;
    let mut results = Vec::new();
    for (_, name) in names {
        let mut parts = Vec::new();
        for folder in &arguments.parts {
            let path = results_path(folder, &name);
            parts.push((path.clone(), read_results(&path)?));
        }
        let whole = merge(&parts)?;
        write_all(&results_path(&arguments.report, &name), &whole)?;
        results.push(whole);
    }
    // There is a result: a folder without any was refused above.
    let head = results[0].plan.methods.last().map_or("none", |settings| settings.method().name()).to_string();
    let shown = results[0].plan.temperature.as_ref().map_or(head, |(head, _)| head.clone());
    report(&arguments.report, &results, &shown)
}

fn result_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |source| FileError::Unreadable { path: folder.into(), source };
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(unreadable)?;
    let mut files: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == RESULTS));
    if files.is_empty() {
        let problem = format!("there is no .{RESULTS} file in it; name the folders given to rtpt eval as --report");
        return Err(EvalError::Results { path: folder.into(), problem }.into());
    }
    files.sort();
    Ok(files)
}

fn results_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.{RESULTS}"))
}

/// Writes summary and report, prints the table.
fn report(folder: &Path, results: &[Results], shown: &str) -> Outcome {
    let summary = Summary::of(results);
    let mut json = serde_json::to_string_pretty(&summary).expect("a summary is always JSON");
    json.push('\n');
    write_file(&folder.join("summary.json"), json.as_bytes())?;
    write_file(&folder.join("summary.md"), summary.to_markdown().as_bytes())?;
    write_file(&folder.join("report.html"), evaluation_html(&summary, results, shown).as_bytes())?;
    let mut out = io::stdout().lock();
    write!(out, "{}", summary.to_text())?;
    writeln!(out, "\nreport: {}", folder.join("report.html").display())?;
    let failed: usize = summary.conditions.iter().map(|condition| condition.failed).sum();
    Ok(if failed == 0 { Completion::All } else { Completion::SomeFailed })
}

/// Name and path of a data set. The name stands before the first `=`; without one it is that of the file or folder.
fn named(argument: &str) -> (String, PathBuf) {
    match argument.split_once('=') {
        // A path may have a `=` of its own: a slash or a full stop before it shows that it is one.
        Some((name, path)) if !name.is_empty() && !name.contains(['/', '.']) => (name.into(), path.into()),
        _ => {
            let path = PathBuf::from(argument);
            // A full stop in a folder's name begins no extension.
            let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
            (stem.map_or("data".into(), |stem| stem.to_string_lossy().into_owned()), path)
        }
    }
}

fn parse_shard(text: &str) -> Result<(usize, usize)> {
    let numbers = text.split_once('/').and_then(|(number, count)| Some((number.parse().ok()?, count.parse().ok()?)));
    match numbers {
        Some((number, count)) if (1..=count).contains(&number) && count <= SHARDS_MAX => Ok((number, count)),
        _ => {
            let expected = format!("I/N as in 1/4, with I from 1 to N, and N at most {SHARDS_MAX}");
            Err(SettingError { what: "--shard", expected, found: text.into() }.into())
        }
    }
}
