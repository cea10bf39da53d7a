//! How the model in force does: what the trial of a bundle is judged by.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::answer::Answer;

/// What images of one model have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    /// Images that were answered (count).
    pub images: u64,
    /// Images that the model could not answer, through no fault of theirs (count).
    pub faults: u64,
    /// Images among the answered whose tamper score has a threshold (count).
    pub judged: u64,
    /// Images among these that are suspicious (count).
    pub suspicious: u64,
    /// Views that were encoded (count).
    pub views: u64,
    /// Time that making and encoding these took (milliseconds).
    pub milliseconds: f64,
}

impl Tally {
    /// Time a view (milliseconds), where enough were encoded to say.
    fn time_a_view(&self) -> Option<f64> {
        (self.views >= VIEWS_MIN).then(|| self.milliseconds / self.views as f64)
    }

    /// Share of suspicious images, where enough were judged to say.
    fn share_suspicious(&self) -> Option<f64> {
        (self.judged >= IMAGES_MIN).then(|| self.suspicious as f64 / self.judged as f64)
    }
}

/// Images, and views, from which on a share or a time is taken for one (count).
const IMAGES_MIN: u64 = 20;
const VIEWS_MIN: u64 = 20;
/// Faults that end a trial (count), and the share of all images that they must be.
const FAULTS: (u64, f64) = (3, 0.02);
/// Share of suspicious images that ends a trial, unless the bundle before had nearly as large a one.
const SUSPICIOUS: (f64, f64) = (0.5, 0.25);

/// The tallies of the model in force, and of the one before it.
#[derive(Default)]
pub(crate) struct Health(Mutex<Tallies>);

#[derive(Default)]
struct Tallies {
    now: Tally,
    before: Option<Tally>,
    /// When the model came into force, by a clock that nobody sets; none before the first.
    since: Option<Instant>,
    /// True if the next model is judged anew, also where it is the same bundle.
    is_other_next: bool,
}

/// What a trial has shown so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing yet that decides.
    Open,
    /// The bundle does well.
    Confirm,
    /// The bundle is to be given up, for this reason.
    GiveUp(String),
}

/// Bounds of a trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TrialSettings {
    /// Time after which a bundle that does well is confirmed (seconds).
    pub seconds: u64,
    /// How many times as long as the bundle before it may take a view.
    pub slower: f64,
}

impl Health {
    fn tallies(&self) -> MutexGuard<'_, Tallies> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an image that was answered.
    pub(crate) fn note_answer(&self, answer: &Answer) {
        let tamper = answer.is_suspicious();
        let now = &mut self.tallies().now;
        now.images += 1;
        now.judged += u64::from(tamper.is_some());
        now.suspicious += u64::from(tamper == Some(true));
        // What came from the cache says nothing of the encoder.
        if !answer.features.cached {
            now.views += answer.features.views.count as u64;
            now.milliseconds += answer.timings.views + answer.timings.encode;
        }
    }

    /// Notes an image that the model could not answer.
    pub(crate) fn note_fault(&self) {
        self.tallies().now.faults += 1;
    }

    /// Notes that a bundle was installed or given up: the next model begins anew, also if its manifest is the same.
    pub(crate) fn expect_another(&self) {
        self.tallies().is_other_next = true;
    }

    /// Takes on a model. Another one, whose tally is compared with this one's, begins anew; the same one, loaded again, is judged on.
    pub(crate) fn take_on(&self, is_other: bool) {
        let mut tallies = self.tallies();
        if is_other || tallies.is_other_next {
            let before = Some(std::mem::take(&mut tallies.now));
            *tallies = Tallies { before, since: Some(Instant::now()), ..Tallies::default() };
        }
    }

    /// The verdict on the model in force; `is_fed` says whether there is a source of frames.
    pub(crate) fn verdict(&self, is_fed: bool, settings: &TrialSettings) -> Verdict {
        let Tallies { now, before, since, is_other_next } = &*self.tallies();
        // Until the engine has the other one, these are the tallies of the one before.
        let Some(since) = since.filter(|_| !is_other_next) else { return Verdict::Open };
        judge(now, before.as_ref(), since.elapsed().as_secs(), is_fed, settings)
    }
}

