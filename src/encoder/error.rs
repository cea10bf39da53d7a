//! Ways for an encoder to fail.

use crate::cancellation::Cancelled;
use crate::cause::Cause;
use crate::files::FileError;

pub(crate) type Result<T> = std::result::Result<T, EncoderError>;

/// An encoder that cannot be used, or features that cannot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// The encoder could not be loaded.
    #[error("the image encoder cannot be {stage}: {source}; the file is damaged or uses operators tract does not run")]
    Load {
        /// Participle of the step that failed, such as `parsed`.
        stage: &'static str,
        /// Error of tract.
        source: Cause,
    },
    /// The encoder's input or output has another shape than the manifest says.
    #[error("the image encoder's {what} is {found}, expected {expected} from the manifest; export the bundle again")]
    Shape {
        /// `input` or `output`.
        what: &'static str,
        /// Shape in the manifest.
        expected: String,
        /// Shape of the model.
        found: String,
    },
    /// The encoder would take more memory than it may.
    #[error("the image encoder asks for {} MiB at {node:?}, expected at most {} MiB; export it for a smaller input, or with other operators", found >> 20, limit >> 20)]
    Memory {
        /// Name of the node.
        node: String,
        /// Memory that it asks for (bytes).
        found: u64,
        /// The bound (bytes).
        limit: u64,
    },
    /// The encoder has an operator for which the memory that it takes cannot be told before it is taken.
    #[error(
        "the image encoder has {operator} at {node:?}, {why}; export it with its constants folded and without control flow"
    )]
    Unbounded {
        /// Name of the node.
        node: String,
        /// Name of the operator.
        operator: String,
        /// What is not known of it.
        why: &'static str,
    },
    /// The encoder failed while running.
    #[error("the image encoder failed: {source}; check the bundle on this device")]
    Run {
        /// Error of tract.
        source: Cause,
    },
    /// The encoder gave NaN or infinity for a view.
    #[error(
        "the features of view {view} are not finite (dimension {dimension} is {value}); the model is damaged or overflows, check the bundle on this device"
    )]
    NotFinite {
        /// Index of the view.
        view: usize,
        /// Index of the first such dimension.
        dimension: usize,
        /// Value found.
        value: f32,
    },
    /// The encoder gave an embedding of length 0.
    #[error(
        "the features of view {view} are all zero and have no direction; the model is damaged, check the bundle on this device"
    )]
    Zero {
        /// Index of the view.
        view: usize,
    },
    /// A file beside the model could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The work was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}
