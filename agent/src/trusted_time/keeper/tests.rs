use super::*;

const BUILD: i64 = 1_000_000;
const TRUE: i64 = 2_000_000;

fn at(boot: i64, kernel: i64) -> Reading {
    Reading { boot, kernel }
}

fn hour(issued: i64) -> Span {
    Span { not_before: issued, not_after: issued + 3600 }
}

fn receive(keeper: &mut Keeper, issued: i64, reading: Reading) -> Lifetime {
    keeper.receive(issued, hour(issued), reading)
}

#[test]
fn the_kernels_clock_is_now_until_a_server_contradicts_it() {
    let mut keeper = Keeper::new(BUILD, at(10, TRUE));
    assert_eq!((keeper.estimate(at(10, TRUE)), keeper.confirmed(at(10, TRUE))), (TRUE, BUILD));
    assert_eq!(keeper.standing(), ClockStanding::Unconfirmed);
    receive(&mut keeper, TRUE + 50, at(60, TRUE + 50));
    assert_eq!(keeper.standing(), ClockStanding::Confirmed);
    assert_eq!(keeper.confirmed(at(60, TRUE + 50)), TRUE + 50);
    receive(&mut keeper, TRUE + 10_000, at(70, TRUE + 60));
    assert_eq!(keeper.standing(), ClockStanding::Contradicted);
    assert_eq!(keeper.estimate(at(71, TRUE + 61)), TRUE + 10_001);
    assert!(keeper.confirmed(at(71, TRUE + 61)) <= TRUE + 61, "one witness moves no bound");
}

/// A chain of an earlier run may have more behind it than was counted: by the clock, proven or not, it is replaced in time.
#[test]
fn a_chain_is_replaced_in_its_last_quarter_by_the_best_estimate() {
    let unproven = Keeper::new(BUILD, at(10, TRUE));
    let mut heard = Keeper::new(BUILD, at(10, 0));
    receive(&mut heard, TRUE, at(10, 0));
    for (keeper, kernel) in [(unproven, TRUE), (heard, 0)] {
        let is_due = |passed: i64| keeper.is_out_of_time(hour(TRUE), at(10 + passed, kernel + passed));
        assert_eq!([0, 2699, 2700, 3600].map(is_due), [false, false, true, true], "kernel {kernel}");
    }
}

#[test]
fn a_clock_that_is_set_must_agree_again() {
    let mut keeper = Keeper::new(BUILD, at(10, TRUE));
    receive(&mut keeper, TRUE, at(10, TRUE));
    // However long ago that was: what slews it slews elapsed time too.
    for later in [1_000, 418_791] {
        for (step, standing) in [(STEP, ClockStanding::Confirmed), (STEP + 1, ClockStanding::Unconfirmed)] {
            let mut keeper = keeper;
            keeper.observe(at(10 + later, TRUE + later + step));
            assert_eq!(keeper.standing(), standing, "{step} s in {later}");
        }
    }
}

#[test]
fn the_bound_comes_down_when_two_agree_and_only_then() {
    let mut keeper = Keeper::new(BUILD, at(10, 0));
    let poisoned = TimeRecord { confirmed: TRUE + 90_000, ..TimeRecord::default() };
    keeper.restore(&poisoned, &Restart::default(), at(10, 0));
    receive(&mut keeper, TRUE, at(20, 0));
    assert!(keeper.confirmed(at(20, 0)) >= TRUE + 90_000, "a server alone");
    receive(&mut keeper, TRUE + 5, at(25, TRUE + 5));
    assert_eq!(keeper.confirmed(at(25, TRUE + 5)), TRUE + 5);
}

#[test]
fn a_fresh_chain_lasts_as_long_as_it_was_signed_for_whatever_the_clock_says() {
    for kernel in [0, TRUE - 200_000, TRUE + 200_000, 1 << 40] {
        let mut keeper = Keeper::new(BUILD, at(100, kernel));
        let held = receive(&mut keeper, TRUE, at(100, kernel));
        let own = keeper.own(at(100, kernel));
        // Another server, three hours ahead.
        receive(&mut keeper, TRUE + 10_800, at(110, kernel));
        assert_eq!(keeper.end(&held, at(120, kernel)), own + 3600, "{kernel}");
    }
}

