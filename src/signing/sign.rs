//! Making keys and signatures: what is done on the maker's computer.

use std::io::{self, Cursor};
use std::ops::Range;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::civil::Date;
use minisign::{KeyPair, SecretKey, SecretKeyBox};

use super::{MANIFEST, SIGNATURE, SignedFacts, SigningError};
use crate::bundle::Bundle;
use crate::calibration::Calibration;
use crate::error::Result;
use crate::files::{Durability, FileError, Readers, read_up_to, write_file, write_file_as};
use crate::limits::{MANIFEST_BYTES_MAX, SIGNATURE_BYTES_MAX};

/// Length of a secret key (bytes), and where it says how it is encrypted: not at all if these are zero.
const SECRET_KEY_BYTES: usize = 158;
const KDF: Range<usize> = 2..4;

/// The two files of a pair of keys.
pub(crate) struct KeyPairFiles {
    /// `NAME.key`, which its owner alone may read.
    pub secret: PathBuf,
    /// `NAME.pub`.
    pub public: PathBuf,
}

/// Makes a pair of keys in the files `NAME.key` and `NAME.pub`; the secret one is encrypted if a password is given.
///
/// # Errors
/// A file is there already or cannot be written, or the system has no random numbers.
pub(crate) fn make_keys(name: &Path, password: Option<String>) -> Result<KeyPairFiles> {
    let with = |end: &str| {
        let mut path = name.as_os_str().to_owned();
        path.push(end);
        PathBuf::from(path)
    };
    let files = KeyPairFiles { secret: with(".key"), public: with(".pub") };
    for path in [&files.secret, &files.public] {
        // A key that is written over is lost, with all that it has signed.
        if path.symlink_metadata().is_ok() {
            return Err(FileError::Exists { path: path.clone() }.into());
        }
    }
    let failed =
        |error: minisign::PError| SigningError::SecretKey { path: files.secret.clone(), problem: error.to_string() };
    let pair = match password {
        Some(password) => KeyPair::generate_encrypted_keypair(Some(password)),
        None => KeyPair::generate_unencrypted_keypair(),
    };
    let KeyPair { pk, sk } = pair.map_err(failed)?;
    let secret = sk.to_box(Some("secret key for bundles of rtpt; keep it to yourself")).map_err(failed)?.into_string();
    write_file_as(&files.secret, secret.as_bytes(), Readers::Owner, Durability::Synced)?;
    write_file(&files.public, pk.to_box().map_err(failed)?.into_string().as_bytes())?;
    Ok(files)
}

/// Signs the bundle in a folder, which is verified before; `password` is asked for the password of a key that is encrypted.
///
/// # Errors
/// The bundle cannot be opened, its name cannot stand in a comment, the key cannot be used, or the signature cannot be written.
pub(crate) fn sign_bundle(
    folder: &Path,
    key: &Path,
    version: u64,
    expires: Option<Date>,
    password: impl FnOnce() -> io::Result<String>,
) -> Result<SignedFacts> {
    let bundle = Bundle::open(folder)?;
    let name = bundle.manifest.name.clone();
    let path = folder.join(MANIFEST);
    let bytes =
        read_up_to(&path, MANIFEST_BYTES_MAX).map_err(|source| FileError::Unreadable { path: path.clone(), source })?;
    if bundle.digest != blake3::hash(&bytes) {
        return Err(SigningError::Changed { path }.into());
    }
    let calibration = match read_up_to(&Calibration::path(&bundle), MANIFEST_BYTES_MAX) {
        Ok(bytes) => Some(blake3::hash(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(FileError::Unreadable { path: Calibration::path(&bundle), source }.into()),
    };
    let facts = SignedFacts { name, version, expires, calibration, key: String::new() };
    let comment = facts.comment();
    // A name with white space would be read as more fields.
    if SignedFacts::parse(&comment, String::new()).as_ref() != Some(&facts) {
        return Err(SigningError::Name { name: facts.name }.into());
    }
    if let Some((on, today)) = facts.over() {
        return Err(SigningError::Past { on: on.to_string(), today: today.to_string() }.into());
    }
    let key = secret_key(key, password)?;
    let failed = |error: minisign::PError| SigningError::SecretKey { path: folder.into(), problem: error.to_string() };
    let untrusted = format!("signature of the rtpt bundle {}", facts.name);
    let signature =
        minisign::sign(None, &key, Cursor::new(&bytes), Some(&comment), Some(&untrusted)).map_err(failed)?;
    // A key that was damaged signs all the same, and nobody could verify it.
    let own = minisign::PublicKey::from_secret_key(&key).map_err(failed)?;
    minisign::verify(&own, &signature, Cursor::new(&bytes), true, false, false).map_err(failed)?;
    write_file(&folder.join(SIGNATURE), signature.into_string().as_bytes())?;
    Ok(facts)
}

fn secret_key(path: &Path, password: impl FnOnce() -> io::Result<String>) -> Result<SecretKey> {
    let unreadable = |source| FileError::Unreadable { path: path.into(), source };
    let text = read_up_to(path, SIGNATURE_BYTES_MAX).map_err(unreadable)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let problem = |problem: String| SigningError::SecretKey { path: path.into(), problem };
    let no_key = "it is no secret key; expected the file NAME.key of a pair of keys, or minisign's";
    let bytes = text.lines().nth(1).and_then(|line| BASE64.decode(line.trim()).ok());
    let bytes = bytes.filter(|bytes| bytes.len() == SECRET_KEY_BYTES).ok_or_else(|| problem(no_key.into()))?;
    // Read by hand: minisign writes no checksum into a key that is not encrypted, and the library asks for one.
    if bytes[KDF] == [0, 0] {
        return Ok(SecretKey::from_bytes(&bytes).map_err(|error| problem(error.to_string()))?);
    }
    let password = password().map_err(|error| problem(format!("no password: {error}")))?;
    let key = SecretKeyBox::from_string(&text).and_then(|key| key.into_secret_key(Some(password)));
    Ok(key.map_err(|error| problem(format!("{error}; is the password right?")))?)
}
