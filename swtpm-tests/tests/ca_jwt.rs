//! The keys of JWT-SVIDs in the token: published before they sign, found again after a restart, replaced in time or when they are lost.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use ironroot_hsm::KeyKind;
use ironroot_lab::authority::{AuthorityLab as Lab, NOW, assert_signs, sign_jwt, verify_jwt};
use ironroot_lab::deployment::{DEADLINE, expect_within_async};
use ironroot_lab::jwt;
use ironroot_lab::softhsm::SoftHsm;
use ironroot_server::ca::{
    CaError, CertificateAuthority, Journal, JwtError, KeyRecord, Place, Purpose, ServerName, Slot, SlotName,
    TrustBundle,
};
use ironroot_server::clock::{ClockSource, Reading};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

const DAY: i64 = 24 * 60 * 60;
const A: Place = Place { purpose: Purpose::Jwt, slot: SlotName::A };
const B: Place = Place { purpose: Purpose::Jwt, slot: SlotName::B };

fn bundle(ca: &CertificateAuthority) -> TrustBundle {
    TrustBundle::clone(&ca.bundle().borrow())
}

/// The ID of the key that signs now, as a token says that verifies with the CA's own bundle.
async fn signing_key(ca: &CertificateAuthority, now_unix: i64) -> String {
    let signed = sign_jwt(ca, now_unix).await.unwrap();
    verify_jwt(&signed.token, &bundle(ca)).unwrap()
}

fn key_ids(bundle: &TrustBundle) -> Vec<String> {
    bundle.jwt_authorities.iter().map(|authority| authority.key_id.clone()).collect()
}

#[test]
fn the_same_key_signs_jwt_svids_after_a_restart() {
    SoftHsm::run_in_child("the_same_key_signs_jwt_svids_after_a_restart", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).rooted(40 * DAY).with_jwt();
            let before = lab.start(NOW).await.unwrap();
            let key = signing_key(&before, NOW).await;
            let published = bundle(&before);
            assert_eq!((key_ids(&published), published.authorities.len()), (vec![key.clone()], 1));
            drop(before);
            let after = lab.start(NOW + 60).await.unwrap();
            assert_eq!((bundle(&after), signing_key(&after, NOW + 60).await), (published, key));
            assert_signs(&after, NOW + 60).await;
        });
    });
}

//= FED-01 FED-02
#[test]
fn a_key_is_published_before_it_signs_and_its_tokens_verify_after_it_is_replaced() {
    const TEST: &str = "a_key_is_published_before_it_signs_and_its_tokens_verify_after_it_is_replaced";
    SoftHsm::run_in_child(TEST, |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).rooted(40 * DAY).with_jwt();
            let ca = lab.start(NOW).await.unwrap();
            let (first, old) = (signing_key(&ca, NOW).await, sign_jwt(&ca, NOW).await.unwrap());
            let sequence = bundle(&ca).sequence_number;
            let ca = lab.start(NOW + DAY / 2).await.unwrap();
            let prepared = bundle(&ca);
            assert_eq!(key_ids(&prepared).len(), 2, "the next one is published");
            assert!(prepared.sequence_number > sequence);
            assert_eq!(signing_key(&ca, NOW + DAY / 2).await, first, "and signs nothing yet");
            let later = NOW + DAY * 5 / 6;
            let ca = lab.start(later).await.unwrap();
            let second = signing_key(&ca, later).await;
            assert_eq!(key_ids(&bundle(&ca)), [first.clone(), second], "in the order in which they were made");
            verify_jwt(&old.token, &bundle(&ca)).unwrap();
            let CaError::Jwt(JwtError::KeyExpired { .. }) = sign_jwt(&ca, NOW + 3 * DAY).await.unwrap_err() else {
                panic!("a key signs after its end")
            };
        });
    });
}

#[test]
fn a_key_whose_time_is_over_leaves_the_bundle_and_the_token() {
    SoftHsm::run_in_child("a_key_whose_time_is_over_leaves_the_bundle_and_the_token", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).rooted(40 * DAY).with_jwt();
            let name = lab.jwt_key_name(SlotName::A);
            let first = signing_key(&lab.start(NOW).await.unwrap(), NOW).await;
            let key = lab.token.find(&name).await.unwrap().unwrap();
            let mut ends = Vec::new();
            for half_days in 1..=5 {
                let now = NOW + half_days * DAY / 2 + DAY / 3;
                let ca = lab.start(now).await.unwrap();
                ends.push(key_ids(&bundle(&ca)).contains(&first));
                signing_key(&ca, now).await;
            }
            assert_eq!((ends.first(), ends.last()), (Some(&true), Some(&false)), "{ends:?}");
            let now = lab.token.find(&name).await.unwrap();
            assert!(now.is_none_or(|now| now.spki_der() != key.spki_der()), "its key is still in the token");
        });
    });
}

