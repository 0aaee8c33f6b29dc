//! The CA and its token across restarts: found again, never replaced in silence, and no crash point is a dead end.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use ironroot_api::TrustDomain;
use ironroot_hsm::{HsmError, KeyKind, Token};
use ironroot_lab::authority::{AuthorityLab as Lab, NOW, TRUST_DOMAIN, assert_signs, spki, verify};
use ironroot_lab::quirk::Quirks;
use ironroot_lab::softhsm::SoftHsm;
use ironroot_server::ca::{CaError, Journal, KeyRecord, Place, Purpose, ServerName, SlotName, Slots, Step, plan};
use ironroot_server::clock::{Moment, Trust};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

const DAY: i64 = 24 * 60 * 60;

/// A machine that was on since [`NOW`], with a clock that is right.
fn right(now_unix: i64) -> Moment {
    Moment { now_unix, counted: now_unix - NOW, trust: Trust::Agreed }
}

const A: Place = Place { purpose: Purpose::X509Ca, slot: SlotName::A };
const B: Place = Place { purpose: Purpose::X509Ca, slot: SlotName::B };
const ROOT: Place = Place { purpose: Purpose::Root, slot: SlotName::A };

fn cas(journal: &Journal) -> &Slots {
    journal.slots(Purpose::X509Ca)
}

/// The journal just before the CA makes a key in `place`.
fn intend(lab: &Lab, journal: Journal, place: Place) -> Journal {
    let name = place.key_name(&lab.trust_domain(), &ServerName::default());
    journal.intend(place, KeyRecord::made(name))
}

#[test]
fn the_same_authority_signs_after_a_restart() {
    SoftHsm::run_in_child("the_same_authority_signs_after_a_restart", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY);
            let before = lab.start(NOW).await.unwrap();
            let bundle = before.bundle().borrow().clone();
            let old = before.sign_server_svid(&spki(), NOW).await.unwrap();
            drop(before);
            let after = lab.start(NOW + 60).await.unwrap();
            assert_eq!(*after.bundle().borrow(), bundle);
            let new = after.sign_server_svid(&spki(), NOW + 60).await.unwrap();
            for svid in [&old, &new] {
                verify(svid, &bundle, NOW + 60).unwrap();
            }
        });
    });
}

//= FLT-H8
#[test]
fn a_lost_key_is_an_error_with_a_way_out_and_never_a_new_ca() {
    SoftHsm::run_in_child("a_lost_key_is_an_error_with_a_way_out_and_never_a_new_ca", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY);
            lab.start(NOW).await.unwrap();
            let journal = lab.stored_journal().await;
            lab.token.destroy(&lab.key_name(SlotName::A)).await.unwrap();
            for _ in 0..2 {
                let error = lab.start(NOW).await.unwrap_err();
                assert!(matches!(error, CaError::KeyLost { slot: A, .. }), "{error}");
                assert!(
                    error
                        .to_string()
                        .contains("restore what held it, the token or the file keys_path names, from its backup"),
                    "{error}"
                );
            }
            assert_eq!(lab.stored_journal().await, journal, "the journal was touched");
            assert!(lab.token.find(&lab.key_name(SlotName::A)).await.unwrap().is_none(), "a key was made");
        });
    });
}

#[test]
fn a_restart_starts_while_one_signs_whatever_keeps_the_next_authority_from_being_made() {
    const TEST: &str = "a_restart_starts_while_one_signs_whatever_keeps_the_next_authority_from_being_made";
    Quirks::run_in_child(TEST, |hsm, quirks| {
        run(async {
            let lab = Lab::with_token(quirks.token_config(hsm, 2), DAY).rooted(40 * DAY);
            let bundle = lab.start(NOW).await.unwrap().bundle().borrow().clone();
            // CKR_DEVICE_ERROR, CKR_DEVICE_MEMORY (the token is full), CKR_TEMPLATE_INCONSISTENT.
            for refusal in ["0x30", "0x31", "0xD1"] {
                quirks.set(&[&format!("fail C_GenerateKeyPair {refusal}")]);
                let ca = lab.start(NOW + DAY / 2).await.unwrap();
                assert_signs(&ca, NOW + DAY / 2).await;
                assert_eq!(*ca.bundle().borrow(), bundle, "nothing is published that is not there");
                let refused = lab.start(NOW + DAY).await.unwrap_err();
                assert!(matches!(refused, CaError::Token(_)), "nobody signs any more: {refused}");
            }
            quirks.set(&[]);
            assert_signs(&lab.start(NOW + DAY).await.unwrap(), NOW + DAY).await;
        });
    });
}

