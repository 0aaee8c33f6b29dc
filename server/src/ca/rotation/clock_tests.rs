//! The plan at a clock that is or was wrong.

use super::Step;
use super::rehearsal::*;
use crate::ca::journal::SlotName;
use crate::clock::{Moment, Trust};

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
    let (slot, signer) = cas(&journal).signer(back.now_unix).expect("A is valid by the clock that is right again");
    assert_eq!((slot, signer.issued_at), (SlotName::A, START));
    assert!(matches!(plan(back, &journal, &paces(SELF_SIGNED, DAY)), Step::Wait { .. }));
    // The life of A ends: the next one is certified in time, and by the key that is there.
    let (journal, steps, _) = settle(journal, START + DAY / 2, DAY);
    assert_eq!(steps, [Step::Renew(B)]);
    let (journal, steps, _) = settle(journal, START + DAY * 5 / 6, DAY);
    assert_eq!(steps, [Step::Activate(B)]);
    assert_eq!(cas(&journal).signer(START + DAY).expect("B was certified anew in time").1.issued_at, START + DAY / 2);
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
    assert_eq!(plan(right(START - 5), &journal, &paces(SELF_SIGNED, DAY)), Step::Wait { until_unix: START + DAY / 2 });
    let before = Moment { now_unix: START - 365 * DAY, counted: 0, trust: Trust::Settling };
    let (journal, steps, _) = settle_at(journal, before, DAY);
    assert_eq!(steps, [Step::Intend(B), Step::Prepare(B), Step::Activate(B)]);
    assert_eq!(
        cas(&journal).signer(START).expect("A keeps its key and its time").0,
        SlotName::A,
        "its key is kept for when the clock is right again"
    );
}
