//! The bundle in force: its signature, its slot, and its trial.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::health::{Health, TrialSettings, Verdict};
use super::model_in_force::ModelInForce;
use super::protocol::{BundleRecord, GivenUpRecord, SCHEMA, SignedRecord};
use crate::bundle::Bundle;
use crate::check::{check_goldens, require_goldens};
use crate::error::Result;
use crate::signing::{SignedFacts, TrustedKeys, VersionMemory};
use crate::slots::{Slots, SlotsState};
use crate::stream::unix_ms;

/// Function that reads the trusted keys, anew with each call.
type Keys = Box<dyn Fn() -> Result<Option<TrustedKeys>> + Send + Sync>;

/// Slots, and how a bundle is tried in them.
pub(crate) struct SlotsSettings {
    /// The slots.
    pub slots: Slots,
    /// The keys whose bundles may be installed.
    pub keys: Keys,
    /// Bounds of a trial.
    pub trial: TrialSettings,
}

/// What is known of the bundle in force besides the model that was made of it.
pub(crate) struct Bundles {
    settings: Option<SlotsSettings>,
    versions: VersionMemory,
    in_force: Mutex<InForce>,
    model: Arc<ModelInForce>,
    health: Arc<Health>,
}

/// The bundle that was loaded last.
#[derive(Clone, Default)]
struct InForce {
    /// Name and digest.
    id: Option<String>,
    /// What its signature says, if keys are trusted.
    signed: Option<SignedFacts>,
}

impl Bundles {
    /// The bundles of a daemon whose folder is `state`.
    pub(crate) fn new(
        settings: Option<SlotsSettings>,
        state: &Path,
        model: Arc<ModelInForce>,
        health: Arc<Health>,
    ) -> Self {
        // Beside the slots where there are any: who goes back by hand has no other folder of the daemon.
        let folder = settings.as_ref().map_or(state, |settings| settings.slots.folder());
        let versions = VersionMemory::in_folder(folder);
        Self { versions, settings, in_force: Mutex::default(), model, health }
    }

    fn slots(&self) -> Option<&Slots> {
        self.settings.as_ref().map(|settings| &settings.slots)
    }

