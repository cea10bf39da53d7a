//! Signed bundles: whose they are, which version, and until when.
//!
//! A signature is minisign's, Ed25519 over BLAKE2b of `manifest.json`, in the file `manifest.json.minisig` beside it. The manifest has the
//! digest of every other file, so that the signature is over the whole bundle. The trusted comment, which is signed as well, says
//! `rtpt name=NAME version=N`, perhaps `expires=YYYY-MM-DD`, and `calibration=BLAKE3` where there is a calibration.

mod comment;
mod error;
mod keys;
mod sign;
#[cfg(feature = "daemon")]
mod versions;

use std::path::Path;

pub(crate) use comment::SignedFacts;
pub(crate) use error::SigningError;
pub(crate) use keys::TrustedKeys;
pub(crate) use sign::{make_keys, sign_bundle};
#[cfg(feature = "daemon")]
pub(crate) use versions::VersionMemory;

use crate::bundle::{Bundle, BundleError, TrustedCalibration};
use crate::calibration::Calibration;
use crate::error::Result;
use crate::files::read_up_to;
use crate::limits::{MANIFEST_BYTES_MAX, SIGNATURE_BYTES_MAX};
use minisign_verify::Signature;

/// File of the signature, in the bundle's folder.
pub(crate) const SIGNATURE: &str = "manifest.json.minisig";
/// File that is signed.
const MANIFEST: &str = "manifest.json";

/// A bundle that was opened, and what its signature says if it was looked at.
pub(crate) struct Opened {
    /// The bundle.
    pub bundle: Bundle,
    /// What its signature says; none if no keys are trusted, and nothing was asked for.
    pub signed: Option<SignedFacts>,
}

/// Opens the bundle in a folder; where keys are trusted, only one that is signed by one of them, for its own name, and has not expired.
///
/// # Errors
/// The signature is missing, malformed, of another key, of other content or of another name, or has expired; or the bundle cannot be opened.
pub(crate) fn open_bundle(folder: &Path, keys: Option<&TrustedKeys>) -> Result<Opened> {
    let Some(keys) = keys else {
        return Ok(Opened { bundle: Bundle::open(folder)?, signed: None });
    };
    // What is no bundle at all is told as such, and not as one without a signature.
    let path = folder.join(MANIFEST);
    if !path.is_file() {
        Bundle::open(folder)?;
        // It was not there and is now: what it says was verified by nobody.
        return Err(SigningError::Changed { path }.into());
    }
    let (facts, digest) = verify(folder, keys)?;
    let bundle = Bundle::open(folder)?;
    // Opened again by its name: another file may have it by now.
    if bundle.digest != digest {
        return Err(SigningError::Changed { path }.into());
    }
    if facts.name != bundle.manifest.name {
        let (signed, found) = (facts.name, bundle.manifest.name.clone());
        return Err(SigningError::OtherName { path: folder.into(), signed, found }.into());
    }
    let mut bundle = bundle;
    let trusted = trusted_calibration(&bundle, &facts)?;
    bundle.trust_calibration(trusted);
    Ok(Opened { bundle, signed: Some(facts) })
}

/// The calibration that a signature is over.
///
/// # Errors
/// It is over another one than there is.
fn trusted_calibration(bundle: &Bundle, facts: &SignedFacts) -> Result<TrustedCalibration> {
    let path = Calibration::path(bundle);
    let Some(signed) = facts.calibration else {
        if path.exists() {
            log::warn!("not using {}: the signature is not over it; sign the bundle again", path.display());
        }
        return Ok(TrustedCalibration::None);
    };
    let found = read_up_to(&path, MANIFEST_BYTES_MAX).map(|bytes| blake3::hash(&bytes));
    match found {
        Ok(digest) if digest == signed => Ok(TrustedCalibration::Of(signed)),
        Ok(_) => Err(SigningError::Calibration { path, problem: "is not the one that was signed".into() }.into()),
        Err(error) => Err(SigningError::Calibration { path, problem: format!("cannot be read: {error}") }.into()),
    }
}

/// Verifies the signature of a folder's manifest; what it says, and the digest of the manifest it is over.
fn verify(folder: &Path, keys: &TrustedKeys) -> Result<(SignedFacts, blake3::Hash)> {
    let path = folder.join(SIGNATURE);
    let unreadable = |source| BundleError::FileUnreadable { path: path.clone(), source };
    let text = match read_up_to(&path, SIGNATURE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(SigningError::Unsigned { path, keys: keys.folder().into() }.into());
        }
        Err(error) => return Err(unreadable(error).into()),
    };
    let manifest = folder.join(MANIFEST);
    let bytes = read_up_to(&manifest, MANIFEST_BYTES_MAX)
        .map_err(|source| BundleError::FileUnreadable { path: manifest, source })?;
    let facts = check_signature(&path, &text, &bytes, keys)?;
    facts.check_expiry(&path)?;
    Ok((facts, blake3::hash(&bytes)))
}

/// What a signature says of some bytes, if one of the keys made it.
///
/// # Errors
/// It is malformed, of none of the keys, or of other bytes.
pub(crate) fn check_signature(
    path: &Path,
    signature: &[u8],
    bytes: &[u8],
    keys: &TrustedKeys,
) -> std::result::Result<SignedFacts, SigningError> {
    let malformed = |problem: String| SigningError::Malformed { path: path.into(), problem };
    let text = std::str::from_utf8(signature).map_err(|error| malformed(error.to_string()))?;
    // The library takes the line's prefix for granted where it gives the comment.
    let comment = text.lines().nth(2).and_then(|line| line.strip_prefix("trusted comment: "));
    let comment = comment.ok_or_else(|| malformed("it has no trusted comment".into()))?;
    let signature = Signature::decode(text).map_err(|error| malformed(error.to_string()))?;
    let key = keys.maker_of(path, bytes, &signature)?;
    SignedFacts::parse(comment, key).ok_or_else(|| SigningError::Comment { path: path.into(), found: comment.into() })
}