#[test]
fn another_key_in_the_slot_is_an_error() {
    SoftHsm::run_in_child("another_key_in_the_slot_is_an_error", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY);
            lab.start(NOW).await.unwrap();
            lab.token.destroy(&lab.key_name(SlotName::A)).await.unwrap();
            lab.make_key(&lab.key_name(SlotName::A)).await;
            let error = lab.start(NOW).await.unwrap_err();
            assert!(matches!(error, CaError::KeyMismatch { slot: A, .. }), "{error}");
        });
    });
}

#[test]
fn a_key_without_a_journal_is_not_overwritten() {
    SoftHsm::run_in_child("a_key_without_a_journal_is_not_overwritten", |hsm| {
        run(async {
            for slot in SlotName::BOTH {
                let lab = Lab::new(hsm, DAY);
                let key = lab.make_key(&lab.key_name(slot)).await;
                let error = lab.start(NOW).await.unwrap_err();
                assert!(matches!(error, CaError::KeyWithoutJournal { .. }), "{error}");
                assert!(!lab.has_journal().await);
                let kept = lab.token.find(&lab.key_name(slot)).await.unwrap().unwrap();
                assert_eq!(kept.spki_der(), key.spki_der());
                lab.token.destroy(&lab.key_name(slot)).await.unwrap();
            }
        });
    });
}

//= FLT-S5
#[test]
fn a_data_store_older_than_the_token_is_refused_and_overwrites_no_key() {
    SoftHsm::run_in_child("a_data_store_older_than_the_token_is_refused_and_overwrites_no_key", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY);
            let mut journals = Vec::new();
            for quarter in 0..8 {
                lab.start(NOW + quarter * DAY / 4).await.unwrap();
                let journal = lab.journal().await;
                if journals.last() != Some(&journal) {
                    journals.push(journal);
                }
            }
            let newest = journals.pop().unwrap();
            let keys = keys(&lab).await;
            let mut refused = 0;
            for old in journals {
                lab.put(&old).await;
                // What was only activated since has the same keys; all else is refused.
                let outcome = lab.start(NOW + 60).await;
                let same = SlotName::BOTH
                    .iter()
                    .all(|s| old.slot(Place::ca(*s)).authority() == newest.slot(Place::ca(*s)).authority());
                assert_eq!(outcome.is_ok(), same, "{old:?}");
                assert_eq!(self::keys(&lab).await, keys);
                refused += usize::from(outcome.is_err());
            }
            assert!(refused > 0, "no older journal differed");
        });
    });
}

async fn keys(lab: &Lab) -> Vec<Option<Vec<u8>>> {
    let mut keys = Vec::new();
    for slot in SlotName::BOTH {
        keys.push(lab.token.find(&lab.key_name(slot)).await.unwrap().map(|key| key.spki_der().to_vec()));
    }
    keys
}

#[test]
fn a_damaged_journal_and_another_trust_domains_are_refused() {
    SoftHsm::run_in_child("a_damaged_journal_and_another_trust_domains_are_refused", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY);
            lab.start(NOW).await.unwrap();
            let other = Journal::<ironroot_server::ca::Credential>::new(
                &TrustDomain::new("example.com").unwrap(),
                &ServerName::default(),
            )
            .to_bytes();
            for bytes in [b"{}".to_vec(), Vec::new(), other] {
                lab.put_bytes(bytes).await;
                assert!(matches!(lab.start(NOW).await, Err(CaError::Journal(_))));
            }
        });
    });
}

