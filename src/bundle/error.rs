//! Ways for a bundle to be refused.

use std::io;
use std::path::{Path, PathBuf};

use crate::files::FileError;
use crate::text::{TensorError, TextError};
use crate::wording::quoted;

pub(crate) type Result<T> = std::result::Result<T, BundleError>;

/// A bundle that cannot be used, or that cannot do what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// No bundle was named and none was found.
    #[error("no bundle was named, and none is in {}", tried.join(", "))]
    NotFound {
        /// The folders that were looked in.
        tried: Vec<String>,
    },
    /// The bundle path is not a folder with a manifest.
    #[error("{}", not_bundle(path, reason))]
    NotFolder {
        /// The path.
        path: PathBuf,
        /// Reason that it is not a bundle.
        reason: String,
    },
    /// A file of the bundle could not be read.
    #[error("cannot read {} of the bundle: {source}; copy the bundle again", path.display())]
    FileUnreadable {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// A file of the bundle is over its limit.
    #[error("{} is {found} bytes long, expected at most {limit}; this is not a bundle this version can read", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Size of the file (bytes).
        found: u64,
        /// The bound (bytes).
        limit: u64,
    },
    /// The manifest is not the JSON it should be.
    #[error("{} is not a valid manifest: {source}; copy or export the bundle again", path.display())]
    ManifestSyntax {
        /// The manifest.
        path: PathBuf,
        /// Error of the JSON parser, with its position.
        source: serde_json::Error,
    },
    /// The manifest is of another format version.
    #[error("the bundle has format version {found}, expected {supported}; export it again or use the matching rtpt")]
    ManifestVersion {
        /// Version in the manifest.
        found: u64,
        /// Version of this program.
        supported: u64,
    },
    /// A value of the manifest makes no sense.
    #[error("the manifest's {field} is {found}, expected {expected}; export the bundle again")]
    ManifestValue {
        /// Name of the field.
        field: String,
        /// Value allowed.
        expected: String,
        /// Value found.
        found: String,
    },
    /// A file named by the manifest, or needed, is not there.
    #[error("{} is missing from the bundle; copy the bundle again, with all its files", path.display())]
    FileMissing {
        /// The file.
        path: PathBuf,
    },
    /// A file of the bundle has other bytes than the manifest says.
    #[error("{} has {what} {found}, the manifest says {expected}; the file is damaged or was changed, copy the bundle again", path.display())]
    FileDiffers {
        /// The file.
        path: PathBuf,
        /// `size` or `BLAKE3 digest`.
        what: &'static str,
        /// Value that the manifest records.
        expected: String,
        /// Value that the file has.
        found: String,
    },
    /// Something was asked for that only a text tower can do.
    #[error(
        "the bundle {bundle} has no text tower, so it knows only its own classes under its own prompt; choose labels among its classes, or take a bundle with a text tower"
    )]
    NoTextTower {
        /// Name of the bundle.
        bundle: String,
    },
    /// The bundle has no default labels and none were given.
    #[error("the bundle {bundle} has no labels of its own; give some")]
    NoLabels {
        /// Name of the bundle.
        bundle: String,
    },
    /// The bundle has no embedding for a label.
    #[error("the bundle has no class named {}{}; choose labels among its classes", quoted(label), suggest(nearest))]
    UnknownLabel {
        /// The label.
        label: String,
        /// The most similar class name, if one is near.
        nearest: Option<String>,
    },
    /// A file beside the bundle cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tensor file is malformed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The text tower cannot be used.
    #[error(transparent)]
    Text(#[from] TextError),
}

fn suggest(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or(String::new(), |name| format!(" (did you mean {name:?}?)"))
}

/// Reason of a [`BundleError::NotFolder`] where nothing is at the path.
pub(super) const MISSING: &str = "it does not exist";

fn not_bundle(path: &Path, reason: &str) -> String {
    let shown = path.display();
    match reason {
        MISSING => format!("there is no folder {shown}, expected a bundle, which is a folder with a manifest.json"),
        _ if path.join("bundle/manifest.json").is_file() => {
            format!("{shown} is not a bundle: {reason}; did you mean {}?", path.join("bundle").display())
        }
        _ => format!("{shown} is not a bundle: {reason}, expected a folder with a manifest.json"),
    }
}
