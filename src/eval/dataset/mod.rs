//! Labelled image sets, in the layouts the field uses; read and checked whole before anything is encoded.

mod coop;
mod folders;
mod table;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::eval::EvalError;
use crate::files::read_up_to;
use crate::labels::{Labels, nearest, read_labels};
use crate::limits::{DATA_SET_FILE_BYTES_MAX, DATA_SET_PROBLEMS_SHOWN, FILES_MAX};
use crate::wording::quoted;

/// Images and what they show.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DataSet {
    /// The file or folder it was read from.
    pub path: PathBuf,
    /// The images, in a fixed order.
    pub items: Vec<Item>,
    /// All class names in order, where the set lists them, as CoOp's splits do.
    pub classes: Option<Vec<String>>,
}

/// One labelled image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    /// The image file.
    pub path: PathBuf,
    /// Path as results name it: below the data set's folder.
    pub name: String,
    /// The class, as the data set writes it.
    pub class: String,
    /// The line of the data set's file that names it, from 1.
    pub line: Option<usize>,
}

/// Options for reading a data set.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DataSetOptions {
    /// Folder of the paths in a file; `None` for the file's own.
    pub images: Option<PathBuf>,
    /// Part of a CoOp split: `train`, `val` or `test`.
    pub split: String,
}

impl Default for DataSetOptions {
    fn default() -> Self {
        Self { images: None, split: "test".into() }
    }
}

/// Problems of a data set, collected so that all of them can be mended at once.
#[derive(Default)]
struct Problems {
    found: Vec<String>,
    count: usize,
    /// True if a class was found that has no label.
    unlabelled: bool,
}

impl Problems {
    fn add(&mut self, path: &Path, line: Option<usize>, problem: impl std::fmt::Display) {
        self.count += 1;
        if self.found.len() < DATA_SET_PROBLEMS_SHOWN {
            let place = line.map_or(String::new(), |line| format!(":{line}"));
            self.found.push(format!("{}{place}: {problem}", path.display()));
        }
    }

    fn none_or_error(self, path: &Path) -> Result<()> {
        match self.count {
            0 => Ok(()),
            count => {
                let (path, shown, unlabelled) = (path.into(), self.found, self.unlabelled);
                Err(EvalError::DataSet { path, count, shown, unlabelled }.into())
            }
        }
    }
}

impl DataSet {
    /// Reads the data set at `path`:
    ///
    /// - a folder of folders, one a class;
    /// - CoOp's split files (`split_zhou_*.json`): `{"train": [[path, label, class], …], "val": …, "test": …}`;
    /// - FGVC Aircraft's `images_variant_*.txt`: an image's number and its variant a line;
    /// - a CSV file with the columns `path` and `label`.
    ///
    /// # Errors
    /// [`EvalError::DataSet`], with file and line of everything that is wrong: another shape than expected, an image that is
    /// not there or is listed twice, a class without images.
    pub(crate) fn open(path: &Path, options: &DataSetOptions) -> Result<Self> {
        let mut problems = Problems::default();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let set = match extension.to_ascii_lowercase().as_str() {
            // Looked at first: a folder may be called `photos.csv`.
            _ if path.is_dir() => folders::read(path, &mut problems)?,
            "json" => coop::read(path, options, &mut problems)?,
            "csv" => table::read_csv(path, options, &mut problems)?,
            "txt" => table::read_variants(path, options, &mut problems)?,
            _ => {
                let expected = "a folder with one folder of images per class, or a file ending in .csv, .json (CoOp) or \
                    .txt (FGVC Aircraft)";
                problems.add(path, None, format!("expected {expected}, found {}", kind_of(path)));
                return Err(problems.none_or_error(path).expect_err("there is a problem"));
            }
        };
        set.check_files(&mut problems);
        // Only without another problem: an entry that was refused explains an empty set better.
        if set.items.is_empty() && problems.count == 0 {
            problems.add(path, None, "it lists no images");
        }
        problems.none_or_error(path)?;
        Ok(set)
    }

    fn check_files(&self, problems: &mut Problems) {
        let mut seen: HashMap<&Path, &Item> = HashMap::new();
        for item in &self.items {
            if let Some(first) = seen.insert(&item.path, item) {
                let earlier = first.line.map_or("before".into(), |line| format!("in line {line}"));
                problems.add(&self.path, item.line, format!("{} is listed already, {earlier}", item.name));
            } else if !item.path.is_file() {
                problems.add(&self.path, item.line, format!("there is no file {}", item.path.display()));
            }
        }
    }

