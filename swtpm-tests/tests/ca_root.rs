//! The root above the rotating CAs: what images hold, and what every SVID leads to.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ironroot_api::certificate::Certificate;
use ironroot_hsm::TokenConfig;
use ironroot_lab::authority::{AuthorityLab as Lab, NOW, asking, assert_signs, authorized_entry, spki, verify};
use ironroot_lab::deployment::{DEADLINE, expect_within_async};
use ironroot_lab::quirk::Quirks;
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
async fn next_root_lost(token: TokenConfig) -> Lab {
    let lab = Lab::with_token(token, DAY).rooted(SHORT_ROOT_TTL);
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
            let lab = next_root_lost(hsm.token_config(2)).await;
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
            let lab = next_root_lost(hsm.token_config(2)).await;
            let (seconds, clocks) = clocks(SHORT_ROOT_TTL / 2);
            let (ca, rotation) = lab.start_rotating(clocks).await.unwrap();
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

/// Clocks that agree, and the seconds after [`NOW`] that they show.
fn clocks(seconds: i64) -> (Arc<AtomicI64>, ClockSource) {
    let shown = Arc::new(AtomicI64::new(seconds));
    let read = Arc::clone(&shown);
    let reading = move || {
        let wall_unix = NOW + read.load(Ordering::SeqCst);
        Reading { wall_unix, boot_seconds: wall_unix }
    };
    (shown, ClockSource::new("lab", reading))
}

/// CKR_DEVICE_MEMORY: the token is full.
const FULL: &str = "fail C_GenerateKeyPair 0x31";

#[test]
fn a_harmless_root_failure_hides_not_what_keeps_the_ca_from_being_prepared() {
    const TEST: &str = "a_harmless_root_failure_hides_not_what_keeps_the_ca_from_being_prepared";
    Quirks::run_in_child(TEST, |hsm, quirks| {
        run(async {
            let lab = next_root_lost(quirks.token_config(hsm, 2)).await;
            let (seconds, clocks) = clocks(SHORT_ROOT_TTL * 3 / 4 - DAY);
            let (ca, rotation) = lab.start_rotating(clocks).await.unwrap();
            quirks.set(&[FULL]);
            seconds.store(SHORT_ROOT_TTL * 3 / 4 - DAY / 4, Ordering::SeqCst);
            let running = tokio::spawn(rotation.run());
            // The CA fails first; then the root is due, and fails too.
            until("the CA's failure is told", async || ca.rotation_trouble().is_some()).await;
            seconds.store(SHORT_ROOT_TTL * 3 / 4 - 60, Ordering::SeqCst);
            let words = ["CKR_DEVICE_MEMORY", "x509-Root-B"];
            let both = || words.iter().all(|words| ca.rotation_trouble().unwrap_or_default().contains(words));
            seconds.store(SHORT_ROOT_TTL * 3 / 4, Ordering::SeqCst);
            until("both are told", async || both()).await;
            running.abort();
            // The CA has expired: the start fails, and by what the CA lacks.
            let refused = lab.start(NOW + SHORT_ROOT_TTL * 3 / 4 + DAY).await.unwrap_err();
            assert!(matches!(refused, CaError::Token(_)), "{refused}");
        });
    });
}

#[test]
fn a_root_that_cannot_be_made_is_the_reason_that_a_first_start_gives() {
    Quirks::run_in_child("a_root_that_cannot_be_made_is_the_reason_that_a_first_start_gives", |hsm, quirks| {
        run(async {
            let lab = Lab::with_token(quirks.token_config(hsm, 2), DAY).rooted(ROOT_TTL);
            quirks.set(&[FULL]);
            let refused = lab.start(NOW).await.unwrap_err();
            assert!(matches!(refused, CaError::Token(_)), "{refused}");
            quirks.set(&[]);
            assert_signs(&lab.start(NOW).await.unwrap(), NOW).await;
        });
    });
}

//= FLT-H8
#[test]
fn a_root_whose_key_is_lost_after_it_was_activated_keeps_no_ca_from_being_signed_by_the_one_before() {
    const TEST: &str =
        "a_root_whose_key_is_lost_after_it_was_activated_keeps_no_ca_from_being_signed_by_the_one_before";
    SoftHsm::run_in_child(TEST, |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).rooted(SHORT_ROOT_TTL);
            for seconds in [0, SHORT_ROOT_TTL / 2, SHORT_ROOT_TTL * 3 / 4] {
                lab.start(NOW + seconds).await.unwrap();
            }
            let journal = lab.journal().await;
            let (roots, at) = (journal.slots(Purpose::Root), SHORT_ROOT_TTL * 3 / 4 + DAY);
            assert_eq!(roots.active().map(|(slot, _)| slot), Some(SlotName::B));
            let before = roots.slot(SlotName::A).authority().unwrap();
            assert!(lab.token.destroy(&lab.root_key_name(SlotName::B)).await.unwrap());
            let (_, clocks) = clocks(at);
            let (ca, rotation) = lab.start_rotating(clocks).await.unwrap();
            assert_signs(&ca, NOW + at).await;
            let journal = lab.journal().await;
            let (_, signer) = journal.slots(Purpose::X509Ca).signer(NOW + at).unwrap();
            assert_eq!((signer.root, signer.issued_at), (Some(before.key), NOW + at));
            let running = tokio::spawn(rotation.run());
            until("the loss is told", async || ca.rotation_trouble().is_some()).await;
            let trouble = ca.rotation_trouble().unwrap();
            for words in ["root that does not sign now (slot x509-Root-B", "goes on until 2027-02-24T08:00:00Z"] {
                assert!(trouble.contains(words), "{words:?} is not in: {trouble}");
            }
            running.abort();
            let refused = lab.start(NOW + SHORT_ROOT_TTL).await.unwrap_err();
            assert!(matches!(refused, CaError::RootLost { slot: NEXT_ROOT, .. }), "{refused}");
        });
    });
}

