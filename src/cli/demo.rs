//! `rtpt demo`: the photos that ship with the everyday bundle, clean and attacked, right and wrong marked.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::answer::Answer;
use crate::classifier::Classifier;
use crate::error::Result;
use crate::files::{FileError, write_file};
use crate::report::{ImageRecord, png_bytes};
use clap::Args;

use super::classify::explained;
use super::outputs::check_file;
use super::printer::shortened;
use super::settings::SettingsArguments;
use super::{Completion, inputs};

/// The list of photos inside their folder: clean file, attacked file and true label, parted by tabs.
const LIST: &str = "photos.tsv";

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// Folder with photos.tsv [default: the folder photos beside the bundle's]
    #[arg(long, value_name = "DIR")]
    photos: Option<PathBuf>,
    /// Where to write a picture that shows why, for the first attacked photo that the method corrects
    #[arg(long, value_name = "OUT.png")]
    explain: Option<PathBuf>,
}

/// One photo of the list.
struct Photo {
    clean: String,
    attacked: String,
    label: String,
}

/// Number of photos that each method answered right.
#[derive(Default)]
struct Tally {
    zero_shot: usize,
    method: usize,
}

pub(crate) fn run(arguments: &Arguments) -> super::Outcome {
    let bundle = arguments.settings.bundle.open()?;
    let folder = arguments.photos.clone().unwrap_or_else(|| bundle.folder.join("../photos"));
    let photos = read_list(&folder.join(LIST))?;
    if let Some(picture) = &arguments.explain {
        let read: Vec<PathBuf> =
            photos.iter().flat_map(|photo| [folder.join(&photo.clean), folder.join(&photo.attacked)]).collect();
        check_file("--explain", picture, true, read.iter().map(PathBuf::as_path))?;
    }
    let classifier = arguments.settings.classifier_of(&bundle)?;
    let method = classifier.method().method().name();
    let mut out = io::stdout().lock();
    writeln!(out, "{:24}  {:^46}   {:^46}", "", "clean", "attacked")?;
    writeln!(out, "{:24}  {:22}  {:22}   {:22}  {:22}", "photo", "zero-shot", method, "zero-shot", method)?;
    let (mut clean_tally, mut attacked_tally) = (Tally::default(), Tally::default());
    let mut wanted = arguments.explain.as_deref();
    for photo in &photos {
        let (_, clean, _) = classify(&classifier, &folder, &photo.clean)?;
        let (bytes, attacked, answer) = classify(&classifier, &folder, &photo.attacked)?;
        let [a, b] = cells(&clean, &photo.label, &mut clean_tally);
        let [c, d] = cells(&attacked, &photo.label, &mut attacked_tally);
        writeln!(out, "{:24}  {a}  {b}   {c}  {d}", photo.clean)?;
        let instructive = attacked.best.label == photo.label && attacked.zero_shot.label != photo.label;
        if let Some(path) = wanted.filter(|_| instructive) {
            let picture = explained(&photo.attacked, &bytes, &classifier, &answer)?;
            write_file(path, &png_bytes(&picture))?;
            wanted = None;
        }
    }
    let count = photos.len();
    writeln!(
        out,
        "{:24}  {:22}  {:22}   {:22}  {:22}",
        "right",
        format!("{} of {count}", clean_tally.zero_shot),
        format!("{} of {count}", clean_tally.method),
        format!("{} of {count}", attacked_tally.zero_shot),
        format!("{} of {count}", attacked_tally.method),
    )?;
    match (&arguments.explain, wanted) {
        (Some(path), None) => writeln!(out, "why {method} answers as it does: {}", path.display())?,
        (Some(_), Some(_)) => writeln!(out, "no picture written: {method} corrected no attacked photo")?,
        (None, _) => {}
    }
    Ok(Completion::All)
}

fn read_list(path: &Path) -> Result<Vec<Photo>> {
    let text = fs::read_to_string(path).map_err(|source| FileError::Unreadable { path: path.into(), source })?;
    let photos: Vec<Photo> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split('\t').map(String::from);
            Some(Photo { clean: fields.next()?, attacked: fields.next()?, label: fields.next()? })
        })
        .collect();
    if photos.is_empty() {
        let source =
            io::Error::other("expected lines of a clean file, an attacked file and a label, separated by tabs");
        return Err(FileError::Unreadable { path: path.into(), source }.into());
    }
    Ok(photos)
}

fn classify(classifier: &Classifier, folder: &Path, name: &str) -> Result<(Vec<u8>, ImageRecord, Answer)> {
    let path = folder.join(name);
    let bytes = inputs::Input::file(&path).read()?;
    let answer = classifier.classify(&bytes)?;
    let record = ImageRecord::new(&path, &answer, 1);
    Ok((bytes, record, answer))
}

/// Cells of zero-shot's and the method's answers, each marked right or wrong and counted.
fn cells(record: &ImageRecord, truth: &str, tally: &mut Tally) -> [String; 2] {
    tally.zero_shot += usize::from(record.zero_shot.label == truth);
    tally.method += usize::from(record.best.label == truth);
    let cell = |label: &str, probability: f32| {
        let mark = if label == truth { '✓' } else { '✗' };
        format!("{mark} {:14} {:3.0} %", shortened(label, 14), probability * 100.0)
    };
    [cell(&record.zero_shot.label, record.zero_shot.probability), cell(&record.best.label, record.best.probability)]
}
