//! Archives of bundles: `.tar` and `.tar.zst`, unpacked entry by entry, each checked and bounded.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use ruzstd::decoding::StreamingDecoder;
use tar::{Archive, EntryType};

use super::SlotsError;
use crate::bundle::Bundle;
use crate::calibration::FILE_NAME as CALIBRATION;
use crate::error::Result;
use crate::files::{FileError, open_regular};
use crate::limits::{ARCHIVE_BYTES_MAX, ARCHIVE_DEPTH_MAX, ARCHIVE_ENTRIES_MAX};
use crate::signing::SIGNATURE;

/// The first bytes of a Zstandard frame (RFC 8878, section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Unpacks the archive at `path`, which messages call `name`, into the empty folder `target`.
///
/// # Errors
/// It is no archive or damaged; an entry is a link or a device, leads out of the folder, or is there twice; there are too many, or they are too
/// large; or a file cannot be written.
pub(crate) fn unpack(path: &Path, name: &str, target: &Path) -> Result<()> {
    let unreadable = |source| FileError::Unreadable { path: path.into(), source };
    let mut file = open_regular(path).map_err(unreadable)?;
    let mut magic = Vec::new();
    Read::by_ref(&mut file).take(4).read_to_end(&mut magic).map_err(unreadable)?;
    file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    if magic == ZSTD_MAGIC {
        let decoder = StreamingDecoder::new(file).map_err(|error| broken(name, &io::Error::other(error)))?;
        unpack_tar(decoder, name, target)
    } else {
        unpack_tar(file, name, target)
    }
}

/// An archive that cannot be read. The libraries' words have bytes of the archive in them, and are for the log.
fn broken(name: &str, error: &io::Error) -> SlotsError {
    log::debug!("{name}: {error:?}");
    let problem = "it is damaged, cut short, or no archive; copy it again".into();
    SlotsError::Source { name: name.into(), problem }
}

/// Writes the files of the bundle in `folder`, with its signature and calibration if it has them, as a `.tar`.
///
/// # Errors
/// The folder has no bundle, or a file cannot be read or written.
pub(crate) fn pack(folder: &Path, target: File) -> Result<()> {
    let bundle = Bundle::open(folder)?;
    let failed = |source| FileError::Unreadable { path: folder.into(), source };
    let mut builder = tar::Builder::new(target);
    for name in files_beside(&bundle, folder) {
        let mut file = open_regular(&folder.join(&name)).map_err(failed)?;
        builder.append_file(&name, &mut file).map_err(failed)?;
    }
    Ok(builder.into_inner().and_then(|file| file.sync_all()).map_err(failed)?)
}

/// Names of a bundle's files: the manifest, what it names, and signature and calibration if there are any.
pub(super) fn files_beside(bundle: &Bundle, folder: &Path) -> Vec<String> {
    let calibration = Some(CALIBRATION.to_string()).filter(|name| folder.join(name).exists());
    files_of(bundle, folder).into_iter().chain(calibration).collect()
}

/// Names of a bundle's files that are verified: the manifest, what it names, and the signature if there is one.
pub(super) fn files_of(bundle: &Bundle, folder: &Path) -> Vec<String> {
    let own = ["manifest.json", SIGNATURE].map(String::from);
    let names = own.into_iter().filter(|name| name != SIGNATURE || folder.join(name).exists());
    names.chain(bundle.manifest.files.keys().cloned()).collect()
}

fn unpack_tar(bytes: impl Read, archive_name: &str, target: &Path) -> Result<()> {
    // What the decoder makes is counted, whatever the headers say: padding and headers are bytes as well.
    let mut archive = Archive::new(bytes.take(ARCHIVE_BYTES_MAX + 1));
    let broken = |error: io::Error| broken(archive_name, &error);
    let mut names = BTreeSet::new();
    let mut total = 0_u64;
    for (number, entry) in archive.entries().map_err(broken)?.enumerate() {
        let mut entry = entry.map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refused = |problem: &str| SlotsError::Entry { entry: name.clone(), problem: problem.into() };
        if number >= ARCHIVE_ENTRIES_MAX {
            return Err(refused(&format!("there are more than {ARCHIVE_ENTRIES_MAX} entries")).into());
        }
        match entry.header().entry_type() {
            // Folders are made as files need them.
            EntryType::Directory => continue,
            EntryType::Regular => {}
            _ => return Err(refused("it is neither a file nor a folder").into()),
        }
        let inside = path_inside(Path::new(&name)).map_err(refused)?;
        if !names.insert(inside.clone()) {
            return Err(refused("the archive has it twice").into());
        }
        total = total.saturating_add(entry.size());
        if total > ARCHIVE_BYTES_MAX {
            return Err(refused(&format!("all files together are more than {} MiB", ARCHIVE_BYTES_MAX >> 20)).into());
        }
        let place = target.join(&inside);
        let unwritable = |source| FileError::Unwritable { path: place.clone(), source };
        fs::create_dir_all(place.parent().unwrap_or(target)).map_err(unwritable)?;
        // The folder is this program's own and was empty: there is nothing that could be followed or written over.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&place).map_err(unwritable)?;
        copy(&mut entry, &mut file, archive_name, &place)?;
        file.sync_all().map_err(unwritable)?;
    }
    if names.is_empty() {
        let problem = "it has no files".into();
        return Err(SlotsError::Source { name: archive_name.into(), problem }.into());
    }
    Ok(())
}

/// Copies to the end; errors of the archive and of the disk are told apart.
fn copy(from: &mut impl Read, to: &mut File, archive: &str, place: &Path) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(archive, &error).into()),
        };
        to.write_all(&buffer[..count]).map_err(|source| FileError::Unwritable { path: place.into(), source })?;
    }
}

/// A path of plain names, below the folder.
fn path_inside(path: &Path) -> std::result::Result<PathBuf, &'static str> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => inside.push(name),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err("it leads out of the bundle's folder");
            }
        }
    }
    match inside.components().count() {
        0 => Err("it has no name"),
        depth if depth > ARCHIVE_DEPTH_MAX => Err("its folders are nested too deeply"),
        _ => Ok(inside),
    }
}
