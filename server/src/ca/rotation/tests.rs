//! A CA's life by the plan, at a right clock.

use super::rehearsal::*;
use super::{PUBLISH_FOR, Step, next_key_at, plan as plan_but_for};
use crate::ca::journal::{Place, SlotName};
use crate::ca::purpose::Purpose;
use crate::clock::Moment;

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
    // Of a short life it is a twelfth, as long as the active one has that long.
    let (journal, ..) = settle(founding(), START, 60);
    let (_, steps, until) = settle(journal, START + 52, 60);
    assert_eq!((&steps[..], until), (&[Step::Intend(B), Step::Prepare(B)][..], START + 55));
    // When the active one cannot wait, it is not waited for.
    let (journal, ..) = settle(founding(), START, DAY);
    let (_, steps, _) = settle(journal, START + DAY - 30, DAY);
    assert_eq!(steps.last(), Some(&Step::Activate(B)));
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
            assert!(!steps.iter().any(|step| matches!(step, Step::Renew(_))), "each authority has a key of its own");
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
fn a_step_that_failed_holds_up_neither_what_another_purpose_needs_nor_what_ends_in_its_time() {
    let root_half = START + CAS_PER_ROOT * DAY / 2;
    let mut journal = founding();
    for at in [START, root_half - DAY / 2, root_half, root_half + DAY / 3] {
        (journal, ..) = settle_in(ROOTED, journal, right(at), DAY);
    }
    let root_b = Place::root(SlotName::B);
    let due = START + CAS_PER_ROOT * DAY * 3 / 4;
    let step = |failed: &[Step]| plan_but_for(right(due), &journal, &paces(ROOTED, DAY), failed);
    assert_eq!(step(&[]), Step::Activate(root_b), "the next root is there");
    let Step::Intend(ca) = step(&[Step::Activate(root_b)]) else { panic!("{journal:?}") };
    assert_eq!(ca.purpose, Purpose::X509Ca);
    let prune = Step::Prune(Purpose::X509Ca);
    assert_eq!(step(&[Step::Activate(root_b), Step::Intend(ca)]), prune);
    let all = [Step::Activate(root_b), Step::Intend(ca), prune];
    assert!(matches!(step(&all), Step::Wait { until_unix } if until_unix > due), "{:?}", step(&all));
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
