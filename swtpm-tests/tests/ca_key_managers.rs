//! Where the CA's keys are: in a file, in memory, in a token; and what it is to move from one to another.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::path::Path;

use ironroot_api::MlDsa;
use ironroot_hsm::{HsmError, KeyKind, Token, TokenConfig, TokenUri};
use ironroot_lab::authority::{AuthorityLab as Lab, NOW, assert_signs, sign_jwt, spki, verify, verify_jwt};
use ironroot_lab::softhsm::SoftHsm;
use ironroot_server::ca::{CaError, CertificateAuthority, Place, Purpose, Slot, SlotName, TrustBundle};
use ironroot_server::keys::{FormerManager, KeyManager, KeyManagers, SoftwareKeys};

const DAY: i64 = 24 * 60 * 60;
const KINDS: [KeyKind; 4] = [KeyKind::EcP256, KeyKind::EcP384, KeyKind::Rsa2048, KeyKind::Rsa4096];

const ML_DSA: [KeyKind; 3] =
    [KeyKind::MlDsa(MlDsa::MlDsa44), KeyKind::MlDsa(MlDsa::MlDsa65), KeyKind::MlDsa(MlDsa::MlDsa87)];

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

fn file(path: &Path) -> KeyManager {
    KeyManager::Software(SoftwareKeys::open(path).unwrap())
}

fn memory() -> KeyManager {
    KeyManager::Software(SoftwareKeys::in_memory())
}

fn from(former: KeyManager, current: KeyManager) -> KeyManagers {
    KeyManagers { current, former: Some(FormerManager::AtHand(former)) }
}

fn bundle(ca: &CertificateAuthority) -> TrustBundle {
    ca.bundle().borrow().as_ref().clone()
}

/// Who signs X509-SVIDs and JWT-SVIDs now: what of it changes when another authority does.
async fn signers(ca: &CertificateAuthority, now: i64) -> (Vec<u8>, String) {
    let svid = ca.sign_server_svid(&spki(), now).await.unwrap();
    let leaf = ironroot_api::certificate::Certificate::parse(&svid.chain[0]).unwrap();
    let token = sign_jwt(ca, now).await.unwrap().token;
    (leaf.authority_key_id().unwrap(), verify_jwt(&token, &bundle(ca)).unwrap())
}

#[test]
fn cas_with_keys_of_every_kind_sign_from_a_file_and_are_the_same_after_a_restart() {
    SoftHsm::run_in_child("cas_with_keys_of_every_kind_sign_from_a_file_and_are_the_same_after_a_restart", |hsm| {
        run(async {
            for (number, kind) in KINDS.into_iter().chain(ML_DSA).enumerate() {
                let path = hsm.file(&format!("keys-{number}.json"));
                let tokens = if matches!(kind, KeyKind::MlDsa(_)) { KeyKind::EcP256 } else { kind };
                let lab = Lab::new(hsm, DAY).with_ca_keys(kind).with_jwt().with_jwt_keys(tokens);
                let lab = if number % 2 == 0 { lab.rooted(40 * DAY) } else { lab };
                let before = lab.keeping_keys_in(file(&path));
                let ca = before.start(NOW).await.unwrap();
                assert_signs(&ca, NOW).await;
                let known = (bundle(&ca), signers(&ca, NOW).await);
                let after = before.keeping_keys_in(file(&path)).start(NOW + 60).await.unwrap();
                assert_eq!((bundle(&after), signers(&after, NOW + 60).await), known, "{kind}");
            }
        });
    });
}

#[test]
fn a_token_has_ca_keys_of_every_kind() {
    SoftHsm::run_in_child("a_token_has_ca_keys_of_every_kind", |hsm| {
        run(async {
            for kind in KINDS {
                let lab = Lab::new(hsm, DAY).rooted(40 * DAY).with_ca_keys(kind);
                assert_signs(&lab.start(NOW).await.unwrap(), NOW).await;
                assert_signs(&lab.start(NOW + 60).await.unwrap(), NOW + 60).await;
                lab.forget_keys().await;
            }
        });
    });
}

