//! When the CA does what: a pure function of the time and the journal, the same for every purpose.
//!
//! The clock may be wrong. What is done by a wrong clock can be undone: while it is known to be wrong the plan waits; a key
//! that may still be needed is not replaced but certified once more; and whoever is valid signs, whoever is active.

#[cfg(test)]
mod clock_tests;
#[cfg(test)]
mod model;
mod pace;
#[cfg(test)]
mod rehearsal;
#[cfg(test)]
mod root_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use pace::Pace;

pub mod by_hand;

use super::journal::{Authority, Journal, Place, Slot, SlotName, Slots};
use super::purpose::Purpose;
use crate::clock::{Moment, Trust};

/// A new authority is in the bundle this long before it signs, seconds counted, or a twelfth of a lifetime if that is shorter:
/// agents look every five seconds. It matters after a long stop only, when preparing and activating are due at once.
const PUBLISH_FOR: i64 = 60;

/// While the clock is wrong it is looked at this often, seconds.
const WATCH_EVERY: i64 = 5;

/// The one thing to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until this time, UNIX seconds.
    Wait {
        /// When to ask again.
        until_unix: i64,
    },
    /// Write down which key will be used in this place. Whatever is there may be destroyed.
    Intend(Place),
    /// Make the key of this place, or take it, certify it, and publish the result.
    Prepare(Place),
    /// Certify the key that is in this place once more, since it may not be destroyed yet, and publish the result.
    Renew(Place),
    /// Sign with this place from now on.
    Activate(Place),
    /// Take authorities of this purpose out of the bundle whose time is over, and destroy their keys.
    Prune(Purpose),
    /// Destroy the key of this place: an operator has revoked what had it.
    Destroy(Place),
}

impl Step {
    /// Whose authorities it changes; none if it changes nothing.
    pub fn purpose(&self) -> Option<Purpose> {
        match self {
            Self::Wait { .. } => None,
            Self::Intend(place)
            | Self::Prepare(place)
            | Self::Renew(place)
            | Self::Activate(place)
            | Self::Destroy(place) => Some(place.purpose),
            Self::Prune(purpose) => Some(*purpose),
        }
    }
}

/// What to do at `moment`; `paces` has each purpose that is wanted, who signs others first. Performing the step and asking again
/// converges to `Wait`. `failed`: steps that were tried at this time and cannot be done; what does not need them is done all the same.
pub fn plan<C: Clone + PartialEq>(moment: Moment, journal: &Journal<C>, paces: &[Pace], failed: &[Step]) -> Step {
    // An operator's word, and no clock's.
    let revoked = Place::all().filter(|place| matches!(journal.slot(*place), Slot::Revoked(_)));
    if let Some(step) = revoked.map(Step::Destroy).find(|step| !failed.contains(step)) {
        return step;
    }
    if moment.trust == Trust::Incident && !journal.slots(Purpose::X509Ca).signers().is_empty() {
        return Step::Wait { until_unix: moment.now_unix.saturating_add(WATCH_EVERY) };
    }
    let mut until = i64::MAX;
    for pace in paces {
        match plan_one(moment, journal.slots(pace.purpose), *pace) {
            Step::Wait { until_unix } => until = until.min(until_unix),
            step if failed.contains(&step) => {}
            step => return step,
        }
    }
    // Also what is not wanted any more ends in its time.
    let prunable = Purpose::ALL.into_iter().filter(|purpose| journal.slots(*purpose).is_prunable(moment));
    if let Some(step) = prunable.map(Step::Prune).find(|step| !failed.contains(step)) {
        return step;
    }
    let prunes = Purpose::ALL.into_iter().filter_map(|purpose| journal.slots(purpose).next_prune(moment.now_unix));
    Step::Wait { until_unix: prunes.fold(until, i64::min) }
}

/// When the next key is needed at the earliest, UNIX seconds: what is prepared has its own.
pub fn next_key_at<C: Clone + PartialEq>(now: i64, journal: &Journal<C>, paces: &[Pace]) -> Option<i64> {
    let next = |pace: &Pace| {
        let slots = journal.slots(pace.purpose);
        let last = slots.prepared().or_else(|| slots.signer(now)).map(|(_, authority)| authority);
        last.map(|authority| prepare_at(authority, *pace))
    };
    paces.iter().filter_map(next).min()
}

