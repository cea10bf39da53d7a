//! Recordings that cannot be used.

use std::path::PathBuf;

use crate::error::{Category, Class, ProgramLayer};

/// A recording that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordingError {
    /// A recording that cannot be read.
    #[error("the recording in {} {problem}", path.display())]
    Unreadable {
        /// Folder of the recording or of its part.
        path: PathBuf,
        /// Problem found, and what to do.
        problem: String,
    },
    /// A recording that was made with another bundle.
    #[error("the recording was made with the bundle {recorded}… in {}, found {found}… in {}", recorded_at.display(), found_at.display())]
    OtherBundle {
        /// Beginning of the recorded bundle's digest (hexadecimal).
        recorded: String,
        /// Folder of the recorded bundle.
        recorded_at: PathBuf,
        /// Beginning of the digest of the bundle at hand (hexadecimal).
        found: String,
        /// Folder of the bundle at hand.
        found_at: PathBuf,
    },
}

impl ProgramLayer for RecordingError {
    fn class(&self) -> Class {
        (Category::Usage, "recording")
    }
}
