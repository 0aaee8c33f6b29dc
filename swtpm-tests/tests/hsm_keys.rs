//! Keys in a token: they are made there, protected there, found again, and never confused.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use cryptoki::context::Pkcs11;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use futures_util::future::join_all;
use ironroot_api::csr::Spki;
use ironroot_hsm::{HsmError, KeyId, KeyKind, Token, TokenKey, Urgency, session_threads_ended};
use ironroot_lab::softhsm::{LABEL, PIN, SoftHsm};

const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

fn id(text: &str) -> KeyId {
    KeyId::new(text.as_bytes()).unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

async fn assert_signs(key: &TokenKey) {
    let message = b"what is signed";
    let hash: [u8; 32] = digest(&SHA256, message).as_ref().try_into().unwrap();
    let signature = key.sign_digest(hash, Urgency::FIRST).await.unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key()).verify(message, signature.as_bytes()).unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key()).verify(message, &signature.to_der()).unwrap();
}

/// A second user of the module in the same process, as an administrator's tool would be one in another.
fn other_user() -> Session {
    let pkcs11 = Pkcs11::new(SoftHsm::module_path()).unwrap();
    let slots = pkcs11.get_slots_with_initialized_token().unwrap();
    let slot = slots.into_iter().find(|s| pkcs11.get_token_info(*s).unwrap().label() == LABEL).unwrap();
    let session = pkcs11.open_rw_session(slot).unwrap();
    // The login belongs to the process, so it is there already.
    let _ = session.login(UserType::User, Some(&AuthPin::from(PIN)));
    session
}

fn import_pair(session: &Session, key: &KeyId, sensitive: bool, extractable: bool) {
    let named = vec![Attribute::Token(true), Attribute::Id(key.as_bytes().to_vec())];
    let public = [vec![Attribute::EcParams(P256.to_vec())], named.clone()].concat();
    let private = [
        vec![
            Attribute::Private(true),
            Attribute::Sign(true),
            Attribute::Sensitive(sensitive),
            Attribute::Extractable(extractable),
        ],
        named,
    ]
    .concat();
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
}

#[test]
fn a_key_is_made_in_the_token_signs_and_is_found_again() {
    SoftHsm::run_in_child("a_key_is_made_in_the_token_signs_and_is_found_again", |hsm| {
        run(async {
            let token = Token::open(hsm.token_config(2)).unwrap();
            assert!(token.find(&id("ca")).await.unwrap().is_none());
            let made = token.generate_p256(&id("ca"), "CA").await.unwrap();
            assert_signs(&made).await;
            drop(token);
            let token = Token::open(hsm.token_config(2)).unwrap();
            let found = token.find(&id("ca")).await.unwrap().unwrap();
            assert_eq!((found.spki_der(), found.name().id()), (made.spki_der(), made.name().id()));
            assert_signs(&found).await;
            assert!(matches!(token.generate_p256(&id("ca"), "CA").await, Err(HsmError::KeyExists(_))));
            assert!(token.destroy(&id("ca")).await.unwrap());
            assert!(!token.destroy(&id("ca")).await.unwrap());
            assert!(token.find(&id("ca")).await.unwrap().is_none());
        });
    });
}

#[test]
fn a_burst_of_more_than_the_queue_holds_is_signed_to_the_last() {
    SoftHsm::run_in_child("a_burst_of_more_than_the_queue_holds_is_signed_to_the_last", |hsm| {
        run(async {
            let token = Token::open(hsm.token_config(2)).unwrap();
            let key = token.generate_p256(&id("ca"), "CA").await.unwrap();
            // More than 4,096, as when a fleet comes back with the power.
            let burst = (0..6_000).map(|_| key.sign_digest([1; 32], Urgency::by(1)));
            let refused = join_all(burst).await.into_iter().find_map(Result::err);
            assert!(refused.is_none(), "{refused:?}");
        });
    });
}