fn plan_one<C: Clone + PartialEq>(moment: Moment, slots: &Slots<C>, pace: Pace) -> Step {
    let place = |slot| Place { purpose: pace.purpose, slot };
    // What was begun is finished first: the key of an intended slot may or may not exist.
    if let Some((slot, _)) = slots.intended() {
        return Step::Prepare(place(slot));
    }
    let now = moment.now_unix;
    let prepared = slots.prepared().filter(|(_, authority)| authority.is_valid(now));
    match (slots.signer(now), prepared) {
        (None, Some((slot, _))) => Step::Activate(place(slot)),
        (None, None) => certify_in(next_slot(slots, free_slot(slots)), None, moment, slots, pace),
        (Some((_, signer)), Some((slot, prepared))) => match activate_at(signer, prepared, moment, pace) {
            due if due <= now => Step::Activate(place(slot)),
            until_unix => Step::Wait { until_unix },
        },
        (Some((slot, signer)), None) => match prepare_at(signer, pace) {
            due if due <= now => certify_in(next_slot(slots, slot.other()), Some(signer), moment, slots, pace),
            until_unix => Step::Wait { until_unix },
        },
    }
}

/// The first moment at which less than the threshold remains.
fn prepare_at<C>(signer: &Authority<C>, pace: Pace) -> i64 {
    signer.not_after - pace.prepare_before(signer.lifetime())
}

/// As late as the threshold says, and not before the prepared authority was published long enough to be known, as long as
/// the signing one can still sign meanwhile.
fn activate_at<C>(signer: &Authority<C>, prepared: &Authority<C>, moment: Moment, pace: Pace) -> i64 {
    //= FED-01 SPIFFE Federation 4.1: "prior to the keys being used to issue SVIDs"
    let publication = PUBLISH_FOR.min(signer.lifetime() / 12);
    let unknown_for = (prepared.issued_counted + publication - moment.counted).max(0);
    let published = (moment.now_unix + unknown_for).min(signer.not_after - publication);
    published.max(signer.not_after - pace.activate_before(signer.lifetime()))
}

/// A new key, unless one is there that may still be needed. Beside `signer`, who is patient waits for a clock that is certain, and for
/// the end of a key for as long as it can.
fn certify_in<C: Clone + PartialEq>(
    slot: SlotName,
    signer: Option<&Authority<C>>,
    moment: Moment,
    slots: &Slots<C>,
    pace: Pace,
) -> Step {
    let (now, place) = (moment.now_unix, Place { purpose: pace.purpose, slot });
    let wait = Step::Wait { until_unix: now.saturating_add(WATCH_EVERY) };
    if pace.is_patient() && is_in_doubt(slots, moment) {
        return wait;
    }
    let can_wait = |signer: &Authority<C>| now < signer.not_after - pace.activate_before(signer.lifetime());
    match slots.key_may_go(slot, moment) {
        true => Step::Intend(place),
        false if pace.is_patient() && signer.is_some_and(can_wait) => wait,
        false => Step::Renew(place),
    }
}

/// Whether the clock may be wrong, by its own record or by an authority that is dated in the future.
fn is_in_doubt<C: Clone + PartialEq>(slots: &Slots<C>, moment: Moment) -> bool {
    let authorities = slots.authorities();
    let is_ahead = authorities.iter().any(|authority| authority.is_ahead_of(moment.now_unix));
    !authorities.is_empty() && (is_ahead || !moment.may_destroy())
}

/// One is prepared at a time: another takes the place of one that may not sign.
fn next_slot<C: Clone + PartialEq>(slots: &Slots<C>, otherwise: SlotName) -> SlotName {
    slots.prepared().map_or(otherwise, |(slot, _)| slot)
}

/// Where to certify a key when nobody may sign: where there is none, else not where the authority was active last.
fn free_slot<C: Clone + PartialEq>(slots: &Slots<C>) -> SlotName {
    let empty = SlotName::BOTH.into_iter().find(|slot| *slots.slot(*slot) == Slot::Empty);
    empty.unwrap_or_else(|| slots.active().map_or(SlotName::A, |(expired, _)| expired.other()))
}
