//! The CA under a clock that jumps: no key is lost, and who is valid signs.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use ironroot_api::certificate::Certificate;
use ironroot_lab::authority::{AuthorityLab, NOW, assert_signs, spki, verify};
use ironroot_lab::softhsm::SoftHsm;
use ironroot_server::ca::{CaError, Purpose, SlotName};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const TEN_YEARS: i64 = 3650 * DAY;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

async fn key(lab: &AuthorityLab, slot: SlotName) -> Option<Vec<u8>> {
    lab.token.find(&lab.key_name(slot)).await.unwrap().map(|key| key.spki_der().to_vec())
}

//= FLT-S11
#[test]
fn a_server_whose_clock_is_ten_years_ahead_for_seconds_destroys_nothing_and_says_so() {
    SoftHsm::run_in_child("a_server_whose_clock_is_ten_years_ahead_for_seconds_destroys_nothing_and_says_so", |hsm| {
        run(async {
            let lab = AuthorityLab::new(hsm, DAY);
            let bundle = lab.start(NOW).await.unwrap().bundle().borrow().clone();
            let (live, journal) = (key(&lab, SlotName::A).await, lab.journal().await);
            // The machine was not restarted: the clock that counts knows better.
            let ca = lab.start_by("lab", NOW + 8, NOW + TEN_YEARS).await.unwrap();
            let trouble = ca.trouble().unwrap();
            assert!(trouble.contains("clock says 2037-01-12") && trouble.contains("it is 2027-01-15"), "{trouble}");
            let refused = ca.sign_server_svid(&spki(), NOW + TEN_YEARS).await.unwrap_err();
            assert!(matches!(refused, CaError::Profile(_)), "{refused}");
            assert_eq!((lab.journal().await, key(&lab, SlotName::A).await), (journal, live));
            let ca = lab.start(NOW + 16).await.unwrap();
            assert_eq!((ca.trouble(), ca.bundle().borrow().clone()), (None, bundle));
            assert_signs(&ca, NOW + 16).await;
        });
    });
}

#[test]
fn a_machine_that_starts_with_a_wrong_clock_costs_no_key_and_the_valid_authority_signs_afterwards() {
    SoftHsm::run_in_child(
        "a_machine_that_starts_with_a_wrong_clock_costs_no_key_and_the_valid_authority_signs_afterwards",
        |hsm| {
            run(async {
                for (boot, ahead) in [("hours", 21 * HOUR), ("years", TEN_YEARS)] {
                    let lab = AuthorityLab::new(hsm, DAY);
                    let ca = lab.start(NOW).await.unwrap();
                    let held = ca.sign_server_svid(&spki(), NOW).await.unwrap();
                    let live = key(&lab, SlotName::A).await;
                    // Nothing contradicts the clock: the next authority is made and signs, dated in the future.
                    lab.start_by(boot, 5, NOW + ahead).await.unwrap();
                    lab.start_by(boot, 125, NOW + ahead + 120).await.unwrap();
                    let journal = lab.journal().await;
                    assert_eq!(
                        journal.slots(Purpose::X509Ca).active().map(|(slot, _)| slot),
                        Some(SlotName::B),
                        "{boot}"
                    );
                    // A time service sets it right.
                    let now = NOW + 140;
                    let ca = lab.start_by(boot, 140, now).await.unwrap();
                    assert!(ca.trouble().is_some(), "{boot}");
                    assert_eq!(key(&lab, SlotName::A).await, live, "{boot}: the live key was destroyed");
                    let svid = ca.sign_server_svid(&spki(), now).await.unwrap();
                    let bundle = ca.bundle().borrow().clone();
                    for svid in [&svid, &held] {
                        verify(svid, &bundle, now).unwrap();
                    }
                    let issuer = |svid: &[u8]| Certificate::parse(svid).unwrap().authority_key_id();
                    assert_eq!(issuer(&svid.chain[0]), issuer(&held.chain[0]), "{boot}: the old authority signs");
                    lab.forget_keys().await;
                }
            });
        },
    );
}

//= FLT-S11
#[test]
fn a_clock_before_the_last_time_rotates_nothing_until_it_has_caught_up() {
    SoftHsm::run_in_child("a_clock_before_the_last_time_rotates_nothing_until_it_has_caught_up", |hsm| {
        run(async {
            let lab = AuthorityLab::new(hsm, DAY);
            lab.start(NOW).await.unwrap();
            let journal = lab.journal().await;
            let ca = lab.start_by("next", 5, NOW - 2 * DAY).await.unwrap();
            assert!(ca.trouble().unwrap().contains("when the server last ran it was 2027-01-15"));
            let refused = ca.sign_server_svid(&spki(), NOW - 2 * DAY).await.unwrap_err();
            assert!(refused.to_string().contains("cannot be composed"), "{refused}");
            assert_eq!(lab.journal().await, journal);
            let ca = lab.start_by("next", 60, NOW + 60).await.unwrap();
            assert_eq!(ca.trouble(), None);
            assert_signs(&ca, NOW + 60).await;
        });
    });
}

#[test]
fn no_ca_is_founded_by_a_clock_that_cannot_be_right() {
    SoftHsm::run_in_child("no_ca_is_founded_by_a_clock_that_cannot_be_right", |hsm| {
        run(async {
            let lab = AuthorityLab::new(hsm, DAY);
            let refused = lab.start(100).await.unwrap_err();
            assert!(matches!(refused, CaError::ClockAtFounding { now: 100 }), "{refused}");
            assert!(refused.to_string().contains("1970-01-01T00:01:40"), "{refused}");
            assert!(!lab.has_journal().await);
            assert_eq!(key(&lab, SlotName::A).await, None);
        });
    });
}

#[test]
fn a_key_that_comes_back_with_its_restored_token_is_found_again() {
    SoftHsm::run_in_child("a_key_that_comes_back_with_its_restored_token_is_found_again", |hsm| {
        run(async {
            let lab = AuthorityLab::new(hsm, DAY);
            for moment in [0, DAY / 2, DAY * 5 / 6] {
                lab.start(NOW + moment).await.unwrap();
            }
            // A is old now, and missing for a while.
            let now = NOW + DAY * 5 / 6 + 60;
            lab.token.destroy(&lab.key_name(SlotName::A)).await.unwrap();
            let journal = lab.journal().await;
            assert_signs(&lab.start(now).await.unwrap(), now).await;
            assert_eq!(lab.journal().await, journal, "the journal still knows it");
        });
    });
}
