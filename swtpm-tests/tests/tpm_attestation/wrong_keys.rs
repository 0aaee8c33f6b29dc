//! Attestation keys and endorsement keys that are not what they are said to be.

use ironroot_attest::ek_certificate::EkCertificate;
use ironroot_attest::node::tpm2::Claim;
use ironroot_attest::node::{Part, Refusal};
use ironroot_attest::structures::{KeyError, Public, StructureError, make_credential};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::swtpm::Swtpm;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;

use crate::device::{Device, NOW, challenge};
use crate::rogue::{
    AK, FIXED_PARENT, FIXED_TPM, Odd, RESTRICTED, Rogue, SENSITIVE_DATA_ORIGIN, ak, rsa_ak, selection, signing, with_ak,
};

fn refusal_of_ak(device: &Device, key: &Odd) -> Refusal {
    challenge(&with_ak(&device.evidence(), key), device.expectation()).expect_err("refused")
}

/// A chip opens a credential for any key that is loaded in it, whatever the key: the server's look at the attributes is
/// the only defence.
fn the_chip_would_activate(device: &Device, rogue: &mut Rogue, key: &Odd) {
    let (ek, name) = (Public::parse(&device.ek.public).expect("EK"), Public::parse(&key.bytes()).expect("key"));
    let credential = make_credential(&ek, name.name(), &[6; 32]).expect("credential");
    let (_, mut challenge) = challenge(&device.evidence(), device.expectation()).expect("honest evidence");
    (challenge.credential, challenge.secret) = (credential.id_object, credential.encrypted_secret);
    assert_eq!(rogue.activate(key, &challenge).expect("activated"), [6; 32]);
}

// Row 2.
//= TPM-02
#[test]
fn refuses_the_certificate_of_one_chip_with_the_key_of_another() {
    let maker = Manufacturer::new("Toy").expect("a maker");
    let [a, b] = [(), ()].map(|()| {
        let chip = Swtpm::start().expect("swtpm starts");
        maker.certify(&chip).expect("certified");
        Device::with_chip(chip)
    });
    let mut evidence = a.evidence();
    evidence.ek_certificates = b.evidence().ek_certificates;
    assert!(EkCertificate::parse(&evidence.ek_certificates[0]).is_ok());
    assert_eq!(Claim::parse(&evidence.to_json()).expect_err("refused"), Refusal::EkCertificateOfAnotherKey);
}

// Row 1, the chip's half: a key that signs or decrypts for anybody is no endorsement key.
#[test]
fn refuses_an_ordinary_key_as_endorsement_key() {
    let device = Device::new();
    let mut evidence = device.evidence();
    evidence.ek_public = device.key.public.clone();
    let refused = Claim::parse(&evidence.to_json()).expect_err("refused");
    assert_eq!(refused, Refusal::NotAnEndorsementKey { attributes: 0x0004_0472 });
}

// Row 3: such a key signs a made-up TPMS_ATTEST.
//= TPM-03
#[test]
fn refuses_an_unrestricted_attestation_key() {
    let device = Device::new();
    let mut rogue = Rogue::new(&device.chip);
    let key = rogue.child_of_ek(ak(AK & !RESTRICTED));
    the_chip_would_activate(&device, &mut rogue, &key);
    assert_eq!(refusal_of_ak(&device, &key), Refusal::NotAnAttestationKey { attributes: AK & !RESTRICTED });
}

// Row 4.
//= TPM-04
#[test]
fn refuses_a_software_key_as_attestation_key() {
    let device = Device::new();
    let mut rogue = Rogue::new(&device.chip);
    for lie in [AK, AK & !FIXED_TPM & !FIXED_PARENT & !SENSITIVE_DATA_ORIGIN] {
        let refused = rogue.software_key(lie).err().expect("a chip takes no foreign restricted key");
        assert!(refused.to_string().contains("inconsistent attributes"), "{refused}");
    }
    let attributes = AK & !FIXED_TPM & !FIXED_PARENT & !SENSITIVE_DATA_ORIGIN & !RESTRICTED;
    let key = rogue.software_key(attributes).expect("loaded");
    the_chip_would_activate(&device, &mut rogue, &key);
    assert_eq!(refusal_of_ak(&device, &key), Refusal::NotAnAttestationKey { attributes });
}