/// When this fails, SoftHSM has learnt it: then it goes among `KINDS`.
#[test]
fn a_token_without_ml_dsa_says_so_by_name_and_nothing_is_left_on_it() {
    SoftHsm::run_in_child("a_token_without_ml_dsa_says_so_by_name_and_nothing_is_left_on_it", |hsm| {
        run(async {
            for kind in ML_DSA {
                let lab = Lab::new(hsm, DAY).with_ca_keys(kind);
                let Err(CaError::Token(refused)) = lab.start(NOW).await else { panic!("{kind} is not there") };
                assert!(
                    matches!(&refused, HsmError::KindUnsupported { kind: asked, .. } if *asked == kind),
                    "{refused}"
                );
                let said = refused.to_string();
                assert!(
                    said.contains(&format!("makes no {kind} keys: it offers no CKM_ML_DSA_KEY_PAIR_GEN")),
                    "{said}"
                );
                assert!(lab.token.find(&lab.key_name(SlotName::A)).await.unwrap().is_none());
                // The operator takes another kind: what was begun is in nobody's way.
                let lab = lab.with_ca_keys(KeyKind::EcP256);
                assert_signs(&lab.start(NOW + 10).await.unwrap(), NOW + 10).await;
                lab.forget_keys().await;
            }
        });
    });
}

#[test]
fn a_ca_of_another_kind_of_key_than_its_root_and_than_the_one_before_is_verified_by_everybody() {
    let name = "a_ca_of_another_kind_of_key_than_its_root_and_than_the_one_before_is_verified_by_everybody";
    SoftHsm::run_in_child(name, |hsm| {
        run(async {
            let mut lab = Lab::new(hsm, DAY).rooted(40 * DAY);
            let known = bundle(&lab.start(NOW).await.unwrap());
            let mut now = NOW;
            for kind in [KeyKind::Rsa2048, KeyKind::EcP384, KeyKind::EcP256] {
                lab = lab.with_ca_keys(kind);
                lab.start(now + DAY / 2).await.unwrap();
                now += DAY * 5 / 6;
                let ca = lab.start(now).await.unwrap();
                verify(&ca.sign_server_svid(&spki(), now).await.unwrap(), &known, now).unwrap();
            }
        });
    });
}

/// The life of a CA that moves from `old` to `new`, each opened anew at each start.
async fn move_over(lab: Lab, old: impl Fn() -> KeyManager, new: impl Fn() -> KeyManager) {
    let lab = lab.keeping_keys_in(old());
    let ca = lab.start(NOW).await.unwrap();
    let (before, known) = (signers(&ca, NOW).await, bundle(&ca));
    let signed_before = ca.sign_server_svid(&spki(), NOW).await.unwrap();

    // Whoever has the bundle of before goes on; whoever asks for it learns what will sign.
    let now = NOW + 10;
    let lab = lab.keeping_keys_in(from(old(), new()));
    let ca = lab.start(now).await.unwrap();
    assert_eq!(signers(&ca, now).await, before, "the old key signs on until the new one is known");
    verify(&ca.sign_server_svid(&spki(), now).await.unwrap(), &known, now).unwrap();
    let told = bundle(&ca);
    assert!(told.sequence_number > known.sequence_number);
    assert!(known.authorities.iter().all(|authority| told.authorities.contains(authority)));
    // Another restart on the way changes nothing.
    assert_eq!(bundle(&lab.start(now + 1).await.unwrap()), told);

    let now = now + 61;
    let ca = lab.start(now).await.unwrap();
    let after = signers(&ca, now).await;
    assert!(after.0 != before.0 && after.1 != before.1, "the new ones sign as soon as they are known");
    verify(&ca.sign_server_svid(&spki(), now).await.unwrap(), &told, now).unwrap();
    verify(&signed_before, &bundle(&ca), now).unwrap();

    // The key manager of before is not needed any more, through rotations and to the end of what it has signed.
    let lab = lab.keeping_keys_in(new());
    let ca = lab.start(now + 1).await.unwrap();
    assert_eq!(signers(&ca, now + 1).await, after);
    for later in [now + DAY / 2, now + DAY * 5 / 6, now + 2 * DAY, now + 3 * DAY] {
        assert_signs(&lab.start(later).await.unwrap(), later).await;
    }
    let journal = lab.journal().await;
    let of_former =
        |authority: &&ironroot_server::ca::Authority| authority.issued_at == NOW && authority.lifetime() == DAY;
    assert_eq!(journal.authorities().into_iter().filter(of_former).count(), 0, "what the old keys signed has ended");
}

