//! Two places for bundles, of which one is in force: a new bundle goes into the other one, is tried, and then confirmed or given up.
//!
//! A folder holds the slots `a` and `b` and the file `state.json`, whose replacement by a rename is the switch. Nothing that is in force is
//! ever written into, so that a process that ends anywhere leaves a whole bundle in force. Without a slot in force, the bundle that the
//! device came with is.

mod archive;
mod error;
mod install;

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use archive::{pack, unpack};
pub(crate) use error::SlotsError;
pub(crate) use install::Installed;

use crate::error::Result;
use crate::files::{FileError, read_up_to, write_file};
use crate::limits::{CONFIG_BYTES_MAX, TRIAL_STARTS_MAX};
use crate::lock::{Lock, Resource};
use crate::signing::VersionMemory;

/// File of the state, in the slots' folder.
const STATE: &str = "state.json";
/// File that is locked while anything is changed.
const LOCK: &str = "slots.lock";
/// File that is locked by whoever uses the slots: a daemon as long as it runs.
const CLAIM: &str = "in-use.lock";
/// Version of the state's format.
const FORMAT: u32 = 1;

/// A slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Slot {
    /// The folder `a`.
    A,
    /// The folder `b`.
    B,
}

impl Slot {
    /// Name of its folder.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// A trial of the slot in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trial {
    /// The slot that was in force before, and is again if this one is given up; none for the bundle that the device came with.
    pub before: Option<Slot>,
    /// Time at which it began (milliseconds since 1970).
    pub since_unix_ms: u64,
    /// Starts of the daemon since then that did not come to their end (count).
    pub starts: u32,
}

/// A bundle that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GivenUp {
    /// Its slot.
    pub slot: Slot,
    /// Reason, in words.
    pub why: String,
    /// Time at which it was given up (milliseconds since 1970).
    pub unix_ms: u64,
}

/// Which slot is in force, and how surely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlotsState {
    /// Version of the format.
    pub format: u32,
    /// The slot in force; none for the bundle that the device came with.
    pub active: Option<Slot>,
    /// Its trial, until it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// The last bundle that was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<GivenUp>,
}

impl Default for SlotsState {
    fn default() -> Self {
        Self { format: FORMAT, active: None, trial: None, given_up: None }
    }
}

/// The right to change slots, which a daemon has as long as it runs.
#[derive(Debug)]
pub(crate) struct Claim {
    _lock: Lock,
}

/// The slots in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    folder: PathBuf,
}

impl Slots {
    /// The slots in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|source| FileError::Unwritable { path: folder.into(), source })?;
        Ok(Self { folder: folder.into() })
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of a slot.
    pub(crate) fn place(&self, slot: Slot) -> PathBuf {
        self.folder.join(slot.name())
    }

    /// The state; that of an unused folder if there is none yet.
    ///
    /// # Errors
    /// It cannot be read, or is of another version.
    pub(crate) fn state(&self) -> Result<SlotsState> {
        let path = self.folder.join(STATE);
        let bytes = match read_up_to(&path, CONFIG_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(SlotsState::default()),
            Err(source) => return Err(FileError::Unreadable { path, source }.into()),
        };
        let problem = |problem: String| SlotsError::State { path: path.clone(), problem };
        let state: SlotsState = serde_json::from_slice(&bytes).map_err(|error| problem(error.to_string()))?;
        if state.format != FORMAT {
            return Err(problem(format!("its format is {}, expected {FORMAT}", state.format)).into());
        }
        Ok(state)
    }

    /// The folder of the bundle in force, if a slot is.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub(crate) fn active(&self) -> Result<Option<PathBuf>> {
        Ok(self.state()?.active.map(|slot| self.place(slot)))
    }

    /// Claims the slots.
    ///
    /// # Errors
    /// A daemon or another command uses them, or the lock cannot be made.
    pub(crate) fn claim(&self) -> Result<Claim> {
        Ok(Claim { _lock: Lock::take(&self.folder.join(CLAIM), &self.folder, Resource::Slots)? })
    }

    fn lock(&self) -> Result<Lock> {
        Lock::take(&self.folder.join(LOCK), &self.folder, Resource::Slots)
    }

    /// The switch: what was before is in force until this returns, and what is new from then on.
    fn set(&self, state: &SlotsState) -> Result<()> {
        let json = serde_json::to_vec_pretty(state).expect("a record is always JSON");
        Ok(write_file(&self.folder.join(STATE), &json)?)
    }

    /// Confirms the bundle on trial. Without a trial nothing changes.
    ///
    /// # Errors
    /// The state cannot be read or written.
    pub(crate) fn confirm(&self) -> Result<SlotsState> {
        let _lock = self.lock()?;
        let mut state = self.state()?;
        if state.trial.take().is_some() {
            self.set(&state)?;
        }
        Ok(state)
    }

    /// Goes back: from a bundle on trial to the one before it, else to the bundle in the other slot if that was not given up, else to
    /// the bundle that the device came with. Versions are forgotten: what one goes back to is older.
    ///
    /// # Errors
    /// There is nothing to go back to, or the state cannot be read or written.
    pub(crate) fn go_back(&self, why: &str, unix_ms: u64) -> Result<SlotsState> {
        let _lock = self.lock()?;
        let mut state = self.state()?;
        let nothing = || SlotsError::NothingBefore { folder: self.folder.clone() };
        let left = state.active.ok_or_else(nothing)?;
        state.active = match state.trial.take() {
            Some(trial) => trial.before,
            None => {
                let was_given_up = |slot| state.given_up.as_ref().is_some_and(|given_up| given_up.slot == slot);
                let has_bundle = |slot| self.place(slot).join("manifest.json").is_file();
                Some(left.other()).filter(|&other| has_bundle(other) && !was_given_up(other))
            }
        };
        // Before the switch: a process that is killed in between starts with the bundle that is in force, whose version is noted anew.
        VersionMemory::in_folder(&self.folder).forget()?;
        state.given_up = Some(GivenUp { slot: left, why: why.into(), unix_ms });
        self.set(&state)?;
        Ok(state)
    }

    /// Counts a start of the daemon. One that begins too often during a trial goes back instead.
    ///
    /// # Errors
    /// The state cannot be read or written.
    pub(crate) fn count_start(&self, unix_ms: u64) -> Result<SlotsState> {
        let state = self.state()?;
        let Some(trial) = &state.trial else { return Ok(state) };
        if trial.starts >= TRIAL_STARTS_MAX {
            return self.go_back(&format!("the daemon ended {} times during the trial", trial.starts), unix_ms);
        }
        self.set_starts(|starts| starts + 1)
    }

    /// Notes that the daemon came to its end as it should: such a start does not count.
    ///
    /// # Errors
    /// The state cannot be read or written.
    pub(crate) fn count_end(&self) -> Result<()> {
        self.set_starts(|_| 0).map(|_| ())
    }

    fn set_starts(&self, change: impl FnOnce(u32) -> u32) -> Result<SlotsState> {
        let _lock = self.lock()?;
        let mut state = self.state()?;
        if let Some(trial) = &mut state.trial {
            let starts = change(trial.starts);
            if starts != trial.starts {
                trial.starts = starts;
                self.set(&state)?;
            }
        }
        Ok(state)
    }
}
