//! Installing a bundle into the slot that is not in force.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::archive::{files_beside, files_of, unpack};
use super::{Slot, Slots, SlotsError, SlotsState, Trial};
use crate::bundle::Bundle;
use crate::calibration::FILE_NAME as CALIBRATION;
use crate::check::{Deviation, check_goldens, require_goldens};
use crate::error::Result;
use crate::files::{FileError, open_regular, sync_folder};
use crate::limits::ARCHIVE_BYTES_MAX;
use crate::signing::{SignedFacts, TrustedKeys, VersionMemory, open_bundle};

/// What was installed, and is on trial.
pub(crate) struct Installed {
    /// Name and digest of the bundle.
    pub id: String,
    /// Its slot.
    pub slot: Slot,
    /// What its signature says, if keys are trusted.
    pub signed: Option<SignedFacts>,
    /// Its deviations from its goldens on this device.
    pub deviations: Vec<Deviation>,
}

/// Folder in which a bundle is made ready, and one in which the old one goes.
const WORKPLACES: [&str; 2] = ["incoming", "outgoing"];

impl Slots {
    /// Installs a bundle from a folder or archive, which messages call `name`: verified, checked with its goldens, then put into the other slot and in force, on trial.
    ///
    /// # Errors
    /// A bundle is on trial already, the source is no bundle, it is not signed as it must be or older than one that was in force, it does not
    /// reproduce its goldens, or something cannot be written. What was in force stays.
    pub(crate) fn install(
        &self,
        source: &Path,
        name: &str,
        keys: Option<&TrustedKeys>,
        versions: &VersionMemory,
        unix_ms: u64,
    ) -> Result<Installed> {
        let _lock = self.lock()?;
        let state = self.state()?;
        if let (Some(_), Some(active)) = (&state.trial, state.active) {
            return Err(SlotsError::OnTrial { slot: active.name() }.into());
        }
        self.clear()?;
        let outcome = self
            .unpack_source(source, name)
            .and_then(|folder| self.install_unpacked(&folder, keys, versions, &state, unix_ms));
        // Whatever came of it: room on a device is dear.
        let cleared = self.clear();
        let installed = outcome?;
        cleared?;
        Ok(installed)
    }

    /// The folder with the files of a bundle's folder or archive.
    fn unpack_source(&self, source: &Path, name: &str) -> Result<PathBuf> {
        let incoming = self.folder.join(WORKPLACES[0]);
        fs::create_dir(&incoming).map_err(unwritable(&incoming))?;
        let found = source.metadata().map_err(|error| FileError::Unreadable { path: source.into(), source: error })?;
        if found.is_dir() {
            copy_bundle(source, name, &incoming)?;
        } else {
            unpack(source, name, &incoming)?;
        }
        // `tar` of a folder has the folder's name before all others.
        Ok(only_folder(&incoming).unwrap_or(incoming))
    }

    fn install_unpacked(
        &self,
        bundle_folder: &Path,
        keys: Option<&TrustedKeys>,
        versions: &VersionMemory,
        state: &SlotsState,
        unix_ms: u64,
    ) -> Result<Installed> {
        let opened = open_bundle(bundle_folder, keys)?;
        if let Some(signed) = &opened.signed {
            versions.check(bundle_folder, signed)?;
        }
        let mut names = files_of(&opened.bundle, bundle_folder);
        // With a signature only where that is over it, too.
        if opened.signed.as_ref().is_none_or(|signed| signed.calibration.is_some()) {
            names.push(CALIBRATION.into());
        }
        keep_only(bundle_folder, bundle_folder, &names)?;
        let id = opened.bundle.id();
        if state.active.is_some_and(|slot| same_manifest(&self.place(slot), bundle_folder)) {
            return Err(SlotsError::Same { id }.into());
        }
        let deviations = check_goldens(&opened.bundle)?;
        require_goldens(&deviations)?;
        sync_folder(bundle_folder).map_err(unwritable(bundle_folder))?;
        let slot = state.active.map_or(Slot::A, Slot::other);
        let (place, outgoing) = (self.place(slot), self.folder.join(WORKPLACES[1]));
        if place.exists() {
            fs::rename(&place, &outgoing).map_err(unwritable(&outgoing))?;
        }
        fs::rename(bundle_folder, &place).map_err(unwritable(&place))?;
        // The bundle is on the disk under its name before it is in force.
        sync_folder(&self.folder).map_err(unwritable(&self.folder))?;
        let trial = Some(Trial { before: state.active, since_unix_ms: unix_ms, starts: 0 });
        // What was given up in this slot is gone.
        let given_up = state.given_up.clone().filter(|given_up| given_up.slot != slot);
        self.set(&SlotsState { active: Some(slot), trial, given_up, ..state.clone() })?;
        Ok(Installed { id, slot, signed: opened.signed, deviations })
    }

