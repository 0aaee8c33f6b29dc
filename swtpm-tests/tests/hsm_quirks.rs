//! Tokens with other manners than SoftHSM's, each staged by the quirk module.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11;
use ironroot_hsm::{
    HsmError, KeyId, KeyKind, KeyName, Pin, Token, TokenConfig, TokenKey, TokenUri, Urgency, UserLogin,
};
use ironroot_lab::quirk::Quirks;
use ironroot_lab::softhsm::{LABEL, PIN, SoftHsm};

const DIGEST: [u8; 32] = [7; 32];
const GENERAL_ERROR: &str = "0x5";
const DEVICE_ERROR: &str = "0x30";
const DEVICE_MEMORY: &str = "0x31";
const SESSION_HANDLE_INVALID: &str = "0xB3";
const VENDOR_DEFINED: &str = "0x80000001";

fn id(text: &str) -> KeyId {
    KeyId::new(text.as_bytes()).unwrap()
}

fn name(id_text: &str, label: &str) -> KeyName {
    KeyName::new(id(id_text), label)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// `FUNCTION RV` until the module is initialised once more.
fn until_initialized(quirks: &Quirks, how: &str, function: &str, code: &str) -> String {
    format!("{how} {function} {code} {}", quirks.count("C_Initialize"))
}

/// As the CA plans it: again and again, a moment apart. Returns how many tries it took.
async fn until_done<T, F: Future<Output = Result<T, HsmError>>>(mut attempt: impl FnMut() -> F) -> (T, usize) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut tries = 0;
    loop {
        tries += 1;
        match attempt().await {
            Ok(done) => return (done, tries),
            Err(error) => assert!(Instant::now() < deadline, "after {tries} tries: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
}

async fn sign(key: &TokenKey) {
    key.sign_digest(DIGEST, Urgency::FIRST).await.unwrap();
}

/// What an administrator sees.
fn objects(hsm: &SoftHsm) -> String {
    let module = SoftHsm::module_path();
    let arguments =
        ["--module", module.to_str().unwrap(), "--token-label", LABEL, "--login", "--pin", PIN, "--list-objects"];
    hsm.run("pkcs11-tool", &arguments)
}

fn number_of_objects(hsm: &SoftHsm) -> usize {
    objects(hsm).matches("Key Object").count()
}

#[test]
fn a_kind_of_key_that_the_token_does_not_make_is_refused_by_its_own_word_and_leaves_nothing_behind() {
    let name = "a_kind_of_key_that_the_token_does_not_make_is_refused_by_its_own_word_and_leaves_nothing_behind";
    Quirks::run_in_child(name, |hsm, quirks| {
        run(async {
            quirks.set(&["max_key_bits 2048"]);
            let token = Token::open(quirks.token_config(hsm, 1)).unwrap();
            let refused = token.generate(KeyKind::Rsa4096, &id("rsa"), "rsa").await.unwrap_err();
            assert!(matches!(refused, HsmError::KindUnsupported { kind: KeyKind::Rsa4096, .. }), "{refused:?}");
            let said = refused.to_string();
            assert!(
                said.contains("makes no RSA-4096 keys: by its CKM_RSA_PKCS_KEY_PAIR_GEN") && said.contains("2048"),
                "{said}"
            );
            assert_eq!((number_of_objects(hsm), quirks.count("C_GenerateKeyPair")), (0, 0));
            token.generate(KeyKind::Rsa2048, &id("rsa"), "rsa").await.unwrap();
        });
    });
}

#[test]
fn a_generation_that_only_a_new_start_of_the_module_mends_is_mended() {
    Quirks::run_in_child("a_generation_that_only_a_new_start_of_the_module_mends_is_mended", |hsm, quirks| {
        run(async {
            let token = Token::open(quirks.token_config(hsm, 2)).unwrap();
            let before = token.generate_p256(&id("before"), "before").await.unwrap();
            for (code, most_tries) in [
                (GENERAL_ERROR, 2),
                (DEVICE_ERROR, 2),
                (DEVICE_MEMORY, 2),
                (SESSION_HANDLE_INVALID, 5),
                (VENDOR_DEFINED, 5),
            ] {
                let started = quirks.count("C_Initialize");
                quirks.set(&[&until_initialized(quirks, "fail", "C_GenerateKeyPair", code)]);
                let key = id(code);
                let (made, tries) = until_done(|| token.generate_p256(&key, code)).await;
                assert!(tries > 1 && tries <= most_tries, "{code}: {tries} tries");
                assert!(quirks.count("C_Initialize") > started, "{code}");
                sign(&made).await;
                sign(&before).await;
                // The next one waits its turn.
                tokio::time::sleep(Duration::from_millis(600)).await;
            }
        });
    });
}

#[test]
fn a_generation_that_fails_after_all_leaves_no_key_behind() {
    Quirks::run_in_child("a_generation_that_fails_after_all_leaves_no_key_behind", |hsm, quirks| {
        run(async {
            let token = Token::open(quirks.token_config(hsm, 2)).unwrap();
            // Somebody else's key of the same label is not touched.
            token.generate_p256(&id("old"), "CA").await.unwrap();
            assert_eq!(number_of_objects(hsm), 2);
            for more in ["", "own_id"] {
                for code in [GENERAL_ERROR, DEVICE_ERROR, "0x80000002", "0x54"] {
                    let lie = until_initialized(quirks, "lie", "C_GenerateKeyPair", code);
                    quirks.set(&[&lie, more]);
                    let error = token.generate_p256(&id("new"), "CA").await.unwrap_err();
                    assert!(matches!(error, HsmError::Call(_)), "{error}");
                    assert_eq!(number_of_objects(hsm), 2, "{code} {more}: {}", objects(hsm));
                    tokio::time::sleep(Duration::from_millis(600)).await;
                }
            }
            assert!(token.find(&id("old")).await.unwrap().is_some());
        });
    });
}

#[test]
fn whatever_function_fails_until_a_new_start_work_goes_on() {
    Quirks::run_in_child("whatever_function_fails_until_a_new_start_work_goes_on", |hsm, quirks| {
        run(async {
            let token = Token::open(quirks.token_config(hsm, 2)).unwrap();
            let ca = token.generate_p256(&id("ca"), "CA").await.unwrap();
            for function in [
                "C_Sign",
                "C_SignInit",
                "C_FindObjectsInit",
                "C_GetAttributeValue",
                "C_DestroyObject",
                "C_GetSessionInfo",
                "C_GetTokenInfo",
                "C_OpenSession",
                "C_GenerateKeyPair",
            ] {
                for code in [GENERAL_ERROR, DEVICE_ERROR] {
                    quirks.set(&[&until_initialized(quirks, "fail", function, code)]);
                    until_done(|| ca.sign_digest(DIGEST, Urgency::FIRST)).await;
                    let (held, next) = (id("ca"), id("next"));
                    until_done(|| token.find(&held)).await;
                    until_done(|| token.generate_p256(&next, "next")).await;
                    until_done(|| token.destroy(&next)).await;
                    assert!(token.find(&next).await.unwrap().is_none(), "{function} {code}");
                }
            }
        });
    });
}

//= FLT-H4
#[test]
fn a_token_of_one_two_or_three_sessions_signs_under_load_and_makes_keys() {
    Quirks::run_in_child("a_token_of_one_two_or_three_sessions_signs_under_load_and_makes_keys", |hsm, quirks| {
        run(async {
            for limit in [1, 2, 3] {
                for (wanted, declared) in [(1, false), (4, false), (4, true)] {
                    let declaration = if declared { format!("declare_sessions {limit}") } else { String::new() };
                    quirks.set(&[&format!("max_sessions {limit}"), &declaration]);
                    // The threads of the token before close its sessions when they come to it.
                    let (token, _) = until_done(|| async { Token::open(quirks.token_config(hsm, wanted)) }).await;
                    let ca = token.generate_p256(&id("ca"), "CA").await.unwrap();
                    let load: Vec<_> = (0..40)
                        .map(|_| {
                            let ca = ca.clone();
                            tokio::spawn(async move { ca.sign_digest(DIGEST, Urgency::by(i64::MAX)).await })
                        })
                        .collect();
                    // As in a rotation.
                    token.destroy(&id("next")).await.unwrap();
                    let next = token.generate_p256(&id("next"), "next").await.unwrap();
                    sign(&next).await;
                    for signed in load {
                        signed.await.unwrap().unwrap();
                    }
                    token.destroy(&id("ca")).await.unwrap();
                    drop((ca, next, token));
                }
            }
        });
    });
}

#[test]
fn a_token_that_grants_fewer_sessions_than_it_did_is_signed_with_by_turns() {
    Quirks::run_in_child("a_token_that_grants_fewer_sessions_than_it_did_is_signed_with_by_turns", |hsm, quirks| {
        run(async {
            let token = Token::open(quirks.token_config(hsm, 4)).unwrap();
            let ca = token.generate_p256(&id("ca"), "CA").await.unwrap();
            quirks.set(&["max_sessions 1", &until_initialized(quirks, "fail", "C_Sign", GENERAL_ERROR)]);
            until_done(|| ca.sign_digest(DIGEST, Urgency::FIRST)).await;
            for _ in 0..20 {
                sign(&ca).await;
            }
            token.generate_p256(&id("next"), "next").await.unwrap();
            assert!(quirks.count("C_OpenSession refused") > 0, "the limit was met");
        });
    });
}

#[test]
fn a_login_that_fails_leaves_no_session_open() {
    Quirks::run_in_child("a_login_that_fails_leaves_no_session_open", |hsm, quirks| {
        quirks.set(&["max_sessions 1", "fail C_Login 0x6"]);
        for _ in 0..3 {
            let error = Token::open(quirks.token_config(hsm, 1)).unwrap_err();
            assert!(error.to_string().contains("C_Login returned CKR_FUNCTION_FAILED"), "{error}");
        }
        quirks.set(&["max_sessions 1"]);
        Token::open(quirks.token_config(hsm, 1)).unwrap();
    });
}

//= FLT-H6
#[test]
fn a_token_that_refuses_read_only_sessions_is_worked_with_in_others() {
    Quirks::run_in_child("a_token_that_refuses_read_only_sessions_is_worked_with_in_others", |hsm, quirks| {
        run(async {
            quirks.set(&["no_read_only"]);
            let token = Token::open(quirks.token_config(hsm, 3)).unwrap();
            sign(&token.generate_p256(&id("ca"), "CA").await.unwrap()).await;
            assert_eq!((quirks.count("C_OpenSession rw"), quirks.count("C_OpenSession ro")), (4, 0));
        });
    });
}

#[test]
fn a_token_with_one_writable_session_makes_keys_and_signs_in_the_others() {
    Quirks::run_in_child("a_token_with_one_writable_session_makes_keys_and_signs_in_the_others", |hsm, quirks| {
        run(async {
            quirks.set(&["max_rw_sessions 1"]);
            let token = Token::open(quirks.token_config(hsm, 3)).unwrap();
            sign(&token.generate_p256(&id("ca"), "CA").await.unwrap()).await;
            assert_eq!((quirks.count("C_OpenSession rw"), quirks.count("C_OpenSession ro")), (1, 3));
        });
    });
}

#[test]
fn a_key_that_the_token_does_not_call_local_is_made_and_found_again() {
    Quirks::run_in_child("a_key_that_the_token_does_not_call_local_is_made_and_found_again", |hsm, quirks| {
        run(async {
            quirks.set(&["local_false"]);
            let token = Token::open(quirks.token_config(hsm, 1)).unwrap();
            let made = token.generate_p256(&id("ca"), "CA").await.unwrap();
            assert_eq!(token.find(&id("ca")).await.unwrap().unwrap().spki_der(), made.spki_der());
        });
    });
}

//= FLT-H6
#[test]
fn a_token_that_chooses_key_ids_keeps_a_key_under_its_label() {
    Quirks::run_in_child("a_token_that_chooses_key_ids_keeps_a_key_under_its_label", |hsm, quirks| {
        run(async {
            quirks.set(&["own_id"]);
            let token = Token::open(quirks.token_config(hsm, 1)).unwrap();
            let ca = name("ca", "the CA");
            assert!(token.find(&ca).await.unwrap().is_none());
            let made = token.generate_p256(&id("ca"), "the CA").await.unwrap();
            assert!(made.name().id().unwrap().as_bytes().starts_with(b"own-"), "{}", made.name());
            let found = token.find(&ca).await.unwrap().unwrap();
            assert_eq!((found.name(), found.spki_der()), (made.name(), made.spki_der()));
            // Also in another login.
            quirks.set(&["own_id", &until_initialized(quirks, "fail", "C_Sign", GENERAL_ERROR)]);
            sign(&made).await;
            sign(&found).await;
            assert!(token.destroy(&ca).await.unwrap());
            assert!(token.find(&ca).await.unwrap().is_none());
            assert_eq!(number_of_objects(hsm), 0);
        });
    });
}

#[test]
fn a_key_that_could_not_be_found_again_is_refused_and_does_not_stay() {
    Quirks::run_in_child("a_key_that_could_not_be_found_again_is_refused_and_does_not_stay", |hsm, quirks| {
        run(async {
            quirks.set(&["own_id", "own_label"]);
            let token = Token::open(quirks.token_config(hsm, 1)).unwrap();
            let error = token.generate_p256(&id("ca"), "the CA").await.unwrap_err();
            assert!(matches!(error, HsmError::NameIgnored { .. }), "{error}");
            assert_eq!(number_of_objects(hsm), 0);
        });
    });
}

#[test]
fn one_handle_for_both_halves_is_seen_and_the_key_made_anew() {
    Quirks::run_in_child("one_handle_for_both_halves_is_seen_and_the_key_made_anew", |hsm, quirks| {
        run(async {
            quirks.set(&["one_handle 2"]);
            let token = Token::open(quirks.token_config(hsm, 1)).unwrap();
            sign(&token.generate_p256(&id("ca"), "CA").await.unwrap()).await;
            assert_eq!((number_of_objects(hsm), quirks.count("C_GenerateKeyPair")), (2, 3));
            quirks.set(&["one_handle 99"]);
            let error = token.generate_p256(&id("next"), "next").await.unwrap_err();
            assert!(matches!(error, HsmError::HandlesMixedUp(_)), "{error}");
            assert_eq!(number_of_objects(hsm), 2);
        });
    });
}

/// Seen on tpm2-pkcs11: what was told as the new key's handles led to the key that signs.
#[test]
fn a_handle_that_leads_to_another_key_is_not_used_and_that_key_stays() {
    Quirks::run_in_child("a_handle_that_leads_to_another_key_is_not_used_and_that_key_stays", |hsm, quirks| {
        run(async {
            let token = Token::open(quirks.token_config(hsm, 2)).unwrap();
            let active = token.generate_p256(&id("active"), "active").await.unwrap();
            quirks.set(&["old_handles 1"]);
            let next = token.generate_p256(&id("next"), "next").await.unwrap();
            assert_eq!((number_of_objects(hsm), quirks.count("C_GenerateKeyPair")), (4, 3));
            assert_ne!(next.spki_der(), active.spki_der());
            for key in [&active, &next] {
                sign(key).await;
                assert_eq!(token.find(key.name()).await.unwrap().unwrap().spki_der(), key.spki_der());
            }
        });
    });
}

#[test]
fn a_key_that_wants_its_pin_for_each_signature_is_refused_by_name() {
    Quirks::run_in_child("a_key_that_wants_its_pin_for_each_signature_is_refused_by_name", |hsm, quirks| {
        run(async {
            quirks.set(&["always_authenticate"]);
            let token = Token::open(quirks.token_config(hsm, 1)).unwrap();
            let error = token.generate_p256(&id("ca"), "CA").await.unwrap_err();
            assert!(error.to_string().contains("CKA_ALWAYS_AUTHENTICATE"), "{error}");
            assert_eq!(number_of_objects(hsm), 0);
        });
    });
}

#[test]
fn a_token_whose_information_cannot_be_read_is_named_and_opened_by_its_slot() {
    Quirks::run_in_child("a_token_whose_information_cannot_be_read_is_named_and_opened_by_its_slot", |hsm, quirks| {
        run(async {
            quirks.set(&["utc_time 21:45:33"]);
            let text = Token::open(quirks.token_config(hsm, 1)).unwrap_err().to_string();
            assert!(text.contains("whose token information cannot be read: its clock's time"), "{text}");
            let pkcs11 = Pkcs11::new(SoftHsm::module_path()).unwrap();
            let slot = pkcs11.get_slots_with_initialized_token().unwrap()[0].id();
            assert!(text.contains(&format!("token_uri = \"pkcs11:slot-id={slot}\"")), "{text}");
            let uri = TokenUri::parse(&format!("pkcs11:slot-id={slot}")).unwrap();
            let token = Token::open(TokenConfig { token: uri, ..quirks.token_config(hsm, 2) }).unwrap();
            assert!(token.find(&id("ca")).await.unwrap().is_none());
            sign(&token.generate_p256(&id("ca"), "CA").await.unwrap()).await;
        });
    });
}

#[test]
fn a_label_filled_with_nul_is_the_label() {
    Quirks::run_in_child("a_label_filled_with_nul_is_the_label", |hsm, quirks| {
        quirks.set(&["nul_label"]);
        Token::open(quirks.token_config(hsm, 1)).unwrap();
    });
}

#[test]
fn a_token_with_a_pad_is_sent_no_pin_and_asks_for_it_itself() {
    Quirks::run_in_child("a_token_with_a_pad_is_sent_no_pin_and_asks_for_it_itself", |hsm, quirks| {
        run(async {
            quirks.set(&[&format!("protected_path {PIN}")]);
            let error = Token::open(quirks.token_config(hsm, 1)).unwrap_err();
            assert!(matches!(error, HsmError::LoginMode { right: "pinpad", .. }), "{error}");
            assert!(error.to_string().ends_with("so no PIN was sent to it; set login = \"pinpad\""), "{error}");
            assert_eq!(quirks.count("C_Login"), 0);
            let config = TokenConfig { login: UserLogin::Pinpad, ..quirks.token_config(hsm, 2) };
            let token = Token::open(config).unwrap();
            sign(&token.generate_p256(&id("ca"), "CA").await.unwrap()).await;
            assert_eq!((quirks.count("C_Login null"), quirks.count("C_Login pin")), (1, 0));
        });
    });
}

#[test]
fn a_token_without_login_is_sent_no_pin_and_shows_its_keys() {
    Quirks::run_in_child("a_token_without_login_is_sent_no_pin_and_shows_its_keys", |hsm, quirks| {
        run(async {
            quirks.set(&[&format!("no_login {PIN}")]);
            let error = Token::open(quirks.token_config(hsm, 1)).unwrap_err();
            assert!(matches!(error, HsmError::LoginMode { right: "none", .. }), "{error}");
            let config = TokenConfig { login: UserLogin::None, ..quirks.token_config(hsm, 2) };
            let token = Token::open(config).unwrap();
            assert!(token.find(&id("ca")).await.unwrap().is_none());
            sign(&token.generate_p256(&id("ca"), "CA").await.unwrap()).await;
            assert_eq!(quirks.count("C_Login"), 0);
        });
    });
}

#[test]
fn a_pin_refused_at_the_pad_is_not_asked_for_again() {
    Quirks::run_in_child("a_pin_refused_at_the_pad_is_not_asked_for_again", |hsm, quirks| {
        quirks.set(&["protected_path not-the-pin"]);
        let config = || TokenConfig { login: UserLogin::Pinpad, ..quirks.token_config(hsm, 1) };
        assert!(matches!(Token::open(config()), Err(HsmError::PinRefused { .. })));
        assert!(matches!(Token::open(config()), Err(HsmError::PinAtRisk { .. })));
        assert_eq!(quirks.count("C_Login"), 1);
    });
}

#[test]
fn a_device_that_was_away_is_worked_with_again_and_its_pin_sent_once() {
    Quirks::run_in_child("a_device_that_was_away_is_worked_with_again_and_its_pin_sent_once", |hsm, quirks| {
        run(async {
            let token = Token::open(quirks.token_config(hsm, 2)).unwrap();
            let ca = token.generate_p256(&id("ca"), "CA").await.unwrap();
            quirks.set(&["gone"]);
            for _ in 0..5 {
                ca.sign_digest(DIGEST, Urgency::FIRST).await.unwrap_err();
                token.generate_p256(&id("next"), "next").await.unwrap_err();
            }
            quirks.set(&[]);
            until_done(|| ca.sign_digest(DIGEST, Urgency::FIRST)).await;
            let next = id("next");
            until_done(|| token.generate_p256(&next, "next")).await;
            assert_eq!(quirks.count("C_Login pin"), 2);
        });
    });
}

//= FLT-H2
#[test]
fn a_pin_that_somebody_else_has_locked_is_right_again_once_it_is_unlocked() {
    const PIN_LOCKED: &str = "fail C_Login 0xA4";
    Quirks::run_in_child("a_pin_that_somebody_else_has_locked_is_right_again_once_it_is_unlocked", |hsm, quirks| {
        run(async {
            let token = Token::open(quirks.token_config(hsm, 1)).unwrap();
            let ca = token.generate_p256(&id("ca"), "CA").await.unwrap();
            quirks.set(&[PIN_LOCKED, &until_initialized(quirks, "fail", "C_Sign", GENERAL_ERROR)]);
            let error = ca.sign_digest(DIGEST, Urgency::FIRST).await.unwrap_err();
            assert!(error.to_string().contains("the security officer must unlock the PIN"), "{error}");
            quirks.set(&[]);
            until_done(|| ca.sign_digest(DIGEST, Urgency::FIRST)).await;
            // A PIN that was never right is not sent again.
            quirks.set(&[PIN_LOCKED]);
            drop((ca, token));
            let deadline = Instant::now() + Duration::from_secs(30);
            while !matches!(Token::open(quirks.token_config(hsm, 1)), Err(HsmError::PinRefused { .. })) {
                assert!(Instant::now() < deadline, "still logged in");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(matches!(Token::open(quirks.token_config(hsm, 1)), Err(HsmError::PinAtRisk { .. })));
        });
    });
}

//= FLT-H3
#[test]
fn callers_of_a_token_that_hangs_are_told_and_the_next_are_served() {
    Quirks::run_in_child("callers_of_a_token_that_hangs_are_told_and_the_next_are_served", |hsm, quirks| {
        run(async {
            let token = Token::open(quirks.token_config(hsm, 1)).unwrap();
            let ca = token.generate_p256(&id("ca"), "CA").await.unwrap();
            quirks.set(&["hang C_Sign"]);
            let error = ca.sign_digest(DIGEST, Urgency::FIRST).await.unwrap_err();
            assert!(matches!(error, HsmError::Stalled(_)), "{error}");
            quirks.set(&["delay C_Sign 50"]);
            sign(&ca).await;
            assert!(ca.signed_ago().unwrap() < Duration::from_secs(5));
        });
    });
}

/// The library that speaks PKCS#11 for us panics over some answers.
#[test]
fn a_session_thread_outlives_what_the_token_answers() {
    Quirks::run_in_child("a_session_thread_outlives_what_the_token_answers", |hsm, quirks| {
        run(async {
            let token = Token::open(quirks.token_config(hsm, 2)).unwrap();
            let ca = token.generate_p256(&id("ca"), "CA").await.unwrap();
            quirks.set(&["endless_signature"]);
            // More often than there are threads.
            for _ in 0..4 {
                let error = ca.sign_digest(DIGEST, Urgency::FIRST).await.unwrap_err();
                assert!(matches!(error, HsmError::Interrupted), "{error}");
            }
            quirks.set(&[]);
            sign(&ca).await;
            assert!(token.find(&id("ca")).await.unwrap().is_some());
        });
    });
}

/// Case 06 of an operator: a service with `User=` and `LoadCredential=`.
#[test]
fn a_pin_that_systemd_hands_over_is_taken() {
    const TEST: &str = "a_pin_that_systemd_hands_over_is_taken";
    let directory = tempfile::tempdir().unwrap();
    let pin = directory.path().join("hsm.pin");
    std::fs::write(&pin, "\u{feff}1234\r\n").unwrap();
    std::fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o440)).unwrap();
    if std::env::var_os("CREDENTIALS_DIRECTORY").is_none() {
        assert!(Pin::from_file(&pin).is_err(), "open to its group, and not from systemd");
        let environment = vec![("CREDENTIALS_DIRECTORY", directory.path().into())];
        ironroot_lab::rerun::run(TEST, environment, directory.path());
        return;
    }
    let handed_over = std::path::PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY").unwrap());
    let taken = Pin::from_credential("hsm.pin").unwrap();
    assert_eq!(Pin::from_file(&handed_over.join("hsm.pin")).unwrap(), taken);
    assert!(Pin::from_file(&pin).is_err(), "another directory than systemd's");
    ironroot_lab::rerun::mark_end(&handed_over);
}

/// Old devices take minutes for long RSA keys.
#[test]
fn a_key_may_take_longer_to_be_made_than_a_signature() {
    Quirks::run_in_child("a_key_may_take_longer_to_be_made_than_a_signature", |hsm, quirks| {
        run(async {
            let token = Token::open(quirks.token_config(hsm, 1)).unwrap();
            quirks.set(&["delay C_GenerateKeyPair 31000"]);
            let ca = token.generate_p256(&id("ca"), "CA").await.unwrap();
            quirks.set(&[]);
            sign(&ca).await;
        });
    });
}

#[test]
fn one_key_that_is_gone_does_not_keep_starting_the_module() {
    Quirks::run_in_child("one_key_that_is_gone_does_not_keep_starting_the_module", |hsm, quirks| {
        run(async {
            let token = Token::open(quirks.token_config(hsm, 2)).unwrap();
            let ca = token.generate_p256(&id("ca"), "CA").await.unwrap();
            let other = token.generate_p256(&id("other"), "other").await.unwrap();
            assert!(token.destroy(&id("ca")).await.unwrap());
            let before = quirks.count("C_Initialize");
            let end = Instant::now() + Duration::from_millis(2900);
            while Instant::now() < end {
                let error = ca.sign_digest(DIGEST, Urgency::FIRST).await.unwrap_err();
                assert!(matches!(error, HsmError::KeyLost(_)), "{error}");
                sign(&other).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let begun = quirks.count("C_Initialize") - before;
            assert!((1..=2).contains(&begun), "{begun} new starts: at once, after a second, and the next after three");
            assert!(ca.signed_ago().is_none() && other.signed_ago().is_some(), "each key has its own time");
        });
    });
}
