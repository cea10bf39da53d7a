//! `rtpt eval`: methods on labelled images, and the parts of an evaluation put together.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use rtpt_edge::bundle::Bundle;
use rtpt_edge::calibration::Calibration;
use rtpt_edge::classes::LabelList;
use rtpt_edge::error::{Error, Result};
use rtpt_edge::eval::dataset::{DataSet, read_subset};
use rtpt_edge::eval::{
    Evaluation, Journal, Measurement, Method, MethodRunner, Record, Results, Summary, Task, merge, read_results, shard,
    write_all,
};
use rtpt_edge::extractor::Extractor;
use rtpt_edge::files::write_file;
use rtpt_edge::limits::SHARDS_MAX;
use rtpt_edge::report::{evaluation_html, features_bytes};
use rtpt_edge::tuning::TuningSettings;

use super::datasets::DataSetArguments;
use super::settings::{BundleArgument, CacheArguments, ExtractorArguments, LabelArguments, memory_folder};
use super::{Completion, Outcome, progress_bar};

/// What the names of a folder's result files end in.
const RESULTS: &str = "jsonl";

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
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
pub struct Merge {
    /// Folder for the whole results and the report
    #[arg(long, value_name = "DIR")]
    report: PathBuf,
    /// The shards' report folders
    #[arg(required = true, value_name = "DIR")]
    parts: Vec<PathBuf>,
}

#[derive(Args)]
pub struct Measure {
    #[command(flatten)]
    bundle: BundleArgument,
    #[command(flatten)]
    labels: LabelArguments,
    #[command(flatten)]
    extractor: ExtractorArguments,
    #[command(flatten)]
    cache: CacheArguments,
    /// Methods to measure: zero-shot, none, class-shift, class-lowrank, view-shift, context, mta, zero [default: all
    /// that the bundle can do]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    methods: Vec<String>,
    /// A setting of one method, as in class-shift.lr=0.01; the others are steps, selection, rank and cutoff
    #[arg(long = "set", value_name = "METHOD.NAME=VALUE")]
    settings: Vec<String>,
    /// Fewer views at which right answers are counted as well, as in 4,8,16,32
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    curve: Vec<usize>,
    /// Folder for results and report; an interrupted evaluation goes on from what is there
    #[arg(long, value_name = "DIR", required = true)]
    report: Option<PathBuf>,
    /// Measure only part I of N, as in 2/4
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    #[command(flatten)]
    data: DataSetArguments,
    /// The places in --labels, from 0, that a variant of ImageNet uses
    #[arg(long, value_name = "FILE", requires = "labels")]
    subset: Option<PathBuf>,
    /// Also write each data set's features and truths to NAME.safetensors in the report's folder
    #[arg(long)]
    save_features: bool,
    /// Data sets, each with a name for its row if you like (clean=photos/): a folder with one folder a class, a CoOp
    /// split (.json), a table with the columns path and label (.csv), FGVC Aircraft's list (.txt)
    #[arg(required = true, value_name = "[NAME=]DATASET")]
    datasets: Vec<String>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    match &arguments.command {
        Some(Command::Merge(arguments)) => merge_parts(arguments),
        None => measure(&arguments.measure),
    }
}

/// One data set with its name.
struct Condition {
    name: String,
    set: DataSet,
    truths: Vec<usize>,
}

fn measure(arguments: &Measure) -> Outcome {
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
                Error::Setting { what: "the name of a data set", expected, found: format!("{name:?} twice") }.into()
            );
        }
        sets.push((name, arguments.data.open(&path, "test")?));
    }
    let list = match (&arguments.labels.labels, &arguments.subset) {
        (Some(labels), Some(subset)) => read_subset(labels, subset)?,
        _ => {
            let sets: Vec<&DataSet> = sets.iter().map(|(_, set)| set).collect();
            arguments.labels.list_for(&bundle, &sets, &renamed)?
        }
    };
    let mut conditions = Vec::new();
    for (name, set) in sets {
        let truths = set.truths(&list, &renamed)?;
        conditions.push(Condition { name, set, truths });
    }
    let mut evaluation = evaluation(arguments, &bundle, list)?;
    fs::create_dir_all(folder).map_err(|source| Error::OutputUnwritable { path: folder.into(), source })?;
    let mut results = Vec::new();
    for (place, condition) in conditions.iter().enumerate() {
        results.push(measure_one(&mut evaluation, (place, condition), part, folder)?);
        if arguments.save_features {
            save_features(&mut evaluation, condition, folder)?;
        }
    }
    report(folder, &results, bundle.manifest.head.default.name())
}