    /// Folder of the slots, if there are any.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        Some(self.slots()?.folder().into())
    }

    /// The state of the slots; nothing without slots. One that cannot be read is told, and is as if there were none.
    fn state(&self) -> Option<SlotsState> {
        let state = self.slots()?.state();
        state.inspect_err(|error| log::error!("the bundle slots cannot be used: {error}")).ok()
    }

    /// True if a slot is in force, from which one can go back.
    pub(crate) fn is_in_slot(&self) -> bool {
        self.state().is_some_and(|state| state.active.is_some())
    }

    /// True while the bundle in force is on trial.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.state().is_some_and(|state| state.trial.is_some())
    }

    /// Counts a start of the daemon, which ends the trial of a bundle with which it does not stay up.
    pub(crate) fn count_start(&self) {
        let Some(slots) = self.slots() else { return };
        let counted = slots.tidy().and_then(|()| slots.count_start(unix_ms()));
        if let Err(error) = counted {
            log::error!("the bundle slots cannot be used: {error}");
        }
    }

    /// Notes that the daemon ends as it should.
    pub(crate) fn note_end(&self) {
        if let Some(slots) = self.slots().filter(|_| self.is_on_trial())
            && let Err(error) = slots.count_end()
        {
            log::warn!("the end cannot be noted beside the bundle slots: {error}");
        }
    }

    /// Checks a bundle before it is loaded: that none newer was in force, and on trial its goldens.
    ///
    /// # Errors
    /// It is older, or does not reproduce its goldens on this device.
    pub(crate) fn check(&self, bundle: &Bundle, signed: Option<&SignedFacts>) -> Result<()> {
        if let Some(signed) = signed {
            self.versions.check(&bundle.folder, signed)?;
        }
        if self.is_on_trial() {
            require_goldens(&check_goldens(bundle)?)?;
        }
        Ok(())
    }

    /// Notes the bundle that comes into force; before the model does, so that whoever sees the model sees this.
    pub(crate) fn note_in_force(&self, id: String, signed: Option<SignedFacts>) {
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) = InForce { id: Some(id), signed };
        self.remember_version();
        self.publish();
    }

    /// Remembers the version in force, unless it is on trial: who gives it up must be able to go back.
    fn remember_version(&self) {
        let InForce { signed, .. } = self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(signed) = signed.filter(|_| !self.is_on_trial())
            && let Err(error) = self.versions.remember(&signed)
        {
            log::warn!("the bundle's version cannot be remembered: {error}");
        }
    }

    /// Installs an archive into the free slot and puts it in force for the next load, on trial.
    ///
    /// # Errors
    /// It is no bundle that may be installed; what was in force stays.
    pub(crate) fn install(&self, archive: &Path) -> Result<()> {
        let Some(SlotsSettings { slots, keys, .. }) = &self.settings else { return Ok(()) };
        let installed = slots.install(archive, "the archive", keys()?.as_ref(), &self.versions, unix_ms())?;
        self.health.expect_another();
        log::info!("{} is in slot {}, on trial", installed.id, installed.slot.name());
        Ok(())
    }

    /// Goes back to the bundle before; the next load opens it.
    ///
    /// # Errors
    /// There is none, or the state cannot be written.
    pub(crate) fn go_back(&self, why: &str) -> Result<()> {
        let Some(slots) = self.slots() else { return Ok(()) };
        log::error!("the bundle in force is given up: {why}");
        let state = slots.go_back(why, unix_ms())?;
        self.health.expect_another();
        let place =
            state.active.map_or("the bundle that the device came with".into(), |slot| format!("slot {}", slot.name()));
        log::warn!("going back to {place}");
        self.publish();
        Ok(())
    }

    /// Confirms the bundle on trial.
    ///
    /// # Errors
    /// The state cannot be written.
    pub(crate) fn confirm(&self) -> Result<()> {
        let Some(slots) = self.slots() else { return Ok(()) };
        let was = self.is_on_trial();
        slots.confirm()?;
        self.remember_version();
        self.publish();
        if was {
            log::info!("the bundle on trial is confirmed");
        }
        Ok(())
    }

    /// The reason for which the bundle that was installed last was given up, if it was.
    pub(crate) fn why_given_up(&self) -> Option<String> {
        let state = self.state()?;
        state.given_up.filter(|_| state.trial.is_none()).map(|given_up| given_up.why)
    }

    /// The verdict on the bundle in force, if it is on trial.
    pub(crate) fn verdict(&self, is_fed: bool) -> Verdict {
        // From memory: this is asked every second, and a disk may block.
        let on_trial = self.model.bundle().is_some_and(|bundle| bundle.is_on_trial());
        match &self.settings {
            Some(settings) if on_trial => self.health.verdict(is_fed, &settings.trial),
            _ => Verdict::Open,
        }
    }

    /// Shows the state to clients.
    fn publish(&self) {
        let (Some(slots), Some(state)) = (self.slots(), self.state()) else { return };
        let InForce { id, signed } = self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let given_up = state.given_up.map(|given_up| GivenUpRecord {
            slot: given_up.slot.name().into(),
            why: given_up.why,
            unix_ms: given_up.unix_ms,
        });
        self.model.set_bundle(BundleRecord {
            schema: SCHEMA,
            bundle: id,
            signed: signed.map(|signed| SignedRecord {
                version: signed.version,
                key: signed.key,
                expires: signed.expires.map(|date| date.to_string()),
            }),
            folder: slots.folder().display().to_string(),
            slot: state.active.map(|slot| slot.name().into()),
            state: if state.trial.is_some() { BundleRecord::ON_TRIAL } else { "confirmed" }.into(),
            since_unix_ms: state.trial.map(|trial| trial.since_unix_ms),
            given_up,
        });
    }
}
