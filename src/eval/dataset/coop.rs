//! CoOp's split files (Zhou et al. 2022), which the data sets of R-TPT are shared as: `split_zhou_*.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{DataSet, DataSetOptions, Item, Problems, folder_of, push, read_text};
use crate::error::Result;

const SPLITS: [&str; 3] = ["train", "val", "test"];

/// An image's path below the images' folder, its label's number and its class.
type Entry = (String, usize, String);

pub(crate) fn read(path: &Path, options: &DataSetOptions, problems: &mut Problems) -> Result<DataSet> {
    #[derive(Deserialize)]
    // Raw values are parts of the text, from whose place the line of a wrong entry follows.
    struct Split<'a>(#[serde(borrow)] BTreeMap<String, Vec<&'a RawValue>>);
    let text = read_text(path)?;
    let empty = DataSet { path: path.into(), items: Vec::new(), classes: None };
    let Split(splits) = match serde_json::from_str(&text) {
        Ok(splits) => splits,
        Err(error) => {
            let expected = "{\"train\": [[path, label, class], …], \"val\": …, \"test\": …}";
            problems.add(path, Some(error.line()), format!("expected {expected}: {error}"));
            return Ok(empty);
        }
    };
    if !SPLITS.contains(&options.split.as_str()) || !splits.contains_key(&options.split) {
        let found: Vec<&str> = splits.keys().map(String::as_str).collect();
        let found = if found.is_empty() { "no splits".into() } else { found.join(", ") };
        problems.add(path, None, format!("expected a split {:?}, found {found}", options.split));
        return Ok(empty);
    }
    // Of a number the first class that was seen, and where.
    let mut classes: BTreeMap<usize, (String, usize)> = BTreeMap::new();
    let mut entries = Vec::new();
    let mut lines = Lines::new(&text);
    // All splits, though images come from one: its images need not show every class.
    for (split, values) in &splits {
        for value in values {
            let line = lines.of(value.get());
            let (image, label, class): Entry = match serde_json::from_str(value.get()) {
                Ok(entry) => entry,
                Err(error) => {
                    problems.add(
                        path,
                        Some(line),
                        format!("expected [path, label, class], found {}: {error}", value.get()),
                    );
                    continue;
                }
            };
            let (first, first_line) = classes.entry(label).or_insert_with(|| (class.clone(), line));
            if *first != class {
                let message = format!("label {label} is {class:?} here and {first:?} in line {first_line}");
                problems.add(path, Some(line), message);
            }
            if *split == options.split {
                entries.push((image, class, line));
            }
        }
    }
    // A number is the class's place in the list of labels that the set makes.
    if let Some((place, &number)) = classes.keys().enumerate().find(|&(place, &number)| place != number) {
        problems.add(
            path,
            None,
            format!("labels are numbered from 0 without gaps, but {number} comes where {place} should"),
        );
    }
    let folder = images_folder(path, options, entries.first().map(|(image, ..)| image.as_str()));
    let mut items = Vec::new();
    for (image, class, line) in entries {
        push(&mut items, Item { path: folder.join(&image), name: image, class, line: Some(line) }, path, problems);
    }
    let classes = classes.into_values().map(|(class, _)| class).collect();
    Ok(DataSet { items, classes: Some(classes), ..empty })
}

/// Folder of the images: the one named, or the one below the file's own folder in which the first image is found.
fn images_folder(path: &Path, options: &DataSetOptions, first: Option<&str>) -> PathBuf {
    if let Some(folder) = &options.images {
        return folder.clone();
    }
    let own = folder_of(path);
    let Some(first) = first.filter(|first| !own.join(first).is_file()) else { return own };
    let mut below: Vec<PathBuf> =
        fs::read_dir(&own).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    // Where two folders have it, the same one is taken everywhere: `read_dir` has no order.
    below.sort();
    below.into_iter().find(|folder| folder.join(first).is_file()).unwrap_or(own)
}

/// Line numbers of parts of a text, cheap where they are asked for in order.
struct Lines<'a> {
    text: &'a str,
    offset: usize,
    line: usize,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, offset: 0, line: 1 }
    }

    /// The line, from 1, on which `part`, which is a part of the text, begins.
    fn of(&mut self, part: &str) -> usize {
        // The parser borrowed `part` from the text, so that its address is its place. The bounds hold for any other
        // part, too.
        let offset = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize).min(self.text.len());
        if offset < self.offset {
            (self.offset, self.line) = (0, 1);
        }
        let between = &self.text.as_bytes()[self.offset..offset];
        self.line += between.iter().filter(|&&byte| byte == b'\n').count();
        self.offset = offset;
        self.line
    }
}
