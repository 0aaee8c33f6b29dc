//! Genuine keys, wrong evidence: replayed, mixed, of something else.

use ironroot_attest::node::tpm2::{
    CHALLENGE_SECONDS, CertifiedKey, Challenge, PcrHash, PcrSelection, Response, binding,
};
use ironroot_attest::node::{Part, Refusal};
use ironroot_attest::structures::StructureError;
use ironroot_attest::tpm::{Chip, KeyBlob, TpmError};
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::structures::{Digest, MaxBuffer, SignatureScheme};

use crate::device::{Device, NOW, TRUST_DOMAIN, challenge, pcrs, refusal_of};
use crate::rogue::{AK, FIXED_PARENT, FIXED_TPM, RESTRICTED, Rogue, ak, selection, with_ak};

fn certified(device: &Device, key: &KeyBlob, extra: [u8; 32]) -> CertifiedKey {
    let (blob, ak) = (key.clone(), device.ak.clone());
    let (attest, signature) = device.run(move |chip| chip.certify(&blob, &ak, &extra)).expect("certified");
    CertifiedKey { public: key.public.clone(), attest, signature }
}

fn quoted(device: &Device, response: Response, extra: [u8; 32], pcrs: PcrSelection) -> Response {
    let ak = device.ak.clone();
    let quote = device.run(move |chip| chip.quote(&ak, &extra, PcrHash::Sha256, pcrs)).expect("quoted");
    Response { quote: quote.attest, quote_signature: quote.signature, pcr_values: quote.pcr_values, ..response }
}

// Row 8.
//= TPM-08 TPM-35
#[test]
fn refuses_a_replayed_quote_and_a_replayed_certification() {
    let device = Device::new();
    let (_, earlier) = challenge(&device.evidence(), device.expectation()).expect("honest evidence");
    let old = device.answer(&earlier);

    let replayed = old.clone();
    let refused = refusal_of(&device, |_, new| Response {
        quote: replayed.quote,
        quote_signature: replayed.quote_signature,
        ..new
    });
    assert_eq!(refused, Refusal::AnotherBinding(Part::Quote));
    // Row 35: certified long ago.
    let refused = refusal_of(&device, |_, new| Response { key: old.key, ..new });
    assert_eq!(refused, Refusal::AnotherBinding(Part::Certify));
}

// Row 9.
//= TPM-09
#[test]
fn refuses_a_quote_made_for_another_trust_domain_or_another_key() {
    let device = Device::new();
    let refused = refusal_of(&device, |challenge, honest| {
        let extra = binding("other.example", &challenge.nonce, &device.spki());
        quoted(&device, honest, extra, challenge.pcrs)
    });
    assert_eq!(refused, Refusal::AnotherBinding(Part::Quote));
    let other = device.run(Chip::create_signing_key).expect("a key");
    let refused = refusal_of(&device, |challenge, honest| {
        let extra = binding(TRUST_DOMAIN, &challenge.nonce, &other.spki_der().expect("P-256"));
        quoted(&device, honest, extra, challenge.pcrs)
    });
    assert_eq!(refused, Refusal::AnotherBinding(Part::Quote));
}

// Row 10.
//= TPM-10
#[test]
fn a_credential_for_one_attestation_key_is_useless_with_another() {
    let device = Device::new();
    let other = device.run(Chip::create_attestation_key).expect("another AK");
    let (pending, challenge) = challenge(&device.evidence(), device.expectation()).expect("honest evidence");
    let sent = challenge.clone();
    let error = device
        .run(move |chip| chip.activate_credential(&other, &sent.credential, &sent.secret))
        .expect_err("the chip compares names");
    assert!(matches!(error, TpmError::ForeignKey(_)), "{error}");

    let mut response = device.answer(&challenge);
    response.secret[31] ^= 1;
    assert_eq!(pending.complete(&response.to_json(), NOW).expect_err("refused"), Refusal::WrongSecret);
}

// Row 11.
//= TPM-11
#[test]
fn refuses_a_replayed_activation_secret() {
    let device = Device::new();
    let (_, earlier) = challenge(&device.evidence(), device.expectation()).expect("honest evidence");
    let old = device.answer(&earlier).secret;
    assert_eq!(refusal_of(&device, |_, new| Response { secret: old, ..new }), Refusal::WrongSecret);
}

