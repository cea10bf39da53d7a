//! Results on disk: a line an image, written as they come, so that an interrupted evaluation goes on where it was.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::EvalError;
use super::record::{Plan, Record};
use crate::error::{Error, Result};
use crate::files::{FileError, read_up_to, write_file};
use crate::limits::DATA_SET_FILE_BYTES_MAX;

/// The results of one data set, complete or not.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Results {
    /// Settings and data that the results depend on.
    pub plan: Plan,
    /// The images' results by place.
    pub records: BTreeMap<usize, Record>,
}

/// Results being written.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Results so far: those that were there before, and those added.
    pub results: Results,
}

impl Journal {
    /// Begins results at `path`, or goes on with what is there.
    ///
    /// A last line that was cut short is dropped; its image is measured again. Images that failed are tried again.
    ///
    /// # Errors
    /// [`EvalError::Results`]: what is there was made with other settings, or is damaged. The file cannot be written.
    pub(crate) fn open(path: &Path, plan: &Plan) -> Result<Self> {
        let unwritable = |source| FileError::Unwritable { path: path.into(), source };
        let mut results = Results { plan: plan.clone(), records: BTreeMap::new() };
        if path.exists() {
            let (found, length) = read(path)?;
            if let Some(found) = found {
                same_plan(path, &found.plan, plan)?;
                results.records = found.records;
            }
            let before = results.records.len();
            // A failure may have been the disk's or the memory's, and be gone.
            results.records.retain(|_, record| matches!(record, Record::Measured(_)));
            // Lines cannot be taken out of a file's middle.
            if results.records.len() < before || length == 0 {
                write_all(path, &results)?;
            } else {
                let file = OpenOptions::new().write(true).open(path).map_err(unwritable)?;
                file.set_len(length).map_err(unwritable)?;
            }
        } else {
            write_all(path, &results)?;
        }
        let mut file = OpenOptions::new().write(true).open(path).map_err(unwritable)?;
        file.seek(SeekFrom::End(0)).map_err(unwritable)?;
        Ok(Self { path: path.into(), file, results })
    }

    /// Adds an image's results.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn add(&mut self, record: Record) -> Result<()> {
        // One write a line and no buffer: an interruption costs the image at work alone.
        let written = self.file.write_all(line(&record).as_bytes());
        written.map_err(|source| FileError::Unwritable { path: self.path.clone(), source })?;
        self.results.records.insert(record.index(), record);
        Ok(())
    }
}

/// Reads results; a last line that was cut short is left out.
///
/// # Errors
/// [`EvalError::Results`]: the file is no such results, or a line is damaged.
pub(crate) fn read_results(path: &Path) -> Result<Results> {
    let (results, _) = read(path)?;
    results.ok_or_else(|| wrong(path, "it is empty; run the evaluation again"))
}

/// Puts the results of all shards of one data set together.
///
/// # Errors
/// [`EvalError::Results`]: they were made with different settings, an image is in two of them, or one is missing.
pub(crate) fn merge(parts: &[(PathBuf, Results)]) -> Result<Results> {
    let (first_path, first) = parts.first().expect("there is something to merge");
    // The shard is the one thing in which parts may differ.
    let plan = Plan { shard: None, ..first.plan.clone() };
    let mut records = BTreeMap::new();
    for (path, part) in parts {
        same_plan(path, &Plan { shard: None, ..part.plan.clone() }, &plan)?;
        for (&index, record) in &part.records {
            if records.insert(index, record.clone()).is_some() {
                return Err(wrong(path, &format!("image {index} is in another part as well; name each part once")));
            }
        }
    }
    let missing: Vec<usize> = (0..plan.images).filter(|index| !records.contains_key(index)).collect();
    if let Some(example) = missing.first() {
        let count = missing.len();
        let problem = format!(
            "of {} images {count} are in no part, {example} for example; run all shards to their end",
            plan.images
        );
        return Err(wrong(first_path, &problem));
    }
    Ok(Results { plan, records })
}

/// Writes complete results.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write_all(path: &Path, results: &Results) -> Result<()> {
    let text: String = std::iter::once(line(&results.plan)).chain(results.records.values().map(line)).collect();
    Ok(write_file(path, text.as_bytes())?)
}

fn line(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string(value).expect("plans and records are always JSON");
    text.push('\n');
    text
}

/// The results in a file, and how many of its bytes are whole lines.
fn read(path: &Path) -> Result<(Option<Results>, u64)> {
    let unreadable = |source| FileError::Unreadable { path: path.into(), source };
    let bytes = read_up_to(path, DATA_SET_FILE_BYTES_MAX).map_err(unreadable)?;
    if bytes.len() as u64 > DATA_SET_FILE_BYTES_MAX {
        return Err(wrong(path, &format!("it is larger than {DATA_SET_FILE_BYTES_MAX} bytes")));
    }
    // What follows the last line's end was cut short.
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    let text = std::str::from_utf8(&bytes[..whole])
        .map_err(|error| unreadable(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let mut lines = text.lines().enumerate();
    let damaged = |number: usize, error: &dyn std::fmt::Display| {
        wrong(path, &format!("line {} is damaged: {error}; remove the file to begin again", number + 1))
    };
    let Some((number, first)) = lines.next() else { return Ok((None, 0)) };
    let plan: Plan = serde_json::from_str(first).map_err(|error| damaged(number, &error))?;
    let mut records = BTreeMap::new();
    // Only a last line may be cut short, and it was left out. Another that is wrong is damage, after which the others
    // cannot be trusted either.
    for (number, text) in lines {
        let record: Record = serde_json::from_str(text).map_err(|error| damaged(number, &error))?;
        let index = record.index();
        if index >= plan.images || records.insert(index, record).is_some() {
            return Err(damaged(number, &format!("image {index} is not expected there")));
        }
    }
    Ok((Some(Results { plan, records }), whole as u64))
}

/// Refuses to mix results that depend on different things, and names the first of them.
fn same_plan(path: &Path, found: &Plan, wanted: &Plan) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    // As JSON, so that the message calls a setting what the file calls it.
    let fields = |plan: &Plan| match serde_json::to_value(plan) {
        Ok(Value::Object(fields)) => fields,
        _ => unreachable!("a plan is a JSON object"),
    };
    let (found, wanted) = (fields(found), fields(wanted));
    let differing = wanted.iter().find(|&(name, value)| found.get(name) != Some(value));
    let (name, value) = differing.expect("plans that differ differ somewhere");
    let short = |value: &Value| {
        let text: String = value.to_string().chars().take(120).collect();
        if text.len() < value.to_string().len() { text + "…" } else { text }
    };
    let before = found.get(name).unwrap_or(&Value::Null);
    let problem = format!(
        "they were made with another setting: {name} was {}, now it is {}; choose another folder, or remove the file",
        short(before),
        short(value)
    );
    Err(wrong(path, &problem))
}

fn wrong(path: &Path, problem: &str) -> Error {
    EvalError::Results { path: path.into(), problem: problem.into() }.into()
}