//= FLT-S1
/// Each pair of journal and token that a crash can leave behind, in the order of a rotation from slot A to slot B.
#[test]
fn every_crash_point_replays_to_the_same_step() {
    SoftHsm::run_in_child("every_crash_point_replays_to_the_same_step", |hsm| {
        run(async {
            // Founding: the key is intended; then made but not written down; then prepared.
            for key_made in [false, true] {
                let lab = Lab::new(hsm, DAY);
                let intended = intend(&lab, lab.founding(), A);
                lab.put(&intended).await;
                if key_made {
                    lab.make_key(&lab.key_name(SlotName::A)).await;
                }
                assert_eq!(plan(right(NOW), &intended, &lab.paces(), &[]), Step::Prepare(A));
                let ca = lab.start(NOW).await.unwrap();
                assert_signs(&ca, NOW).await;
                lab.forget_keys().await;
            }
            // Rotation at half the lifetime.
            let lab = Lab::new(hsm, DAY);
            let ca = lab.start(NOW).await.unwrap();
            let old = ca.sign_server_svid(&spki(), NOW).await.unwrap();
            let half = NOW + DAY / 2;
            for key_made in [false, true] {
                let intended = intend(&lab, lab.journal().await, B);
                lab.put(&intended).await;
                if key_made {
                    lab.token.destroy(&lab.key_name(SlotName::B)).await.unwrap();
                    lab.make_key(&lab.key_name(SlotName::B)).await;
                }
                assert_eq!(plan(right(half), &intended, &lab.paces(), &[]), Step::Prepare(B));
                let ca = lab.start(half).await.unwrap();
                let bundle = ca.bundle().borrow().clone();
                let svid = ca.sign_server_svid(&spki(), half).await.unwrap();
                verify(&svid, &bundle, half).unwrap();
                verify(&old, &bundle, NOW + 60).unwrap();
                assert_eq!(cas(&lab.journal().await).active().map(|(slot, _)| slot), Some(SlotName::A));
            }
            // Prepared, published, not activated: the prepared key is kept.
            let prepared = lab.journal().await;
            let due = NOW + DAY * 5 / 6;
            assert_eq!(plan(right(due), &prepared, &lab.paces(), &[]), Step::Activate(B));
            lab.start(half + 1).await.unwrap();
            assert_eq!(lab.journal().await, prepared);
            let ca = lab.start(due).await.unwrap();
            let bundle = ca.bundle().borrow().clone();
            assert_eq!(bundle.sequence_number, prepared.sequence_number(), "activation publishes nothing new");
            let new = ca.sign_server_svid(&spki(), due).await.unwrap();
            verify(&new, &bundle, due).unwrap();
            verify(&old, &bundle, NOW + 60).unwrap();
        });
    });
}

//= FLT-S1
/// The same for the root, of a new CA and of one that had none: named, then made but not written down.
#[test]
fn every_crash_point_of_making_a_root_replays_to_the_same_step() {
    SoftHsm::run_in_child("every_crash_point_of_making_a_root_replays_to_the_same_step", |hsm| {
        run(async {
            for (is_new, key_made) in [(true, false), (true, true), (false, false), (false, true)] {
                let lab = Lab::new(hsm, DAY);
                if !is_new {
                    lab.start(NOW).await.unwrap();
                }
                let journal = if is_new { lab.founding() } else { lab.journal().await };
                let intended = intend(&lab, journal, ROOT);
                lab.put(&intended).await;
                if key_made {
                    lab.make_key(&lab.root_key_name(SlotName::A)).await;
                }
                let lab = lab.rooted(40 * DAY);
                assert_eq!(plan(right(NOW), &intended, &lab.paces(), &[]), Step::Prepare(ROOT));
                let ca = lab.start(NOW).await.unwrap();
                assert_signs(&ca, NOW).await;
                let journal = lab.journal().await;
                assert_eq!(journal.slots(Purpose::Root).authorities().len(), 1);
                // Made, and nothing signed by it yet: it is the same root at the next start.
                assert_signs(&lab.start(NOW + 60).await.unwrap(), NOW + 60).await;
                assert_eq!(lab.journal().await.slots(Purpose::Root), journal.slots(Purpose::Root));
                lab.forget_keys().await;
            }
        });
    });
}

//= FLT-H8
#[test]
fn a_lost_prepared_key_is_replaced_under_the_active_one() {
    SoftHsm::run_in_child("a_lost_prepared_key_is_replaced_under_the_active_one", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY);
            lab.start(NOW).await.unwrap();
            let half = NOW + DAY / 2;
            lab.start(half).await.unwrap();
            lab.token.destroy(&lab.key_name(SlotName::B)).await.unwrap();
            let ca = lab.start(half + 1).await.unwrap();
            let journal = lab.journal().await;
            assert!(cas(&journal).prepared().is_some());
            assert_eq!(cas(&journal).active().map(|(slot, _)| slot), Some(SlotName::A));
            assert_signs(&ca, half + 1).await;
            let ca = lab.start(NOW + DAY * 5 / 6 + 60).await.unwrap();
            assert_signs(&ca, NOW + DAY * 5 / 6 + 60).await;
        });
    });
}

