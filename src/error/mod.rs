//! The error of the library, nested: an error of a layer is one of its variants.

mod class;

use std::io;
use std::path::PathBuf;

pub(crate) use class::Category;

use crate::bundle::BundleError;
use crate::cancellation::Cancelled;
use crate::encoder::EncoderError;
use crate::files::FileError;
use crate::labels::LabelsError;
use crate::setting::SettingError;
use crate::text::{TensorError, TextError};
use crate::views::ImageError;
use crate::wording::counted;

/// The result of everything in this crate that can fail.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An image file that cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// An encoder that cannot be used, or features that cannot.
    #[error(transparent)]
    Encoder(EncoderError),
    /// A bundle that cannot be used.
    #[error(transparent)]
    Bundle(BundleError),
    /// A text or a text tower that cannot be used.
    #[error(transparent)]
    Text(TextError),
    /// Labels that cannot be used.
    #[error(transparent)]
    Labels(LabelsError),
    /// A setting that is out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A file that cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Work that nobody waits for any more.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A thread that the system could not start.
    #[error("cannot start {what}: {source}; end other programs, or raise the limit of threads")]
    Thread {
        /// The thread or threads.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A folder holds no image.
    #[error("no image in {}: expected files ending in .jpg, .jpeg, .png, .bmp or .webp; name the files themselves if they end otherwise", path.display())]
    FolderWithoutImages {
        /// The folder.
        path: PathBuf,
    },
    /// A folder is too large or too deep to walk.
    #[error("{} has more than {limit} {what}; classify its parts separately", path.display())]
    FolderTooLarge {
        /// The folder.
        path: PathBuf,
        /// Kind of thing counted.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// A model folder is not one that can be imported.
    #[error("cannot import {}: {what} is {found}, expected {expected}", path.display())]
    Import {
        /// The file or folder.
        path: PathBuf,
        /// The part.
        what: String,
        /// Value that can be imported.
        expected: String,
        /// Value found.
        found: String,
    },
    /// The bundle's own goldens were not reproduced on this device.
    #[error(
        "the bundle's goldens are not reproduced: {stage} differs by {difference:e}, tolerance {tolerance:e}; do not trust this bundle on this device"
    )]
    GoldenMismatch {
        /// First stage that is off.
        stage: &'static str,
        /// Largest absolute difference.
        difference: f32,
        /// Largest difference allowed.
        tolerance: f32,
    },
    /// A data set is not what it should be; everything that is wrong is listed, up to a bound.
    #[error("the data set {} cannot be used, nothing was encoded; {}:{}", path.display(), counted(*count, "problem"), listed(shown, *count))]
    DataSet {
        /// The file or folder.
        path: PathBuf,
        /// Number of problems.
        count: usize,
        /// The first of them, with file and line.
        shown: Vec<String>,
    },
    /// The results of an evaluation cannot be continued or put together.
    #[error("the results in {} cannot be used: {problem}", path.display())]
    Results {
        /// The file.
        path: PathBuf,
        /// Problem found, and what to do.
        problem: String,
    },
    /// A configuration file cannot be used.
    #[error("the configuration {} {problem}", path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// Problem found, and what to do.
        problem: String,
    },
    /// A source specification names no source of frames.
    #[error("the source {spec:?} {problem}")]
    SourceSpec {
        /// As it was given.
        spec: String,
        /// Problem found, and what to do.
        problem: String,
    },
    /// A recording cannot be used.
    #[error("the recording in {} {problem}", path.display())]
    Recording {
        /// Folder of the recording.
        path: PathBuf,
        /// Problem found, and what to do.
        problem: String,
    },
    /// Another daemon has a socket or a folder.
    #[error("another daemon has {}{}; stop it, or give this one its own with {flag}", path.display(), by(holder))]
    InUse {
        /// The socket or folder.
        path: PathBuf,
        /// The other's process.
        holder: Option<String>,
        /// The flag that names another.
        flag: &'static str,
    },
    /// A daemon cannot listen.
    #[error(
        "cannot listen on {address}: {source}; is the folder there, may it be written, or has another program the port?"
    )]
    Listen {
        /// Socket file or TCP address.
        address: String,
        /// Error of the system.
        source: io::Error,
    },
    /// No daemon answers.
    #[error("no daemon answers on {}: {problem}; start one with `rtpt serve`, or name its socket with --socket", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Failure that happened.
        problem: String,
    },
    /// A daemon's socket may not be used.
    #[error("this user may not use the daemon's socket {}; ask with sudo, or let the group video ask, with rtpt.socket", path.display())]
    SocketDenied {
        /// The socket.
        path: PathBuf,
    },
    /// A daemon refused a request.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Name of the error, as the daemon gave it.
        kind: String,
        /// Message of the daemon.
        message: String,
    },
    /// A caller's own input or output failed, as in `std::fs::read`.
    #[error("cannot read or write: {0}")]
    Io(#[from] io::Error),
}

// What a layer only passes on becomes the variant of its own layer, so that an error is the same however far it came up.
impl From<EncoderError> for Error {
    fn from(error: EncoderError) -> Self {
        match error {
            EncoderError::Cancelled(error) => error.into(),
            EncoderError::File(error) => error.into(),
            error => Self::Encoder(error),
        }
    }
}

impl From<BundleError> for Error {
    fn from(error: BundleError) -> Self {
        match error {
            BundleError::File(error) => error.into(),
            BundleError::Tensor(error) => error.into(),
            BundleError::Text(error) => error.into(),
            error => Self::Bundle(error),
        }
    }
}

impl From<TextError> for Error {
    fn from(error: TextError) -> Self {
        match error {
            TextError::Setting(error) => error.into(),
            error => Self::Text(error),
        }
    }
}

impl From<TensorError> for Error {
    fn from(error: TensorError) -> Self {
        TextError::from(error).into()
    }
}

impl From<LabelsError> for Error {
    fn from(error: LabelsError) -> Self {
        match error {
            LabelsError::Setting(error) => error.into(),
            error => Self::Labels(error),
        }
    }
}

fn by(holder: &Option<String>) -> String {
    holder.as_ref().map_or(String::new(), |holder| format!(" ({holder})"))
}

fn listed(problems: &[String], count: usize) -> String {
    let mut text: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    if count > problems.len() {
        text += &format!("\n  and {} more", count - problems.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_same_however_far_it_came_up() {
        assert!(matches!(Error::from(EncoderError::from(Cancelled)), Error::Cancelled(_)));
        let setting = || SettingError { what: "the prompt", expected: "words".into(), found: "none".into() };
        assert!(matches!(Error::from(BundleError::from(TextError::from(setting()))), Error::Setting(_)));
        assert!(matches!(Error::from(LabelsError::from(setting())), Error::Setting(_)));
        let exists = FileError::Exists { path: "bundle".into() };
        assert!(matches!(Error::from(BundleError::from(exists)), Error::File(FileError::Exists { .. })));
    }
}
