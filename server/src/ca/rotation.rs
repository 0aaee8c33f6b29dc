//! When the CA does what: a pure function of the time and the journal.
//!
//! Thresholds are SPIRE's and scale with each authority's own lifetime, so that a `ca_ttl` of a minute works as one of a
//! year does. Source: SPIRE pkg/server/ca/manager, `preparationThreshold`, `activationThreshold`.
//!
//! The clock may be wrong. What is done by a wrong clock can be undone: while it is known to be wrong the plan waits; a key
//! that may still be needed is not replaced but certified once more; and whoever is valid signs, whoever is active.

#[cfg(test)]
mod simulation;

use super::journal::{Authority, Journal, Slot, SlotName};
use crate::clock::{Moment, Trust};

/// The next authority is prepared when less than this remains, seconds, or half the lifetime if that is shorter.
const PREPARE_BEFORE: i64 = 30 * 24 * 60 * 60;
/// The next authority is activated when less than this remains, seconds, or a sixth of the lifetime if that is shorter.
const ACTIVATE_BEFORE: i64 = 7 * 24 * 60 * 60;

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
    /// Write down that a root's key will be made in this place. Whatever is there may be destroyed.
    IntendRoot(SlotName),
    /// Make and certify the root's key of this place, and publish its certificate.
    MakeRoot(SlotName),
    /// Write down that a key will be made in this slot. Whatever is there may be destroyed.
    Intend(SlotName),
    /// Make and certify the key of this slot, and publish its certificate.
    Prepare(SlotName),
    /// Certify the key that is in this slot once more, since it may not be destroyed yet, and publish the certificate.
    Renew(SlotName),
    /// Sign with this slot from now on.
    Activate(SlotName),
    /// Take authorities out of the bundle whose time is over, and destroy their keys.
    Prune,
}

/// Who signs the CAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// A root, which is what the bundle holds.
    Rooted,
    /// Each itself, as SPIRE's do.
    SelfSigned,
}

/// What to do at `moment`. Performing the step and asking again converges to `Wait`.
pub fn plan(moment: Moment, journal: &Journal, hierarchy: Hierarchy) -> Step {
    if moment.trust == Trust::Incident && !journal.signers().is_empty() {
        return Step::Wait { until_unix: moment.now_unix.saturating_add(WATCH_EVERY) };
    }
    // The root is published before the first CA that it signs is made.
    if let Some(step) = root_step(moment, journal).filter(|_| hierarchy == Hierarchy::Rooted) {
        return step;
    }
    // What was begun is finished first: the key of an intended slot may or may not exist.
    if let Some(slot) = journal.intended() {
        return Step::Prepare(slot);
    }
    let now = moment.now_unix;
    let prepared = journal.prepared().filter(|(_, authority)| authority.is_valid(now));
    let next = match (journal.signer(now), prepared) {
        (None, Some((slot, _))) => return Step::Activate(slot),
        (None, None) => return certify_in(next_slot(journal, free_slot(journal)), moment, journal),
        (Some((_, signer)), Some((slot, prepared))) => {
            let due = activate_at(signer, prepared, moment);
            if due <= now {
                return Step::Activate(slot);
            }
            due
        }
        (Some((slot, signer)), None) => {
            let due = prepare_at(signer);
            if due <= now {
                return certify_in(next_slot(journal, slot.other()), moment, journal);
            }
            due
        }
    };
    if journal.is_prunable(moment) {
        return Step::Prune;
    }
    Step::Wait { until_unix: journal.next_prune(now).map_or(next, |prune| prune.min(next)) }
}

fn root_step(moment: Moment, journal: &Journal) -> Option<Step> {
    let roots = journal.roots();
    roots.intended().map(Step::MakeRoot).or_else(|| roots.next(moment).map(Step::IntendRoot))
}

