//! Primary keys that somebody made persistent are used, others are made once; none is trusted for its place alone.

use std::sync::atomic::Ordering;

use ironroot_attest::tpm::{Chip, EndorsementKind, TpmError, TpmSettings};
use ironroot_lab::interposer::Interposer;
use ironroot_lab::manufacturer::{EkKind, Manufacturer, ek_sha256_of, persist, persist_ek};
use ironroot_lab::storage_root::STORAGE_ROOT_HANDLE;
use ironroot_lab::swtpm::Swtpm;
use tss_esapi::interface_types::resource_handles::Hierarchy;

use crate::bench::{CREATE_PRIMARY, attest, chip, count, open, run, run_err};

const RSA_EK_HANDLE: u32 = 0x8101_0001;
const P256_EK_HANDLE: u32 = 0x8101_0002;

fn persist_storage_root(chip: &Swtpm, unique: u8) {
    ironroot_lab::storage_root::persist_storage_root(chip, unique, STORAGE_ROOT_HANDLE).expect("persistent");
}

#[test]
fn each_key_is_made_once_for_a_whole_attestation() {
    let chip = chip();
    let bus = Interposer::before(&chip).expect("an interposer");
    Manufacturer::new("Toy").expect("a maker").certify_rsa(&chip).expect("certified");
    let made = count(&bus, CREATE_PRIMARY);
    let tpm = open(bus.address());
    attest(&tpm);
    assert_eq!(made.load(Ordering::Relaxed), 2, "the endorsement key and the storage root key");
    // What comes afterwards makes none: the next attestation, signatures, the cache.
    attest(&tpm);
    let sealed = run(&tpm, |chip| chip.seal(b"secret", "7".parse().expect("legal")));
    run(&tpm, move |chip| chip.unseal(&sealed, "7".parse().expect("legal")));
    assert_eq!(made.load(Ordering::Relaxed), 2);
    assert_eq!(chip.left_loaded().expect("the chip answers"), [0u32; 0]);
}

#[test]
fn a_power_cycle_makes_the_keys_anew() {
    let mut chip = chip();
    let tpm = open(chip.address());
    let key = run(&tpm, Chip::create_signing_key);
    for _ in 0..2 {
        chip.power_cycle().expect("power cycle");
        let blob = key.clone();
        run(&tpm, move |chip| chip.sign_digest(&blob, &[1; 32]));
        chip.reset().expect("reset");
        let blob = key.clone();
        run(&tpm, move |chip| chip.sign_digest(&blob, &[1; 32]));
    }
}

#[test]
fn certified_persistent_keys_are_used_and_none_is_made() {
    let chip = chip();
    Manufacturer::new("Toy").expect("a maker").certify_rsa(&chip).expect("certified");
    persist_ek(&chip, EkKind::Rsa2048, RSA_EK_HANDLE).expect("persistent");
    persist_storage_root(&chip, 0);
    let bus = Interposer::before(&chip).expect("an interposer");
    let made = count(&bus, CREATE_PRIMARY);
    let tpm = open(bus.address());
    let attested = attest(&tpm);
    assert_eq!(made.load(Ordering::Relaxed), 0);
    assert_eq!(attested.ek_sha256(), ek_sha256_of(&chip, EkKind::Rsa2048).expect("an EK"));
    assert_eq!(run(&tpm, Chip::persistent_handles_used), [RSA_EK_HANDLE, STORAGE_ROOT_HANDLE]);
    let clock_key = run(&tpm, Chip::create_attestation_key);
    run(&tpm, move |chip| chip.clock(&clock_key));
    run(&tpm, |chip| chip.counter_increment(0x0180_0100, None));
    assert_eq!(made.load(Ordering::Relaxed), 0);
    assert_eq!(chip.left_loaded().expect("the chip answers"), [0u32; 0]);
}

