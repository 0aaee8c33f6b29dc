//! When the CA does what: a pure function of the time and the journal.
//!
//! Thresholds are SPIRE's and scale with each authority's own lifetime, so that a `ca_ttl` of a minute works as one of a
//! year does. Source: SPIRE pkg/server/ca/manager, `preparationThreshold`, `activationThreshold`.

use super::journal::{Authority, Journal, SlotName};

/// The next authority is prepared when less than this remains, seconds, or half the lifetime if that is shorter.
const PREPARE_BEFORE: i64 = 30 * 24 * 60 * 60;
/// The next authority is activated when less than this remains, seconds, or a sixth of the lifetime if that is shorter.
const ACTIVATE_BEFORE: i64 = 7 * 24 * 60 * 60;

/// A new authority is in the bundle this long before it signs, seconds, or a twelfth of a lifetime if that is shorter: agents
/// look every five seconds. It matters after a long stop only, when preparing and activating are due at once.
const PUBLISH_FOR: i64 = 60;

/// The one thing to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until this time, UNIX seconds.
    Wait {
        /// When to ask again.
        until_unix: i64,
    },
    /// Write down that a key will be made in this slot.
    Intend(SlotName),
    /// Make and certify the key of this slot, and publish its certificate.
    Prepare(SlotName),
    /// Sign with this slot from now on.
    Activate(SlotName),
    /// Take authorities out of the bundle whose time is over.
    Prune,
}

/// What to do at `now_unix`. Performing the step and asking again converges to `Wait`.
pub fn plan(now_unix: i64, journal: &Journal) -> Step {
    // What was begun is finished first: the key of an intended slot may or may not exist.
    if let Some(slot) = journal.intended() {
        return Step::Prepare(slot);
    }
    let prepared = journal.prepared().filter(|(_, authority)| !authority.is_expired(now_unix));
    let active = journal.active().filter(|(_, authority)| !authority.is_expired(now_unix));
    let next = match (active, prepared) {
        (None, Some((slot, _))) => return Step::Activate(slot),
        (None, None) => return Step::Intend(free_slot(journal)),
        (Some((_, active)), Some((slot, prepared))) => {
            let due = activate_at(active, prepared);
            if due <= now_unix {
                return Step::Activate(slot);
            }
            due
        }
        (Some((slot, active)), None) => {
            let due = prepare_at(active);
            if due <= now_unix {
                return Step::Intend(slot.other());
            }
            due
        }
    };
    let prune = journal.next_prune().unwrap_or(i64::MAX);
    if prune <= now_unix { Step::Prune } else { Step::Wait { until_unix: next.min(prune) } }
}

/// The first moment at which less than the threshold remains.
fn prepare_at(active: &Authority) -> i64 {
    active.not_after - PREPARE_BEFORE.min(active.lifetime() / 2)
}

/// As late as the threshold says, and not before the prepared authority was published long enough to be known, as long as
/// the active one can still sign meanwhile.
fn activate_at(active: &Authority, prepared: &Authority) -> i64 {
    let publication = PUBLISH_FOR.min(active.lifetime() / 12);
    let published = (prepared.issued_at + publication).min(active.not_after - publication);
    published.max(active.not_after - ACTIVATE_BEFORE.min(active.lifetime() / 6))
}

/// Where to make a key when nothing alive signs: not over an authority that was active last, if the other slot will do.
fn free_slot(journal: &Journal) -> SlotName {
    journal.active().map_or(SlotName::A, |(expired, _)| expired.other())
}

#[cfg(test)]
mod tests {
    use ironroot_api::TrustDomain;

    use super::*;

    const DAY: i64 = 24 * 60 * 60;
    const START: i64 = 1_800_000_000;

    fn founding() -> Journal {
        Journal::new(&TrustDomain::new("example.org").unwrap())
    }

    /// What the performer would write.
    fn perform(journal: Journal, step: Step, now: i64, ttl: i64) -> Journal {
        match step {
            Step::Wait { .. } => journal,
            Step::Intend(slot) => journal.intend(slot),
            Step::Prepare(slot) => {
                let certificate = format!("{slot} at {now}").into_bytes();
                journal.prepare(slot, Authority { certificate, issued_at: now, not_after: now + ttl })
            }
            Step::Activate(slot) => journal.activate(slot),
            Step::Prune => journal.prune(now),
        }
    }

    /// Performs until there is nothing to do; returns the steps and when to ask again.
    fn settle(mut journal: Journal, now: i64, ttl: i64) -> (Journal, Vec<Step>, i64) {
        let mut steps = Vec::new();
        for _ in 0..10 {
            match plan(now, &journal) {
                Step::Wait { until_unix } => return (journal, steps, until_unix),
                step => {
                    journal = perform(journal, step, now, ttl);
                    steps.push(step);
                }
            }
        }
        panic!("does not settle: {steps:?}");
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
            assert!(matches!(plan(START + prepare - 1, &journal), Step::Wait { .. }));
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
            assert_eq!(plan(START, &journal), Step::Prepare(SlotName::A));
            let journal = perform(journal, Step::Prepare(SlotName::A), START, ttl);
            assert_eq!(plan(START + ttl - 1, &journal), Step::Activate(SlotName::A));
            let journal = journal.activate(SlotName::A).intend(SlotName::B);
            // Even when the active authority has expired meanwhile.
            for now in [START, START + ttl, START + 10 * ttl] {
                assert_eq!(plan(now, &journal), Step::Prepare(SlotName::B));
            }
        }
    }

    #[test]
    fn a_server_that_was_off_for_long_begins_again_in_the_other_slot() {
        let (journal, ..) = settle(founding(), START, DAY);
        let (journal, ..) = settle(journal, START + DAY / 2, DAY);
        let late = START + 100 * DAY;
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
        assert_eq!(plan(until, &journal), Step::Activate(SlotName::B));
        // When the active one cannot wait, it is not waited for.
        let (journal, ..) = settle(founding(), START, DAY);
        let (_, steps, _) = settle(journal, START + DAY - 30, DAY);
        assert_eq!(steps.last(), Some(&Step::Activate(SlotName::B)));
    }

    #[test]
    fn a_clock_that_goes_back_rotates_nothing() {
        let (journal, ..) = settle(founding(), START, DAY);
        for now in [0, START - 365 * DAY, START - 1] {
            assert_eq!(plan(now, &journal), Step::Wait { until_unix: START + DAY / 2 });
        }
    }

    /// Follows the plan for many lifetimes and checks at each moment what must always hold.
    #[test]
    fn at_every_moment_of_many_lifetimes_one_published_authority_signs() {
        for ttl in [60, 61, 90, 3600, DAY, 30 * DAY, 400 * DAY] {
            let (mut journal, _, mut now) = settle(founding(), START, ttl);
            let mut published: Vec<Vec<u8>> = Vec::new();
            let mut sequence = 0;
            while now < START + 20 * ttl {
                let (next, _, until) = settle(journal, now, ttl);
                journal = next;
                assert!(until > now, "the plan stands still at {now}");
                invariant_the_signer_lives_until(&journal, until);
                invariant_the_signer_was_published_before(&journal, &published, now);
                invariant_the_bundle_is_small(&journal);
                assert!(journal.sequence_number() >= sequence);
                sequence = journal.sequence_number();
                published = journal.authorities().iter().map(|a| a.certificate.clone()).collect();
                now = until;
            }
            assert!(sequence >= 20, "rotated {sequence} times");
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
