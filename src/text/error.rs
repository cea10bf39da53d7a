//! Ways for texts, tokenizers and text towers to fail.

use std::io;
use std::path::PathBuf;

use crate::cause::Cause;
use crate::setting::SettingError;
use crate::wording::quoted;

pub(crate) type Result<T> = std::result::Result<T, TextError>;

/// A text or a text tower that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A tokenizer's file cannot be used with the text tower.
    #[error("the tokenizer {file} cannot be used: {problem}; take the one that belongs to the model")]
    Tokenizer {
        /// File name.
        file: String,
        /// Problem found.
        problem: String,
    },
    /// A text has no usable tokens.
    #[error("the text {} {problem}", quoted(text))]
    Tokens {
        /// The text.
        text: String,
        /// Problem found.
        problem: String,
    },
    /// A label's prompt has more tokens than the text tower takes.
    #[error("the label {} makes a prompt of {tokens} tokens, expected at most {limit}; shorten it", quoted(label))]
    TooLong {
        /// The label.
        label: String,
        /// Tokens of its prompt, start and end included.
        tokens: usize,
        /// The tower's context length.
        limit: usize,
    },
    /// The text tower gave NaN, infinity or nothing for a label.
    #[error(
        "the text tower gives {} an embedding that is not finite or has no direction; the model is damaged or overflows, check the bundle on this device",
        quoted(label)
    )]
    NotFinite {
        /// The label.
        label: String,
    },
    /// A text model in ONNX that cannot be used.
    #[error("the text model cannot be used: {source}; the file is damaged or uses operators tract does not run")]
    Model {
        /// What is wrong.
        source: Cause,
    },
    /// A method that tunes words where the text tower only computes.
    #[error(
        "the method context needs the text tower's gradients, and this bundle's is a model in ONNX, which has none; choose another method"
    )]
    NoGradients,
    /// A file of the tower could not be read.
    #[error("cannot read {}: {source}; copy the file again", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A tensor is not as it should be.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The prompt cannot be used.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

/// A tensor file, or a tensor in it, that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {what} is {found}, expected {expected}; get the file again, or export it again")]
#[non_exhaustive]
pub struct TensorError {
    /// File name.
    pub file: String,
    /// The tensor or part.
    pub what: String,
    /// Value allowed.
    pub expected: String,
    /// Value found.
    pub found: String,
}