fn evaluation(arguments: &Measure, bundle: &Bundle, list: LabelList) -> Result<Evaluation> {
    let settings = arguments.extractor.settings(bundle);
    settings.check()?;
    let views = settings.views.count;
    let mut curve = arguments.curve.clone();
    curve.sort_unstable();
    curve.dedup();
    if let Some(&found) = curve.iter().find(|&&count| count == 0 || count >= views) {
        let expected = format!("numbers of views from 1 to {}", views - 1);
        return Err(Error::Setting { what: "--curve", expected, found: found.to_string() });
    }
    let labels = arguments.labels.embed(bundle, Some(list), settings.threads)?;
    let methods = chosen_methods(&arguments.methods, bundle, labels.prompting.templates().len() == 1)?;
    let overrides: Vec<Override> =
        arguments.settings.iter().map(|text| Override::parse(text)).collect::<Result<_>>()?;
    for change in &overrides {
        if !methods.contains(&change.method) {
            let expected = "a method that is measured".to_string();
            return Err(Error::Setting { what: "--set", expected, found: change.method.name().into() });
        }
    }
    let extractor = Extractor::new(bundle, settings, memory_folder().as_deref())?;
    let runner = |&method: &Method| {
        let mut settings = MethodRunner::settings_of(bundle, method);
        overrides.iter().filter(|change| change.method == method).for_each(|change| (change.apply)(&mut settings));
        extractor.pool().install(|| MethodRunner::new(bundle, &labels, method, settings))
    };
    let methods: Vec<MethodRunner> = methods.iter().map(runner).collect::<Result<_>>()?;
    let calibration = Calibration::of(bundle);
    let temperature = methods.iter().find_map(|runner| {
        let applicable = calibration.as_ref()?.applicable(&settings.views, &runner.settings, &labels);
        let Method::Head(head) = runner.method else { return None };
        Some((head.name().to_string(), f64::from(applicable.temperature?)))
    });
    let extractor = extractor.with_cache(arguments.cache.open(true));
    Evaluation::new(extractor, labels, bundle.manifest.logit_scale, Measurement { methods, curve, temperature })
}

/// The methods asked for; or all that the bundle and the prompt allow.
fn chosen_methods(names: &[String], bundle: &Bundle, one_prompt: bool) -> Result<Vec<Method>> {
    if names.is_empty() {
        let possible = |method: &Method| method.name() != "context" || (bundle.manifest.text.is_some() && one_prompt);
        return Ok(Method::all().into_iter().filter(possible).collect());
    }
    let mut methods = Vec::new();
    for name in names {
        let method = Method::named(name).ok_or_else(|| unknown_method("--methods", name))?;
        if methods.contains(&method) {
            let expected = "each method once".to_string();
            return Err(Error::Setting { what: "--methods", expected, found: format!("{name} twice") });
        }
        methods.push(method);
    }
    Ok(methods)
}

fn unknown_method(what: &'static str, name: &str) -> Error {
    let names: Vec<&str> = Method::all().into_iter().map(Method::name).collect();
    Error::Setting { what, expected: format!("one of {}", names.join(", ")), found: name.into() }
}

/// A changed setting of one method.
struct Override {
    method: Method,
    apply: Box<dyn Fn(&mut TuningSettings)>,
}