/// The first moment at which less than the threshold remains.
fn prepare_at(signer: &Authority) -> i64 {
    signer.not_after - PREPARE_BEFORE.min(signer.lifetime() / 2)
}

/// As late as the threshold says, and not before the prepared authority was published long enough to be known, as long as
/// the signing one can still sign meanwhile.
fn activate_at(signer: &Authority, prepared: &Authority, moment: Moment) -> i64 {
    let publication = PUBLISH_FOR.min(signer.lifetime() / 12);
    let unknown_for = (prepared.issued_counted + publication - moment.counted).max(0);
    let published = (moment.now_unix + unknown_for).min(signer.not_after - publication);
    published.max(signer.not_after - ACTIVATE_BEFORE.min(signer.lifetime() / 6))
}

/// A new key, unless one is there that may still be needed.
fn certify_in(slot: SlotName, moment: Moment, journal: &Journal) -> Step {
    if journal.key_may_go(slot, moment) { Step::Intend(slot) } else { Step::Renew(slot) }
}

/// One is prepared at a time: another takes the place of one that may not sign.
fn next_slot(journal: &Journal, otherwise: SlotName) -> SlotName {
    journal.prepared().map_or(otherwise, |(slot, _)| slot)
}

/// Where to certify a key when nobody may sign: where there is none, else not where the authority was active last.
fn free_slot(journal: &Journal) -> SlotName {
    let empty = SlotName::BOTH.into_iter().find(|slot| *journal.slot(*slot) == Slot::Empty);
    empty.unwrap_or_else(|| journal.active().map_or(SlotName::A, |(expired, _)| expired.other()))
}

#[cfg(test)]
mod tests {
    use ironroot_api::TrustDomain;

    use super::Hierarchy::{Rooted, SelfSigned};
    use super::*;

    const DAY: i64 = 24 * 60 * 60;
    const START: i64 = 1_800_000_000;

    fn founding() -> Journal {
        Journal::new(&TrustDomain::new("example.org").unwrap())
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
        let signing = journal.roots().signing(now_unix, ttl).map(|(_, root)| (root.key, root.not_after));
        let authority = |slot, key| {
            let certificate = format!("{slot}, key {key}, at {now_unix}").into_bytes();
            let not_after = signing.map_or(i64::MAX, |(_, end)| end).min(now_unix + ttl);
            let root = signing.map(|(key, _)| key);
            Authority { certificate, issued_at: now_unix, not_after, issued_counted: counted, key, root }
        };
        match step {
            Step::Wait { .. } => journal,
            Step::IntendRoot(slot) => journal.intend_root(slot),
            Step::MakeRoot(slot) => {
                let not_after = now_unix + CAS_PER_ROOT * ttl;
                let root = Authority { not_after, root: None, ..authority(slot, journal.next_key()) };
                journal.make_root(slot, root)
            }
            Step::Intend(slot) => journal.intend(slot),
            Step::Prepare(slot) => {
                let key = journal.next_key();
                journal.prepare(slot, authority(slot, key))
            }
            Step::Renew(slot) => {
                let key = journal.slot(slot).authority().expect("there is a key").key;
                journal.prepare(slot, authority(slot, key))
            }
            Step::Activate(slot) => journal.activate(slot),
            Step::Prune => journal.prune(moment),
        }
    }

    /// Performs until there is nothing to do; returns the steps and when to ask again.
    fn settle_at(journal: Journal, moment: Moment, ttl: i64) -> (Journal, Vec<Step>, i64) {
        settle_in(SelfSigned, journal, moment, ttl)
    }

