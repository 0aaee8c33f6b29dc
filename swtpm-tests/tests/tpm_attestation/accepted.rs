//! What is accepted, and what the server then knows.

use ironroot_attest::ek_certificate::ManufacturerRoots;
use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::{Admission, AttestedTpm, Claim, PcrSelection};
use ironroot_lab::manufacturer::{Manufacturer, ek_sha256};
use ironroot_lab::swtpm::Swtpm;

use crate::device::{Device, NOW, challenge};

fn attests(device: &Device) -> AttestedTpm {
    let (pending, challenge) = challenge(&device.evidence(), device.expectation()).expect("honest evidence");
    pending.complete(&device.answer(&challenge).to_json(), NOW + 1).expect("accepted")
}

fn selectors(attested: &AttestedTpm) -> Vec<String> {
    attested.selectors().iter().map(ToString::to_string).collect()
}

#[test]
fn an_enrolled_device_is_accepted() {
    let device = Device::new();
    let attested = attests(&device);
    let ek = ek_sha256(&device.chip).expect("EK");
    let hex: String = ek.iter().map(|byte| format!("{byte:02x}")).collect();

    assert_eq!(attested.ek_sha256(), ek);
    assert!(attested.key_is_resident());
    assert_eq!(attested.agent_path(), format!("/spire/agent/tpm2/{hex}"));
    let selectors = selectors(&attested);
    let zero = "0".repeat(64);
    for expected in [format!("tpm2:ek:sha256:{hex}"), "tpm2:key:resident".into(), format!("tpm2:pcr:sha256:7:{zero}")] {
        assert!(selectors.contains(&expected), "{expected} in {selectors:?}");
    }
    assert!(!selectors.iter().any(|s| s.contains("manufacturer")), "no certificate was verified: {selectors:?}");
}

//= TPM-22
#[test]
fn a_device_of_a_trusted_maker_is_accepted_and_its_model_known() {
    let maker = Manufacturer::new("Toy").expect("a maker");
    let roots = ManufacturerRoots::from_pem(&maker.root_pem()).expect("roots");
    for certify in [Manufacturer::certify, Manufacturer::certify_rsa] {
        let chip = Swtpm::start().expect("swtpm starts");
        certify(&maker, &chip).expect("certified");
        let device = Device::with_chip(chip);
        let claim = Claim::parse(&device.evidence().to_json()).expect("plausible");
        let admission = Admission::Manufacturer { roots: &roots, now_unix: NOW };
        let admitted = claim.admit(admission).expect("the chain leads to the root");
        let (pending, challenge) =
            admitted.challenge(device.expectation(), [1; 32], [2; 32], NOW).expect("a challenge");
        let attested = pending.complete(&device.answer(&challenge).to_json(), NOW).expect("accepted");
        let selectors = selectors(&attested);
        assert!(selectors.contains(&"tpm2:model:ironroot-lab".to_owned()), "{selectors:?}");
        assert!(selectors.contains(&"tpm2:ek:issuer:cn:Toy issuing".to_owned()), "{selectors:?}");
    }
}

//= TPM-01
#[test]
fn another_makers_device_is_refused() {
    let (maker, other) = (Manufacturer::new("Toy").expect("a maker"), Manufacturer::new("Toy").expect("a maker"));
    let chip = Swtpm::start().expect("swtpm starts");
    other.certify(&chip).expect("certified");
    let device = Device::with_chip(chip);
    let roots = ManufacturerRoots::from_pem(&maker.root_pem()).expect("roots");
    let claim = Claim::parse(&device.evidence().to_json()).expect("plausible");
    let refused = claim.admit(Admission::Manufacturer { roots: &roots, now_unix: NOW }).expect_err("refused");
    assert!(matches!(refused, Refusal::EkCertificate(_)), "{refused}");
}

#[test]
fn a_chip_without_certificate_needs_enrolment() {
    let maker = Manufacturer::new("Toy").expect("a maker");
    let roots = ManufacturerRoots::from_pem(&maker.root_pem()).expect("roots");
    let claim = Claim::parse(&Device::new().evidence().to_json()).expect("plausible");
    let refused = claim.admit(Admission::Manufacturer { roots: &roots, now_unix: NOW }).expect_err("refused");
    assert_eq!(refused, Refusal::NoEkCertificate);
}

#[test]
fn a_device_attests_again_after_power_cycles_and_resets() {
    let mut device = Device::new();
    let mut last_seen = attests(&device).clock();
    for reset in [false, true, false] {
        if reset {
            device.chip.reset().expect("reset")
        } else {
            device.chip.power_cycle().expect("power cycle")
        }
        let mut expectation = device.expectation();
        expectation.last_seen = Some(last_seen);
        let (pending, challenge) = challenge(&device.evidence(), expectation).expect("honest evidence");
        let attested = pending.complete(&device.answer(&challenge).to_json(), NOW).expect("accepted again");
        assert_eq!(attested.clock().reset_count, last_seen.reset_count + 1);
        last_seen = attested.clock();
    }
}

// Row 18: a copy of a virtual TPM's state has the same EK and AK.
//= TPM-18
#[test]
fn a_clone_that_fell_behind_is_refused() {
    let mut device = Device::new();
    let clone = Device { chip: device.chip.clone_state().expect("a clone"), ..Device::new() };
    device.chip.power_cycle().expect("power cycle");
    device.chip.power_cycle().expect("power cycle");
    let seen = attests(&device).clock();

    let clone = Device {
        tpm: ironroot_attest::tpm::Tpm::open_blocking(clone.chip.address()).expect("the TPM answers"),
        chip: clone.chip,
        ek: device.ek.clone(),
        ak: device.ak.clone(),
        key: device.key.clone(),
    };
    let mut expectation = clone.expectation();
    expectation.last_seen = Some(seen);
    let (pending, challenge) = challenge(&clone.evidence(), expectation).expect("the same keys");
    let refused = pending.complete(&clone.answer(&challenge).to_json(), NOW).expect_err("refused");
    assert!(matches!(refused, Refusal::ResetCountWentBack { .. }), "{refused}");
}

#[test]
fn a_quote_of_nothing_and_a_key_outside_the_chip_are_enough_where_policy_says_so() {
    let device = Device::new();
    let mut expectation = device.expectation();
    expectation.pcrs = PcrSelection::NONE;
    expectation.require_resident_key = false;
    let (pending, challenge) = challenge(&device.evidence(), expectation).expect("honest evidence");
    let mut response = device.answer(&challenge);
    response.key = None;
    let attested = pending.complete(&response.to_json(), NOW).expect("accepted");
    assert!(!attested.key_is_resident());
    assert!(!selectors(&attested).contains(&"tpm2:key:resident".to_owned()));
}