#[test]
fn a_persistent_key_that_is_remembered_needs_no_certificate() {
    let chip = chip();
    let known = run(&open(chip.address()), Chip::endorsement_key).identity;
    persist_ek(&chip, EkKind::P256, P256_EK_HANDLE).expect("persistent");
    persist_storage_root(&chip, 0);
    let bus = Interposer::before(&chip).expect("an interposer");
    let made = count(&bus, CREATE_PRIMARY);
    let tpm = open(TpmSettings { remembered: Some(known), ..TpmSettings::from(bus.address()) });
    assert_eq!(attest(&tpm).ek_sha256(), known.ek_sha256);
    assert_eq!(made.load(Ordering::Relaxed), 0);
}

//= FLT-T11 TPM-42
/// Whoever has the owner's password can put any key at a persistent handle.
#[test]
fn a_stranger_at_the_persistent_handle_does_not_change_who_the_device_is() {
    let chip = chip();
    let known = run(&open(chip.address()), Chip::endorsement_key).identity;
    // A key of the template's form in the owner's hierarchy.
    let template = tss_esapi::abstraction::ek::create_ek_public_from_default_template(
        tss_esapi::interface_types::algorithm::AsymmetricAlgorithm::Ecc,
        None,
    );
    let mut esys = chip.esys().expect("ESYS");
    persist(&mut esys, Hierarchy::Owner, template.expect("template"), P256_EK_HANDLE).expect("persistent");
    drop(esys);
    let tpm = open(chip.address());
    let ek = run(&tpm, Chip::endorsement_key);
    assert_eq!((ek.identity, ek.identity.kind), (known, EndorsementKind::P256));
    attest(&tpm);
    assert_eq!(run(&tpm, Chip::persistent_handles_used), [0u32; 0]);
}

#[test]
fn keys_made_under_either_storage_root_still_work() {
    let chip = chip();
    let before = run(&open(chip.address()), Chip::create_signing_key);
    // A storage root key of another system, by the same template but for its unique field.
    persist_storage_root(&chip, 0x55);
    let tpm = open(chip.address());
    let after = run(&tpm, Chip::create_signing_key);
    assert_ne!(before.parent, after.parent);
    for key in [before, after] {
        run(&tpm, move |chip| chip.sign_digest(&key, &[1; 32]));
    }
}

#[test]
fn a_persistent_key_that_goes_away_is_noticed() {
    let chip = chip();
    persist_storage_root(&chip, 0);
    let tpm = open(chip.address());
    let key = run(&tpm, Chip::create_signing_key);
    evict(&chip);
    let blob = key.clone();
    run(&tpm, move |chip| chip.sign_digest(&blob, &[1; 32]));
    // One of another kind in its place is not used, and one of the same form is not taken for the parent it is not.
    persist_ek(&chip, EkKind::P256, STORAGE_ROOT_HANDLE).expect("persistent");
    let tpm = open(chip.address());
    assert_eq!(run(&tpm, Chip::create_signing_key).parent, key.parent);
    evict(&chip);
    persist_storage_root(&chip, 0x77);
    let tpm = open(chip.address());
    let mut foreign = key.clone();
    foreign.parent[5] ^= 1;
    let error = run_err(&tpm, move |chip| chip.sign_digest(&foreign, &[1; 32]));
    assert!(matches!(error, TpmError::ForeignParent), "{error}");
    run(&tpm, move |chip| chip.sign_digest(&key, &[1; 32]));
}

fn evict(chip: &Swtpm) {
    use tss_esapi::handles::{PersistentTpmHandle, TpmHandle};
    use tss_esapi::interface_types::dynamic_handles::Persistent;
    use tss_esapi::interface_types::resource_handles::Provision;
    use tss_esapi::interface_types::session_handles::AuthSession;
    let handle = PersistentTpmHandle::new(STORAGE_ROOT_HANDLE).expect("a handle");
    let mut esys = chip.esys().expect("ESYS");
    let object = esys.tr_from_tpm_public(TpmHandle::Persistent(handle)).expect("there");
    esys.execute_with_session(Some(AuthSession::Password), |esys| {
        esys.evict_control(Provision::Owner, object, Persistent::Persistent(handle))
    })
    .expect("evicted");
}