#[test]
fn a_token_ends_with_its_key() {
    SoftHsm::run_in_child("a_token_ends_with_its_key", |hsm| {
        run(async {
            let ca = Lab::new(hsm, DAY).with_jwt().start(NOW).await.unwrap();
            for (at, lifetime) in [(NOW, 300), (NOW + DAY - 100, 100)] {
                let signed = sign_jwt(&ca, at).await.unwrap();
                let (_, claims) = jwt::parts(&signed.token);
                assert_eq!((signed.issued_at_unix, signed.expires_at_unix), (at, at + lifetime));
                assert_eq!((&claims["iat"], &claims["exp"]), (&at.into(), &(at + lifetime).into()));
            }
            let early = sign_jwt(&ca, NOW - DAY).await.unwrap_err();
            assert!(matches!(early, CaError::Jwt(JwtError::ClockBehind { .. })), "{early}");
        });
    });
}

#[test]
fn a_lost_key_is_replaced_and_what_it_signed_still_verifies() {
    SoftHsm::run_in_child("a_lost_key_is_replaced_and_what_it_signed_still_verifies", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).with_jwt();
            let ca = lab.start(NOW).await.unwrap();
            let (lost, old) = (signing_key(&ca, NOW).await, sign_jwt(&ca, NOW).await.unwrap());
            lab.token.destroy(&lab.jwt_key_name(SlotName::A)).await.unwrap();
            let ca = lab.start(NOW + 60).await.unwrap();
            assert_ne!(signing_key(&ca, NOW + 60).await, lost);
            verify_jwt(&old.token, &bundle(&ca)).unwrap();
            assert_signs(&ca, NOW + 60).await;
        });
    });
}

#[test]
fn a_key_that_is_lost_while_the_server_runs_is_replaced() {
    SoftHsm::run_in_child("a_key_that_is_lost_while_the_server_runs_is_replaced", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).with_jwt();
            let clocks = ClockSource::new("lab", || Reading { wall_unix: NOW, boot_seconds: NOW });
            let (ca, rotation) = lab.start_rotating(clocks).await.unwrap();
            let lost = signing_key(&ca, NOW).await;
            lab.token.destroy(&lab.jwt_key_name(SlotName::A)).await.unwrap();
            let rotating = tokio::spawn(rotation.run());
            let is_replaced = async || key_ids(&bundle(&ca)).len() == 2 && sign_jwt(&ca, NOW).await.is_ok();
            expect_within_async(DEADLINE, "another key signs", String::new, is_replaced).await;
            assert_ne!(signing_key(&ca, NOW).await, lost);
            rotating.abort();
        });
    });
}

/// Another key under the name of the one that the journal knows.
async fn exchange(lab: &Lab, slot: SlotName) {
    let name = lab.jwt_key_name(slot);
    assert!(lab.token.destroy(&name).await.unwrap());
    lab.make_key(&name).await;
}

#[test]
fn a_key_that_was_exchanged_keeps_neither_the_ca_nor_the_other_key_from_signing_and_is_replaced_in_time() {
    const TEST: &str =
        "a_key_that_was_exchanged_keeps_neither_the_ca_nor_the_other_key_from_signing_and_is_replaced_in_time";
    SoftHsm::run_in_child(TEST, |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).rooted(40 * DAY).with_jwt();
            lab.start(NOW).await.unwrap();
            exchange(&lab, SlotName::A).await;
            let ca = lab.start(NOW + 60).await.unwrap();
            assert_signs(&ca, NOW + 60).await;
            sign_jwt(&ca, NOW + 60).await.expect_err("by a key that nobody published");
            let later = NOW + DAY * 5 / 6;
            for at in [NOW + DAY / 2, later] {
                assert_signs(&lab.start(at).await.unwrap(), at).await;
            }
            let ca = lab.start(later + 60).await.unwrap();
            let signing = signing_key(&ca, later + 60).await;
            // That of the former key is exchanged already: the one that signs is not concerned.
            assert_eq!(key_ids(&bundle(&ca)).last(), Some(&signing));
        });
    });
}

