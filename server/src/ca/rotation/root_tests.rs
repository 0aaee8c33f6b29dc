//! The plan of a root, and of the CAs below it.

use super::plan_one;
use super::rehearsal::*;
use super::{Pace, Step};
use crate::ca::journal::{Authority, Place, SlotName, Verdict};
use crate::ca::purpose::Purpose;
use crate::clock::{Moment, Trust};

const YEAR: i64 = 365 * DAY;

/// Roots of twenty years, made so many years after the start; the first of them is in place A and signs.
fn roots(made_after: &[i64]) -> Journal {
    let mut journal = founding();
    for (number, years) in (0..).zip(made_after) {
        let place = if number == 0 { ROOT_A } else { Place::root(SlotName::B) };
        let (issued_at, not_after) = (START + years * YEAR, START + (years + 20) * YEAR);
        let (credential, issued_counted, in_token) = (number.to_string(), years * YEAR, key(place));
        let (key, root, upstream, verdict) = (number, None, None, Verdict::None);
        let root =
            Authority { credential, issued_at, not_after, issued_counted, key, in_token, root, upstream, verdict };
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
    assert_eq!(cas(&journal).signer(taken_in).expect("the CA of before signs on").1.root, None);
    let (journal, ..) = settle_in(ROOTED, journal, right(START + DAY / 2), DAY);
    let (journal, ..) = settle_in(ROOTED, journal, right(START + DAY * 5 / 6), DAY);
    let signer = cas(&journal).signer(START + DAY * 5 / 6).expect("the next CA was activated").1;
    assert!(signer.root.is_some() && journal.anchors().len() == 2, "its SVIDs of before are still about");
    let (journal, ..) = settle_in(ROOTED, journal, right(START + 2 * DAY), DAY);
    let anchors: Vec<_> = journal.anchors().iter().map(|anchor| anchor.not_after).collect();
    assert_eq!(anchors, [taken_in + CAS_PER_ROOT * DAY], "only the root is left");
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
