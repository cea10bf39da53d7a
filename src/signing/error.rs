//! Signatures that are refused, and keys that cannot be used.

use std::path::PathBuf;

use crate::error::{Category, Class, ProgramLayer};

/// A signature that is refused, or a key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SigningError {
    /// A bundle without a signature, where keys are trusted.
    #[error("{} is missing: with the keys in {} only signed bundles are opened; sign the bundle, or ask its maker for one that is signed", path.display(), keys.display())]
    Unsigned {
        /// The file that should be there.
        path: PathBuf,
        /// Folder of the trusted keys.
        keys: PathBuf,
    },
    /// A signature that is none.
    #[error("{} is not a signature of minisign: {problem}; sign the bundle again", path.display())]
    Malformed {
        /// The signature.
        path: PathBuf,
        /// Problem found.
        problem: String,
    },
    /// A signature of a key that is not trusted.
    #[error("{} is of a key that is not trusted; expected a signature of {expected}. Add the maker's public key to {} if you trust it", path.display(), keys.display())]
    UnknownKey {
        /// The signature.
        path: PathBuf,
        /// Names of the trusted keys.
        expected: String,
        /// Folder of the trusted keys.
        keys: PathBuf,
    },
    /// A signature of a trusted key over other bytes.
    #[error("{} is not the signature of this manifest, though the key {key} is trusted; the bundle was changed or copied badly: do not use it, get it again", path.display())]
    Wrong {
        /// The signature.
        path: PathBuf,
        /// Name of the key.
        key: String,
    },
    /// A signature whose trusted comment does not say what it must.
    #[error("the trusted comment of {} is {found:?}, expected \"rtpt name=NAME version=NUMBER\" and perhaps \"expires=YYYY-MM-DD\"; sign the bundle again", path.display())]
    Comment {
        /// The signature.
        path: PathBuf,
        /// Comment found.
        found: String,
    },
    /// A bundle whose name cannot stand in a trusted comment.
    #[error(
        "a bundle of the name {name:?} cannot be signed, expected a name without white space; change it in the manifest"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// A calibration that a signature is not over.
    #[error("the calibration {} {problem}; get the bundle again, or sign it again after calibrating", path.display())]
    Calibration {
        /// The file.
        path: PathBuf,
        /// Problem found.
        problem: String,
    },
    /// A signature that was made for a bundle of another name.
    #[error("the signature in {} is for {signed:?}, and the bundle is {found:?}; sign the bundle again", path.display())]
    OtherName {
        /// Folder of the bundle.
        path: PathBuf,
        /// Name in the trusted comment.
        signed: String,
        /// Name in the manifest.
        found: String,
    },
    /// A last day that is over.
    #[error("the signature would have expired on {on}, and today is {today}; choose a later day")]
    Past {
        /// Last day asked for.
        on: String,
        /// Date of this computer.
        today: String,
    },
    /// A signature that holds no longer.
    #[error("the signature {} expired on {on}, and today is {today}; get a newer bundle, or set the clock if it is wrong", path.display())]
    Expired {
        /// The signature.
        path: PathBuf,
        /// Last day on which it held.
        on: String,
        /// Date of this device.
        today: String,
    },
    /// A bundle that is older than one that was in force.
    #[error("the bundle in {} is version {found} of {name:?}, expected {least} or later, which was in force already; get the newer one, or go back to the other slot on purpose", path.display())]
    Older {
        /// Folder of the bundle.
        path: PathBuf,
        /// Name of the bundle.
        name: String,
        /// Version of the bundle.
        found: u64,
        /// Highest version that was in force.
        least: u64,
    },
    /// A manifest that changed while the bundle was opened.
    #[error("{} changed while the bundle was opened; open it again when nobody writes there", path.display())]
    Changed {
        /// The manifest.
        path: PathBuf,
    },
    /// Trusted keys that cannot be used.
    #[error("the trusted keys in {} cannot be used: {problem}; expected files NAME.pub, as minisign makes them", folder.display())]
    Keys {
        /// Folder of the keys.
        folder: PathBuf,
        /// Problem found.
        problem: String,
    },
    /// A secret key that cannot be used, or keys that cannot be made.
    #[error("the secret key {} cannot be used: {problem}", path.display())]
    SecretKey {
        /// File of the key.
        path: PathBuf,
        /// Problem found, and what to do.
        problem: String,
    },
}

impl ProgramLayer for SigningError {
    fn class(&self) -> Class {
        match self {
            Self::Unsigned { .. } => (Category::Bundle, "unsigned"),
            Self::Malformed { .. } | Self::Comment { .. } | Self::OtherName { .. } => {
                (Category::Bundle, "signature_malformed")
            }
            Self::UnknownKey { .. } => (Category::Bundle, "signature_key"),
            Self::Wrong { .. } | Self::Changed { .. } | Self::Calibration { .. } => {
                (Category::Bundle, "signature_wrong")
            }
            Self::Expired { .. } => (Category::Bundle, "signature_expired"),
            Self::Older { .. } => (Category::Bundle, "older_version"),
            Self::Keys { .. } | Self::SecretKey { .. } | Self::Name { .. } | Self::Past { .. } => {
                (Category::Usage, "keys")
            }
        }
    }
}
