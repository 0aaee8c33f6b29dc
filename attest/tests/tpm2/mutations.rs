//! Thousands of damaged inputs to every parser: none panics, and none that differs is taken for the original.

use ironroot_attest::ek_certificate::EkCertificate;
use ironroot_attest::node::tpm2::{Challenge, Claim, Evidence, Response};
use ironroot_attest::structures::{Attest, Public, PublicKey, Signature};
use ironroot_fuzz::proptest::test_runner::TestRunner;
use ironroot_fuzz::{cases, damaged};

use crate::attempt::Attempt;
use crate::genuine::{evidence_p256, evidence_rsa, judge, response_p256};

/// Every prefix of `bytes` but the whole.
fn truncations(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len()).map(|end| bytes[..end].to_vec())
}

/// `bytes` with each one of its bits flipped.
fn bit_flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len() * 8).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    })
}

/// `parse` is fed with `count` damaged forms of `bytes`; what panics is shrunk and printed.
fn feed_damages(bytes: &[u8], count: u32, parse: impl Fn(&[u8])) {
    let tried = TestRunner::new(cases(count)).run(&damaged(vec![bytes.to_vec()]), |bytes| {
        parse(&bytes);
        Ok(())
    });
    tried.expect("no damage panics");
}

/// No damage panics; nothing truncated parses; what parses and differs in one bit gives another value.
fn check<T: PartialEq, E>(bytes: &[u8], parse: impl Fn(&[u8]) -> Result<T, E>) {
    let original = parse(bytes).ok().expect("the original parses");
    for truncated in truncations(bytes) {
        assert!(parse(&truncated).is_err(), "truncated to {} bytes", truncated.len());
    }
    for (bit, flipped) in bit_flips(bytes).enumerate() {
        assert!(parse(&flipped).ok().is_none_or(|value| value != original), "bit {bit} is not looked at");
    }
    feed_damages(bytes, 3000, |damaged| drop(parse(damaged)));
}

#[test]
fn public_areas() {
    for evidence in [evidence_p256(), evidence_rsa()] {
        check(&evidence.ek_public, Public::parse);
        check(&evidence.ak_public, Public::parse);
    }
}

#[test]
fn attestations() {
    check(&response_p256().quote, Attest::parse);
    // Of a certify, the qualified name of the object is parsed and not kept: nobody can check it.
    let certify = response_p256().key.expect("certified").attest;
    let kept = certify.len() - 36;
    check(&certify, |bytes| Attest::parse(bytes).map(|attest| (attest, bytes.get(kept..).map(<[u8]>::to_vec))));
}

#[test]
fn signatures() {
    check(&response_p256().quote_signature, Signature::parse);
}

#[test]
fn certificates_and_keys() {
    // Not all of a certificate is kept: only that nothing panics.
    let der = evidence_rsa().ek_certificates[0].clone();
    for bytes in truncations(&der).chain(bit_flips(&der)) {
        let _ = EkCertificate::parse(&bytes);
    }
    feed_damages(&der, 5000, |damaged| drop(EkCertificate::parse(damaged)));
    let spki = Attempt::new().tpm.leaf.spki_der();
    for bytes in truncations(&spki).chain(bit_flips(&spki)) {
        let _ = PublicKey::from_spki_der(&bytes);
    }
    feed_damages(&spki, 5000, |damaged| drop(PublicKey::from_spki_der(damaged)));
}

#[test]
fn messages() {
    let (_, challenge) = Attempt::new().begin().expect("challenged");
    check_message(&evidence_p256().to_json(), Evidence::from_json);
    check_message(&response_p256().to_json(), Response::from_json);
    check_message(&challenge.to_json(), Challenge::from_json);
    feed_damages(&evidence_p256().to_json(), 2000, |damaged| drop(Claim::parse(damaged)));
}

/// As `check`; JSON and base64 have several texts for one value, so equality is not looked at.
fn check_message<T, E>(json: &[u8], parse: impl Fn(&[u8]) -> Result<T, E>) {
    assert!(parse(json).is_ok());
    assert!(truncations(json).all(|truncated| parse(&truncated).is_err()));
    for flipped in bit_flips(json) {
        let _ = parse(&flipped);
    }
    feed_damages(json, 3000, |damaged| drop(parse(damaged)));
}

//= FLT-T8
/// The strongest claim: evidence of a genuine TPM is refused when any one bit of it is another.
#[test]
fn no_bit_of_the_evidence_is_loose() {
    let (evidence, response) = (evidence_p256(), response_p256());
    judge(&evidence, &response).expect("the original is accepted");
    for (bit, flipped) in bit_flips(&evidence.ek_public).enumerate() {
        let evidence = Evidence { ek_public: flipped, ..evidence.clone() };
        assert!(judge(&evidence, &response).is_err(), "bit {bit} of the EK");
    }
    for (bit, flipped) in bit_flips(&evidence.ak_public).enumerate() {
        let evidence = Evidence { ak_public: flipped, ..evidence.clone() };
        assert!(judge(&evidence, &response).is_err(), "bit {bit} of the AK");
    }
    type Field = fn(&mut Response) -> &mut Vec<u8>;
    let fields: [(&str, Field); 5] = [
        ("quote", |response| &mut response.quote),
        ("its signature", |response| &mut response.quote_signature),
        ("certified key", |response| &mut response.key.as_mut().expect("certified").public),
        ("certify", |response| &mut response.key.as_mut().expect("certified").attest),
        ("its signature", |response| &mut response.key.as_mut().expect("certified").signature),
    ];
    for (name, field) in fields {
        let original = field(&mut response.clone()).clone();
        for (bit, flipped) in bit_flips(&original).enumerate() {
            let mut response = response.clone();
            *field(&mut response) = flipped;
            assert!(judge(&evidence, &response).is_err(), "bit {bit} of the {name}");
        }
    }
}