    /// Index in `labels` of the class that each image shows.
    ///
    /// A class is looked up in `renamed` first. Its name, there or in the data set, is a label's identifier or the
    /// label itself, or a member of the label's group, in any case and with underscores for spaces. Where all classes are
    /// numbers, it may be the label's place in the list, from 0 (ImageNet-V2).
    ///
    /// # Errors
    /// [`EvalError::DataSet`]: a class that is none of the labels.
    pub(crate) fn truths(&self, labels: &Labels, renamed: &ClassNames) -> Result<Vec<usize>> {
        let names = labels.names();
        let mut places: HashMap<String, usize> = HashMap::new();
        // Members of groups first: a label of the same name takes their place.
        for (text, &group) in labels.texts().iter().zip(labels.groups().unwrap_or_default()) {
            places.insert(spelled(text), group);
        }
        // From the end, so that of labels spelled alike the first stays.
        for (place, name) in names.iter().enumerate().rev() {
            places.insert(spelled(name), place);
        }
        let ids: HashMap<&str, usize> =
            (0..names.len()).filter_map(|place| labels.id(place).map(|id| (id, place))).collect();
        // Only if all are numbers: among words, a class `7` is a word as well.
        let numbered = self.items.iter().all(|item| item.class.parse::<usize>().is_ok());
        let mut problems = Problems::default();
        // Once a class: it is looked up once and complained of once.
        let mut known: HashMap<&str, Option<usize>> = HashMap::new();
        let mut truths = Vec::with_capacity(self.items.len());
        for item in &self.items {
            let place = *known.entry(&item.class).or_insert_with(|| {
                let class = renamed.get(&item.class);
                // Identifiers first: where labels have them, folders are called by them, as those of ImageNet.
                let by_name = ids.get(class).or_else(|| places.get(&spelled(class))).copied();
                let by_place = || class.parse().ok().filter(|&place| numbered && place < names.len());
                let place = by_name.or_else(by_place);
                if place.is_none() {
                    let hint = nearest(names, class).map_or(String::new(), |name| format!(" (did you mean {name:?}?)"));
                    let called = if class == item.class { String::new() } else { format!(", renamed {class:?},") };
                    let message = format!(
                        "the class {}{called} is not among the {} labels{hint}",
                        quoted(&item.class),
                        names.len()
                    );
                    problems.add(&self.path, item.line, message);
                    problems.unlabelled = true;
                }
                place
            });
            // A stand-in that nobody sees: a missing place is a problem, and problems are an error below.
            truths.push(place.unwrap_or(0));
        }
        problems.none_or_error(&self.path)?;
        Ok(truths)
    }

    /// True if every class is one of `labels`.
    pub(crate) fn fits(&self, labels: &Labels, renamed: &ClassNames) -> bool {
        self.truths(labels, renamed).is_ok()
    }

    /// The classes as labels: all that the set lists, or those of its images in order of name.
    ///
    /// # Errors
    /// There are fewer than two, or two are called the same.
    pub(crate) fn labels(&self, renamed: &ClassNames) -> Result<Labels> {
        let as_label = |class: &String| renamed.get(class).replace('_', " ");
        let names: Vec<String> = match &self.classes {
            Some(classes) => classes.iter().map(as_label).collect(),
            None => {
                let mut names: Vec<String> = self.items.iter().map(|item| as_label(&item.class)).collect();
                names.sort();
                names.dedup();
                names
            }
        };
        if let [one] = &names[..] {
            let mut problems = Problems::default();
            let message =
                format!("{} is its only class, expected at least 2, or other labels to choose from", quoted(one));
            problems.add(&self.path, None, message);
            problems.none_or_error(&self.path)?;
        }
        Ok(Labels::with_ids(names, None)?)
    }

    /// BLAKE3 over the images' names and truths, in order: what two parts of one evaluation must have in common.
    pub(crate) fn digest(&self, truths: &[usize]) -> blake3::Hash {
        // Not the paths: shards may be measured on machines that keep the images elsewhere.
        let mut hasher = blake3::Hasher::new();
        for (item, &truth) in self.items.iter().zip(truths) {
            // The length first: without it, names that run into one another could have one digest.
            hasher.update(&(item.name.len() as u64).to_le_bytes());
            hasher.update(item.name.as_bytes());
            hasher.update(&(truth as u64).to_le_bytes());
        }
        hasher.finalize()
    }
}