/// It may have agreed at the very edge; what it moved since, the server never said.
#[test]
fn a_small_step_of_a_clock_that_agreed_ends_no_fresh_chain_early() {
    let now = at(10, TRUE + AGREEMENT);
    let mut keeper = Keeper::new(BUILD, now);
    let held = receive(&mut keeper, TRUE, now);
    let ends = keeper.end(&held, now);
    for step in [-STEP, 0, STEP] {
        let reading = at(1_000, TRUE + AGREEMENT + 990 + step);
        keeper.observe(reading);
        assert_eq!(keeper.standing(), ClockStanding::Confirmed, "{step}");
        assert_eq!(keeper.end(&held, reading), ends, "{step}");
    }
}

#[test]
fn a_clock_that_the_right_server_confirms_ends_what_a_server_that_was_behind_had_signed() {
    for (behind, left) in [(AGREEMENT + 3601, -1), (AGREEMENT + 3595, 5)] {
        let now = at(10, TRUE);
        let mut keeper = Keeper::new(BUILD, now);
        let held = receive(&mut keeper, TRUE - behind, now);
        assert_eq!(keeper.end(&held, now), keeper.own(now) + 3600, "by elapsed time");
        receive(&mut keeper, TRUE, now);
        assert_eq!(keeper.end(&held, now) - keeper.own(now), left, "{behind} s behind");
    }
}

#[test]
fn with_a_clock_that_agrees_back_dating_is_known() {
    let mut keeper = Keeper::new(BUILD, at(100, TRUE));
    let span = Span { not_before: TRUE - 10, not_after: TRUE + 10 };
    let held = keeper.receive(TRUE - 10, span, at(100, TRUE));
    assert_eq!(keeper.left(&held, at(100, TRUE)), 10);
    let instant = Span { not_before: TRUE, not_after: TRUE };
    let held = keeper.receive(TRUE, instant, at(100, TRUE));
    assert_eq!(keeper.left(&held, at(100, TRUE)), 1);
}

#[test]
fn a_chain_that_ended_is_in_doubt_and_one_from_the_future_is_not() {
    let keeper = Keeper::new(BUILD, at(10, TRUE));
    let judge = |issued| keeper.judge(hour(issued), at(10, TRUE)).expect("a span");
    assert_eq!(judge(TRUE - 60), ChainTime { at: TRUE, in_doubt: false });
    assert_eq!(judge(TRUE + 99_999), ChainTime { at: TRUE + 99_999, in_doubt: false });
    assert_eq!(judge(TRUE - 99_999), ChainTime { at: TRUE - 96_399, in_doubt: true });
    assert_eq!(keeper.judge(Span { not_before: 2, not_after: 1 }, at(10, TRUE)), None);
}

#[test]
fn a_disputed_chain_waits_until_what_is_held_has_ended() {
    let mut keeper = Keeper::new(BUILD, at(10, TRUE));
    let held = receive(&mut keeper, TRUE, at(10, TRUE));
    let fresh = receive(&mut keeper, TRUE - 90_000, at(20, TRUE + 10));
    assert!(!keeper.prefers(&fresh, Some(&held), at(20, TRUE + 10)));
    assert!(keeper.prefers(&fresh, None, at(20, TRUE + 10)));
    assert!(keeper.prefers(&fresh, Some(&held), at(3611, TRUE + 3601)));
}