impl Override {
    fn parse(text: &str) -> Result<Self> {
        let refused = |expected: &str| Error::Setting { what: "--set", expected: expected.into(), found: text.into() };
        let shape = "METHOD.NAME=VALUE with one of the names lr, steps, selection, rank, cutoff";
        let (place, value) = text.split_once('=').ok_or_else(|| refused(shape))?;
        let (method, name) = place.split_once('.').ok_or_else(|| refused(shape))?;
        let method = Method::named(method).ok_or_else(|| unknown_method("--set", method))?;
        let number = || value.parse::<f64>().map_err(|_| refused("a number after the ="));
        let count = || value.parse::<usize>().map_err(|_| refused("a whole number after the ="));
        let apply: Box<dyn Fn(&mut TuningSettings)> = match name {
            "lr" => {
                number().map(|value| Box::new(move |s: &mut TuningSettings| s.optimizer.learning_rate = value) as _)
            }
            "selection" => number().map(|value| Box::new(move |s: &mut TuningSettings| s.selection = value) as _),
            "cutoff" => number().map(|value| Box::new(move |s: &mut TuningSettings| s.class_cutoff = value) as _),
            "steps" => count().map(|value| Box::new(move |s: &mut TuningSettings| s.steps = value) as _),
            "rank" => count().map(|value| Box::new(move |s: &mut TuningSettings| s.rank = value) as _),
            _ => Err(refused(shape)),
        }?;
        Ok(Self { method, apply })
    }
}

fn measure_one(
    evaluation: &mut Evaluation,
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
        eprintln!("{name}: {done} of {} images were measured before", places.len());
        bar.set_position(done as u64);
        bar.reset_eta();
    }
    bar.set_message(name.clone());
    let open: Vec<Task> = places
        .into_iter()
        .filter(|place| !journal.results.records.contains_key(place))
        .map(|place| (place, &set.items[place], truths[place]))
        .collect();
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

/// Features again, from the cache where there is one, in the order of the data set.
fn save_features(evaluation: &mut Evaluation, condition: &Condition, folder: &Path) -> Result<()> {
    let mut all = Vec::with_capacity(condition.set.items.len());
    for item in &condition.set.items {
        all.push(evaluation.extract(item)?.features);
    }
    let (classes, scale) = evaluation.classes();
    write_file(
        &folder.join(format!("{}.safetensors", condition.name)),
        &features_bytes(&all, &condition.truths, classes, scale),
    )
}

fn merge_parts(arguments: &Merge) -> Outcome {
    let mut names: Vec<(usize, String)> = Vec::new();
    for path in arguments.parts.iter().map(|part| result_files(part)).collect::<Result<Vec<_>>>()?.concat() {
        let plan = read_results(&path)?.plan;
        if !names.iter().any(|(_, name)| *name == plan.condition) {
            names.push((plan.place, plan.condition));
        }
    }
    names.sort();
    fs::create_dir_all(&arguments.report)
        .map_err(|source| Error::OutputUnwritable { path: arguments.report.clone(), source })?;
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
    let head = results[0].plan.methods.last().map_or("none", |method| method.name.as_str()).to_string();
    let shown = results[0].plan.temperature.as_ref().map_or(head, |(head, _)| head.clone());
    report(&arguments.report, &results, &shown)
}

fn result_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |source| Error::InputUnreadable { path: folder.into(), source };
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(unreadable)?;
    let mut files: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == RESULTS));
    if files.is_empty() {
        let problem = format!("there is no .{RESULTS} file in it; name the folders given to rtpt eval as --report");
        return Err(Error::Results { path: folder.into(), problem });
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

/// A data set's name and path: what stands before the first `=`, or the name of file or folder.
fn named(argument: &str) -> (String, PathBuf) {
    match argument.split_once('=') {
        Some((name, path)) if !name.is_empty() && !name.contains(['/', '.']) => (name.into(), path.into()),
        _ => {
            let path = PathBuf::from(argument);
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
            let expected = format!("I/N with I from 1 to N, and N at most {SHARDS_MAX}");
            Err(Error::Setting { what: "--shard", expected, found: text.into() })
        }
    }
}