    fn settle_in(hierarchy: Hierarchy, mut journal: Journal, moment: Moment, ttl: i64) -> (Journal, Vec<Step>, i64) {
        let mut steps = Vec::new();
        for _ in 0..10 {
            match plan(moment, &journal, hierarchy) {
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
        use SlotName::A;
        let (journal, steps, until) = settle(founding(), START, DAY);
        assert_eq!(steps, [Step::Intend(A), Step::Prepare(A), Step::Activate(A)]);
        assert_eq!(until, START + DAY / 2);
        assert_eq!((journal.sequence_number(), journal.authorities().len()), (1, 1));
    }

    #[test]
    fn thresholds_are_those_of_spire_for_every_lifetime() {
        use SlotName::B;
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
            assert!(matches!(plan(right(START + prepare - 1), &journal, SelfSigned), Step::Wait { .. }));
            let (journal, steps, until) = settle(journal, START + prepare, ttl);
            assert_eq!(steps, [Step::Intend(B), Step::Prepare(B)]);
            assert_eq!(until, START + activate, "activate, lifetime {ttl}");
            let (journal, steps, _) = settle(journal, START + activate, ttl);
            assert_eq!(steps, [Step::Activate(B)]);
            assert_eq!(journal.active().map(|(slot, _)| slot), Some(B));
        }
    }

    #[test]
    fn what_was_begun_is_finished_whenever_the_server_stopped() {
        for ttl in [60, DAY, 365 * DAY] {
            let journal = founding().intend(SlotName::A);
            assert_eq!(plan(right(START), &journal, SelfSigned), Step::Prepare(SlotName::A));
            let journal = perform(journal, Step::Prepare(SlotName::A), right(START), ttl);
            assert_eq!(plan(right(START + ttl - 1), &journal, SelfSigned), Step::Activate(SlotName::A));
            let journal = journal.activate(SlotName::A).intend(SlotName::B);
            // Even when the active authority has expired meanwhile.
            for now in [START, START + ttl, START + 10 * ttl] {
                assert_eq!(plan(right(now), &journal, SelfSigned), Step::Prepare(SlotName::B));
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
            [Step::Renew(SlotName::B), Step::Activate(SlotName::B)],
            "half a day was counted: for all that is certain the key is alive, it is used again"
        );
        assert!(kept.signer(late).is_some());
        let (journal, steps, until) = settle(journal, late, DAY);
        assert_eq!(steps[..3], [Step::Intend(SlotName::B), Step::Prepare(SlotName::B), Step::Activate(SlotName::B)]);
        assert_eq!(steps[3..], [Step::Prune]);
        assert_eq!((until, journal.authorities().len()), (late + DAY / 2, 1));
    }

    #[test]
    fn a_new_authority_is_published_before_it_signs_even_after_a_stop() {
        let (journal, ..) = settle(founding(), START, DAY);
        let late = START + DAY - 600;
        let (journal, steps, until) = settle(journal, late, DAY);
        assert_eq!(steps, [Step::Intend(SlotName::B), Step::Prepare(SlotName::B)]);
        assert_eq!(until, late + PUBLISH_FOR);
        assert_eq!(plan(right(until), &journal, SelfSigned), Step::Activate(SlotName::B));
        let slept = Moment { counted: late - START, ..right(until) };
        assert!(
            matches!(plan(slept, &journal, SelfSigned), Step::Wait { .. }),
            "published by the clock that counts, not by the one that can be set"
        );
        // When the active one cannot wait, it is not waited for.
        let (journal, ..) = settle(founding(), START, DAY);
        let (_, steps, _) = settle(journal, START + DAY - 30, DAY);
        assert_eq!(steps.last(), Some(&Step::Activate(SlotName::B)));
    }

    #[test]
    fn while_the_clock_is_wrong_the_plan_waits() {
        let (journal, ..) = settle(founding(), START, DAY);
        let (rotating, ..) = settle(journal.clone(), START + DAY / 2, DAY);
        for journal in [journal.clone(), journal.intend(SlotName::B), rotating.clone(), rotating.activate(SlotName::B)]
        {
            for now in [0, START - 365 * DAY, START + 21 * 3600, START + 3650 * DAY, i64::MAX] {
                let moment = Moment { now_unix: now, counted: 10 * DAY, trust: Trust::Incident };
                assert!(matches!(plan(moment, &journal, SelfSigned), Step::Wait { .. }), "{now}");
            }
        }
        let moment = Moment { now_unix: START, counted: 0, trust: Trust::Incident };
        assert_eq!(plan(moment, &founding(), SelfSigned), Step::Intend(SlotName::A), "there is nothing to lose");
    }

    /// Server +10 years for seconds, then right again; nobody noticed the jump.
    #[test]
    fn a_clock_that_was_years_ahead_costs_no_key_and_the_authority_that_is_valid_signs() {
        let (journal, ..) = settle(founding(), START, DAY);
        let ahead = Moment { now_unix: START + 3650 * DAY, counted: 8, trust: Trust::Agreed };
        let (journal, steps, _) = settle_at(journal, ahead, DAY);
        assert_eq!(steps, [Step::Intend(SlotName::B), Step::Prepare(SlotName::B), Step::Activate(SlotName::B)]);
        let back = right(START + 16);
        let (slot, signer) = journal.signer(back.now_unix).unwrap();
        assert_eq!((slot, signer.issued_at), (SlotName::A, START));
        assert!(matches!(plan(back, &journal, SelfSigned), Step::Wait { .. }));
        // The life of A ends: the next one is certified in time, and by the key that is there.
        let (journal, steps, _) = settle(journal, START + DAY / 2, DAY);
        assert_eq!(steps, [Step::Renew(SlotName::B)]);
        let (journal, steps, _) = settle(journal, START + DAY * 5 / 6, DAY);
        assert_eq!(steps, [Step::Activate(SlotName::B)]);
        assert_eq!(journal.signer(START + DAY).unwrap().1.issued_at, START + DAY / 2);
    }

    /// Server +21 hours within a life of 24: the next authority is dated tomorrow, and the active one is valid.
    #[test]
    fn a_clock_that_was_hours_ahead_leaves_no_gap_without_a_signer() {
        let (mut journal, ..) = settle(founding(), START, DAY);
        for second in 0..85 {
            let ahead = Moment { now_unix: START + 21 * 3600 + second, counted: second, trust: Trust::Agreed };
            (journal, ..) = settle_at(journal, ahead, DAY);
        }
        assert_eq!(journal.active().map(|(slot, _)| slot), Some(SlotName::B));
        for now in (START + 85..START + 3 * DAY).step_by(60) {
            (journal, ..) = settle(journal, now, DAY);
            assert!(journal.signer(now).is_some(), "nobody signs {} s after the start", now - START);
        }
    }

    #[test]
    fn a_clock_that_goes_back_rotates_nothing_that_is_valid() {
        let (journal, ..) = settle(founding(), START, DAY);
        assert_eq!(plan(right(START - 5), &journal, SelfSigned), Step::Wait { until_unix: START + DAY / 2 });
        let before = Moment { now_unix: START - 365 * DAY, counted: 0, trust: Trust::Settling };
        let (journal, steps, _) = settle_at(journal, before, DAY);
        assert_eq!(steps, [Step::Intend(SlotName::B), Step::Prepare(SlotName::B), Step::Activate(SlotName::B)]);
        assert_eq!(journal.signer(START).unwrap().0, SlotName::A, "its key is kept for when the clock is right again");
    }

    /// Follows the plan for many lifetimes and checks at each moment what must always hold.
    #[test]
    fn at_every_moment_of_many_lifetimes_one_published_authority_signs() {
        for ttl in [60, 61, 90, 3600, DAY, 30 * DAY, 400 * DAY] {
            let (mut journal, _, mut now) = settle(founding(), START, ttl);
            let mut published: Vec<Vec<u8>> = Vec::new();
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
                published = journal.authorities().iter().map(|a| a.certificate.clone()).collect();
                now = until;
            }
            assert!(sequence >= 20 && keys >= 20, "rotated {sequence} times, {keys} keys");
        }
    }

    #[test]
    fn a_new_ca_begins_with_its_root() {
        use SlotName::A;
        let (journal, steps, until) = settle_in(Rooted, founding(), right(START), DAY);
        let root = [Step::IntendRoot(A), Step::MakeRoot(A)];
        assert_eq!(steps[..2], root);
        assert_eq!(steps[2..], [Step::Intend(A), Step::Prepare(A), Step::Activate(A)]);
        assert_eq!((until, journal.authorities().len()), (START + DAY / 2, 1));
        for crashed in [journal.clone().intend_root(SlotName::B), founding().intend_root(A)] {
            let slot = crashed.roots().intended().unwrap();
            assert_eq!(plan(right(START), &crashed, Rooted), Step::MakeRoot(slot), "what was begun is finished");
        }
    }

    /// A server that signed with CAs of their own takes the root in: published at once, used by the next rotation.
    #[test]
    fn an_existing_ca_takes_the_root_in_by_one_rotation() {
        let (journal, ..) = settle(founding(), START, DAY);
        let taken_in = START + 3600;
        let (journal, steps, _) = settle_in(Rooted, journal, right(taken_in), DAY);
        assert_eq!(steps, [Step::IntendRoot(SlotName::A), Step::MakeRoot(SlotName::A)]);
        assert_eq!(journal.authorities().len(), 2, "beside the authority that signs");
        assert_eq!(journal.signer(taken_in).unwrap().1.root, None);
        let (journal, ..) = settle_in(Rooted, journal, right(START + DAY / 2), DAY);
        let (journal, ..) = settle_in(Rooted, journal, right(START + DAY * 5 / 6), DAY);
        let signer = journal.signer(START + DAY * 5 / 6).unwrap().1;
        assert!(signer.root.is_some() && journal.authorities().len() == 2, "its SVIDs of before are still about");
        let (journal, ..) = settle_in(Rooted, journal, right(START + 2 * DAY), DAY);
        let anchors: Vec<_> = journal.authorities().iter().map(|anchor| anchor.not_after).collect();
        assert_eq!(anchors, [taken_in + CAS_PER_ROOT * DAY], "only the root is left");
    }

    #[test]
    fn through_the_lives_of_many_roots_every_ca_is_signed_by_one_that_outlives_it() {
        for ttl in [60, DAY, 30 * DAY] {
            let (mut journal, _, mut now) = settle_in(Rooted, founding(), right(START), ttl);
            let mut roots = std::collections::BTreeSet::new();
            while now < START + 5 * CAS_PER_ROOT * ttl {
                let (next, _, until) = settle_in(Rooted, journal, right(now), ttl);
                journal = next;
                let (_, signer) = journal.signer(now).expect("one signs");
                let root = signer.root.expect("a root signed it");
                let anchors = journal.authorities();
                let anchor = anchors.iter().find(|anchor| anchor.key == root).expect("the root is in the bundle");
                assert!(anchor.not_after >= signer.not_after && signer.lifetime() == ttl, "{signer:?} {anchor:?}");
                assert!(anchors.len() <= 2, "{anchors:?}");
                roots.insert(root);
                now = until;
            }
            assert!(roots.len() >= 5, "{roots:?}");
        }
    }

    fn invariant_the_signer_lives_until(journal: &Journal, until: i64) {
        let (_, active) = journal.active().expect("one signs");
        assert!(active.not_after > until, "the signer expires before the next step");
    }

    fn invariant_the_signer_was_published_before(journal: &Journal, published: &[Vec<u8>], now: i64) {
        let (_, active) = journal.active().expect("one signs");
        let known = published.is_empty() || published.contains(&active.certificate);
        assert!(known, "the signer of {now} was not in the bundle of the step before");
    }

    fn invariant_the_bundle_is_small(journal: &Journal) {
        assert!(journal.authorities().len() <= 5, "{} authorities", journal.authorities().len());
    }
}
