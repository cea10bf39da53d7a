//! Models that cannot be imported.

use std::path::{Path, PathBuf};

use crate::error::{Category, Class, ProgramLayer};

/// A model that cannot be imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// A part with another value than one that can be imported.
    #[error("cannot import {}: {what} is {found}, expected {expected}", path.display())]
    Value {
        /// The file or folder.
        path: PathBuf,
        /// The part.
        what: String,
        /// Value that can be imported.
        expected: String,
        /// Value found.
        found: String,
    },
    /// A model without a logit scale.
    #[error("cannot import {}: the logit scale is missing: no file has it (OpenAI's CLIP has 100)", path.display())]
    NoLogitScale {
        /// The model's folder.
        path: PathBuf,
    },
    /// A folder without a vision model.
    #[error("cannot import {}: the vision model is missing, expected onnx/vision_model.onnx", path.display())]
    NoVisionModel {
        /// The model's folder.
        path: PathBuf,
    },
    /// Class embeddings without the classes' names.
    #[error("cannot import {}: the list of names is missing, expected metadata \"names\" in a safetensors file", path.display())]
    NoNames {
        /// File of the embeddings.
        path: PathBuf,
    },
}

impl ImportError {
    /// An error about a part of the file or folder at `path`.
    pub(super) fn value(path: &Path, what: &str, expected: &str, found: impl ToString) -> Self {
        Self::Value { path: path.into(), what: what.into(), expected: expected.into(), found: found.to_string() }
    }
}

impl ProgramLayer for ImportError {
    fn class(&self) -> Class {
        (Category::Bundle, "import")
    }
}
