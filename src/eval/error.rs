//! Data sets and results that cannot be used.

use std::path::PathBuf;

use crate::error::{Category, Class, ProgramLayer};
use crate::wording::counted;

/// An evaluation that cannot be made or reported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EvalError {
    /// A data set that is not what it should be; everything that is wrong is listed, up to a bound.
    #[error("the data set {} cannot be used, nothing was encoded; {}:{}", path.display(), counted(*count, "problem"), listed(shown, *count))]
    DataSet {
        /// The file or folder.
        path: PathBuf,
        /// Number of problems.
        count: usize,
        /// The first of them, with file and line.
        shown: Vec<String>,
        /// True if a class is among them that has no label.
        unlabelled: bool,
    },
    /// Photos that cannot be drawn as examples.
    #[error("classes by example cannot be measured: {problem}")]
    Shots {
        /// Problem found.
        problem: String,
    },
    /// Results that cannot be continued or put together.
    #[error("the results in {} cannot be used: {problem}", path.display())]
    Results {
        /// The file.
        path: PathBuf,
        /// Problem found, and what to do.
        problem: String,
    },
}

impl ProgramLayer for EvalError {
    fn class(&self) -> Class {
        match self {
            Self::DataSet { .. } => (Category::Usage, "data_set"),
            Self::Shots { .. } => (Category::Usage, "shots"),
            Self::Results { .. } => (Category::Usage, "results"),
        }
    }
}

fn listed(problems: &[String], count: usize) -> String {
    let mut text: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    if count > problems.len() {
        text += &format!("\n  and {} more", count - problems.len());
    }
    text
}
