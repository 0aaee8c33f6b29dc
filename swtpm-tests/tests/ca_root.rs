//! The root above the rotating CAs: what images hold, and what every SVID leads to.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ironroot_api::certificate::Certificate;
use ironroot_lab::authority::{AuthorityLab as Lab, NOW, assert_signs, spki, verify};
use ironroot_lab::softhsm::SoftHsm;
use ironroot_server::ca::{CaError, Place, Purpose, SlotName, TrustBundle};
use ironroot_server::clock::{ClockSource, Reading};

const DAY: i64 = 24 * 60 * 60;
const ROOT_TTL: i64 = 7300 * DAY;
const ROOT: Place = Place { purpose: Purpose::Root, slot: SlotName::A };

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

fn certificates(bundle: &TrustBundle) -> Vec<Certificate> {
    bundle.authorities.iter().map(|der| Certificate::parse(der).unwrap()).collect()
}

#[test]
fn a_new_ca_has_a_root_for_twenty_years_and_every_svid_leads_to_it() {
    SoftHsm::run_in_child("a_new_ca_has_a_root_for_twenty_years_and_every_svid_leads_to_it", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).rooted(ROOT_TTL);
            let image = lab.start(NOW).await.unwrap().bundle().borrow().clone();
            let [root] = &certificates(&image)[..] else { panic!("{image:?}") };
            assert_eq!((root.not_after_unix(), root.is_ca()), (NOW + ROOT_TTL, true));
            let mut issuers = std::collections::HashSet::new();
            for quarter in 0..16 {
                let now = NOW + quarter * DAY / 4;
                let ca = lab.start(now).await.unwrap();
                let svid = ca.sign_server_svid(&spki(), now).await.unwrap();
                let [_, issuer] = &svid.chain[..] else { panic!("{} certificates", svid.chain.len()) };
                let issuer = Certificate::parse(issuer).unwrap();
                assert_eq!(issuer.authority_key_id(), root.subject_key_id());
                issuers.insert(issuer.serial_decimal());
                verify(&svid, &image, now).expect("who has only the image's bundle believes it");
                assert_eq!(*ca.bundle().borrow(), image, "rotations change nothing in the bundle");
            }
            assert!(issuers.len() >= 6, "{} CAs", issuers.len());
            // The device comes back after three years; the server was on for some of them.
            let later = NOW + 3 * 365 * DAY;
            let ca = lab.start_by("another boot", 100, later).await.unwrap();
            let svid = ca.sign_server_svid(&spki(), later).await.unwrap();
            verify(&svid, &image, later).unwrap();
        });
    });
}

#[test]
fn an_existing_ca_takes_the_root_in_by_one_rotation_and_nobody_notices() {
    SoftHsm::run_in_child("an_existing_ca_takes_the_root_in_by_one_rotation_and_nobody_notices", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY);
            let before = lab.start(NOW).await.unwrap();
            let held = before.sign_server_svid(&spki(), NOW).await.unwrap();
            let known = before.bundle().borrow().clone();
            drop(before);
            let lab = lab.rooted(ROOT_TTL);
            let ca = lab.start(NOW + 600).await.unwrap();
            let bundle = ca.bundle().borrow().clone();
            assert_eq!(bundle.authorities.len(), 2, "the root beside the CA that signs");
            assert!(bundle.sequence_number > known.sequence_number);
            let svid = ca.sign_server_svid(&spki(), NOW + 600).await.unwrap();
            assert_eq!(svid.chain.len(), 1);
            for (svid, bundle) in [(&svid, &known), (&svid, &bundle), (&held, &bundle)] {
                verify(svid, bundle, NOW + 600).unwrap();
            }
            for moment in [DAY / 2, DAY * 5 / 6, DAY * 5 / 6 + 60] {
                lab.start(NOW + moment).await.unwrap();
            }
            let now = NOW + DAY * 5 / 6 + 120;
            let ca = lab.start(now).await.unwrap();
            let rooted = ca.sign_server_svid(&spki(), now).await.unwrap();
            assert_eq!(rooted.chain.len(), 2);
            let bundle = ca.bundle().borrow().clone();
            for svid in [&rooted, &svid] {
                verify(svid, &bundle, NOW + 600).or_else(|_| verify(svid, &bundle, now)).unwrap();
            }
            for moment in [DAY, 3 * DAY / 2, 2 * DAY] {
                lab.start(NOW + moment).await.unwrap();
            }
            let ca = lab.start(NOW + 2 * DAY + 60).await.unwrap();
            let bundle = ca.bundle().borrow().clone();
            let [root] = &certificates(&bundle)[..] else { panic!("{} authorities", bundle.authorities.len()) };
            assert_eq!(root.not_after_unix(), NOW + 600 + ROOT_TTL, "the root alone is left");
        });
    });
}

#[test]
fn without_a_root_each_ca_signs_itself_as_spires_do() {
    SoftHsm::run_in_child("without_a_root_each_ca_signs_itself_as_spires_do", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY);
            let ca = lab.start(NOW).await.unwrap();
            let svid = ca.sign_server_svid(&spki(), NOW).await.unwrap();
            let bundle = ca.bundle().borrow().clone();
            assert_eq!((svid.chain.len(), bundle.authorities.len()), (1, 1));
            assert_eq!(certificates(&bundle)[0].not_after_unix(), NOW + DAY);
            assert!(lab.token.find(&lab.root_key_name(SlotName::A)).await.unwrap().is_none());
        });
    });
}