// Row 16, as far as it can be told apart: another genuine chip activates nothing for this EK.
//= TPM-05
#[test]
fn another_genuine_chip_cannot_answer() {
    let (device, other) = (Device::new(), Device::new());
    let (pending, challenge) = challenge(&device.evidence(), device.expectation()).expect("honest evidence");
    let (ak, sent) = (other.ak.clone(), challenge.clone());
    other.run(move |chip| chip.activate_credential(&ak, &sent.credential, &sent.secret)).expect_err("not its EK");

    let honest = device.answer(&challenge);
    let foreign = quoted(&other, honest, device.binding(&challenge), challenge.pcrs);
    let refused = pending.complete(&foreign.to_json(), NOW).expect_err("refused");
    assert_eq!(refused, Refusal::Signature(Part::Quote));
}

// Row 26.
//= TPM-26
#[test]
fn refuses_a_certification_that_nobody_signed() {
    let device = Device::new();
    let refused = refusal_of(&device, |challenge, honest| {
        let mut rogue = Rogue::new(&device.chip);
        let key = rogue.child_of_root(ak(AK & !RESTRICTED));
        let (attest, signature) = rogue.certify(&key, KeyHandle::Null, &device.binding(challenge));
        assert_eq!(signature, [0x00, 0x10], "TPM_ALG_NULL");
        Response { key: Some(CertifiedKey { public: key.bytes(), attest, signature }), ..honest }
    });
    assert_eq!(refused, Refusal::Structure { part: Part::Certify, error: StructureError::SignatureAlgorithm(0x0010) });
}

// Row 29.
//= TPM-29
#[test]
fn refuses_a_quote_of_other_registers_than_asked_for() {
    let device = Device::new();
    let expected = device.expectation().pcrs;
    for other in ["0,2,4", "0,2,4,7,8", "1,3,5,6", ""] {
        let refused =
            refusal_of(&device, |challenge, honest| quoted(&device, honest, device.binding(challenge), pcrs(other)));
        assert_eq!(refused, Refusal::PcrSelection { bank: PcrHash::Sha256, expected }, "{other:?}");
    }
    // The right registers of another bank.
    let refused = refusal_with_raw_quote(&device, HashingAlgorithm::Sha1);
    assert_eq!(refused, Refusal::PcrSelection { bank: PcrHash::Sha256, expected });
}

// Row 29, the trap: a chip quotes an inactive bank without complaint.
//= TPM-29
#[test]
fn refuses_a_quote_of_an_inactive_bank_which_the_chip_gives() {
    let mut device = Device::new();
    let expected = device.expectation().pcrs;
    device.chip.allocate_pcr_banks(&[0x0004]).expect("only SHA-1");

    let ak = device.ak.clone();
    let error = device
        .run(move |chip| chip.quote(&ak, &[0; 32], PcrHash::Sha256, expected))
        .expect_err("named on the device already");
    assert!(matches!(error, TpmError::PcrBank { .. }), "{error}");
    let error = device.run(move |chip| chip.seal(b"secret", expected)).expect_err("sealed to nothing");
    assert!(matches!(error, TpmError::PcrBank { .. }), "{error}");

    assert_eq!(
        refusal_with_raw_quote(&device, HashingAlgorithm::Sha256),
        Refusal::PcrSelection { bank: PcrHash::Sha256, expected }
    );
}

/// A quote by a genuine AK with whatever the chip says to `bank`, with made-up values.
fn refusal_with_raw_quote(device: &Device, bank: HashingAlgorithm) -> Refusal {
    let mut rogue = Rogue::new(&device.chip);
    let key = rogue.child_of_ek(ak(AK));
    let evidence = with_ak(&device.evidence(), &key);
    let (pending, challenge) = challenge(&evidence, device.expectation()).expect("an honest AK");
    let secret = rogue.activate(&key, &challenge).expect("activated");
    let (quote, quote_signature) = rogue.quote(&key, &device.binding(&challenge), selection(bank, &[0, 2, 4, 7]));
    let pcr_values = challenge.pcrs.indices().map(|index| (index, vec![0; 32])).collect();
    let response = Response { secret, quote, quote_signature, pcr_values, key: None, event_log: None };
    pending.complete(&response.to_json(), NOW).expect_err("refused")
}

#[test]
fn refuses_values_that_were_not_quoted() {
    let device = Device::new();
    let expected = device.expectation().pcrs;
    let forged = |change: fn(&mut Vec<(u8, Vec<u8>)>)| {
        refusal_of(&device, |_, mut honest| {
            change(&mut honest.pcr_values);
            honest
        })
    };
    assert_eq!(forged(|values| values[3].1[0] ^= 1), Refusal::PcrDigest);
    assert_eq!(forged(|values| values.truncate(3)), Refusal::PcrValues { expected });
    assert_eq!(forged(|values| values.swap(0, 1)), Refusal::PcrValues { expected });
}

