//! What operators may order, and what not, in each state of a purpose.

use super::super::rehearsal::{
    A, B, DAY, Journal, ROOTED, SELF_SIGNED, START, cas, founding, key, paces, perform, plan, right, settle, settle_in,
};
use super::super::{Step, plan as plan_but_for};
use super::{Action, MAX_RETIRED_BY_HAND, MayActivate, MayPrepare, MayRevoke, MayTaint, OrderRefusal, Status};
use crate::ca::journal::{Authority, MAX_RETIRED, Slot, SlotName, Verdict};
use crate::ca::purpose::Purpose;
use crate::clock::{Moment, Trust};

const LATER: i64 = START + 60;

fn settled(is_rooted: bool) -> Journal {
    settle_in(is_rooted, founding(), right(START), DAY).0
}

fn prepared_by_hand(journal: Journal, purpose: Purpose, now: i64) -> Journal {
    let place = MayPrepare::judge(&journal, purpose, right(now)).expect("it may be").place();
    perform(journal.replace(place, key(place)), Step::Prepare(place), right(now), DAY)
}

fn activated_by_hand(journal: Journal, purpose: Purpose) -> Journal {
    let prepared = journal.slots(purpose).prepared().map(|(_, authority)| authority.key);
    let place = MayActivate::judge(&journal, purpose, prepared).expect("it may be").place();
    journal.activate_by_hand(place)
}

/// The first CA is old, the second signs.
fn replaced(is_rooted: bool) -> Journal {
    activated_by_hand(prepared_by_hand(settled(is_rooted), Purpose::X509Ca, LATER), Purpose::X509Ca)
}

const CA: Purpose = Purpose::X509Ca;

#[test]
fn the_next_authority_is_made_beside_the_one_that_signs_and_signs_when_it_is_activated() {
    let journal = prepared_by_hand(settled(SELF_SIGNED), CA, LATER);
    assert_eq!(cas(&journal).prepared().map(|(slot, a)| (slot, a.key)), Some((SlotName::B, 1)));
    assert_eq!((journal.anchors().len(), cas(&journal).signer(LATER).map(|(_, a)| a.key)), (2, Some(0)));
    let journal = activated_by_hand(journal, CA);
    assert_eq!(cas(&journal).signer(LATER).map(|(_, a)| a.key), Some(1));
    assert_eq!(journal.anchors().len(), 2, "what the other signed is still about");
}

#[test]
fn nothing_is_prepared_before_something_signs_or_by_a_wrong_clock() {
    let refused = |journal: &Journal, moment| MayPrepare::judge(journal, CA, moment).unwrap_err();
    assert_eq!(refused(&founding(), right(START)), OrderRefusal::Initializing);
    let wrong = Moment { trust: Trust::Incident, ..right(LATER) };
    assert_eq!(refused(&settled(SELF_SIGNED), wrong), OrderRefusal::Clock(CA));
}

#[test]
fn what_is_prepared_again_takes_the_place_of_what_was_and_leaves_nothing_behind() {
    let mut journal = settled(SELF_SIGNED);
    for number in 1..=5 * MAX_RETIRED as u64 {
        journal = prepared_by_hand(journal, CA, LATER);
        assert_eq!(cas(&journal).prepared().map(|(_, a)| a.key), Some(number));
        assert_eq!((journal.anchors().len(), cas(&journal).retired_count()), (2, 0));
    }
}

#[test]
fn so_many_authorities_are_replaced_by_hand_and_no_more_until_some_have_ended_or_are_revoked() {
    let mut journal = settled(SELF_SIGNED);
    for _ in 0..=MAX_RETIRED_BY_HAND {
        journal = activated_by_hand(prepared_by_hand(journal, CA, LATER), CA);
    }
    let again = |journal: &Journal, now| MayPrepare::judge(journal, CA, right(now)).map(drop);
    assert_eq!(again(&journal, LATER), Err(OrderRefusal::TooManyRetired(CA)));
    assert_eq!(journal.anchors().len(), MAX_RETIRED_BY_HAND + 2, "all of them are in the bundle");
    let (ended, ..) = settle(journal.clone(), LATER + 3 * DAY, DAY);
    assert_eq!(again(&ended, LATER + 3 * DAY), Ok(()));
    assert_eq!(again(&journal.taint(CA, 0).revoke(CA, 0), LATER), Ok(()));
}

#[test]
fn only_what_is_prepared_is_activated() {
    let journal = prepared_by_hand(replaced(SELF_SIGNED), CA, LATER);
    let judged = |journal: &Journal, key| MayActivate::judge(journal, CA, key).map(|may| may.place());
    assert_eq!(judged(&journal, Some(2)), Ok(A));
    assert_eq!(judged(&journal, Some(1)), Err(OrderRefusal::OtherId), "it signs");
    assert_eq!(judged(&journal, Some(7)), Err(OrderRefusal::OtherId));
    assert_eq!(judged(&journal, None), Err(OrderRefusal::OtherId));
    assert_eq!(judged(&replaced(SELF_SIGNED), Some(0)), Err(OrderRefusal::NotPrepared(Status::Old)));
}

