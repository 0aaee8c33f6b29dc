//! What a token does to us: wrong PINs, pulled tokens, lost keys, other users.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11;
use cryptoki::session::Session;
use ironroot_hsm::{HsmError, KeyId, Pin, Token, TokenConfig, TokenKey, TokenUri, Urgency, UserLogin};
use ironroot_lab::softhsm::{LABEL, PIN, SoftHsm};

const DIGEST: [u8; 32] = [7; 32];

fn id(text: &str) -> KeyId {
    KeyId::new(text.as_bytes()).unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

fn open_session() -> Session {
    let pkcs11 = Pkcs11::new(SoftHsm::module_path()).unwrap();
    let slots = pkcs11.get_slots_with_initialized_token().unwrap();
    let slot = slots.into_iter().find(|s| pkcs11.get_token_info(*s).unwrap().label() == LABEL).unwrap();
    pkcs11.open_rw_session(slot).unwrap()
}

fn with_pin(hsm: &SoftHsm, pin: &str) -> TokenConfig {
    let path = hsm.pin_file().with_extension(pin);
    std::fs::write(&path, pin).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    TokenConfig { login: UserLogin::Pin(Pin::from_file(&path).unwrap()), ..hsm.token_config(2) }
}

async fn sign_until_it_works(key: &TokenKey) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match key.sign_digest(DIGEST, Urgency::FIRST).await {
            Ok(_) => return,
            Err(error) => assert!(Instant::now() < deadline, "still failing: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

//= FLT-H1
#[test]
fn a_wrong_pin_is_sent_once_and_not_again_until_someone_logs_in_by_hand() {
    SoftHsm::run_in_child("a_wrong_pin_is_sent_once_and_not_again_until_someone_logs_in_by_hand", |hsm| {
        let error = Token::open(with_pin(hsm, "wrong")).unwrap_err();
        assert!(matches!(error, HsmError::PinRefused { .. }), "{error}");
        assert!(error.to_string().contains("C_Login returned CKR_PIN_INCORRECT"), "{error}");
        for pin in ["wrong", PIN] {
            // SoftHSM raises CKF_USER_PIN_COUNT_LOW after one wrong PIN: what a restart with the same PIN would meet.
            let error = Token::open(with_pin(hsm, pin)).unwrap_err();
            assert!(matches!(error, HsmError::PinAtRisk { .. }), "{pin}: {error}");
        }
        hsm.run(
            "pkcs11-tool",
            &[
                "--module",
                SoftHsm::module_path().to_str().unwrap(),
                "--token-label",
                LABEL,
                "--login",
                "--pin",
                PIN,
                "--list-objects",
            ],
        );
        let error = Token::open(with_pin(hsm, "wrong")).unwrap_err();
        assert!(matches!(error, HsmError::PinAtRisk { .. }), "the refused PIN was sent again: {error}");
        Token::open(hsm.token_config(1)).unwrap();
    });
}

#[test]
fn an_absent_token_is_named_with_those_that_are_present() {
    SoftHsm::run_in_child("an_absent_token_is_named_with_those_that_are_present", |hsm| {
        let config = TokenConfig { token: TokenUri::with_label("nowhere"), ..hsm.token_config(1) };
        let text = Token::open(config).unwrap_err().to_string();
        assert!(text.contains("pkcs11:token=nowhere") && text.contains(LABEL), "{text}");
        let config = TokenConfig { module_path: "/nowhere/libpkcs11.so".into(), ..hsm.token_config(1) };
        let text = Token::open(config).unwrap_err().to_string();
        assert!(text.contains("/nowhere/libpkcs11.so") && text.contains("check the module's path"), "{text}");
        let config = TokenConfig { module_path: hsm.pin_file(), ..hsm.token_config(1) };
        assert!(matches!(Token::open(config), Err(HsmError::Module { .. })));
    });
}

//= FLT-H5
#[test]
fn two_tokens_with_one_label_are_refused_and_the_serial_decides() {
    SoftHsm::run_in_child("two_tokens_with_one_label_are_refused_and_the_serial_decides", |hsm| {
        hsm.initialize_token(LABEL);
        let error = Token::open(hsm.token_config(1)).unwrap_err();
        assert!(matches!(error, HsmError::TokenAmbiguous { count: 2, .. }), "{error}");
        let pkcs11 = Pkcs11::new(SoftHsm::module_path()).unwrap();
        let slot = pkcs11.get_slots_with_initialized_token().unwrap()[0];
        let serial = pkcs11.get_token_info(slot).unwrap().serial_number().to_owned();
        Token::open(TokenConfig { token: TokenUri::with_serial(&serial), ..hsm.token_config(1) }).unwrap();
    });
}

//= FLT-H3
#[test]
fn work_goes_on_after_the_token_was_pulled_and_returned() {
    SoftHsm::run_in_child("work_goes_on_after_the_token_was_pulled_and_returned", |hsm| {
        run(async {
            let token = Token::open(hsm.token_config(3)).unwrap();
            let key = token.generate_p256(&id("ca"), "CA").await.unwrap();
            key.sign_digest(DIGEST, Urgency::FIRST).await.unwrap();
            let elsewhere = hsm.token_directory().with_extension("pulled");
            for _ in 0..3 {
                std::fs::rename(hsm.token_directory(), &elsewhere).unwrap();
                let error = key.sign_digest(DIGEST, Urgency::FIRST).await.unwrap_err();
                assert!(!matches!(error, HsmError::KeyReplaced(_)), "{error}");
                std::fs::rename(&elsewhere, hsm.token_directory()).unwrap();
                sign_until_it_works(&key).await;
            }
            let found = token.find(&id("ca")).await.unwrap().unwrap();
            assert_eq!(found.spki_der(), key.spki_der());
        });
    });
}

//= FLT-H3
#[test]
fn work_goes_on_after_someone_logged_us_out() {
    SoftHsm::run_in_child("work_goes_on_after_someone_logged_us_out", |hsm| {
        run(async {
            let token = Token::open(hsm.token_config(2)).unwrap();
            let key = token.generate_p256(&id("ca"), "CA").await.unwrap();
            for _ in 0..3 {
                open_session().logout().unwrap();
                key.sign_digest(DIGEST, Urgency::FIRST).await.unwrap();
            }
            open_session().logout().unwrap();
            assert!(token.find(&id("ca")).await.unwrap().is_some(), "a session without login saw no key and said so");
            open_session().logout().unwrap();
            token.generate_p256(&id("next"), "next").await.unwrap();
            open_session().logout().unwrap();
            assert!(token.destroy(&id("next")).await.unwrap());
        });
    });
}

#[test]
fn a_key_deleted_by_someone_else_is_reported_lost_and_not_made_again() {
    SoftHsm::run_in_child("a_key_deleted_by_someone_else_is_reported_lost_and_not_made_again", |hsm| {
        run(async {
            let token = Token::open(hsm.token_config(2)).unwrap();
            let key = token.generate_p256(&id("ca"), "CA").await.unwrap();
            let module = SoftHsm::module_path();
            for class in ["privkey", "pubkey"] {
                hsm.run(
                    "pkcs11-tool",
                    &[
                        "--module",
                        module.to_str().unwrap(),
                        "--token-label",
                        LABEL,
                        "--login",
                        "--pin",
                        PIN,
                        "--delete-object",
                        "--type",
                        class,
                        "--id",
                        "6361",
                    ],
                );
            }
            let error = key.sign_digest(DIGEST, Urgency::FIRST).await.unwrap_err();
            assert!(matches!(error, HsmError::KeyLost(_)), "{error}");
            let successor = token.generate_p256(&id("ca"), "CA").await.unwrap();
            successor.sign_digest(DIGEST, Urgency::FIRST).await.unwrap();
            let error = key.sign_digest(DIGEST, Urgency::FIRST).await.unwrap_err();
            assert!(matches!(error, HsmError::KeyReplaced(_)), "{error}");
        });
    });
}

#[test]
fn closed_tokens_leave_no_session_and_no_login_behind() {
    SoftHsm::run_in_child("closed_tokens_leave_no_session_and_no_login_behind", |hsm| {
        run(async {
            for _ in 0..20 {
                let token = Token::open(hsm.token_config(8)).unwrap();
                let _ = token.find(&id("ca")).await.unwrap();
            }
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                let state = open_session().get_session_info().unwrap().session_state();
                if state == cryptoki::session::SessionState::RwPublic {
                    break;
                }
                assert!(Instant::now() < deadline, "still logged in: {state:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    });
}

#[test]
fn a_pin_that_was_changed_in_the_token_is_taken_over_without_a_restart() {
    SoftHsm::run_in_child("a_pin_that_was_changed_in_the_token_is_taken_over_without_a_restart", |hsm| {
        run(async {
            let token = Token::open(hsm.token_config(2)).unwrap();
            let key = token.generate_p256(&id("ca"), "CA").await.unwrap();
            let by_hand = open_session();
            by_hand.set_pin(&PIN.into(), &"changed".into()).unwrap();
            by_hand.logout().unwrap();
            // The old PIN is sent once, and refused.
            let deadline = Instant::now() + Duration::from_secs(20);
            while !matches!(key.sign_digest(DIGEST, Urgency::FIRST).await, Err(HsmError::PinRefused { .. })) {
                assert!(Instant::now() < deadline, "the old PIN was never refused");
            }
            let UserLogin::Pin(changed) = with_pin(hsm, "changed").login else { unreachable!("a PIN was given") };
            // SoftHSM's mark of a wrong PIN goes with a login by hand, as for every PIN at risk.
            by_hand.login(cryptoki::session::UserType::User, Some(&"changed".into())).unwrap();
            by_hand.logout().unwrap();
            token.replace_pin(changed);
            sign_until_it_works(&key).await;
        });
    });
}
