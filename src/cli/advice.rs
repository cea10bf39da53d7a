//! Advice in the words of the command line: the flag or command that helps with an error of the library.

use crate::bundle::BundleError;
use crate::encoder::EncoderError;
use crate::error::Error;
use crate::text::TextError;

/// The flag or command that helps, where there is one.
pub(super) fn advice(error: &Error) -> Option<&'static str> {
    match error {
        Error::Bundle(error) => of_bundle(error),
        Error::Encoder(EncoderError::Run { .. } | EncoderError::NotFinite { .. } | EncoderError::Zero { .. })
        | Error::Text(TextError::NotFinite { .. }) => Some(CHECK),
        _ => None,
    }
}

const CHECK: &str = "run `rtpt bundle check`";

fn of_bundle(error: &BundleError) -> Option<&'static str> {
    match error {
        BundleError::NotFound { .. } => Some("give one with --bundle DIR or RTPT_BUNDLE"),
        BundleError::NoLabels { .. } => Some("give them with --labels FILE, one a line"),
        BundleError::NoTextTower { .. } | BundleError::UnknownLabel { .. } => {
            Some("`rtpt bundle info --classes` lists its classes")
        }
        _ => None,
    }
}
