//! Chips that are owned: hierarchies with passwords, and hierarchies that are switched off.

use std::sync::{Arc, Mutex};

use ironroot_attest::tpm::{Chip, HierarchyPassword, KeyHierarchy, TpmError, TpmSettings};
use ironroot_lab::interposer::Interposer;
use ironroot_lab::manufacturer::{Readers, define_index};
use ironroot_lab::storage_root::{STORAGE_ROOT_HANDLE, persist_storage_root};
use ironroot_lab::swtpm::Swtpm;
use tss_esapi::handles::AuthHandle;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::Auth;
use zeroize::Zeroizing;

use crate::bench::{attest, chip, open, run, run_err};

/// TPM_CC_StartAuthSession.
const START_AUTH_SESSION: u32 = 0x176;
const TPM_SE_HMAC: u8 = 0;
const TPM_RH_NULL: u32 = 0x4000_0007;
const OWNER: &[u8] = b"the owner's password";
const ENDORSEMENT: &[u8] = b"the endorsement hierarchy's password";

fn own(chip: &Swtpm, hierarchy: AuthHandle, password: &[u8]) {
    let password = Auth::try_from(password).expect("a password");
    let mut esys = chip.esys().expect("ESYS");
    esys.execute_with_session(Some(AuthSession::Password), |esys| esys.hierarchy_change_auth(hierarchy, password))
        .expect("changed");
}

fn password(bytes: &[u8]) -> HierarchyPassword {
    HierarchyPassword::new(Zeroizing::new(bytes.to_vec())).expect("short")
}

fn both(settings: TpmSettings) -> TpmSettings {
    TpmSettings { owner_password: password(OWNER), endorsement_password: password(ENDORSEMENT), ..settings }
}

#[test]
fn an_owned_chip_attests_and_seals_with_its_passwords_which_never_cross_the_bus() {
    let chip = chip();
    own(&chip, AuthHandle::Owner, OWNER);
    own(&chip, AuthHandle::Endorsement, ENDORSEMENT);
    let bus = Interposer::before(&chip).expect("an interposer");
    let tpm = open(both(bus.address().into()));
    attest(&tpm);
    let sealed = run(&tpm, |chip| chip.seal(b"secret", "0,7".parse().expect("legal")));
    run(&tpm, move |chip| chip.unseal(&sealed, "0,7".parse().expect("legal")));
    let counted = run(&tpm, |chip| chip.counter_increment(0x0180_0100, None));
    assert_eq!(run(&tpm, |chip| chip.counter_read(0x0180_0100, None)), Some(counted));
    let ak = run(&tpm, Chip::create_attestation_key);
    run(&tpm, move |chip| chip.clock(&ak));
    assert!(!bus.has_seen(OWNER) && !bus.has_seen(ENDORSEMENT));
    assert_eq!(chip.left_loaded().expect("the chip answers"), [0u32; 0]);
}

/// What is proven without a salt is a text to try passwords against for whoever listens.
#[test]
fn a_password_is_proven_in_a_session_that_is_salted_to_a_key_which_is_there_without_it() {
    let chip = chip();
    persist_storage_root(&chip, 0, STORAGE_ROOT_HANDLE).expect("persistent");
    own(&chip, AuthHandle::Owner, OWNER);
    own(&chip, AuthHandle::Endorsement, ENDORSEMENT);
    let bus = Interposer::before(&chip).expect("an interposer");
    let salted_to = Arc::new(Mutex::new(Vec::new()));
    let heard = salted_to.clone();
    bus.tamper_with_commands(move |code, command| {
        if code == START_AUTH_SESSION {
            heard.lock().expect("one listener").extend(key_of_hmac_session(command));
        }
    });
    let tpm = open(both(bus.address().into()));
    attest(&tpm);
    run(&tpm, |chip| chip.counter_increment(0x0180_0100, None));
    let salted_to = salted_to.lock().expect("one listener");
    assert!(!salted_to.is_empty() && !salted_to.contains(&TPM_RH_NULL), "{salted_to:x?}");
}

