//! Lists of images and their classes in plain text: CSV, and FGVC Aircraft's own.

use std::path::Path;

use serde::Deserialize;

use super::{DataSet, DataSetOptions, Item, Problems, folder_of, push, read_text};
use crate::error::Result;

/// A CSV file with a header that has the columns `path` and `label`, in any order and among others.
pub(crate) fn read_csv(path: &Path, options: &DataSetOptions, problems: &mut Problems) -> Result<DataSet> {
    #[derive(Deserialize)]
    struct Row {
        path: String,
        label: String,
    }
    let text = read_text(path)?;
    let folder = options.images.clone().unwrap_or_else(|| folder_of(path));
    let mut items = Vec::new();
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let mut set = DataSet { path: path.into(), items: Vec::new(), classes: None };
    let header = reader.headers().cloned().unwrap_or_default();
    for column in ["path", "label"] {
        if !header.iter().any(|name| name == column) {
            let found: Vec<&str> = header.iter().collect();
            let message = format!("expected a header with the columns path and label, found {:?}", found.join(","));
            problems.add(path, Some(1), message);
            return Ok(set);
        }
    }
    let mut record = csv::StringRecord::new();
    loop {
        let line = |position: Option<&csv::Position>| position.map(|position| position.line() as usize);
        match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => {}
            // The reader goes on with the next line, so that all problems are named at once.
            Err(error) => {
                problems.add(path, line(error.position()), &error);
                continue;
            }
        }
        let place = line(record.position());
        // By the header, so that the columns may stand in any order.
        match record.deserialize::<Row>(Some(&header)) {
            Ok(row) if row.path.is_empty() || row.label.is_empty() => {
                problems.add(path, place, "expected a path and a label, found one of them empty");
            }
            Ok(row) => {
                let item = Item { path: folder.join(&row.path), name: row.path, class: row.label, line: place };
                push(&mut items, item, path, problems);
            }
            Err(error) => problems.add(path, place, error),
        }
    }
    set.items = items;
    Ok(set)
}

/// FGVC Aircraft's `images_variant_*.txt`: an image's number, a space and its variant; the images lie beside, in `images`.
pub(crate) fn read_variants(path: &Path, options: &DataSetOptions, problems: &mut Problems) -> Result<DataSet> {
    let text = read_text(path)?;
    let folder = options.images.clone().unwrap_or_else(|| folder_of(path).join("images"));
    let mut items = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = Some(number + 1);
        match line.trim().split_once(' ') {
            // The number stays a text, since file names have its leading zeros; a variant may have spaces.
            Some((image, variant)) if image.bytes().all(|byte| byte.is_ascii_digit()) => {
                let name = format!("{image}.jpg");
                let item = Item { path: folder.join(&name), name, class: variant.trim().into(), line: place };
                push(&mut items, item, path, problems);
            }
            _ => problems.add(
                path,
                place,
                format!("expected an image's number, a space and its variant, found {line:?}"),
            ),
        }
    }
    Ok(DataSet { path: path.into(), items, classes: None })
}