#[test]
fn a_step_that_fails_again_and_again_has_the_token_prove_no_key_again() {
    Quirks::run_in_child("a_step_that_fails_again_and_again_has_the_token_prove_no_key_again", |hsm, quirks| {
        run(async {
            let lab = Lab::with_token(quirks.token_config(hsm, 2), DAY);
            let (seconds, clocks) = clocks(0);
            let (ca, rotation) = lab.start_rotating(clocks).await.unwrap();
            quirks.set(&[FULL]);
            seconds.store(DAY / 2, Ordering::SeqCst);
            let running = tokio::spawn(rotation.run());
            let tried = || quirks.count("C_GenerateKeyPair");
            let before = tried();
            // What is intended is a step that succeeds; after it nothing has changed.
            until("the first failure", async || tried() > before).await;
            let signed = quirks.count("C_Sign");
            until("three more", async || tried() >= before + 4).await;
            assert_eq!(quirks.count("C_Sign"), signed);
            running.abort();
            assert_signs(&ca, NOW + DAY / 2).await;
        });
    });
}

#[test]
fn a_token_that_has_signed_wrongly_is_not_trusted_again_because_the_next_ca_is_prepared() {
    const TEST: &str = "a_token_that_has_signed_wrongly_is_not_trusted_again_because_the_next_ca_is_prepared";
    Quirks::run_in_child(TEST, |hsm, quirks| {
        run(async {
            let lab = Lab::with_token(quirks.token_config(hsm, 2), DAY);
            let (seconds, clocks) = clocks(0);
            let (ca, rotation) = lab.start_rotating(clocks).await.unwrap();
            let entry = authorized_entry(&lab, "/web", 60, &[]).await;
            let sign = async |count: usize, now| {
                let requests = (0..count).map(|_| (entry.clone(), spki())).collect();
                ca.sign_workload_svids(&asking(), requests, now).await.iter().filter(|result| result.is_ok()).count()
            };
            assert_eq!(sign(1, NOW).await, 1);
            quirks.set(&["sign_wrong"]);
            assert_eq!(sign(1, NOW).await, 0, "it is found out: the first are verified");
            quirks.set(&[]);
            seconds.store(DAY / 2, Ordering::SeqCst);
            let running = tokio::spawn(rotation.run());
            until("the next CA is prepared", async || ca.bundle().borrow().authorities.len() == 2).await;
            assert_eq!(sign(40, NOW + DAY / 2).await, 40);
            quirks.set(&["sign_wrong"]);
            assert_eq!(sign(8, NOW + DAY / 2).await, 0, "all are verified, not one of 16");
            running.abort();
        });
    });
}

/// The machine was off for hours, so that the key of slot A may still be needed when its place is: it is certified once more.
#[test]
fn a_key_that_was_exchanged_under_its_name_is_not_certified_once_more() {
    SoftHsm::run_in_child("a_key_that_was_exchanged_under_its_name_is_not_certified_once_more", |hsm| {
        run(async {
            for is_lost_at_start in [false, true] {
                let lab = Lab::new(hsm, DAY);
                for seconds in [0, DAY / 2, DAY * 5 / 6] {
                    lab.start(NOW + seconds).await.unwrap();
                }
                let name = lab.key_name(SlotName::A);
                if is_lost_at_start {
                    lab.token.destroy(&name).await.unwrap();
                }
                let seconds = Arc::new(AtomicI64::new(DAY - 10));
                let read = Arc::clone(&seconds);
                let clocks = ClockSource::new("another boot", move || {
                    let seconds = read.load(Ordering::SeqCst);
                    Reading { wall_unix: NOW + seconds, boot_seconds: seconds }
                });
                let (ca, rotation) = lab.start_rotating(clocks).await.unwrap();
                lab.token.destroy(&name).await.unwrap();
                lab.make_key(&name).await;
                let former = lab.journal().await.slot(Place::ca(SlotName::A)).clone();
                seconds.store(DAY, Ordering::SeqCst);
                let running = tokio::spawn(rotation.run());
                until("it is told", async || ca.rotation_trouble().is_some()).await;
                let trouble = ca.rotation_trouble().unwrap();
                assert!(trouble.contains("is not the one the CA journal names"), "{trouble}");
                assert_eq!(*lab.journal().await.slot(Place::ca(SlotName::A)), former);
                assert_signs(&ca, NOW + DAY).await;
                running.abort();
                lab.forget_keys().await;
            }
        });
    });
}

async fn until(what: &str, holds: impl AsyncFnMut() -> bool) {
    expect_within_async(DEADLINE, what, String::new, holds).await;
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
