//! What programs need to know of an error: whose fault it is, and its name.

use super::Error;

/// Whose fault an error is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Category {
    /// One input; others may still be classified.
    Input,
    /// The command line or the labels.
    Usage,
    /// The bundle.
    Bundle,
    /// Something could not be written.
    Output,
    /// The daemon: there is one already, or none.
    Daemon,
}

impl Error {
    /// Whose fault it is.
    pub(crate) fn category(&self) -> Category {
        self.class().0
    }

    /// A stable name for programs, in snake case.
    pub fn kind(&self) -> &'static str {
        self.class().1
    }

    fn class(&self) -> (Category, &'static str) {
        use Category::{Bundle, Daemon, Input, Output, Usage};
        match self {
            Self::InputUnreadable { .. } => (Input, "input_unreadable"),
            Self::FolderWithoutImages { .. } => (Input, "folder_without_images"),
            Self::FolderTooLarge { .. } => (Input, "folder_too_large"),
            Self::PathOutside { .. } => (Bundle, "path_outside"),
            Self::Import { .. } => (Bundle, "import"),
            Self::OutputExists { .. } => (Output, "output_exists"),
            Self::ImageEmpty => (Input, "image_empty"),
            Self::ImageFileTooLarge { .. } => (Input, "image_file_too_large"),
            Self::ImageFormatUnknown { .. } => (Input, "image_format_unknown"),
            Self::ImageSize { .. } => (Input, "image_size"),
            Self::ImageCorrupt { .. } => (Input, "image_corrupt"),
            Self::FeaturesNotFinite { .. } => (Input, "features_not_finite"),
            Self::FeaturesZero { .. } => (Input, "features_zero"),
            Self::Cancelled => (Input, "cancelled"),
            Self::BundleNotFound { .. } => (Bundle, "bundle_not_found"),
            Self::BundleNotFolder { .. } => (Bundle, "bundle_not_folder"),
            Self::BundleFileUnreadable { .. } => (Bundle, "bundle_file_unreadable"),
            Self::BundleFileTooLarge { .. } => (Bundle, "bundle_file_too_large"),
            Self::ManifestSyntax { .. } => (Bundle, "manifest_syntax"),
            Self::ManifestVersion { .. } => (Bundle, "manifest_version"),
            Self::ManifestValue { .. } => (Bundle, "manifest_value"),
            Self::BundleFileMissing { .. } => (Bundle, "bundle_file_missing"),
            Self::BundleFileDiffers { .. } => (Bundle, "bundle_file_differs"),
            Self::Tensor { .. } => (Bundle, "tensor"),
            Self::Tokenizer { .. } => (Bundle, "tokenizer"),
            Self::EmbeddingNotFinite { .. } => (Bundle, "embedding_not_finite"),
            Self::EncoderLoad { .. } => (Bundle, "encoder_load"),
            Self::EncoderShape { .. } => (Bundle, "encoder_shape"),
            Self::EncoderRun { .. } => (Bundle, "encoder_run"),
            Self::GoldenMismatch { .. } => (Bundle, "golden_mismatch"),
            Self::LabelsUnreadable { .. } => (Usage, "labels_unreadable"),
            Self::LabelsMalformed { .. } => (Usage, "labels_malformed"),
            Self::LabelCount { .. } => (Usage, "label_count"),
            Self::LabelDuplicate { .. } => (Usage, "label_duplicate"),
            Self::LabelUnknown { .. } => (Usage, "label_unknown"),
            Self::NoTextTower { .. } => (Usage, "no_text_tower"),
            Self::NoLabels { .. } => (Usage, "no_labels"),
            Self::LabelTooLong { .. } => (Usage, "label_too_long"),
            Self::TextTokens { .. } => (Usage, "text_tokens"),
            Self::DataSet { .. } => (Usage, "data_set"),
            Self::Results { .. } => (Usage, "results"),
            Self::Setting { .. } => (Usage, "setting"),
            Self::LabelNotWords { .. } => (Usage, "label_not_words"),
            Self::Configuration { .. } => (Usage, "configuration"),
            Self::SourceSpec { .. } => (Usage, "source"),
            Self::Recording { .. } => (Usage, "recording"),
            Self::InUse { .. } => (Daemon, "in_use"),
            Self::Listen { .. } => (Daemon, "listen"),
            Self::Unreachable { .. } => (Daemon, "unreachable"),
            Self::SocketDenied { .. } => (Daemon, "socket_denied"),
            // The daemon says 400 to what it would refuse as a flag.
            Self::Refused { status: 400, .. } => (Usage, "refused"),
            Self::Refused { .. } => (Input, "refused"),
            Self::Io(_) => (Input, "io"),
            Self::OutputUnwritable { .. } => (Output, "output_unwritable"),
        }
    }
}
