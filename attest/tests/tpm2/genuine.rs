//! Evidence of a TPM emulator, byte for byte (`vectors/README.md` has its origin).

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_attest::ek_certificate::{EkCertificate, ManufacturerRoots};
use ironroot_attest::node::tpm2::{
    Admission, AttestedTpm, CertifiedKey, Claim, ClockReading, EventLogPolicy, Evidence, Expectation, PcrHash, Response,
};
use ironroot_attest::node::{Part, Refusal};
use ironroot_attest::structures::Public;

use crate::attempt::{NONCE, SECRET, TRUST_DOMAIN, refusal};
use crate::manufacturer::NOW;

macro_rules! vector {
    ($name:literal) => {
        crate::genuine::unhex(include_str!(concat!("vectors/", $name, ".hex")))
    };
}

const ROOT: &str = include_str!("vectors/root.pem");

/// The certificates were made on 2026-11-22.
const LATER: i64 = NOW + 30 * 86_400;

pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

pub fn evidence_p256() -> Evidence {
    Evidence {
        ek_certificates: Vec::new(),
        ek_public: vector!("ek_p256"),
        ak_public: vector!("ak_p256"),
        boot_id: "1".into(),
        pcr_banks: vec![PcrHash::Sha256],
        event_log: false,
        ima_log: false,
    }
}

pub fn evidence_rsa() -> Evidence {
    Evidence {
        ek_certificates: vec![vector!("ek_certificate_rsa"), vector!("ek_certificate_issuer")],
        ek_public: vector!("ek_rsa"),
        ak_public: vector!("ak_rsa"),
        boot_id: "1".into(),
        pcr_banks: vec![PcrHash::Sha256],
        event_log: false,
        ima_log: false,
    }
}

pub fn response_p256() -> Response {
    Response {
        secret: SECRET.to_vec(),
        quote: vector!("quote_p256"),
        quote_signature: vector!("quote_p256_signature"),
        pcr_values: pcr_values(),
        key: Some(CertifiedKey {
            public: vector!("leaf"),
            attest: vector!("certify_p256"),
            signature: vector!("certify_p256_signature"),
        }),
        event_log: None,
    }
}

fn response_rsa() -> Response {
    Response {
        quote: vector!("quote_rsa"),
        quote_signature: vector!("quote_rsa_signature"),
        key: Some(CertifiedKey {
            public: vector!("leaf"),
            attest: vector!("certify_rsa"),
            signature: vector!("certify_rsa_signature"),
        }),
        ..response_p256()
    }
}

/// PCR 4 was extended once with SHA-256("measured"), the others never.
fn pcr_values() -> Vec<(u8, Vec<u8>)> {
    let event = digest(&SHA256, b"measured");
    let extended = digest(&SHA256, &[&[0; 32], event.as_ref()].concat());
    vec![(0, vec![0; 32]), (2, vec![0; 32]), (4, extended.as_ref().to_vec()), (7, vec![0; 32])]
}

pub fn judge(evidence: &Evidence, response: &Response) -> Result<AttestedTpm, Refusal> {
    let roots = ManufacturerRoots::from_pem(ROOT).expect("roots");
    let claim = Claim::parse(&evidence.to_json())?;
    let admission = if evidence.ek_certificates.is_empty() {
        Admission::Enrolled { ek_sha256: claim.ek_sha256() }
    } else {
        Admission::Manufacturer { roots: &roots, now_unix: LATER }
    };
    let expectation = Expectation {
        trust_domain: TRUST_DOMAIN.into(),
        csr_spki_der: vector!("leaf_spki"),
        pcrs: "0,2,4,7".parse().expect("legal"),
        pcr_banks: vec![PcrHash::Sha256],
        event_log: EventLogPolicy::Ignored,
        ima_log: EventLogPolicy::Ignored,
        require_resident_key: true,
        last_seen: None,
    };
    let (pending, _) = claim.admit(admission)?.challenge(expectation, NONCE, SECRET, NOW)?;
    pending.complete(&response.to_json(), NOW)
}

#[test]
fn accepts_the_evidence_of_an_emulator_with_p256_keys() {
    let attested = judge(&evidence_p256(), &response_p256()).expect("accepted");
    assert!(attested.key_is_resident());
    let ClockReading { reset_count, restart_count, .. } = attested.clock();
    assert_eq!((reset_count, restart_count), (2, 0), "plain counters: the AK is in the endorsement hierarchy");
}

#[test]
fn accepts_the_evidence_of_an_emulator_with_rsa_keys_and_certificate() {
    let attested = judge(&evidence_rsa(), &response_rsa()).expect("accepted");
    for selector in ["tpm2:manufacturer:00001014", "tpm2:model:swtpm", "tpm2:ek:issuer:cn:swtpm-localca"] {
        assert!(attested.selectors().contains(&selector.parse().expect("legal")), "{selector}");
    }
}

#[test]
fn accepts_a_p384_endorsement_key_and_its_certificate() {
    let certificate = EkCertificate::parse(&vector!("ek_certificate_p384")).expect("parses");
    let public = Public::parse(&vector!("ek_p384")).expect("parses");
    assert_eq!(certificate.key(), public.key());
    let roots = ManufacturerRoots::from_pem(ROOT).expect("roots");
    certificate.verify(&[vector!("ek_certificate_issuer")], &roots, LATER).expect("verifies");
}

#[test]
fn refuses_a_genuine_quote_of_an_inactive_bank() {
    let response = Response {
        quote: vector!("quote_inactive_bank"),
        quote_signature: vector!("quote_inactive_bank_signature"),
        ..response_p256()
    };
    let expected = "0,2,4,7".parse().expect("legal");
    assert_eq!(refusal(judge(&evidence_p256(), &response)), Refusal::PcrSelection { bank: PcrHash::Sha256, expected });
}

#[test]
fn refuses_a_genuine_attestation_key_under_another_endorsement_key() {
    let mixed = Evidence { ek_public: vector!("ek_rsa"), ..evidence_p256() };
    assert_eq!(refusal(judge(&mixed, &response_p256())), Refusal::ForeignSigner(Part::Quote));
}

#[test]
fn refuses_a_genuine_certificate_beside_another_key() {
    let mixed = Evidence { ek_public: vector!("ek_p256"), ..evidence_rsa() };
    assert_eq!(refusal(judge(&mixed, &response_rsa())), Refusal::EkCertificateOfAnotherKey);
}