#[test]
fn a_restored_clock_and_one_in_1970_are_the_same_case() {
    let then = at(5_000, TRUE);
    let mut before = Keeper::new(BUILD, then);
    let held = receive(&mut before, TRUE, then);
    let left = before.left(&held, then);
    let record = before.record(Restart { tpm_clock: None, boot_id: "a".to_owned() }, then);
    // Two days off; the kernel's clock begins in 1970, or where it was when the device went down.
    for kernel in [0, TRUE] {
        let now = at(30, kernel);
        let mut keeper = Keeper::new(BUILD, now);
        keeper.restore(&record, &Restart { tpm_clock: None, boot_id: "b".to_owned() }, now);
        let kept = Lifetime::kept(hour(TRUE), Some(left));
        assert!(keeper.end(&kept, now) > keeper.own(now), "nobody knows better yet");
        let server = hour(TRUE + 172_800 - 60);
        assert!(!keeper.judge(server, now).expect("a span").in_doubt, "{kernel}");
        let fresh = receive(&mut keeper, TRUE + 172_800, now);
        assert!(keeper.prefers(&fresh, Some(&kept), now));
        assert_eq!(keeper.estimate(now), TRUE + 172_800);
    }
}

#[test]
fn a_clock_with_a_battery_ends_what_ran_out_while_the_device_was_off() {
    let then = at(5_000, TRUE);
    let mut before = Keeper::new(BUILD, then);
    receive(&mut before, TRUE, then);
    let record = before.record(Restart { tpm_clock: None, boot_id: "a".to_owned() }, then);
    let now = at(30, TRUE + 7200);
    let mut keeper = Keeper::new(BUILD, now);
    keeper.restore(&record, &Restart { tpm_clock: None, boot_id: "b".to_owned() }, now);
    assert!(keeper.end(&Lifetime::kept(hour(TRUE), None), now) <= keeper.own(now));
    // The server is back and says that it was the clock that had jumped.
    receive(&mut keeper, TRUE + 60, now);
    assert!(keeper.end(&Lifetime::kept(hour(TRUE), None), now) > keeper.own(now));
}

#[test]
fn a_restart_within_a_boot_changes_nothing() {
    let then = at(5_000, TRUE);
    let mut before = Keeper::new(BUILD, then);
    receive(&mut before, TRUE, then);
    let restart = Restart { tpm_clock: None, boot_id: "a".to_owned() };
    let record = before.record(restart.clone(), then);
    let now = at(5_100, TRUE + 100);
    let mut after = Keeper::new(BUILD, now);
    after.restore(&record, &restart, now);
    assert_eq!(after.standing(), ClockStanding::Confirmed);
    assert_eq!(after.estimate(now), before.estimate(now));
    assert!(after.confirmed(now) >= TRUE + 99);
}

/// What an agreed clock left when the power went.
fn agreed_record(then: Reading) -> TimeRecord {
    let mut before = Keeper::new(BUILD, then);
    receive(&mut before, then.kernel, then);
    before.record(Restart { tpm_clock: None, boot_id: "a".to_owned() }, then)
}

fn restored(record: &TimeRecord, boot_id: &str, now: Reading) -> Keeper {
    let mut keeper = Keeper::new(BUILD, now);
    keeper.restore(record, &Restart { tpm_clock: None, boot_id: boot_id.to_owned() }, now);
    keeper
}

#[test]
fn a_clock_that_was_set_while_the_agent_was_down_has_agreed_no_more() {
    let record = agreed_record(at(5_000, TRUE));
    let most = STEP;
    for (moved, standing) in [
        (-most - 1, ClockStanding::Unconfirmed),
        (-most, ClockStanding::Confirmed),
        (most, ClockStanding::Confirmed),
        (most + 1, ClockStanding::Unconfirmed),
    ] {
        let after = restored(&record, "a", at(5_000 + 2 * SLEW, TRUE + 2 * SLEW + moved));
        assert_eq!(after.standing(), standing, "{moved} s against elapsed time");
    }
}

#[test]
fn after_another_boot_a_clock_is_still_what_it_was_if_it_has_not_gone_back() {
    let record = agreed_record(at(5_000, TRUE));
    for (back, is_what_it_was) in [(STEP + 1, false), (STEP, true), (-90_000, true)] {
        let now = at(30, TRUE + 30 - back);
        let again = restored(&record, "b", now).record(Restart::default(), now);
        assert_eq!(again.kernel.is_some(), is_what_it_was, "{back} s back");
    }
}