#[test]
fn only_what_has_signed_is_tainted_and_once() {
    let judged = |journal: &Journal, key| MayTaint::judge(journal, CA, key, false).map(|may| may.key());
    let journal = replaced(SELF_SIGNED);
    assert_eq!(judged(&journal, Some(0)), Ok((CA, 0)));
    assert_eq!(judged(&journal, Some(1)), Err(OrderRefusal::TaintsActive));
    for unknown in [None, Some(9)] {
        assert_eq!(judged(&journal, unknown), Err(OrderRefusal::OtherId));
    }
    let prepared = prepared_by_hand(settled(SELF_SIGNED), CA, LATER);
    assert_eq!(judged(&prepared, Some(1)), Err(OrderRefusal::NotOld(Status::Prepared)));
    let again = prepared_by_hand(journal.clone(), CA, LATER);
    assert_eq!(judged(&again, Some(0)), Ok((CA, 0)), "also when its slot has another key by now");
    assert_eq!(judged(&journal.taint(CA, 0), Some(0)), Err(OrderRefusal::IsTainted(CA)));
}

#[test]
fn only_what_is_tainted_is_revoked() {
    let judged = |journal: &Journal, key| MayRevoke::judge(journal, CA, key, false).map(|may| may.key());
    let journal = replaced(SELF_SIGNED);
    assert_eq!(judged(&journal, Some(0)), Err(OrderRefusal::IsNotTainted(CA)));
    assert_eq!(judged(&journal, Some(1)), Err(OrderRefusal::RevokesActive));
    assert_eq!(judged(&journal, None), Err(OrderRefusal::NotRevocable(CA)));
    let prepared = prepared_by_hand(settled(SELF_SIGNED), CA, LATER);
    assert_eq!(judged(&prepared, Some(1)), Err(OrderRefusal::RevokesPrepared(CA)));
    let tainted = journal.taint(CA, 0);
    assert_eq!(judged(&tainted, Some(0)), Ok((CA, 0)));
    assert_eq!(judged(&tainted.revoke(CA, 0), Some(0)), Err(OrderRefusal::NotRevocable(CA)), "it is gone");
}

#[test]
fn what_is_tainted_stays_in_the_bundle_and_signs_nothing_whatever_the_clock_says() {
    let journal = replaced(SELF_SIGNED);
    let before = journal.sequence_number();
    let journal = journal.taint(CA, 0);
    assert_eq!((journal.anchors().len(), journal.sequence_number()), (2, before + 1));
    let (_, old) =
        cas(&journal).authorities().into_iter().map(|a| (a.key, a)).find(|(key, _)| *key == 0).expect("there");
    assert_eq!(old.verdict, Verdict::Tainted);
    // The active one is of a minute later: by a clock that is set back only the old one would be valid.
    assert_eq!(cas(&journal).signer(START + 5).map(|(_, a)| a.key), None);
    assert!(cas(&journal).signers().iter().all(|(_, authority)| authority.key != 0));
}

#[test]
fn a_key_that_was_replaced_by_hand_is_not_certified_again() {
    for tainted in [false, true] {
        let journal = replaced(SELF_SIGNED);
        let journal = if tainted { journal.taint(CA, 0) } else { journal };
        // The old one would be alive then, and the plan would use its key again.
        let half = cas(&journal).active().expect("it signs").1.issued_at + DAY / 2;
        assert!(!cas(&journal).authorities()[0].is_over(right(half)));
        let (journal, steps, _) = settle(journal, half, DAY);
        assert_eq!(steps, [Step::Intend(A), Step::Prepare(A)]);
        assert_eq!(cas(&journal).prepared().map(|(_, authority)| authority.key), Some(2));
    }
}

#[test]
fn a_revoked_key_is_out_of_the_bundle_at_once_and_destroyed_by_the_next_step_even_by_a_wrong_clock() {
    let journal = replaced(SELF_SIGNED).taint(CA, 0);
    let before = journal.sequence_number();
    let journal = journal.revoke(CA, 0);
    assert_eq!((journal.anchors().len(), journal.sequence_number()), (1, before + 1));
    for trust in [Trust::Agreed, Trust::Incident, Trust::Settling] {
        let step = plan(Moment { trust, ..right(LATER) }, &journal, &paces(SELF_SIGNED, DAY));
        assert_eq!(step, Step::Destroy(A), "{trust:?}");
    }
    let failed = [Step::Destroy(A)];
    let due = LATER + DAY / 2;
    let step = plan_but_for(right(due), &journal, &paces(SELF_SIGNED, DAY), &failed);
    assert_eq!(step, Step::Intend(A), "a token that does not destroy it holds up no rotation");
    let journal = perform(journal, Step::Destroy(A), right(LATER), DAY);
    assert_eq!(journal.slot(A), &Slot::Empty);
}