#[test]
fn a_ca_moves_from_a_file_to_a_token_and_nobody_who_knows_the_old_one_is_shut_out() {
    SoftHsm::run_in_child("a_ca_moves_from_a_file_to_a_token_and_nobody_who_knows_the_old_one_is_shut_out", |hsm| {
        run(async {
            let (path, token) = (hsm.file("keys.json"), Token::open(hsm.token_config(2)).unwrap());
            let lab = || Lab::new(hsm, DAY).with_jwt();
            let of_the_token = || KeyManager::Token(token.clone());
            move_over(lab(), || file(&path), of_the_token).await;
            let untouched = std::fs::read(&path).unwrap();
            lab().forget_keys().await;
            std::fs::remove_file(&path).unwrap();
            move_over(lab().rooted(40 * DAY), || file(&path), of_the_token).await;
            assert_ne!(std::fs::read(&path).unwrap(), untouched);
        });
    });
}

#[test]
fn a_ca_moves_from_one_token_to_another_though_keys_are_called_alike_there() {
    SoftHsm::run_in_child("a_ca_moves_from_one_token_to_another_though_keys_are_called_alike_there", |hsm| {
        run(async {
            hsm.initialize_token("next");
            let old = Token::open(hsm.token_config(2)).unwrap();
            let config = TokenConfig { token: TokenUri::with_label("next"), ..hsm.token_config(2) };
            let new = Token::open(config).unwrap();
            let lab = Lab::new(hsm, DAY).with_jwt();
            let name = lab.key_name(SlotName::A);
            move_over(lab, || KeyManager::Token(old.clone()), || KeyManager::Token(new.clone())).await;
            assert!(old.find(&name).await.unwrap().is_some(), "what the old token holds is left to its administrator");
            let other = Lab::new(hsm, DAY).with_jwt().keeping_keys_in(KeyManager::Token(old.clone()));
            let refused = other.start(NOW).await.unwrap_err();
            assert!(matches!(refused, CaError::KeyWithoutJournal { .. }), "{refused}");
        });
    });
}

//= FLT-H8
#[test]
fn another_key_manager_without_a_word_of_the_one_before_is_a_lost_key_and_never_a_new_ca() {
    SoftHsm::run_in_child(
        "another_key_manager_without_a_word_of_the_one_before_is_a_lost_key_and_never_a_new_ca",
        |hsm| {
            run(async {
                let path = hsm.file("keys.json");
                let lab = Lab::new(hsm, DAY).keeping_keys_in(file(&path));
                lab.start(NOW).await.unwrap();
                let stored = lab.stored_journal().await;
                let token = || KeyManager::Token(lab.token.clone());
                let unreachable = KeyManagers { current: token(), former: Some(FormerManager::Unreachable) };
                let (alone, empty) = (KeyManagers::from(token()), from(file(&hsm.file("other.json")), token()));
                let lab = lab.keeping_keys_in(alone);
                let lost = lab.start(NOW).await.unwrap_err();
                assert!(
                    matches!(lost, CaError::KeyLost { .. }) && lost.to_string().contains("previous = true"),
                    "{lost}"
                );
                let lab = lab.keeping_keys_in(empty);
                let lost = lab.start(NOW).await.unwrap_err();
                assert!(matches!(lost, CaError::KeyLost { .. }), "{lost}");
                let lab = lab.keeping_keys_in(unreachable);
                let lost = lab.start(NOW).await.unwrap_err();
                let says = lost.to_string();
                assert!(
                    matches!(lost, CaError::FormerUnreachable { .. }) && says.contains("KeyManager \"memory\""),
                    "{says}"
                );
                assert_eq!(lab.stored_journal().await, stored, "the journal was touched");
            });
        },
    );
}