#[test]
fn a_record_that_knows_no_more_than_this_run_takes_nothing_from_the_bound() {
    let now = at(20, TRUE + 10);
    let mut keeper = Keeper::new(BUILD, at(10, TRUE));
    receive(&mut keeper, TRUE, at(10, TRUE));
    let (before, later) = (keeper, at(1_000, TRUE + 990));
    let record = TimeRecord { confirmed: keeper.confirmed(now), ..TimeRecord::default() };
    keeper.restore(&record, &Restart::default(), now);
    assert_eq!(keeper.confirmed(later), before.confirmed(later));
}

#[test]
fn each_event_that_changes_what_may_be_served_counts_and_nothing_else_does() {
    let mut keeper = Keeper::new(BUILD, at(10, TRUE));
    let mut counted = keeper.version();
    let mut counts = |keeper: &Keeper| {
        let more = keeper.version() - counted;
        counted = keeper.version();
        more
    };
    keeper.restore(&TimeRecord::default(), &Restart::default(), at(10, TRUE));
    assert_eq!(counts(&keeper), 1, "what an earlier run left");
    receive(&mut keeper, TRUE, at(20, TRUE + 10));
    assert_eq!(counts(&keeper), 1, "the server confirms the clock");
    receive(&mut keeper, TRUE + 10, at(30, TRUE + 20));
    keeper.observe(at(40, TRUE + 30));
    assert_eq!(counts(&keeper), 0, "and again; the clock goes on");
    keeper.observe(at(50, TRUE + 9_999));
    assert_eq!(counts(&keeper), 1, "the clock was set");
    let now = at(50, TRUE + 9_999);
    keeper.lift(keeper.estimate(now) + AGREEMENT, now);
    assert_eq!(counts(&keeper), 0, "a certificate that tells nothing new");
    keeper.lift(keeper.estimate(now) + AGREEMENT + 1, now);
    assert_eq!(counts(&keeper), 1, "a certificate that disproves the estimate");
}

#[test]
fn the_bound_grows_by_elapsed_time_less_what_a_slewed_clock_may_be_fast() {
    let mut keeper = Keeper::new(BUILD, at(0, TRUE));
    receive(&mut keeper, TRUE, at(0, TRUE));
    for passed in [1, SLEW - 1, SLEW, 10 * SLEW] {
        assert_eq!(keeper.confirmed(at(passed, 0)), TRUE + passed - passed / SLEW - 1, "after {passed} s");
    }
    assert_eq!(keeper.confirmed(at(0, 0)), TRUE, "never below what was confirmed");
}

#[test]
fn a_certificate_that_began_later_than_now_lifts_the_estimate_and_confirms_nothing() {
    let now = at(10, TRUE);
    let mut keeper = Keeper::new(BUILD, now);
    keeper.lift(TRUE + AGREEMENT, now);
    assert_eq!(keeper.estimate(now), TRUE, "within what clocks may differ");
    keeper.lift(TRUE + AGREEMENT + 1, now);
    assert_eq!(keeper.estimate(now), TRUE + AGREEMENT + 1);
    assert_eq!((keeper.standing(), keeper.confirmed(now)), (ClockStanding::Unconfirmed, BUILD));
    receive(&mut keeper, TRUE, now);
    keeper.lift(TRUE + 90_000, now);
    assert_eq!(keeper.standing(), ClockStanding::Contradicted);
}

#[test]
fn clocks_that_differ_by_no_more_than_is_tolerated_agree() {
    let now = at(10, TRUE);
    let keeper = Keeper::new(BUILD, now);
    let ended = |by: i64| Span { not_before: BUILD, not_after: TRUE - AGREEMENT - by };
    assert_eq!([0, 1].map(|by| keeper.judge(ended(by), now).expect("a span").in_doubt), [false, true]);
    let begins = |by: i64| Span { not_before: TRUE + AGREEMENT + by, not_after: TRUE + 90_000 };
    assert_eq!([0, 1].map(|by| keeper.is_out_of_time(begins(by), now)), [false, true]);
    for (apart, standing) in [(AGREEMENT, ClockStanding::Confirmed), (AGREEMENT + 1, ClockStanding::Unconfirmed)] {
        let mut keeper = Keeper::new(BUILD, now);
        receive(&mut keeper, TRUE + apart, now);
        assert_eq!(keeper.standing(), standing, "{apart} s apart");
    }
}

