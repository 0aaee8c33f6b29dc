//! When the CA does what: a pure function of the time and the journal, the same for every purpose.
//!
//! The clock may be wrong. What is done by a wrong clock can be undone: while it is known to be wrong the plan waits; a key
//! that may still be needed is not replaced but certified once more; and whoever is valid signs, whoever is active.

#[cfg(test)]
mod model;
mod pace;
#[cfg(test)]
mod simulation;

pub use pace::Pace;

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
}

/// What to do at `moment`; `paces` has each purpose that is wanted, who signs others first. Performing the step and asking again
/// converges to `Wait`. `failed`: steps that were tried at this time and cannot be done; what does not need them is done all the same.
pub fn plan<C: Clone + PartialEq>(moment: Moment, journal: &Journal<C>, paces: &[Pace], failed: &[Step]) -> Step {
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

#[cfg(test)]
mod tests {
    use ironroot_api::TrustDomain;

    use ironroot_hsm::KeyName;

    use super::{plan as plan_without, *};
    use crate::ca::journal::KeyRecord;
    use crate::ca::server_name::ServerName;

    const DAY: i64 = 24 * 60 * 60;
    const START: i64 = 1_800_000_000;

    /// Authorities whose certificate is a text.
    pub(super) type Journal = super::Journal<String>;

    const A: Place = Place { purpose: Purpose::X509Ca, slot: SlotName::A };
    const B: Place = Place { purpose: Purpose::X509Ca, slot: SlotName::B };
    const ROOT_A: Place = Place { purpose: Purpose::Root, slot: SlotName::A };

    /// What to do when nothing has failed.
    pub(super) fn plan(moment: Moment, journal: &Journal, paces: &[Pace]) -> Step {
        plan_without(moment, journal, paces, &[])
    }

    pub(super) fn founding() -> Journal {
        Journal::new(&TrustDomain::new("example.org").unwrap(), &ServerName::default())
    }

    /// Each CA signs itself.
    const SELF_SIGNED: bool = false;
    /// A root signs them.
    const ROOTED: bool = true;

    pub(super) fn paces(is_rooted: bool, ttl: i64) -> Vec<Pace> {
        let root = is_rooted.then(|| Pace::of_the_root(ttl));
        root.into_iter().chain([Pace::of_signers(Purpose::X509Ca)]).collect()
    }

    pub(super) fn cas(journal: &Journal) -> &Slots<String> {
        journal.slots(Purpose::X509Ca)
    }

    pub(super) fn key(place: Place) -> KeyRecord {
        KeyRecord::made(KeyName::labelled(&place.to_string()).unwrap())
    }

    fn intend(journal: Journal, place: Place) -> Journal {
        journal.intend(place, key(place))
    }

    /// A server that was on all the time, with a clock that is right.
    fn right(now_unix: i64) -> Moment {
        Moment { now_unix, counted: now_unix - START, trust: Trust::Agreed }
    }

    /// A root lives as long as so many CAs.
    pub(super) const CAS_PER_ROOT: i64 = 40;

    /// What the performer would write.
    pub(super) fn perform(journal: Journal, step: Step, moment: Moment, ttl: i64) -> Journal {
        let Moment { now_unix, counted, .. } = moment;
        let root = journal.slots(Purpose::Root).signer(now_unix).map(|(_, root)| (root.key, root.not_after));
        let authority = |place: Place, key_number| {
            let (root, life) = match place.purpose {
                Purpose::Root => (None, CAS_PER_ROOT * ttl),
                _ => (root, ttl),
            };
            Authority {
                credential: format!("{place}, key {key_number}, at {now_unix}"),
                issued_at: now_unix,
                not_after: root.map_or(i64::MAX, |(_, end)| end).min(now_unix + life),
                issued_counted: counted,
                key: key_number,
                in_token: key(place),
                root: root.map(|(key, _)| key),
            }
        };
        match step {
            Step::Wait { .. } => journal,
            Step::Intend(place) => intend(journal, place),
            Step::Prepare(place) => {
                let number = journal.next_key();
                journal.prepare(place, authority(place, number))
            }
            Step::Renew(place) => {
                let number = journal.slot(place).authority().expect("there is a key").key;
                journal.prepare(place, authority(place, number))
            }
            Step::Activate(place) => journal.activate(place),
            Step::Prune(purpose) => journal.prune(purpose, moment),
        }
    }

    /// Performs until there is nothing to do; returns the steps and when to ask again.
    fn settle_at(journal: Journal, moment: Moment, ttl: i64) -> (Journal, Vec<Step>, i64) {
        settle_in(SELF_SIGNED, journal, moment, ttl)
    }

    fn settle_in(is_rooted: bool, mut journal: Journal, moment: Moment, ttl: i64) -> (Journal, Vec<Step>, i64) {
        let mut steps = Vec::new();
        for _ in 0..10 {
            match plan(moment, &journal, &paces(is_rooted, ttl)) {
                Step::Wait { until_unix } => return (journal, steps, until_unix),
                step => {
                    journal = perform(journal, step, moment, ttl);
                    steps.push(step);
                }
            }
        }
        panic!("does not settle: {steps:?}");
    }

    fn settle(journal: Journal, now: i64, ttl: i64) -> (Journal, Vec<Step>, i64) {
        settle_at(journal, right(now), ttl)
    }

    #[test]
    fn a_new_ca_is_intended_prepared_activated() {
        let (journal, steps, until) = settle(founding(), START, DAY);
        assert_eq!(steps, [Step::Intend(A), Step::Prepare(A), Step::Activate(A)]);
        assert_eq!(until, START + DAY / 2);
        assert_eq!((journal.sequence_number(), journal.anchors().len()), (1, 1));
    }

    #[test]
    fn thresholds_are_those_of_spire_for_every_lifetime() {
        for (ttl, prepare, activate) in [
            (60, 30, 50),
            (3600, 1800, 3000),
            (DAY, DAY / 2, DAY * 5 / 6),
            (42 * DAY, 21 * DAY, 35 * DAY),
            (365 * DAY, 335 * DAY, 358 * DAY),
            (3650 * DAY, 3620 * DAY, 3643 * DAY),
        ] {
            let (journal, _, until) = settle(founding(), START, ttl);
            assert_eq!(until, START + prepare, "prepare, lifetime {ttl}");
            assert!(matches!(plan(right(START + prepare - 1), &journal, &paces(SELF_SIGNED, DAY)), Step::Wait { .. }));
            let (journal, steps, until) = settle(journal, START + prepare, ttl);
            assert_eq!(steps, [Step::Intend(B), Step::Prepare(B)]);
            assert_eq!(until, START + activate, "activate, lifetime {ttl}");
            let (journal, steps, _) = settle(journal, START + activate, ttl);
            assert_eq!(steps, [Step::Activate(B)]);
            assert_eq!(cas(&journal).active().map(|(slot, _)| slot), Some(SlotName::B));
        }
    }

    #[test]
    fn what_was_begun_is_finished_whenever_the_server_stopped() {
        for ttl in [60, DAY, 365 * DAY] {
            let journal = intend(founding(), A);
            assert_eq!(plan(right(START), &journal, &paces(SELF_SIGNED, DAY)), Step::Prepare(A));
            let journal = perform(journal, Step::Prepare(A), right(START), ttl);
            assert_eq!(plan(right(START + ttl - 1), &journal, &paces(SELF_SIGNED, DAY)), Step::Activate(A));
            let journal = intend(journal.activate(A), B);
            // Even when the active authority has expired meanwhile.
            for now in [START, START + ttl, START + 10 * ttl] {
                assert_eq!(plan(right(now), &journal, &paces(SELF_SIGNED, DAY)), Step::Prepare(B));
            }
        }
    }

    #[test]
    fn a_server_that_was_off_for_long_begins_again_in_the_other_slot() {
        let (journal, ..) = settle(founding(), START, DAY);
        let (journal, ..) = settle(journal, START + DAY / 2, DAY);
        let late = START + 100 * DAY;
        let (kept, steps, _) = settle_at(journal.clone(), Moment { counted: DAY / 2, ..right(late) }, DAY);
        assert_eq!(
            steps,
            [Step::Renew(B), Step::Activate(B)],
            "half a day was counted: for all that is certain the key is alive, it is used again"
        );
        assert!(cas(&kept).signer(late).is_some());
        let (journal, steps, until) = settle(journal, late, DAY);
        assert_eq!(steps[..3], [Step::Intend(B), Step::Prepare(B), Step::Activate(B)]);
        assert_eq!(steps[3..], [Step::Prune(Purpose::X509Ca)]);
        assert_eq!((until, journal.anchors().len()), (late + DAY / 2, 1));
    }

    //= FLT-S1 FED-01
    #[test]
    fn a_new_authority_is_published_before_it_signs_even_after_a_stop() {
        let (journal, ..) = settle(founding(), START, DAY);
        let late = START + DAY - 600;
        let (journal, steps, until) = settle(journal, late, DAY);
        assert_eq!(steps, [Step::Intend(B), Step::Prepare(B)]);
        assert_eq!(until, late + PUBLISH_FOR);
        assert_eq!(plan(right(until), &journal, &paces(SELF_SIGNED, DAY)), Step::Activate(B));
        let slept = Moment { counted: late - START, ..right(until) };
        assert!(
            matches!(plan(slept, &journal, &paces(SELF_SIGNED, DAY)), Step::Wait { .. }),
            "published by the clock that counts, not by the one that can be set"
        );
        // When the active one cannot wait, it is not waited for.
        let (journal, ..) = settle(founding(), START, DAY);
        let (_, steps, _) = settle(journal, START + DAY - 30, DAY);
        assert_eq!(steps.last(), Some(&Step::Activate(B)));
    }

    #[test]
    fn while_the_clock_is_wrong_the_plan_waits() {
        let (journal, ..) = settle(founding(), START, DAY);
        let (rotating, ..) = settle(journal.clone(), START + DAY / 2, DAY);
        for journal in [journal.clone(), intend(journal, B), rotating.clone(), rotating.activate(B)] {
            for now in [0, START - 365 * DAY, START + 21 * 3600, START + 3650 * DAY, i64::MAX] {
                let moment = Moment { now_unix: now, counted: 10 * DAY, trust: Trust::Incident };
                assert!(matches!(plan(moment, &journal, &paces(SELF_SIGNED, DAY)), Step::Wait { .. }), "{now}");
            }
        }
        let moment = Moment { now_unix: START, counted: 0, trust: Trust::Incident };
        assert_eq!(plan(moment, &founding(), &paces(SELF_SIGNED, DAY)), Step::Intend(A), "there is nothing to lose");
    }

    /// Server +10 years for seconds, then right again; nobody noticed the jump.
    #[test]
    fn a_clock_that_was_years_ahead_costs_no_key_and_the_authority_that_is_valid_signs() {
        let (journal, ..) = settle(founding(), START, DAY);
        let ahead = Moment { now_unix: START + 3650 * DAY, counted: 8, trust: Trust::Agreed };
        let (journal, steps, _) = settle_at(journal, ahead, DAY);
        assert_eq!(steps, [Step::Intend(B), Step::Prepare(B), Step::Activate(B)]);
        let back = right(START + 16);
        let (slot, signer) = cas(&journal).signer(back.now_unix).unwrap();
        assert_eq!((slot, signer.issued_at), (SlotName::A, START));
        assert!(matches!(plan(back, &journal, &paces(SELF_SIGNED, DAY)), Step::Wait { .. }));
        // The life of A ends: the next one is certified in time, and by the key that is there.
        let (journal, steps, _) = settle(journal, START + DAY / 2, DAY);
        assert_eq!(steps, [Step::Renew(B)]);
        let (journal, steps, _) = settle(journal, START + DAY * 5 / 6, DAY);
        assert_eq!(steps, [Step::Activate(B)]);
        assert_eq!(cas(&journal).signer(START + DAY).unwrap().1.issued_at, START + DAY / 2);
    }

    /// Server +21 hours within a life of 24: the next authority is dated tomorrow, and the active one is valid.
    #[test]
    fn a_clock_that_was_hours_ahead_leaves_no_gap_without_a_signer() {
        let (mut journal, ..) = settle(founding(), START, DAY);
        for second in 0..85 {
            let ahead = Moment { now_unix: START + 21 * 3600 + second, counted: second, trust: Trust::Agreed };
            (journal, ..) = settle_at(journal, ahead, DAY);
        }
        assert_eq!(cas(&journal).active().map(|(slot, _)| slot), Some(SlotName::B));
        for now in (START + 85..START + 3 * DAY).step_by(60) {
            (journal, ..) = settle(journal, now, DAY);
            assert!(cas(&journal).signer(now).is_some(), "nobody signs {} s after the start", now - START);
        }
    }

    #[test]
    fn a_clock_that_goes_back_rotates_nothing_that_is_valid() {
        let (journal, ..) = settle(founding(), START, DAY);
        assert_eq!(
            plan(right(START - 5), &journal, &paces(SELF_SIGNED, DAY)),
            Step::Wait { until_unix: START + DAY / 2 }
        );
        let before = Moment { now_unix: START - 365 * DAY, counted: 0, trust: Trust::Settling };
        let (journal, steps, _) = settle_at(journal, before, DAY);
        assert_eq!(steps, [Step::Intend(B), Step::Prepare(B), Step::Activate(B)]);
        assert_eq!(
            cas(&journal).signer(START).unwrap().0,
            SlotName::A,
            "its key is kept for when the clock is right again"
        );
    }

    //= FLT-S10 FED-01
    /// Follows the plan for many lifetimes and checks at each moment what must always hold.
    #[test]
    fn at_every_moment_of_many_lifetimes_one_published_authority_signs() {
        for ttl in [60, 61, 90, 3600, DAY, 30 * DAY, 400 * DAY] {
            let (mut journal, _, mut now) = settle(founding(), START, ttl);
            let mut published: Vec<String> = Vec::new();
            let mut sequence = 0;
            let mut keys = 0;
            while now < START + 20 * ttl {
                let (next, steps, until) = settle(journal, now, ttl);
                assert!(
                    !steps.iter().any(|step| matches!(step, Step::Renew(_))),
                    "each authority has a key of its own"
                );
                journal = next;
                assert!(until > now, "the plan stands still at {now}");
                invariant_the_signer_lives_until(&journal, until);
                invariant_the_signer_was_published_before(&journal, &published, now);
                invariant_the_bundle_is_small(&journal);
                assert!(journal.sequence_number() >= sequence);
                sequence = journal.sequence_number();
                keys = journal.next_key();
                published = journal.anchors().iter().map(|a| a.credential.clone()).collect();
                now = until;
            }
            assert!(sequence >= 20 && keys >= 20, "rotated {sequence} times, {keys} keys");
        }
    }

    #[test]
    fn a_new_ca_begins_with_its_root() {
        let (journal, steps, until) = settle_in(ROOTED, founding(), right(START), DAY);
        assert_eq!(steps[..3], [Step::Intend(ROOT_A), Step::Prepare(ROOT_A), Step::Activate(ROOT_A)]);
        assert_eq!(steps[3..], [Step::Intend(A), Step::Prepare(A), Step::Activate(A)]);
        assert_eq!((until, journal.anchors().len()), (START + DAY / 2, 1));
        for (journal, slot) in [(journal, SlotName::B), (founding(), SlotName::A)] {
            let place = Place::root(slot);
            let step = plan(right(START), &intend(journal, place), &paces(ROOTED, DAY));
            assert_eq!(step, Step::Prepare(place), "what was begun is finished");
        }
    }

    /// A server that signed with CAs of their own takes the root in: published at once, used by the next rotation.
    #[test]
    fn an_existing_ca_takes_the_root_in_by_one_rotation() {
        let (journal, ..) = settle(founding(), START, DAY);
        let taken_in = START + 3600;
        let (journal, steps, _) = settle_in(ROOTED, journal, right(taken_in), DAY);
        assert_eq!(steps, [Step::Intend(ROOT_A), Step::Prepare(ROOT_A), Step::Activate(ROOT_A)]);
        assert_eq!(journal.anchors().len(), 2, "beside the authority that signs");
        assert_eq!(cas(&journal).signer(taken_in).unwrap().1.root, None);
        let (journal, ..) = settle_in(ROOTED, journal, right(START + DAY / 2), DAY);
        let (journal, ..) = settle_in(ROOTED, journal, right(START + DAY * 5 / 6), DAY);
        let signer = cas(&journal).signer(START + DAY * 5 / 6).unwrap().1;
        assert!(signer.root.is_some() && journal.anchors().len() == 2, "its SVIDs of before are still about");
        let (journal, ..) = settle_in(ROOTED, journal, right(START + 2 * DAY), DAY);
        let anchors: Vec<_> = journal.anchors().iter().map(|anchor| anchor.not_after).collect();
        assert_eq!(anchors, [taken_in + CAS_PER_ROOT * DAY], "only the root is left");
    }

    #[test]
    fn a_step_that_failed_holds_up_neither_what_another_purpose_needs_nor_what_ends_in_its_time() {
        let root_half = START + CAS_PER_ROOT * DAY / 2;
        let (journal, ..) = settle_in(ROOTED, founding(), right(START), DAY);
        let (journal, ..) = settle_in(ROOTED, journal, right(root_half), DAY);
        let root_b = Place::root(SlotName::B);
        let due = START + CAS_PER_ROOT * DAY * 3 / 4;
        let step = |failed: &[Step]| plan_without(right(due), &journal, &paces(ROOTED, DAY), failed);
        assert_eq!(step(&[]), Step::Activate(root_b), "the next root is there");
        let Step::Intend(ca) = step(&[Step::Activate(root_b)]) else { panic!("{journal:?}") };
        assert_eq!(ca.purpose, Purpose::X509Ca);
        let prune = Step::Prune(Purpose::X509Ca);
        assert_eq!(step(&[Step::Activate(root_b), Step::Intend(ca)]), prune);
        let all = [Step::Activate(root_b), Step::Intend(ca), prune];
        assert!(matches!(step(&all), Step::Wait { until_unix } if until_unix > due), "{:?}", step(&all));
    }

    #[test]
    fn through_the_lives_of_many_roots_every_ca_is_signed_by_one_that_outlives_it() {
        for ttl in [60, DAY, 30 * DAY] {
            let (mut journal, _, mut now) = settle_in(ROOTED, founding(), right(START), ttl);
            let mut roots = std::collections::BTreeSet::new();
            while now < START + 5 * CAS_PER_ROOT * ttl {
                let (next, _, until) = settle_in(ROOTED, journal, right(now), ttl);
                journal = next;
                let (_, signer) = cas(&journal).signer(now).expect("one signs");
                let root = signer.root.expect("a root signed it");
                let anchors = journal.anchors();
                let anchor = anchors.iter().find(|anchor| anchor.key == root).expect("the root is in the bundle");
                assert!(anchor.not_after >= signer.not_after && signer.lifetime() == ttl, "{signer:?} {anchor:?}");
                let alive = anchors.iter().filter(|anchor| !anchor.is_expired(now)).count();
                assert!(alive <= 2 && anchors.len() <= 4, "{anchors:?}");
                roots.insert(root);
                now = until;
            }
            assert!(roots.len() >= 5, "{roots:?}");
        }
    }

    const YEAR: i64 = 365 * DAY;

    /// Roots of twenty years, made so many years after the start; the first of them is in place A and signs.
    fn roots(made_after: &[i64]) -> Journal {
        let mut journal = founding();
        for (number, years) in (0..).zip(made_after) {
            let place = if number == 0 { ROOT_A } else { Place::root(SlotName::B) };
            let (issued_at, not_after) = (START + years * YEAR, START + (years + 20) * YEAR);
            let (credential, issued_counted, in_token) = (number.to_string(), years * YEAR, key(place));
            let root =
                Authority { credential, issued_at, not_after, issued_counted, key: number, in_token, root: None };
            journal = journal.prepare(place, root);
            journal = if number == 0 { journal.activate(place) } else { journal };
        }
        journal
    }

    fn years(years: i64) -> Moment {
        right(START + years * YEAR)
    }

    /// What is done with the roots; nothing if the plan waits.
    fn root_step(moment: Moment, journal: &Journal) -> Option<Step> {
        match plan_one(moment, journal.slots(Purpose::Root), Pace::of_the_root(3600)) {
            Step::Wait { .. } => None,
            step => Some(step),
        }
    }

    #[test]
    fn a_root_is_joined_by_its_successor_at_half_its_life_and_replaced_only_when_it_is_over() {
        let (root_b, intend_b) = (Place::root(SlotName::B), Some(Step::Intend(Place::root(SlotName::B))));
        assert_eq!(root_step(years(0), &founding()), Some(Step::Intend(ROOT_A)));
        let one = roots(&[0]);
        for (at, step) in [(0, None), (9, None), (10, intend_b), (25, intend_b), (-5, None)] {
            assert_eq!(root_step(years(at), &one), step, "{at}");
        }
        for trust in [Trust::Settling, Trust::Incident] {
            assert_eq!(root_step(Moment { trust, ..years(30) }, &one), None, "one clock's word");
        }
        let two = roots(&[0, 10]);
        for (at, step) in [(14, None), (15, Some(Step::Activate(root_b)))] {
            assert_eq!(root_step(years(at), &two), step, "{at}: the oldest signs for as long as it can");
        }
        let handed_over = two.activate(root_b);
        for (at, step) in [(19, None), (20, Some(Step::Intend(ROOT_A)))] {
            assert_eq!(root_step(years(at), &handed_over), step, "{at}");
        }
        let mostly_off = |at| Moment { counted: 5 * YEAR, ..years(at) };
        assert_eq!(root_step(mostly_off(21), &handed_over), None, "for all that was counted it may be alive");
        let renew = Some(Step::Renew(ROOT_A));
        assert_eq!(root_step(mostly_off(25), &handed_over), renew, "and at the last its key is used again");
    }

    #[test]
    fn a_root_makes_room_early_for_cas_that_live_long_and_the_last_one_signs_to_its_end() {
        let two = roots(&[0, 10]);
        let long = Pace::of_the_root(9 * YEAR);
        assert_eq!(plan_one(years(12), two.slots(Purpose::Root), long), Step::Activate(Place::root(SlotName::B)));
        assert_eq!(roots(&[0]).slots(Purpose::Root).signer(START + 19 * YEAR).map(|(slot, _)| slot), Some(SlotName::A));
        assert_eq!(two.slots(Purpose::Root).signer(START + 31 * YEAR), None);
    }

    #[test]
    fn the_next_key_is_needed_when_the_last_authority_has_lived_half_its_life() {
        let next = |journal: &Journal, now| next_key_at(now, journal, &paces(ROOTED, DAY));
        assert_eq!(next(&founding(), START), None);
        let (journal, ..) = settle_in(ROOTED, founding(), right(START), DAY);
        assert_eq!(next(&journal, START), Some(START + DAY / 2));
        let half = START + DAY / 2;
        let (journal, ..) = settle_in(ROOTED, journal, right(half), DAY);
        assert_eq!(next(&journal, half), Some(half + DAY / 2), "what is prepared has its key");
    }

    fn invariant_the_signer_lives_until(journal: &Journal, until: i64) {
        let (_, active) = cas(journal).active().expect("one signs");
        assert!(active.not_after > until, "the signer expires before the next step");
    }

    fn invariant_the_signer_was_published_before(journal: &Journal, published: &[String], now: i64) {
        let (_, active) = cas(journal).active().expect("one signs");
        let known = published.is_empty() || published.contains(&active.credential);
        assert!(known, "the signer of {now} was not in the bundle of the step before");
    }

    fn invariant_the_bundle_is_small(journal: &Journal) {
        assert!(journal.anchors().len() <= 5, "{} authorities", journal.anchors().len());
    }
}