#[test]
fn a_ca_below_a_root_is_replaced_but_not_tainted_since_bundles_have_the_root() {
    let journal = replaced(ROOTED);
    for key in [Some(1), Some(9), None] {
        let taint = MayTaint::judge(&journal, CA, key, true).map(drop);
        assert_eq!(taint, Err(OrderRefusal::IsBelowARoot(Action::Taint)));
        let revoke = MayRevoke::judge(&journal, CA, key, true).map(drop);
        assert_eq!(revoke, Err(OrderRefusal::IsBelowARoot(Action::Revoke)));
    }
    // One that signed itself before there was a root is in the bundle.
    let journal = activated_by_hand(prepared_by_hand(settled(SELF_SIGNED), CA, LATER), CA);
    let (journal, ..) = settle_in(ROOTED, journal, right(LATER), DAY);
    assert_eq!(MayTaint::judge(&journal, CA, Some(0), true).map(|may| may.key()), Ok((CA, 0)));
}

#[test]
fn a_root_is_tainted_when_the_cas_that_sign_are_below_another() {
    let judged = |journal: &Journal, key| MayTaint::judge_upstream(journal, key, true).map(|may| may.key());
    let root = |journal: &Journal| journal.slots(Purpose::Root).active().expect("one signs").1.key;
    let one = replaced(ROOTED);
    let first = root(&one);
    assert_eq!(judged(&one, Some(first)), Err(OrderRefusal::SignsActive(Action::Taint)));
    for unknown in [None, Some(99)] {
        assert_eq!(judged(&one, unknown), Err(OrderRefusal::SignedNoOld(Action::Taint)));
    }
    assert_eq!(MayTaint::judge_upstream(&replaced(SELF_SIGNED), None, false).map(drop), Err(OrderRefusal::NoRoot));
    let two = prepared_by_hand(one, Purpose::Root, LATER);
    let again = MayPrepare::judge(&two, Purpose::Root, right(LATER)).map(drop);
    assert_eq!(again, Err(OrderRefusal::RootIsPrepared), "others may know it");
    let next = two.slots(Purpose::Root).prepared().expect("just now").1.key;
    assert_eq!(judged(&two, Some(next)), Err(OrderRefusal::SignedNoOld(Action::Taint)));
    let two = activated_by_hand(two, Purpose::Root);
    assert_eq!(judged(&two, Some(first)), Err(OrderRefusal::SignsActive(Action::Taint)), "the CA is still below it");
    let under_both = activated_by_hand(prepared_by_hand(two, CA, LATER), CA);
    assert_eq!(judged(&under_both, Some(first)), Ok((Purpose::Root, first)));
    assert_eq!(judged(&under_both, Some(next)), Err(OrderRefusal::SignsActive(Action::Taint)));
    let revoke = |journal: &Journal| MayRevoke::judge_upstream(journal, Some(first), true).map(drop);
    assert_eq!(revoke(&under_both), Err(OrderRefusal::IsNotTainted(Purpose::Root)));
    let tainted = under_both.taint(Purpose::Root, first);
    assert_eq!(judged(&tainted, Some(first)), Err(OrderRefusal::IsTainted(Purpose::Root)));
    assert!(cas(&tainted).authorities().iter().all(|ca| ca.is_tainted() == (ca.root == Some(first))));
    assert_eq!(revoke(&tainted), Ok(()));
    let revoked = tainted.revoke(Purpose::Root, first);
    assert!(cas(&revoked).authorities().iter().all(|ca| ca.root == Some(next)));
    assert_eq!(revoked.anchors().iter().map(|root| root.key).collect::<Vec<_>>(), [next]);
}

#[test]
fn a_root_that_signs_the_next_ca_is_not_tainted() {
    let one = prepared_by_hand(settled(ROOTED), CA, LATER);
    let first = one.slots(Purpose::Root).active().expect("one signs").1.key;
    let two = activated_by_hand(prepared_by_hand(one, Purpose::Root, LATER), Purpose::Root);
    // The CA that signs is replaced by one below the second root, and that by the first's, which was prepared before: not by any
    // order of steps, but the journal says so.
    let prepared = cas(&two).prepared().expect("it is").1.clone();
    let signing = Authority { root: Some(99), key: 98, ..prepared.clone() };
    let two = two.prepare(A, signing).activate(A).prepare(B, prepared);
    let refused = |action| Err(OrderRefusal::SignsPrepared(action));
    assert_eq!(MayTaint::judge_upstream(&two, Some(first), true).map(drop), refused(Action::Taint));
    assert_eq!(MayRevoke::judge_upstream(&two, Some(first), true).map(drop), refused(Action::Revoke));
}
