//! The error of the library, nested: an error of a layer is one of its variants.

mod class;
mod program;

use std::fmt;
use std::io;

pub(crate) use class::{Category, Class};
pub use program::ProgramError;
pub(crate) use program::ProgramLayer;

use crate::bundle::BundleError;
use crate::cancellation::Cancelled;
use crate::encoder::EncoderError;
use crate::examples::ExamplesError;
use crate::files::FileError;
use crate::labels::LabelsError;
use crate::setting::SettingError;
use crate::text::{TensorError, TextError};
use crate::views::ImageError;

/// The result of everything in this crate that can fail.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A failure of this crate. A `main` that returns one prints its message: [`Debug`](fmt::Debug) writes it as
/// [`Display`](fmt::Display) does.
#[derive(thiserror::Error)]
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
    /// Classes by example that cannot be used.
    #[error(transparent)]
    Examples(ExamplesError),
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
    /// An error of the program, which the library does not know.
    #[error(transparent)]
    Program(ProgramError),
    /// A caller's own input or output failed, as in `std::fs::read`.
    #[error("cannot read or write: {0}")]
    Io(#[from] io::Error),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// The error of a layer of the program, if it is one.
    pub(crate) fn of_program<E: ProgramLayer>(&self) -> Option<&E> {
        match self {
            Self::Program(error) => error.downcast(),
            _ => None,
        }
    }
}

// What a layer only passes on becomes the variant of its own layer: an error is the same however far it came up.
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
            LabelsError::Examples(error) => error.into(),
            error => Self::Labels(error),
        }
    }
}

impl From<ExamplesError> for Error {
    fn from(error: ExamplesError) -> Self {
        match error {
            ExamplesError::Setting(error) => error.into(),
            ExamplesError::File(error) => error.into(),
            error => Self::Examples(error),
        }
    }
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