    /// Removes what runs that ended on the way left behind, uploads as well.
    ///
    /// # Errors
    /// Another program changes the slots, or something cannot be removed.
    pub(crate) fn tidy(&self) -> Result<()> {
        let _lock = self.lock()?;
        let failed = |source| FileError::Unwritable { path: self.folder.clone(), source };
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Temporary files have names that begin so; slots and the state do not.
            if entry.file_name().to_string_lossy().starts_with('.') && entry.path().is_file() {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        self.clear()
    }

    /// Removes what a run that ended on the way left behind.
    fn clear(&self) -> Result<()> {
        for name in WORKPLACES {
            let path = self.folder.join(name);
            match fs::remove_dir_all(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(FileError::Unwritable { path, source }.into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn unwritable(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_path_buf();
    move |source| FileError::Unwritable { path, source }
}

/// The folder in another one, if that is all there is.
fn only_folder(folder: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder).ok()?;
    let first = entries.next()?.ok()?.path();
    (entries.next().is_none() && first.is_dir()).then_some(first)
}

/// Removes the files of a folder that have none of these names, by which nothing comes to a device that nobody verified.
fn keep_only(root: &Path, folder: &Path, names: &[String]) -> Result<()> {
    let failed = |source| FileError::Unwritable { path: folder.into(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.strip_prefix(root).expect("it is below the root").to_string_lossy().into_owned();
        if path.is_dir() {
            keep_only(root, &path, names)?;
        } else if !names.contains(&name) {
            log::warn!("{name} is no file of the bundle and is left out");
            fs::remove_file(&path).map_err(failed)?;
        }
    }
    Ok(())
}

fn same_manifest(one: &Path, other: &Path) -> bool {
    let read = |folder: &Path| fs::read(folder.join("manifest.json")).ok();
    read(one).is_some_and(|bytes| Some(bytes) == read(other))
}

/// Copies a bundle's files: the manifest, what it names, the signature and the calibration.
fn copy_bundle(source: &Path, name: &str, target: &Path) -> Result<()> {
    // Opened first, so that nothing but a bundle is copied. The copy is verified again.
    let bundle = Bundle::open(source)?;
    let mut total = 0;
    for file in files_beside(&bundle, source) {
        let (from, to) = (source.join(&file), target.join(&file));
        let unreadable = |error| FileError::Unreadable { path: from.clone(), source: error };
        let unwritable = |error| FileError::Unwritable { path: to.clone(), source: error };
        fs::create_dir_all(to.parent().unwrap_or(target)).map_err(unwritable)?;
        let mut input = open_regular(&from).map_err(unreadable)?;
        total += input.metadata().map_err(unreadable)?.len();
        if total > ARCHIVE_BYTES_MAX {
            let problem = format!("its files are more than {} MiB", ARCHIVE_BYTES_MAX >> 20);
            return Err(SlotsError::Source { name: name.into(), problem }.into());
        }
        let mut output = File::create_new(&to).map_err(unwritable)?;
        io::copy(&mut input, &mut output).map_err(unwritable)?;
        output.sync_all().map_err(unwritable)?;
    }
    Ok(())
}
