//! Whose endorsement key may attest.

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_attest::ek_certificate::EkCertificateError;
use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::{Admission, Claim, Evidence};

use crate::attempt::Attempt;
use crate::manufacturer::{Manufacturer, NOW};
use crate::software_tpm::{Decryptor, EK_ATTRIBUTES, PublicFields, SHA256 as ALG_SHA256, SoftwareTpm};

fn admit_by(manufacturer: &Manufacturer, evidence: &Evidence) -> Result<(), Refusal> {
    let roots = manufacturer.roots();
    let admission = Admission::Manufacturer { roots: &roots, now_unix: NOW };
    Claim::parse(&evidence.to_json())?.admit(admission).map(|_| ())
}

fn evidence_with(certificates: Vec<Vec<u8>>, tpm: &SoftwareTpm) -> Evidence {
    Evidence { ek_certificates: certificates, ..tpm.evidence() }
}

#[test]
fn admits_a_certificate_of_a_trusted_manufacturer_for_every_kind_of_key() {
    let manufacturer = Manufacturer::new("Toy");
    for ek in [Decryptor::p256(), Decryptor::p384(), Decryptor::rsa()] {
        let certificates = manufacturer.certify(&ek.spki_der());
        let tpm = SoftwareTpm::with(ek, crate::software_tpm::SigningKey::p256());
        admit_by(&manufacturer, &evidence_with(certificates, &tpm)).expect("admitted");
    }
}

/// Row 1.
//= TPM-01
#[test]
fn refuses_a_certificate_that_the_device_made_itself() {
    let tpm = SoftwareTpm::new();
    let certificates = Manufacturer::new("Toy").certify(&tpm.ek.spki_der());
    // Same names, other keys.
    let refused = admit_by(&Manufacturer::new("Toy"), &evidence_with(certificates, &tpm));
    assert!(matches!(refused, Err(Refusal::EkCertificate(EkCertificateError::Untrusted(_)))), "{refused:?}");
}

/// Row 2.
//= TPM-02
#[test]
fn refuses_a_genuine_certificate_beside_the_attackers_key() {
    let manufacturer = Manufacturer::new("Toy");
    let certificates = manufacturer.certify(&SoftwareTpm::new().ek.spki_der());
    let attacker = SoftwareTpm::new();
    let refused = admit_by(&manufacturer, &evidence_with(certificates, &attacker));
    assert_eq!(refused, Err(Refusal::EkCertificateOfAnotherKey));
}

//= TPM-02 REG-05
#[test]
fn refuses_another_keys_certificate_even_from_an_enrolled_device() {
    let tpm = SoftwareTpm::new();
    let certificates = Manufacturer::new("Toy").certify(&SoftwareTpm::new().ek.spki_der());
    let claim = Claim::parse(&evidence_with(certificates, &tpm).to_json());
    assert_eq!(claim.map(|_| ()), Err(Refusal::EkCertificateOfAnotherKey));
}

#[test]
fn refuses_a_device_without_certificate_where_the_manufacturer_decides() {
    let tpm = SoftwareTpm::new();
    assert_eq!(admit_by(&Manufacturer::new("Toy"), &tpm.evidence()), Err(Refusal::NoEkCertificate));
}

//= TPM-16
#[test]
fn refuses_a_key_that_is_not_the_enrolled_one() {
    let claim = Claim::parse(&SoftwareTpm::new().evidence().to_json()).expect("well-formed");
    let admitted = claim.admit(Admission::Enrolled { ek_sha256: [7; 32] });
    assert_eq!(admitted.map(|_| ()), Err(Refusal::NotEnrolled));
}

/// Row 20: a ban is looked up by this hash, so nothing that the device can vary may change it.
#[test]
fn a_key_has_one_hash_however_it_is_dressed_up() {
    let tpm = SoftwareTpm::new();
    let expected: [u8; 32] = digest(&SHA256, &tpm.ek.spki_der()).as_ref().try_into().expect("32 bytes");
    let mut evidence = tpm.evidence();
    assert_eq!(Claim::parse(&evidence.to_json()).expect("well-formed").ek_sha256(), expected);
    let other = PublicFields {
        policy: vec![1; 32],
        ..PublicFields::storage(tpm.ek.unique(), ALG_SHA256, EK_ATTRIBUTES | 0x40)
    };
    evidence.ek_public = other.marshal();
    evidence.ek_certificates = Manufacturer::new("Toy").certify(&tpm.ek.spki_der());
    let claim = Claim::parse(&evidence.to_json()).expect("well-formed");
    assert_eq!(claim.ek_sha256(), expected);
    assert_eq!(claim.ek_certificate().expect("was sent").ek_sha256(), expected);
}

/// An odd or expired certificate does not keep out a device that is enrolled by its key.
//= TPM-21 FLT-T9
#[test]
fn an_enrolled_device_needs_no_good_certificate() {
    let attempt = Attempt::new();
    let mut params = crate::manufacturer::ek_params(&attempt.tpm.ek.spki_der());
    params.custom_extensions.clear();
    params.not_after = rcgen::date_time_ymd(2025, 1, 1);
    let mut evidence = attempt.tpm.evidence();
    evidence.ek_certificates = Manufacturer::new("Toy").certify_with(&attempt.tpm.ek.spki_der(), params);
    let claim = Claim::parse(&evidence.to_json()).expect("well-formed");
    let ek_sha256 = claim.ek_sha256();
    claim.admit(Admission::Enrolled { ek_sha256 }).expect("admitted");
}

//= FLT-T9
#[test]
fn the_encoding_of_its_certificate_keeps_no_enrolled_device_out() {
    let tpm = SoftwareTpm::new();
    let mut odd = Manufacturer::new("Toy").certify(&tpm.ek.spki_der()).swap_remove(0);
    // X.509 version 9, as no parser of ours takes it.
    let version = odd.windows(3).position(|window| window == [2, 1, 2]).expect("a version");
    odd[version + 2] = 9;
    for certificate in [vec![0x30, 0x00], odd] {
        let claim = Claim::parse(&evidence_with(vec![certificate], &tpm).to_json()).expect("well-formed");
        assert!(claim.ek_certificate().is_none());
        let ek_sha256 = claim.ek_sha256();
        claim.admit(Admission::Enrolled { ek_sha256 }).expect("admitted by its key");
    }
}

#[test]
fn refuses_a_certificate_that_is_none_where_the_manufacturer_decides() {
    let tpm = SoftwareTpm::new();
    let refused = admit_by(&Manufacturer::new("Toy"), &evidence_with(vec![vec![0x30, 0x00]], &tpm));
    assert!(matches!(refused, Err(Refusal::EkCertificate(EkCertificateError::Malformed(_)))), "{refused:?}");
}