//= FLT-H8
#[test]
fn a_lost_root_key_is_told_while_the_ca_goes_on_and_no_other_root_is_made() {
    SoftHsm::run_in_child("a_lost_root_key_is_told_while_the_ca_goes_on_and_no_other_root_is_made", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).rooted(ROOT_TTL);
            let bundle = lab.start(NOW).await.unwrap().bundle().borrow().clone();
            lab.token.destroy(&lab.root_key_name(SlotName::A)).await.unwrap();
            let ca = lab.start(NOW + 60).await.unwrap();
            assert_signs(&ca, NOW + 60).await;
            assert_eq!(*ca.bundle().borrow(), bundle);
            // The next CA is due; the present one signs until its end.
            assert_signs(&lab.start(NOW + DAY / 2).await.unwrap(), NOW + DAY / 2).await;
            let refused = lab.start(NOW + DAY).await.unwrap_err();
            assert!(matches!(refused, CaError::RootLost { slot: ROOT, .. }), "{refused}");
            assert!(refused.to_string().contains("restore the token from its backup"), "{refused}");
            assert!(lab.token.find(&lab.root_key_name(SlotName::A)).await.unwrap().is_none(), "a key was made");
        });
    });
}

const NEXT_ROOT: Place = Place { purpose: Purpose::Root, slot: SlotName::B };
/// A root whose successor is prepared at 20 days and due at 30.
const SHORT_ROOT_TTL: i64 = 40 * DAY;

/// A CA whose next root is in the bundle, and the key of that lost; at 20 days.
async fn next_root_lost(hsm: &SoftHsm) -> Lab {
    let lab = Lab::new(hsm, DAY).rooted(SHORT_ROOT_TTL);
    lab.start(NOW).await.unwrap();
    lab.start(NOW + SHORT_ROOT_TTL / 2).await.unwrap();
    assert!(lab.journal().await.slots(Purpose::Root).prepared().is_some());
    assert!(lab.token.destroy(&lab.root_key_name(SlotName::B)).await.unwrap());
    lab
}

#[test]
fn a_next_root_whose_key_is_lost_stops_no_ca_while_the_present_root_lives() {
    SoftHsm::run_in_child("a_next_root_whose_key_is_lost_stops_no_ca_while_the_present_root_lives", |hsm| {
        run(async {
            let lab = next_root_lost(hsm).await;
            let mut issuers = std::collections::HashSet::new();
            for half in 60..70 {
                let now = NOW + half * DAY / 2;
                let ca = lab.start(now).await.unwrap();
                assert_signs(&ca, now).await;
                issuers.insert(ca.sign_server_svid(&spki(), now).await.unwrap().chain.pop());
            }
            assert!(issuers.len() >= 5, "{} CAs", issuers.len());
            let refused = lab.start(NOW + SHORT_ROOT_TTL).await.unwrap_err();
            assert!(matches!(refused, CaError::RootLost { slot: NEXT_ROOT, .. }), "{refused}");
            assert!(lab.token.find(&lab.root_key_name(SlotName::B)).await.unwrap().is_none(), "a key was made");
        });
    });
}

#[test]
fn a_rotation_that_cannot_activate_the_next_root_renews_the_ca_keeps_the_clock_and_says_what_is_true() {
    const TEST: &str =
        "a_rotation_that_cannot_activate_the_next_root_renews_the_ca_keeps_the_clock_and_says_what_is_true";
    SoftHsm::run_in_child(TEST, |hsm| {
        run(async {
            let lab = next_root_lost(hsm).await;
            let seconds = Arc::new(AtomicI64::new(SHORT_ROOT_TTL / 2));
            let clock = Arc::clone(&seconds);
            let reading = move || {
                let wall_unix = NOW + clock.load(Ordering::SeqCst);
                Reading { wall_unix, boot_seconds: wall_unix }
            };
            let (ca, rotation) = lab.start_rotating(ClockSource::new("lab", reading)).await.unwrap();
            seconds.store(SHORT_ROOT_TTL * 3 / 4, Ordering::SeqCst);
            let running = tokio::spawn(rotation.run());
            let now = NOW + SHORT_ROOT_TTL * 3 / 4;
            until("the next CA signs", async || ca.sign_server_svid(&spki(), now).await.is_ok()).await;
            until("the failure is told", async || ca.rotation_trouble().is_some()).await;
            let trouble = ca.rotation_trouble().unwrap();
            for words in ["root that does not sign now (slot x509-Root-B", "goes on until 2027-02-24T08:00:00Z"] {
                assert!(trouble.contains(words), "{words:?} is not in: {trouble}");
            }
            let counted = async || lab.journal().await.clock().unwrap().counted();
            let before = counted().await;
            seconds.fetch_add(120, Ordering::SeqCst);
            until("the clock is kept", async || counted().await >= before + 120).await;
            running.abort();
        });
    });
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("not within a minute: {what}"));
}

#[test]
fn a_root_key_that_the_journal_does_not_know_is_not_overwritten() {
    SoftHsm::run_in_child("a_root_key_that_the_journal_does_not_know_is_not_overwritten", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).rooted(ROOT_TTL);
            let id = lab.root_key_name(SlotName::A);
            let key = lab.make_key(&id).await;
            let refused = lab.start(NOW).await.unwrap_err();
            assert!(matches!(refused, CaError::KeyWithoutJournal { slot: ROOT, .. }), "{refused}");
            assert_eq!(lab.token.find(&id).await.unwrap().unwrap().spki_der(), key.spki_der());
        });
    });
}