#[test]
fn ten_rotations_leave_two_keys_in_the_token() {
    SoftHsm::run_in_child("ten_rotations_leave_two_keys_in_the_token", |hsm| {
        run(async {
            let lab = Lab::new(hsm, 60);
            let mut sequence = 0;
            let mut last = None;
            for second in (0..600).step_by(5) {
                let now = NOW + second;
                let ca = lab.start(now).await.unwrap();
                let bundle = ca.bundle().borrow().clone();
                assert!(bundle.sequence_number >= sequence && bundle.authorities.len() <= 5);
                sequence = bundle.sequence_number;
                let svid = ca.sign_server_svid(&spki(), now).await.unwrap();
                assert!(svid.not_after_unix - now >= 10, "only {} s left at {second}", svid.not_after_unix - now);
                verify(&svid, &bundle, now).unwrap();
                if let Some((svid, _)) = last.replace((svid, now)) {
                    verify(&svid, &bundle, now).unwrap();
                }
            }
            assert!(sequence >= 15, "{sequence} bundles");
            let module = SoftHsm::module_path();
            let listed = hsm.run(
                "pkcs11-tool",
                &[
                    "--module",
                    module.to_str().unwrap(),
                    "--token-label",
                    ironroot_lab::softhsm::LABEL,
                    "--login",
                    "--pin",
                    ironroot_lab::softhsm::PIN,
                    "--list-objects",
                    "--type",
                    "privkey",
                ],
            );
            assert_eq!(listed.matches("Private Key Object").count(), 2, "{listed}");
            assert!(listed.contains(&format!("{TRUST_DOMAIN} x509-CA-A")), "{listed}");
            // The threads of a dropped token end by themselves; a new one works beside them.
            assert!(Token::open(hsm.token_config(1)).is_ok());
        });
    });
}

#[test]
fn a_damaged_key_of_a_ca_that_nobody_needs_keeps_no_server_from_starting_and_gives_way_at_the_next_rotation() {
    const TEST: &str =
        "a_damaged_key_of_a_ca_that_nobody_needs_keeps_no_server_from_starting_and_gives_way_at_the_next_rotation";
    SoftHsm::run_in_child(TEST, |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY);
            lab.start(NOW).await.unwrap();
            lab.start(NOW + DAY / 2).await.unwrap();
            let due = NOW + DAY * 5 / 6 + 60;
            lab.start(due).await.unwrap();
            assert_eq!(cas(&lab.journal().await).active().map(|(slot, _)| slot), Some(SlotName::B));
            // The old one.
            hsm.delete_public_half(lab.key_name(SlotName::A).label().unwrap());
            assert_signs(&lab.start(due + 60).await.unwrap(), due + 60).await;
            let next = NOW + DAY + 60;
            assert_signs(&lab.start(next).await.unwrap(), next).await;
            assert_eq!(cas(&lab.journal().await).prepared().map(|(slot, _)| slot), Some(SlotName::A));
            lab.token.find(&lab.key_name(SlotName::A)).await.unwrap().expect("a whole one is in its place");
            // And the prepared one.
            hsm.delete_public_half(lab.key_name(SlotName::A).label().unwrap());
            assert_signs(&lab.start(next + 60).await.unwrap(), next + 60).await;
            let due = NOW + DAY / 2 + DAY * 5 / 6 + 60;
            assert_signs(&lab.start(due).await.unwrap(), due).await;
            lab.token.find(&lab.key_name(SlotName::A)).await.unwrap().expect("another was prepared");
            // The one that signs is needed.
            let active = cas(&lab.journal().await).active().map(|(slot, _)| slot).unwrap();
            hsm.delete_public_half(lab.key_name(active).label().unwrap());
            let error = lab.start(due + 60).await.unwrap_err();
            assert!(matches!(error, CaError::Token(HsmError::PublicKeyMissing(_))), "{error}");
        });
    });
}

/// As where the data store of before a change of ca_key_type is restored.
#[test]
fn a_key_of_another_kind_is_another_key() {
    SoftHsm::run_in_child("a_key_of_another_kind_is_another_key", |hsm| {
        run(async {
            for (was, is) in [(KeyKind::EcP256, KeyKind::Rsa2048), (KeyKind::EcP384, KeyKind::EcP256)] {
                let lab = Lab::new(hsm, DAY).with_ca_keys(is);
                let name = lab.key_name(SlotName::A);
                let make = async || {
                    lab.token.generate(was, name.id().unwrap(), name.label().unwrap()).await.unwrap();
                };
                make().await;
                let error = lab.start(NOW).await.unwrap_err();
                assert!(matches!(error, CaError::KeyWithoutJournal { slot: A, .. }), "{error}");
                lab.token.destroy(&name).await.unwrap();
                lab.start(NOW).await.unwrap();
                lab.token.destroy(&name).await.unwrap();
                make().await;
                let error = lab.start(NOW).await.unwrap_err();
                assert!(matches!(error, CaError::KeyMismatch { slot: A, .. }), "{error}");
                assert!(error.shows_an_older_journal().is_some(), "an operator can accept it");
                let lab = lab.accepting();
                assert_signs(&lab.start(NOW).await.unwrap(), NOW).await;
                let key = lab.token.find_of(is, &name).await.unwrap().expect("another was made");
                assert_eq!(key.kind(), is);
                lab.forget_keys().await;
            }
        });
    });
}
