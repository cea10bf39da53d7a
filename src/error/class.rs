//! Class of an error, for programs: whose fault it is, and its name.

use super::Error;
use crate::bundle::BundleError;
use crate::encoder::EncoderError;
use crate::examples::ExamplesError;
use crate::files::FileError;
use crate::labels::LabelsError;
use crate::text::TextError;
use crate::views::ImageError;

/// The party at fault for an error; decides the exit code.
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

/// The category of an error, and its name for programs, in snake case.
pub(crate) type Class = (Category, &'static str);

impl Error {
    /// The party at fault.
    pub(crate) fn category(&self) -> Category {
        self.class().0
    }

    /// A stable name for programs, in snake case.
    pub fn kind(&self) -> &'static str {
        self.class().1
    }

    fn class(&self) -> Class {
        use Category::{Input, Output, Usage};
        match self {
            Self::File(error) => of_file(error),
            Self::Image(error) => of_image(error),
            Self::Encoder(error) => of_encoder(error),
            Self::Text(error) => of_text(error),
            Self::Labels(error) => of_labels(error),
            Self::Examples(error) => of_examples(error),
            Self::Bundle(error) => of_bundle(error),
            Self::Setting(_) => (Usage, "setting"),
            Self::Cancelled(_) => (Input, "cancelled"),
            Self::Thread { .. } => (Output, "thread"),
            Self::Program(error) => error.class(),
            Self::Io(_) => (Input, "io"),
        }
    }
}

fn of_examples(error: &ExamplesError) -> Class {
    match error {
        ExamplesError::Malformed { .. } => (Category::Usage, "examples_malformed"),
        ExamplesError::Unusable { .. } => (Category::Usage, "example_unusable"),
        ExamplesError::Mixed { .. } => (Category::Usage, "examples_mixed"),
        ExamplesError::NoWords => (Category::Usage, "examples_without_words"),
        ExamplesError::Setting(_) => (Category::Usage, "setting"),
        ExamplesError::File(error) => of_file(error),
    }
}

fn of_file(error: &FileError) -> Class {
    match error {
        FileError::Unreadable { .. } => (Category::Input, "input_unreadable"),
        FileError::Outside { .. } => (Category::Bundle, "path_outside"),
        FileError::Exists { .. } => (Category::Output, "output_exists"),
        FileError::Unwritable { .. } => (Category::Output, "output_unwritable"),
    }
}

fn of_image(error: &ImageError) -> Class {
    match error {
        ImageError::Empty => (Category::Input, "image_empty"),
        ImageError::FileTooLarge { .. } => (Category::Input, "image_file_too_large"),
        ImageError::FormatUnknown { .. } => (Category::Input, "image_format_unknown"),
        ImageError::Size { .. } => (Category::Input, "image_size"),
        ImageError::Damaged { .. } => (Category::Input, "image_damaged"),
        ImageError::Corrupt { .. } => (Category::Input, "image_corrupt"),
    }
}

fn of_encoder(error: &EncoderError) -> Class {
    match error {
        // Charged to the image: others may do well, and a run goes on with them.
        EncoderError::NotFinite { .. } => (Category::Input, "features_not_finite"),
        EncoderError::Zero { .. } => (Category::Input, "features_zero"),
        EncoderError::Load { .. } => (Category::Bundle, "encoder_load"),
        EncoderError::Shape { .. } => (Category::Bundle, "encoder_shape"),
        EncoderError::Memory { .. } => (Category::Bundle, "encoder_memory"),
        EncoderError::Unbounded { .. } => (Category::Bundle, "encoder_unbounded"),
        EncoderError::Run { .. } => (Category::Bundle, "encoder_run"),
        EncoderError::File(error) => of_file(error),
        EncoderError::Cancelled(_) => (Category::Input, "cancelled"),
    }
}

fn of_text(error: &TextError) -> Class {
    match error {
        TextError::Model { .. } => (Category::Bundle, "text_model"),
        TextError::NoGradients => (Category::Usage, "text_without_gradients"),
        TextError::Tokenizer { .. } => (Category::Bundle, "tokenizer"),
        TextError::NotFinite { .. } => (Category::Bundle, "embedding_not_finite"),
        TextError::TooLong { .. } => (Category::Usage, "label_too_long"),
        TextError::Tokens { .. } => (Category::Usage, "text_tokens"),
        TextError::Unreadable { .. } => (Category::Bundle, "bundle_file_unreadable"),
        TextError::Tensor(_) => (Category::Bundle, "tensor"),
        TextError::Setting(_) => (Category::Usage, "setting"),
    }
}

fn of_labels(error: &LabelsError) -> Class {
    match error {
        LabelsError::Unreadable { .. } => (Category::Usage, "labels_unreadable"),
        LabelsError::Malformed { .. } => (Category::Usage, "labels_malformed"),
        LabelsError::Count { .. } => (Category::Usage, "label_count"),
        LabelsError::Duplicate { .. } => (Category::Usage, "label_duplicate"),
        LabelsError::NotWords { .. } => (Category::Usage, "label_not_words"),
        LabelsError::NoIdentifier { .. } => (Category::Usage, "label_without_identifier"),
        LabelsError::Examples(error) => of_examples(error),
        LabelsError::Setting(_) => (Category::Usage, "setting"),
    }
}

fn of_bundle(error: &BundleError) -> Class {
    match error {
        BundleError::NotFound { .. } => (Category::Bundle, "bundle_not_found"),
        BundleError::NotFolder { .. } => (Category::Bundle, "bundle_not_folder"),
        BundleError::FileUnreadable { .. } => (Category::Bundle, "bundle_file_unreadable"),
        BundleError::FileTooLarge { .. } => (Category::Bundle, "bundle_file_too_large"),
        BundleError::ManifestSyntax { .. } => (Category::Bundle, "manifest_syntax"),
        BundleError::ManifestVersion { .. } => (Category::Bundle, "manifest_version"),
        BundleError::ManifestValue { .. } => (Category::Bundle, "manifest_value"),
        BundleError::FileMissing { .. } => (Category::Bundle, "bundle_file_missing"),
        BundleError::FileDiffers { .. } => (Category::Bundle, "bundle_file_differs"),
        BundleError::UnknownLabel { .. } => (Category::Usage, "label_unknown"),
        BundleError::NoTextTower { .. } => (Category::Usage, "no_text_tower"),
        BundleError::NoLabels { .. } => (Category::Usage, "no_labels"),
        BundleError::File(error) => of_file(error),
        BundleError::Tensor(_) => (Category::Bundle, "tensor"),
        BundleError::Text(error) => of_text(error),
    }
}