#[test]
fn what_a_server_said_is_kept_as_its_claim_and_goes_on_with_time() {
    let mut keeper = Keeper::new(BUILD, at(10, TRUE));
    assert_eq!(keeper.record(Restart::default(), at(10, TRUE)).claim, None);
    receive(&mut keeper, TRUE + 10_000, at(10, TRUE));
    assert_eq!(keeper.record(Restart::default(), at(110, TRUE + 100)).claim, Some(TRUE + 10_100));
}

#[test]
fn a_token_is_counted_like_a_chain_and_moves_nothing() {
    for kernel in [TRUE, 0] {
        let keeper = Keeper::new(BUILD, at(10, kernel));
        let (mut chains, before) = (keeper, keeper);
        let token = keeper.count(TRUE, hour(TRUE), at(10, kernel));
        assert_eq!(keeper, before, "whoever replays an old token sets no clock");
        let chain = receive(&mut chains, TRUE, at(10, kernel));
        assert_eq!(keeper.end(&token, at(10, kernel)), keeper.end(&chain, at(10, kernel)));
        assert_eq!(
            keeper.end(&token, at(3000, kernel - 5000)),
            keeper.own(at(10, kernel)) + 3600,
            "by elapsed time alone"
        );
    }
}

#[test]
fn an_estimate_is_placed_once_a_server_or_a_clock_that_agreed_speaks_for_it() {
    let mut keeper = Keeper::new(BUILD, at(10, 0));
    assert!(!keeper.is_placed());
    keeper.restore(&TimeRecord { claim: Some(TRUE), ..TimeRecord::default() }, &Restart::default(), at(10, 0));
    assert!(!keeper.is_placed(), "a recorded claim may be long ago");
    receive(&mut keeper, TRUE, at(20, 0));
    assert!(keeper.is_placed());
    let mut agreed = Keeper::new(BUILD, at(10, TRUE));
    assert!(!agreed.is_placed());
    receive(&mut agreed, TRUE, at(10, TRUE));
    assert!(agreed.is_placed());
}

#[test]
fn a_clock_that_is_further_ahead_than_devices_are_off_is_not_what_it_was() {
    let record = agreed_record(at(5_000, TRUE));
    for (ahead, is_believed) in [(LONGEST_ABSENCE, true), (LONGEST_ABSENCE + 1, false), (2 * LONGEST_ABSENCE, false)] {
        let now = at(30, TRUE + 30 + ahead);
        let keeper = restored(&record, "b", now);
        assert_eq!(keeper.record(Restart::default(), now).kernel.is_some(), is_believed, "{ahead} s ahead");
        let kept = Lifetime::kept(hour(TRUE), None);
        assert_eq!(keeper.end(&kept, now) > keeper.own(now), !is_believed, "what is cached is served: {ahead}");
    }
}

/// Found by a simulated life (seed 38): a device that had been off, whose server was set back by 400 s a week later, served a chain
/// from its cache for as long as the bound lags behind elapsed time.
#[test]
fn a_chain_from_the_cache_ends_by_elapsed_time_since_clocks_agreed_though_the_server_contradicts_them_then() {
    const OFF: i64 = 21_600;
    const WEEK: i64 = 604_800;
    let record = agreed_record(at(5_000, TRUE));
    let start = at(0, TRUE + OFF);
    let mut keeper = restored(&record, "b", start);
    receive(&mut keeper, start.kernel - 10, start);
    let not_after = TRUE + WEEK;
    let kept = Lifetime::kept(Span { not_before: TRUE - 10, not_after }, Some(WEEK));
    let later = |left: i64| at(WEEK - OFF - left, not_after - left);
    receive(&mut keeper, later(1).kernel - 400, later(1));
    assert_eq!(keeper.standing(), ClockStanding::Contradicted);
    let left = keeper.end(&kept, later(1)) - keeper.own(later(1));
    assert_eq!(left, 11, "the server's back-dating, and no part of a week");
    assert!(keeper.confirmed(later(1)) < not_after - 500, "the bound itself stays careful");
}