fn spelled(name: &str) -> String {
    name.replace('_', " ").trim().to_lowercase()
}

fn kind_of(path: &Path) -> String {
    match fs::metadata(path) {
        Ok(_) => "another file".into(),
        Err(error) => format!("none ({error})"),
    }
}

/// Labels of a data set's classes, where they differ from the classes' names.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ClassNames(HashMap<String, String>);

impl ClassNames {
    /// Reads lines of a class as the data set writes it, a tab and its label; several classes may have one label. Blank
    /// lines and lines that start with `#` are passed over.
    ///
    /// # Errors
    /// [`EvalError::DataSet`], with the line that is wrong.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let mut problems = Problems::default();
        let mut names = HashMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            if line.starts_with('#') {
                continue;
            }
            let place = Some(number + 1);
            match line.split_once('\t').map(|(class, label)| (class.trim(), label.trim())) {
                Some((class, label)) if !class.is_empty() && !label.is_empty() => {
                    if names.insert(class.to_string(), label.to_string()).is_some() {
                        problems.add(path, place, format!("{class:?} is given a second name"));
                    }
                }
                _ => problems.add(path, place, format!("expected a class, a tab and a label, found {line:?}")),
            }
        }
        problems.none_or_error(path)?;
        Ok(Self(names))
    }

    fn get<'a>(&'a self, class: &'a str) -> &'a str {
        self.0.get(class).map_or(class, String::as_str)
    }
}

/// The part of a labels file that a variant of ImageNet uses: `labels` thinned out to the places listed in `subset`, from 0,
/// in any notation of whole numbers (a JSON list, or lines).
///
/// # Errors
/// [`EvalError::DataSet`]: no number, one past the end, or one twice. The labels are refused as by [`read_labels`].
pub(crate) fn read_subset(labels: &Path, subset: &Path) -> Result<Labels> {
    let all = read_labels(labels)?;
    let text = read_text(subset)?;
    let mut problems = Problems::default();
    let mut places: Vec<usize> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let separators = |c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']');
        for word in line.split(separators).filter(|word| !word.is_empty()) {
            match word.parse::<usize>() {
                Ok(place) if place >= all.names().len() => {
                    let message = format!("{place} is past the end: {} has {}", labels.display(), all.names().len());
                    problems.add(subset, Some(number + 1), message);
                }
                Ok(place) if places.contains(&place) => {
                    problems.add(subset, Some(number + 1), format!("{place} is listed twice"));
                }
                Ok(place) => places.push(place),
                Err(_) => {
                    let message = format!("expected places in {} from 0, found {word:?}", labels.display());
                    problems.add(subset, Some(number + 1), message);
                }
            }
        }
    }
    problems.none_or_error(subset)?;
    Ok(all.select(&places)?)
}

fn read_text(path: &Path) -> Result<String> {
    let mut problems = Problems::default();
    match read_up_to(path, DATA_SET_FILE_BYTES_MAX) {
        Err(error) => problems.add(path, None, format!("it cannot be read: {error}")),
        Ok(bytes) if bytes.len() as u64 > DATA_SET_FILE_BYTES_MAX => {
            problems.add(path, None, format!("it is larger than {DATA_SET_FILE_BYTES_MAX} bytes"));
        }
        Ok(bytes) => match String::from_utf8(bytes) {
            // Spreadsheets begin a text with a byte order mark.
            Ok(text) => return Ok(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), String::from)),
            Err(error) => problems.add(path, None, format!("it is not UTF-8: {error}")),
        },
    }
    Err(problems.none_or_error(path).expect_err("there is a problem"))
}

/// Adds an image unless there are too many.
fn push(items: &mut Vec<Item>, item: Item, path: &Path, problems: &mut Problems) {
    // One past the bound is kept, by which the next ones know that it was complained of.
    if items.len() == FILES_MAX {
        problems.add(path, item.line, format!("there are more than {FILES_MAX} images; split the set"));
    }
    if items.len() <= FILES_MAX {
        items.push(item);
    }
}

/// Default folder of a file's paths: the folder of the file.
fn folder_of(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).into()
}
