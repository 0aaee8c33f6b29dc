//! The root above the rotating CAs: what images hold, and what every SVID leads to.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use ironroot_api::certificate::Certificate;
use ironroot_lab::authority::{AuthorityLab as Lab, NOW, assert_signs, spki, verify};
use ironroot_lab::softhsm::SoftHsm;
use ironroot_server::ca::{CaError, Place, Purpose, SlotName, TrustBundle};

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