#[test]
fn a_key_manager_that_is_gone_for_good_by_the_operators_word_leaves_its_authority_in_the_bundle_and_a_new_one_signs_at_once()
 {
    let name = "a_key_manager_that_is_gone_for_good_by_the_operators_word_leaves_its_authority_in_the_bundle_and_a_new_one_signs_at_once";
    SoftHsm::run_in_child(name, |hsm| {
        run(async {
            for rooted in [false, true] {
                let lab = Lab::new(hsm, DAY).with_jwt();
                let lab = if rooted { lab.rooted(40 * DAY) } else { lab };
                let path = hsm.file(&format!("keys-{rooted}.json"));
                let lab = lab.keeping_keys_in(file(&path));
                let ca = lab.start(NOW).await.unwrap();
                let signed = ca.sign_server_svid(&spki(), NOW).await.unwrap();
                let managers = from(memory(), KeyManager::Token(lab.token.clone()));
                let lab = lab.keeping_keys_in(managers);
                let ca = lab.start(NOW + 10).await.unwrap();
                assert_signs(&ca, NOW + 10).await;
                verify(&signed, &bundle(&ca), NOW + 10).unwrap();
                assert_ne!(signers(&ca, NOW + 10).await.0, Vec::<u8>::new());
                lab.forget_keys().await;
            }
        });
    });
}

#[test]
fn keys_in_memory_end_with_the_process_and_what_they_signed_does_not() {
    SoftHsm::run_in_child("keys_in_memory_end_with_the_process_and_what_they_signed_does_not", |hsm| {
        run(async {
            let mut lab = Lab::new(hsm, DAY).with_jwt().keeping_keys_in(memory());
            let ca = lab.start(NOW).await.unwrap();
            let (signed, signer) = (ca.sign_server_svid(&spki(), NOW).await.unwrap(), signers(&ca, NOW).await);
            for restart in 1..4 {
                lab = lab.keeping_keys_in(memory());
                let ca = lab.start(NOW + restart).await.unwrap();
                assert_signs(&ca, NOW + restart).await;
                assert_ne!(signers(&ca, NOW + restart).await, signer);
                verify(&signed, &bundle(&ca), NOW + restart).unwrap();
            }
        });
    });
}

#[test]
fn a_key_that_was_begun_before_the_move_is_made_where_keys_are_made_now() {
    SoftHsm::run_in_child("a_key_that_was_begun_before_the_move_is_made_where_keys_are_made_now", |hsm| {
        run(async {
            let path = hsm.file("keys.json");
            let lab = Lab::new(hsm, DAY).keeping_keys_in(file(&path));
            lab.start(NOW).await.unwrap();
            let place = Place::ca(SlotName::B);
            let record = lab.journal().await.slot(Place::ca(SlotName::A)).key().unwrap().clone();
            let begun = ironroot_server::ca::KeyRecord::made(ironroot_hsm::KeyName::labelled("x509-CA-B").unwrap());
            assert_eq!(record.name.label(), Some("x509-CA-A"), "as SPIRE calls it");
            lab.put(&lab.journal().await.intend(place, begun)).await;
            let managers = from(file(&path), KeyManager::Token(lab.token.clone()));
            let lab = lab.keeping_keys_in(managers);
            lab.start(NOW + 10).await.unwrap();
            let journal = lab.journal().await;
            let Slot::Prepared(next) = journal.slots(Purpose::X509Ca).slot(SlotName::B) else { panic!("{journal:?}") };
            assert!(next.in_token.name.id().is_some(), "it is in the token");
        });
    });
}
