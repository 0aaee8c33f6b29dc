//! The same room on a second PKCS#11 implementation: keys in a TPM, through tpm2-pkcs11.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use ironroot_hsm::{HsmError, KeyId, Token, TokenConfig, TokenUri, Urgency};
use ironroot_lab::authority::{AuthorityLab, NOW, assert_signs};
use ironroot_lab::tpm2_pkcs11::Tpm2Token;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_key_in_a_tpm_is_made_signs_is_found_again_and_destroyed() {
    Tpm2Token::run_in_child("a_key_in_a_tpm_is_made_signs_is_found_again_and_destroyed", |hsm| {
        run(async {
            let token = Token::open(hsm.token_config(2)).unwrap();
            let id = KeyId::new(b"ca").unwrap();
            assert!(token.find(&id).await.unwrap().is_none());
            let made = token.generate_p256(&id, "CA").await.unwrap();
            made.sign_digest([7; 32], Urgency::FIRST).await.unwrap();
            let found = token.find(&id).await.unwrap().unwrap();
            assert_eq!(found.spki_der(), made.spki_der());
            assert!(token.destroy(&id).await.unwrap());
            assert!(token.find(&id).await.unwrap().is_none());
            let absent = TokenConfig { token: TokenUri::with_label("nowhere"), ..hsm.token_config(1) };
            assert!(matches!(Token::open(absent), Err(HsmError::TokenAbsent { .. })));
        });
    });
}

//= FLT-H6
/// One key only: the module keeps its keys loaded, and without a resource manager the chip has three places.
#[test]
fn a_ca_lives_in_a_tpm_and_is_found_again() {
    Tpm2Token::run_in_child("a_ca_lives_in_a_tpm_and_is_found_again", |hsm| {
        run(async {
            let lab = AuthorityLab::with_token(hsm.token_config(2), 3600);
            let bundle = lab.start(NOW).await.unwrap().bundle().borrow().clone();
            let ca = lab.start(NOW + 60).await.unwrap();
            assert_eq!(*ca.bundle().borrow(), bundle);
            assert_signs(&ca, NOW + 60).await;
        });
    });
}