// Row 36.
//= TPM-36
#[test]
fn refuses_a_certified_key_that_is_not_the_requests() {
    let device = Device::new();
    let other = device.run(Chip::create_signing_key).expect("another key");
    let refused = refusal_of(&device, |challenge, honest| Response {
        key: Some(certified(&device, &other, device.binding(challenge))),
        ..honest
    });
    assert_eq!(refused, Refusal::RequestForAnotherKey);

    // One key certified, another one shown.
    let refused = refusal_of(&device, |challenge, honest| {
        let shown =
            CertifiedKey { public: device.key.public.clone(), ..certified(&device, &other, device.binding(challenge)) };
        Response { key: Some(shown), ..honest }
    });
    assert_eq!(refused, Refusal::CertifiedAnotherKey);
}

#[test]
fn refuses_a_certified_key_that_can_leave_the_chip() {
    let device = Device::new();
    let attributes = AK & !RESTRICTED & !FIXED_TPM & !FIXED_PARENT;
    let mut rogue = Rogue::new(&device.chip);
    let ak_key = rogue.child_of_ek(ak(AK));
    let key = rogue.child_of_root(ak(attributes));
    let (pending, challenge) =
        challenge(&with_ak(&device.evidence(), &ak_key), device.expectation()).expect("an honest AK");
    let extra = device.binding(&challenge);
    let (attest, signature) = rogue.certify(&key, ak_key.handle, &extra);
    let public = key.bytes();
    rogue.flush(key.handle);
    let response = answer_with(&mut rogue, &ak_key, &challenge, &extra, CertifiedKey { public, attest, signature });
    let refused = pending.complete(&response.to_json(), NOW).expect_err("refused");
    assert_eq!(refused, Refusal::NotAResidentKey { attributes });
}

fn answer_with(
    rogue: &mut Rogue,
    ak: &crate::rogue::Odd,
    challenge: &Challenge,
    extra: &[u8; 32],
    key: CertifiedKey,
) -> Response {
    let secret = rogue.activate(ak, challenge).expect("activated");
    let (quote, quote_signature) = rogue.quote(ak, extra, selection(HashingAlgorithm::Sha256, &[0, 2, 4, 7]));
    let pcr_values = challenge.pcrs.indices().map(|index| (index, vec![0; 32])).collect();
    Response { secret, quote, quote_signature, pcr_values, key: Some(key), event_log: None }
}

#[test]
fn refuses_a_quote_in_the_place_of_a_certification_and_the_reverse() {
    let device = Device::new();
    let refused = refusal_of(&device, |_, honest| {
        let key = CertifiedKey {
            public: device.key.public.clone(),
            attest: honest.quote.clone(),
            signature: honest.quote_signature.clone(),
        };
        Response { key: Some(key), ..honest }
    });
    assert_eq!(refused, Refusal::AttestationKind(Part::Certify));
    let refused = refusal_of(&device, |_, honest| {
        let key = honest.key.clone().expect("certified");
        Response { quote: key.attest, quote_signature: key.signature, ..honest }
    });
    assert_eq!(refused, Refusal::AttestationKind(Part::Quote));
}

//= TPM-16
#[test]
fn a_key_outside_the_chip_is_refused_where_policy_wants_it_inside() {
    let device = Device::new();
    assert_eq!(refusal_of(&device, |_, honest| Response { key: None, ..honest }), Refusal::KeyNotResident);
}

//= TPM-08
#[test]
fn a_late_answer_is_refused() {
    let device = Device::new();
    let (pending, challenge) = challenge(&device.evidence(), device.expectation()).expect("honest evidence");
    let answer = device.answer(&challenge).to_json();
    let refused = pending.complete(&answer, NOW + CHALLENGE_SECONDS + 1).expect_err("refused");
    assert!(matches!(refused, Refusal::ChallengeExpired { limit: CHALLENGE_SECONDS, .. }), "{refused}");
}

// Row 41: a restricted key signs no digest of a message that pretends to come from the chip.
//= TPM-41
#[test]
fn the_chip_signs_no_forged_attestation() {
    let device = Device::new();
    let mut rogue = Rogue::new(&device.chip);
    let key = rogue.child_of_ek(ak(AK));
    // TPM_GENERATED, then whatever.
    let forged = MaxBuffer::try_from([&[0xff, 0x54, 0x43, 0x47][..], &[0; 60]].concat()).expect("a message");
    let (digest, ticket): (Digest, _) =
        rogue.esys.hash(forged, HashingAlgorithm::Sha256, Hierarchy::Owner).expect("hashed");
    let signed = rogue.password(|esys| esys.sign(key.handle, digest, SignatureScheme::Null, ticket));
    assert!(signed.expect_err("refused").to_string().contains("invalid ticket"));
}