#[test]
fn no_crash_between_two_steps_is_a_dead_end() {
    SoftHsm::run_in_child("no_crash_between_two_steps_is_a_dead_end", |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).with_jwt();
            lab.start(NOW).await.unwrap();
            let founded = lab.journal().await;
            let intended = |journal: Journal, place: Place| {
                let name = place.key_name(&lab.trust_domain(), &ServerName::default());
                journal.intend(place, KeyRecord::made(name))
            };
            let prepared = founded.slot(A).authority().cloned().unwrap();
            let crashes: [(&str, Journal, bool); 4] = [
                ("the key is not there yet", intended(founded.clone(), B), false),
                ("the key is there and not published", intended(founded.clone(), B), true),
                ("published and not active", founded.clone().prepare(A, prepared), false),
                ("nobody knows of it", founded.clone(), false),
            ];
            for (crash, journal, has_key) in crashes {
                lab.token.destroy(&lab.jwt_key_name(SlotName::B)).await.unwrap();
                if has_key {
                    lab.make_key(&lab.jwt_key_name(SlotName::B)).await;
                }
                lab.put(&journal).await;
                let ca = lab.start(NOW).await.unwrap_or_else(|error| panic!("{crash}: {error}"));
                signing_key(&ca, NOW).await;
                let journal = lab.journal().await;
                assert!(!matches!(journal.slot(B), Slot::Intended(_)), "{crash}: {journal:?}");
            }
        });
    });
}

#[test]
fn a_ca_of_before_takes_jwt_svids_in_and_a_later_one_without_them_keeps_what_was_published() {
    const TEST: &str = "a_ca_of_before_takes_jwt_svids_in_and_a_later_one_without_them_keeps_what_was_published";
    SoftHsm::run_in_child(TEST, |hsm| {
        run(async {
            let lab = Lab::new(hsm, DAY).rooted(40 * DAY);
            let before = lab.start(NOW).await.unwrap();
            assert!(bundle(&before).jwt_authorities.is_empty());
            let refused = sign_jwt(&before, NOW).await.unwrap_err();
            assert!(matches!(refused, CaError::Jwt(JwtError::Disabled)), "{refused}");
            let lab = lab.with_jwt();
            let ca = lab.start(NOW + 60).await.unwrap();
            let (key, signed) = (signing_key(&ca, NOW + 60).await, sign_jwt(&ca, NOW + 60).await.unwrap());
            assert_eq!(bundle(&ca).authorities, bundle(&before).authorities);
            let lab = lab.without_jwt();
            let ca = lab.start(NOW + 120).await.unwrap();
            assert_eq!(verify_jwt(&signed.token, &bundle(&ca)), Ok(key));
            assert!(sign_jwt(&ca, NOW + 120).await.is_err());
            let ca = lab.start(NOW + 60 + 2 * DAY).await.unwrap();
            assert!(bundle(&ca).jwt_authorities.is_empty(), "its time is over");
            assert!(
                lab.token.find(&lab.jwt_key_name(SlotName::A)).await.unwrap().is_none(),
                "and its key is destroyed"
            );
        });
    });
}

#[test]
fn another_kind_of_key_signs_from_the_next_rotation_on() {
    SoftHsm::run_in_child("another_kind_of_key_signs_from_the_next_rotation_on", |hsm| {
        run(async {
            let mut lab = Lab::new(hsm, DAY).rooted(40 * DAY).with_jwt();
            let algorithm = async |lab: &Lab, now: i64| {
                let ca = lab.start(now).await.unwrap();
                let signed = sign_jwt(&ca, now).await.unwrap();
                verify_jwt(&signed.token, &bundle(&ca)).unwrap();
                jwt::parts(&signed.token).0["alg"].as_str().unwrap().to_owned()
            };
            assert_eq!(algorithm(&lab, NOW).await, "ES256");
            let mut end = NOW;
            for (kind, next) in [(KeyKind::EcP384, "ES384"), (KeyKind::Rsa2048, "RS256"), (KeyKind::EcP256, "ES256")] {
                lab = lab.with_jwt_keys(kind);
                let before = algorithm(&lab, end).await;
                assert_eq!(algorithm(&lab, end + DAY / 2).await, before, "the key that is there signs on");
                end += DAY * 5 / 6;
                assert_eq!(algorithm(&lab, end).await, next);
            }
        });
    });
}

//= FLT-S7 REG-15
#[test]
fn servers_of_one_data_store_publish_each_others_keys() {
    SoftHsm::run_in_child("servers_of_one_data_store_publish_each_others_keys", |hsm| {
        run(async {
            let one = Lab::new(hsm, DAY).rooted(40 * DAY).with_jwt().renamed("one");
            one.start(NOW).await.unwrap();
            let two = Lab::new(hsm, DAY).rooted(40 * DAY).with_jwt().renamed("two");
            two.start(NOW).await.unwrap();
            let two = one.take_in(&two).await;
            let (one, two) = (one.start(NOW).await.unwrap(), two.start(NOW).await.unwrap());
            assert_eq!(bundle(&one).jwt_authorities, bundle(&two).jwt_authorities);
            for (signs, verifies) in [(&one, &two), (&two, &one)] {
                let signed = sign_jwt(signs, NOW).await.unwrap();
                verify_jwt(&signed.token, &bundle(verifies)).unwrap();
            }
            assert_ne!(signing_key(&one, NOW).await, signing_key(&two, NOW).await);
        });
    });
}