/// tpmKey of TPM2_StartAuthSession; none of one that is no HMAC session. Source: Part 3, §11.1.
fn key_of_hmac_session(command: &[u8]) -> Option<u32> {
    let number = |at: usize| u16::from_be_bytes([command[at], command[at + 1]]) as usize;
    let salt = 20 + number(18);
    let kind = command[salt + 2 + number(salt)];
    (kind == TPM_SE_HMAC).then(|| u32::from_be_bytes(command[10..14].try_into().expect("four")))
}

#[test]
fn a_missing_or_wrong_password_is_named_by_its_hierarchy() {
    let chip = chip();
    own(&chip, AuthHandle::Owner, OWNER);
    own(&chip, AuthHandle::Endorsement, ENDORSEMENT);
    for given in [TpmSettings::from(chip.address()), {
        let settings = TpmSettings::from(chip.address());
        TpmSettings { owner_password: password(b"no"), endorsement_password: password(b"no"), ..settings }
    }] {
        let tpm = open(given);
        let error = run_err(&tpm, Chip::create_signing_key);
        assert!(matches!(error, TpmError::Password { hierarchy: KeyHierarchy::Owner, .. }), "{error}");
        let error = run_err(&tpm, Chip::endorsement_key);
        assert!(matches!(error, TpmError::Password { hierarchy: KeyHierarchy::Endorsement, .. }), "{error}");
        assert!(error.to_string().contains("endorsement_hierarchy_password"), "{error}");
    }
    // Nothing of it counts towards a lockout.
    attest(&open(both(chip.address().into())));
}

#[test]
fn an_existing_storage_root_needs_no_owner_password() {
    let chip = chip();
    let mut esys = chip.esys().expect("ESYS");
    let template = ironroot_lab::storage_root::storage_root(0);
    ironroot_lab::manufacturer::persist(
        &mut esys,
        tss_esapi::interface_types::resource_handles::Hierarchy::Owner,
        template,
        0x8100_0001,
    )
    .expect("persistent");
    drop(esys);
    let counted = run(&open(chip.address()), |chip| chip.counter_increment(0x0180_0100, None));
    own(&chip, AuthHandle::Owner, OWNER);
    let tpm = open(chip.address());
    attest(&tpm);
    let sealed = run(&tpm, |chip| chip.seal(b"secret", "0,7".parse().expect("legal")));
    run(&tpm, move |chip| chip.unseal(&sealed, "0,7".parse().expect("legal")));
    assert_eq!(run(&tpm, |chip| chip.counter_read(0x0180_0100, None)), Some(counted));
}

#[test]
fn a_certificate_that_the_owner_may_read_is_left_out_without_the_owners_password() {
    let chip = chip();
    define_index(&chip, 0x01c0_000a, Readers::Owner, Some(&[0x30, 0])).expect("defined");
    own(&chip, AuthHandle::Owner, OWNER);
    let ek = run(&open(chip.address()), Chip::endorsement_key);
    assert!(ek.certificates.is_empty());
}

#[test]
fn a_hierarchy_that_is_switched_off_is_named() {
    let chip = chip();
    let tpm = open(chip.address());
    // TPM2_HierarchyControl(TPM_RH_PLATFORM, TPM_RH_OWNER, NO), Part 3 §24.2.
    let mut command = vec![0x80, 0x02, 0, 0, 0, 32, 0, 0, 0x01, 0x21, 0x40, 0, 0, 0x0c];
    command.extend([0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0x40, 0, 0, 1, 0]);
    let response = chip.transmit(&command).expect("the chip answers");
    assert_eq!(response[6..10], [0; 4]);
    let error = run_err(&tpm, Chip::create_signing_key);
    assert!(matches!(error, TpmError::HierarchyOff { hierarchy: KeyHierarchy::Owner, .. }), "{error}");
    run(&tpm, Chip::endorsement_key);
}