#[test]
fn keys_of_other_kinds_are_made_sign_and_are_found_as_what_they_are() {
    SoftHsm::run_in_child("keys_of_other_kinds_are_made_sign_and_are_found_as_what_they_are", |hsm| {
        run(async {
            let token = Token::open(hsm.token_config(1)).unwrap();
            let verifiers: [(KeyKind, &str, &'static dyn VerificationAlgorithm); 4] = [
                (KeyKind::EcP256, "p256", &ECDSA_P256_SHA256_FIXED),
                (KeyKind::EcP384, "p384", &ECDSA_P384_SHA384_FIXED),
                (KeyKind::Rsa2048, "rsa", &RSA_PKCS1_2048_8192_SHA256),
                (KeyKind::Rsa4096, "rsa4", &RSA_PKCS1_2048_8192_SHA256),
            ];
            for (kind, name, verifier) in verifiers {
                let made = token.generate(kind, &id(name), name).await.unwrap();
                let found = token.find_of(kind, &id(name)).await.unwrap().unwrap();
                assert_eq!((found.spki_der(), found.kind()), (made.spki_der(), kind));
                Spki::parse(found.spki_der()).unwrap();
                let signature = found.sign_message(b"what is signed", Urgency::FIRST).await.unwrap();
                UnparsedPublicKey::new(verifier, found.public_key()).verify(b"what is signed", &signature).unwrap();
                if kind != KeyKind::EcP256 {
                    let other = token.find(&id(name)).await.unwrap_err();
                    assert!(matches!(other, HsmError::KeyOfAnotherKind { .. }), "{other}");
                    let unfit = found.sign_digest([1; 32], Urgency::FIRST).await.unwrap_err();
                    assert!(matches!(unfit, HsmError::KeyUnusable { .. }), "{unfit}");
                }
            }
            let unfit = token.find_of(KeyKind::EcP384, &id("p256")).await.unwrap_err();
            assert!(unfit.to_string().contains("its curve is not P-384"), "{unfit}");
            let unfit = token.find_of(KeyKind::Rsa2048, &id("p256")).await.unwrap_err();
            assert!(unfit.to_string().contains("it is no RSA key"), "{unfit}");
            let unfit = token.find_of(KeyKind::Rsa4096, &id("rsa")).await.unwrap_err();
            assert!(unfit.to_string().contains("it is no RSA-4096 key"), "{unfit}");
        });
    });
}

//= FLT-H7
#[test]
fn no_attribute_of_the_private_key_leaves_the_token() {
    SoftHsm::run_in_child("no_attribute_of_the_private_key_leaves_the_token", |hsm| {
        run(async {
            let token = Token::open(hsm.token_config(1)).unwrap();
            token.generate_p256(&id("ca"), "CA").await.unwrap();
            let session = other_user();
            let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(b"ca".to_vec())];
            let private = session.find_objects(&template).unwrap()[0];
            let value = session.get_attributes(private, &[cryptoki::object::AttributeType::Value]).unwrap();
            assert!(value.is_empty(), "CKA_VALUE was read");
            assert!(session.update_attributes(private, &[Attribute::Extractable(true)]).is_err());
            assert!(session.copy_object(private, &[Attribute::Extractable(true)]).is_err());
        });
    });
}

//= FLT-H7
#[test]
fn refuses_a_key_that_is_or_was_exposed() {
    SoftHsm::run_in_child("refuses_a_key_that_is_or_was_exposed", |hsm| {
        run(async {
            let token = Token::open(hsm.token_config(1)).unwrap();
            for (name, sensitive, extractable) in
                [("plain", false, false), ("leaky", true, true), ("both", false, true)]
            {
                import_pair(&other_user(), &id(name), sensitive, extractable);
                let error = token.find(&id(name)).await.unwrap_err();
                assert!(matches!(error, HsmError::KeyUnprotected { .. }), "{name}: {error}");
            }
        });
    });
}

//= FLT-H5
#[test]
fn refuses_two_keys_with_one_identifier() {
    SoftHsm::run_in_child("refuses_two_keys_with_one_identifier", |hsm| {
        run(async {
            let token = Token::open(hsm.token_config(1)).unwrap();
            token.generate_p256(&id("ca"), "CA").await.unwrap();
            import_pair(&other_user(), &id("ca"), true, false);
            let error = token.find(&id("ca")).await.unwrap_err();
            assert!(matches!(error, HsmError::DuplicateKey { count: 2, .. }), "{error}");
        });
    });
}

#[test]
fn refuses_a_public_key_that_does_not_belong_to_the_private_one() {
    SoftHsm::run_in_child("refuses_a_public_key_that_does_not_belong_to_the_private_one", |hsm| {
        run(async {
            let token = Token::open(hsm.token_config(1)).unwrap();
            token.generate_p256(&id("one"), "one").await.unwrap();
            token.generate_p256(&id("two"), "two").await.unwrap();
            let session = other_user();
            let public = |of: &str| {
                let template = [Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::Id(of.as_bytes().to_vec())];
                session.find_objects(&template).unwrap()[0]
            };
            session.destroy_object(public("one")).unwrap();
            let error = token.find(&id("one")).await.unwrap_err();
            assert!(matches!(error, HsmError::PublicKeyMissing(_)), "{error}");
            session.update_attributes(public("two"), &[Attribute::Id(b"one".to_vec())]).unwrap();
            let error = token.find(&id("one")).await.unwrap_err();
            assert!(matches!(error, HsmError::KeyUnusable { .. }), "{error}");
        });
    });
}

//= FLT-H4
#[test]
fn many_callers_share_few_sessions() {
    SoftHsm::run_in_child("many_callers_share_few_sessions", |hsm| {
        run(async {
            let token = Token::open(hsm.token_config(4)).unwrap();
            let key = token.generate_p256(&id("ca"), "CA").await.unwrap();
            let tasks: Vec<_> = (0..200)
                .map(|_| {
                    let key = key.clone();
                    tokio::spawn(async move { assert_signs(&key).await })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    });
}

#[test]
fn the_threads_of_a_token_that_is_dropped_while_it_works_end_and_a_process_can_wait_for_them() {
    const TEST: &str = "the_threads_of_a_token_that_is_dropped_while_it_works_end_and_a_process_can_wait_for_them";
    SoftHsm::run_in_child(TEST, |hsm| {
        run(async {
            let token = Token::open(hsm.token_config(2)).unwrap();
            let key = token.generate_p256(&id("busy"), "busy").await.unwrap();
            let sign = |key: TokenKey| async move { key.sign_digest([7; 32], Urgency::FIRST).await };
            let calls: Vec<_> = (0..50).map(|_| tokio::spawn(sign(key.clone()))).collect();
            assert!(!session_threads_ended(Duration::ZERO), "they are there as long as the token is");
            calls.iter().for_each(tokio::task::JoinHandle::abort);
        });
        assert!(session_threads_ended(Duration::from_secs(60)));
    });
}