// Row 5: public areas can lie, but the chip activates nothing for a key of which it has the public part only.
//= TPM-05
#[test]
fn a_public_key_with_the_right_attributes_cannot_activate() {
    let device = Device::new();
    let mut guess = device.an_answer();
    let mut rogue = Rogue::new(&device.chip);
    let key = rogue.software_public(AK);
    let evidence = with_ak(&device.evidence(), &key);
    let (pending, challenge) = challenge(&evidence, device.expectation()).expect("plausible so far");
    let refused = rogue.activate(&key, &challenge).expect_err("no private part");
    assert!(refused.to_string().contains("authValue or authPolicy is not available"), "{refused}");

    guess.secret = vec![0; 32];
    assert_eq!(pending.complete(&guess.to_json(), NOW).expect_err("refused"), Refusal::WrongSecret);
}

// Row 6.
//= TPM-06
#[test]
fn refuses_an_attestation_key_that_can_leave_the_chip() {
    let device = Device::new();
    let mut rogue = Rogue::new(&device.chip);
    let attributes = AK & !FIXED_TPM & !FIXED_PARENT;
    let key = rogue.child_of_ek(ak(attributes));
    the_chip_would_activate(&device, &mut rogue, &key);
    assert_eq!(refusal_of_ak(&device, &key), Refusal::NotAnAttestationKey { attributes });
}

// Row 7.
//= TPM-07
#[test]
fn refuses_an_imported_attestation_key() {
    let device = Device::new();
    let mut rogue = Rogue::new(&device.chip);
    let attributes = AK & !FIXED_TPM & !FIXED_PARENT & !SENSITIVE_DATA_ORIGIN;
    let key = rogue.imported_key(attributes);
    the_chip_would_activate(&device, &mut rogue, &key);
    assert_eq!(refusal_of_ak(&device, &key), Refusal::NotAnAttestationKey { attributes });
}

// Row 24.
//= TPM-24
#[test]
fn refuses_weak_attestation_keys() {
    let device = Device::new();
    let mut rogue = Rogue::new(&device.chip);

    let rsa = rogue.child_of_ek(rsa_ak(RsaKeyBits::Rsa1024));
    assert_eq!(
        refusal_of_ak(&device, &rsa),
        Refusal::Key { part: Part::AttestationKey, error: KeyError::RsaBits(1024) }
    );
    rogue.flush(rsa.handle);

    let sha1 = rogue.child_of_ek(signing(AK, EccCurve::NistP256, HashingAlgorithm::Sha1));
    let refused = StructureError::HashAlgorithm(0x0004);
    assert_eq!(refusal_of_ak(&device, &sha1), Refusal::Structure { part: Part::AttestationKey, error: refused });
    rogue.flush(sha1.handle);

    let p192 = rogue.child_of_ek(signing(AK, EccCurve::NistP192, HashingAlgorithm::Sha256));
    let refused = StructureError::EccCurve(0x0001);
    assert_eq!(refusal_of_ak(&device, &p192), Refusal::Structure { part: Part::AttestationKey, error: refused });
}

// Row 33: an AK of the owner hierarchy has all attributes, and its attestations show disguised counters.
//= TPM-33
#[test]
fn refuses_an_attestation_key_that_is_no_child_of_the_endorsement_key() {
    let device = Device::new();
    let mut response = device.an_answer();
    let mut rogue = Rogue::new(&device.chip);
    let key = rogue.child_of_root(ak(AK));
    let evidence = with_ak(&device.evidence(), &key);
    let (pending, challenge) = challenge(&evidence, device.expectation()).expect("plausible so far");

    response.secret = rogue.activate(&key, &challenge).expect("activated");
    let extra = device.binding(&challenge);
    (response.quote, response.quote_signature) =
        rogue.quote(&key, &extra, selection(HashingAlgorithm::Sha256, &[0, 2, 4, 7]));
    assert_eq!(pending.complete(&response.to_json(), NOW).expect_err("refused"), Refusal::ForeignSigner(Part::Quote));
}
