//! Labels that cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use crate::examples::ExamplesError;
use crate::setting::SettingError;
use crate::wording::{counted, quoted};

/// Labels, or a labels file, that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabelsError {
    /// The labels file could not be read.
    #[error("{}; {}", unreadable(path, source), labels_hint(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// The labels file is not text, or too large.
    #[error("the labels file {} {problem}; expected UTF-8 text, one label per line", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Problem found.
        problem: String,
    },
    /// Too few or too many labels.
    #[error("{} given, expected {min} to {max}{}", counted(*found, "label"), if *found == 1 { ALONE } else { "" })]
    Count {
        /// Number of labels given.
        found: usize,
        /// Fewest.
        min: usize,
        /// Most.
        max: usize,
    },
    /// A label is given twice.
    #[error("the label {} is given twice (entries {first} and {second}); remove one", quoted(label))]
    Duplicate {
        /// The label.
        label: String,
        /// First entry, from 1.
        first: usize,
        /// Second entry, from 1.
        second: usize,
    },
    /// A label is added to labels that have identifiers.
    #[error(
        "the label {} cannot be added: the others have identifiers, and it has none; write it into the labels file",
        quoted(label)
    )]
    NoIdentifier {
        /// The label.
        label: String,
    },
    /// A label is not words.
    #[error("the label {} {problem}; a label is words, such as \"sea horse\"", quoted(label))]
    NotWords {
        /// The label.
        label: String,
        /// Problem found.
        problem: &'static str,
    },
    /// The examples beside a labels file cannot be used.
    #[error(transparent)]
    Examples(#[from] ExamplesError),
    /// The length of a label is out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

/// Reason that one label is refused.
pub(super) const ALONE: &str = ": one label alone cannot be told from anything";

fn unreadable(path: &Path, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::NotFound => format!("there is no file {}", path.display()),
        _ => format!("cannot read the labels file {}: {source}", path.display()),
    }
}

/// Hint for a labels file that is not there. A user who wrote labels in its place is shown how to make a file of them.
fn labels_hint(path: &Path) -> String {
    let name = path.to_string_lossy();
    if !name.contains(',') || name.contains('/') {
        return "a labels file is UTF-8 text, one label per line".into();
    }
    // For a shell: within quotes a quote has to end them, stand escaped, and begin them again.
    let lines: String =
        name.split(',').map(|label| label.trim().replace('%', "%%").replace('\'', "'\\''") + "\\n").collect();
    format!("this takes a file with one label per line: make it with  printf '{lines}' > my.txt  and name my.txt")
}
