//! Ways for a bundle not to be installed, and for slots not to be changed.

use std::path::PathBuf;

use crate::error::{Category, Class, ProgramLayer};

/// A bundle that is not installed, or slots that are not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SlotsError {
    /// A state that cannot be used.
    #[error("{} is not the state of bundle slots: {problem}; remove it, and bundle-versions.json beside it, to go back to the bundle that the device came with", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Problem found.
        problem: String,
    },
    /// There is no bundle to go back to.
    #[error("no slot of {} is in force, so there is nothing to go back from", folder.display())]
    NothingBefore {
        /// The slots' folder.
        folder: PathBuf,
    },
    /// A bundle is on trial already.
    #[error(
        "slot {slot} is on trial; wait until it is confirmed, confirm it, or roll it back before another bundle is installed"
    )]
    OnTrial {
        /// Name of the slot.
        slot: &'static str,
    },
    /// What should be installed is neither a bundle nor an archive of one.
    #[error("{name} cannot be installed: {problem}; expected a bundle's folder, or a .tar or .tar.zst of its files")]
    Source {
        /// Folder or archive.
        name: String,
        /// Problem found.
        problem: String,
    },
    /// An entry of an archive that is refused.
    #[error("the archive's entry {entry:?} is refused: {problem}; nothing was installed")]
    Entry {
        /// Name of the entry.
        entry: String,
        /// Reason for the refusal.
        problem: String,
    },
    /// A bundle that the daemon refused.
    #[error("{message}")]
    Refused {
        /// Its message.
        message: String,
    },
    /// A bundle that was given up during its trial.
    #[error("the bundle in slot {slot} was given up: {why}; the one before it is in force")]
    GivenUp {
        /// Name of the slot.
        slot: String,
        /// Reason, in words.
        why: String,
    },
    /// A bundle that is in force already.
    #[error("the bundle {id} is in force already")]
    Same {
        /// Name and digest of the bundle.
        id: String,
    },
}

impl ProgramLayer for SlotsError {
    fn class(&self) -> Class {
        match self {
            Self::State { .. } => (Category::Output, "slots_state"),
            Self::NothingBefore { .. } => (Category::Usage, "nothing_before"),
            Self::OnTrial { .. } => (Category::Usage, "on_trial"),
            Self::Source { .. } => (Category::Usage, "install_source"),
            Self::Refused { .. } => (Category::Bundle, "bundle_refused"),
            Self::GivenUp { .. } => (Category::Bundle, "bundle_given_up"),
            Self::Entry { .. } => (Category::Bundle, "archive_entry"),
            Self::Same { .. } => (Category::Usage, "same_bundle"),
        }
    }
}