fn judge(now: &Tally, before: Option<&Tally>, seconds: u64, is_fed: bool, settings: &TrialSettings) -> Verdict {
    let all = now.images + now.faults;
    if now.faults >= FAULTS.0 && now.faults as f64 > FAULTS.1 * all as f64 {
        return Verdict::GiveUp(format!("the model failed on {} of {all} images", now.faults));
    }
    let earlier = before.and_then(Tally::time_a_view);
    if let (Some(time), Some(earlier)) = (now.time_a_view(), earlier)
        && time > settings.slower * earlier
    {
        return Verdict::GiveUp(format!(
            "a view takes {time:.1} ms, more than {} times the {earlier:.1} ms of the bundle before",
            settings.slower
        ));
    }
    let (most, usual) = SUSPICIOUS;
    let earlier = before.and_then(Tally::share_suspicious);
    if let Some(share) = now.share_suspicious().filter(|&share| share > most && earlier.is_none_or(|it| it < usual)) {
        let earlier = earlier.map_or("too few are known of the bundle before".into(), |earlier| {
            format!("{:.0} % with the bundle before", 100.0 * earlier)
        });
        return Verdict::GiveUp(format!("{:.0} % of the images look tampered with, {earlier}", 100.0 * share));
    }
    // Where frames should come and none was answered, nothing is known yet.
    if seconds >= settings.seconds && (now.images > 0 || !is_fed) { Verdict::Confirm } else { Verdict::Open }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: TrialSettings = TrialSettings { seconds: 300, slower: 3.0 };

    fn well() -> Tally {
        Tally { images: 100, faults: 0, judged: 100, suspicious: 5, views: 800, milliseconds: 8000.0 }
    }

    fn given_up(now: Tally, before: Option<Tally>) -> Option<String> {
        match judge(&now, before.as_ref(), 10, true, &SETTINGS) {
            Verdict::GiveUp(why) => Some(why),
            _ => None,
        }
    }

    #[test]
    fn a_bundle_that_does_well_is_confirmed_when_its_time_is_over() {
        assert_eq!(judge(&well(), Some(&well()), 299, true, &SETTINGS), Verdict::Open);
        assert_eq!(judge(&well(), Some(&well()), 300, true, &SETTINGS), Verdict::Confirm);
        assert_eq!(judge(&Tally::default(), None, 900, true, &SETTINGS), Verdict::Open, "the camera is off");
        assert_eq!(judge(&Tally::default(), None, 900, false, &SETTINGS), Verdict::Confirm, "nobody asks");
    }

    #[test]
    fn faults_end_a_trial_when_they_are_no_exception() {
        assert!(given_up(Tally { faults: 2, images: 0, ..well() }, None).is_none());
        assert!(given_up(Tally { faults: 3, images: 0, ..well() }, None).unwrap().contains("3 of 3 images"));
        assert!(given_up(Tally { faults: 3, images: 997, ..well() }, None).is_none());
    }

    #[test]
    fn a_bundle_that_is_much_slower_than_the_one_before_is_given_up() {
        let slow = Tally { milliseconds: 24_100.0, ..well() };
        assert!(given_up(slow, Some(well())).unwrap().contains("a view takes 30.1 ms"));
        assert!(given_up(Tally { milliseconds: 23_900.0, ..well() }, Some(well())).is_none());
        assert!(given_up(slow, None).is_none(), "there is nothing to compare with");
        assert!(given_up(Tally { views: 10, ..slow }, Some(well())).is_none(), "ten views say little");
    }

    #[test]
    fn a_bundle_that_takes_most_images_for_attacks_is_given_up() {
        let nervous = Tally { suspicious: 51, ..well() };
        assert!(given_up(nervous, Some(well())).unwrap().contains("51 % of the images"));
        assert!(given_up(Tally { suspicious: 50, ..well() }, Some(well())).is_none());
        assert!(given_up(nervous, Some(nervous)).is_none(), "then it is the images");
        assert!(given_up(Tally { judged: 19, suspicious: 19, ..well() }, None).is_none());
        assert!(given_up(nervous, None).unwrap().contains("too few are known of the bundle before"));
    }

    #[test]
    fn a_bundle_that_is_installed_again_is_not_judged_by_what_it_did_before() {
        let health = Health::default();
        health.take_on(true);
        (0..5).for_each(|_| health.note_fault());
        health.take_on(false);
        assert!(matches!(health.verdict(true, &SETTINGS), Verdict::GiveUp(_)), "a reload changes nothing");
        health.expect_another();
        health.take_on(false);
        assert_eq!(health.verdict(true, &SETTINGS), Verdict::Open);
        health.note_fault();
        health.take_on(false);
        assert_eq!(health.tallies().now.faults, 1, "it was expected once");
    }
}
