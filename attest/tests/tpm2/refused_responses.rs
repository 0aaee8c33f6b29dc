//! Answers to a challenge that prove less than they must.

use ironroot_attest::node::tpm2::{CHALLENGE_SECONDS, ClockReading, MAX_RESPONSE_BYTES, PcrHash, binding};
use ironroot_attest::node::{Part, Refusal};
use ironroot_attest::structures::StructureError;

use crate::attempt::{Attempt, NONCE, SECRET, TRUST_DOMAIN, refusal};
use crate::manufacturer::NOW;
use crate::software_tpm::{
    CERTIFY, ENDORSEMENT, OWNER, QUOTE, SHA1, SHA256, SHA384, SigningKey, SoftwareTpm, name, pcr_value, quote_info,
};

fn pcrs(text: &str) -> ironroot_attest::node::tpm2::PcrSelection {
    text.parse().expect("legal")
}

/// Rows 5, 10, 11.
//= TPM-05 TPM-11
#[test]
fn refuses_a_wrong_activation_secret() {
    let attempt = Attempt::new();
    for wrong in [vec![], vec![0; 32], SECRET[..31].to_vec(), [&SECRET[..], &[0]].concat()] {
        assert_eq!(refusal(attempt.verdict(|draft| draft.secret = wrong)), Refusal::WrongSecret);
    }
}

/// Row 10: the credential opens for this key alone, with this attestation key alone.
//= TPM-10
#[test]
fn a_credential_opens_for_no_other_key() {
    let attempt = Attempt::new();
    let (_, challenge) = attempt.begin().expect("challenged");
    assert_eq!(attempt.tpm.activate(&challenge).as_deref(), Some(&SECRET[..]));
    assert_eq!(SoftwareTpm::new().activate(&challenge), None);
    let other_ak = name(&SoftwareTpm::new().ak_public);
    let opened = attempt.tpm.ek.activate(&attempt.tpm.ek_public, &other_ak, &challenge.credential, &challenge.secret);
    assert_eq!(opened, None);
}

#[test]
fn two_credentials_of_one_secret_have_nothing_in_common() {
    let attempt = Attempt::new();
    let (_, first) = attempt.begin().expect("challenged");
    let (_, second) = attempt.begin().expect("challenged");
    assert_ne!(first.secret, second.secret);
    assert_ne!(first.credential, second.credential);
}

//= TPM-08
#[test]
fn refuses_an_answer_that_comes_too_late_or_before_the_question() {
    for (seconds, refused) in [(0, false), (CHALLENGE_SECONDS, false), (CHALLENGE_SECONDS + 1, true), (-1, true)] {
        let attempt = Attempt::new();
        let (pending, challenge) = attempt.begin().expect("challenged");
        let verdict = pending.complete(&attempt.respond(&challenge).to_json(), NOW + seconds);
        if refused {
            let limit = CHALLENGE_SECONDS;
            assert_eq!(verdict.expect_err("late"), Refusal::ChallengeExpired { seconds, limit });
        } else {
            verdict.expect("in time");
        }
    }
}

/// Rows 8, 9, 35.
//= TPM-08 TPM-09 TPM-35 FLT-T8
#[test]
fn refuses_evidence_made_for_something_else() {
    let attempt = Attempt::new();
    let spki = attempt.tpm.leaf.spki_der();
    for other in [
        binding(TRUST_DOMAIN, &[1; 32], &spki),
        binding("example.com", &NONCE, &spki),
        binding(TRUST_DOMAIN, &NONCE, &SigningKey::p256().spki_der()),
        [0; 32],
    ] {
        let verdict = attempt.verdict(|draft| draft.quote.extra_data = other.to_vec());
        assert_eq!(refusal(verdict), Refusal::AnotherBinding(Part::Quote));
        let verdict = attempt.verdict(|draft| draft.certify.extra_data = other.to_vec());
        assert_eq!(refusal(verdict), Refusal::AnotherBinding(Part::Certify));
    }
    for shortened in [0, 31] {
        let verdict = attempt.verdict(|draft| draft.quote.extra_data.truncate(shortened));
        assert_eq!(refusal(verdict), Refusal::AnotherBinding(Part::Quote));
    }
}

#[test]
fn the_binding_keeps_its_fields_apart() {
    assert_ne!(binding("ab", &[b'c'; 32], b"d"), binding("abc", &[b'c'; 32], b"d"));
    assert_ne!(binding("a", &[b'c'; 32], b"cd"), binding("a", &[b'c'; 32], b"d"));
}

#[test]
fn refuses_a_signature_of_another_key() {
    let attempt = Attempt::new();
    let other = SigningKey::p256();
    let verdict = attempt.verdict_on(|response| response.quote_signature = other.sign(&response.quote));
    assert_eq!(refusal(verdict), Refusal::Signature(Part::Quote));
    let verdict = attempt.verdict_on(|response| {
        let key = response.key.as_mut().expect("certified");
        key.signature = other.sign(&key.attest);
    });
    assert_eq!(refusal(verdict), Refusal::Signature(Part::Certify));
}

/// Row 25.
//= TPM-25
#[test]
fn refuses_a_signature_by_another_algorithm() {
    let attempt = Attempt::new();
    for other in [SigningKey::rsa(), SigningKey::p384()] {
        let verdict = attempt.verdict_on(|response| response.quote_signature = other.sign(&response.quote));
        assert_eq!(refusal(verdict), Refusal::SignatureAlgorithm(Part::Quote));
    }
    // The right key and kind, and another hash named.
    let verdict = attempt.verdict_on(|response| response.quote_signature[2..4].copy_from_slice(&SHA384.to_be_bytes()));
    assert_eq!(refusal(verdict), Refusal::SignatureAlgorithm(Part::Quote));
    let rsa = Attempt::by(SoftwareTpm::with(crate::software_tpm::Decryptor::p256(), SigningKey::rsa()));
    let verdict = rsa.verdict_on(|response| response.quote_signature = SigningKey::p256().sign(&response.quote));
    assert_eq!(refusal(verdict), Refusal::SignatureAlgorithm(Part::Quote));
}

/// Rows 24, 25, 26.
//= TPM-26
#[test]
fn refuses_signatures_that_are_none() {
    let attempt = Attempt::new();
    let structure = |error| Refusal::Structure { part: Part::Quote, error };
    for (signature, error) in [
        (vec![0x00, 0x10], StructureError::SignatureAlgorithm(0x0010)),
        // RSAPSS, HMAC.
        (vec![0x00, 0x16, 0x00, 0x0b, 0x00, 0x00], StructureError::SignatureAlgorithm(0x0016)),
        (vec![0x00, 0x05, 0x00, 0x0b], StructureError::SignatureAlgorithm(0x0005)),
        (vec![0x00, 0x18, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00], StructureError::HashAlgorithm(SHA1)),
        (vec![], StructureError::Truncated),
    ] {
        let verdict = attempt.verdict_on(|response| response.quote_signature = signature);
        assert_eq!(refusal(verdict), structure(error));
    }
    // r and s zero, empty, or longer than the curve.
    for integer in [vec![0; 32], vec![], vec![1; 40]] {
        let sized = [&(integer.len() as u16).to_be_bytes()[..], &integer].concat();
        let signature = [&[0x00, 0x18, 0x00, 0x0b][..], &sized, &sized].concat();
        let verdict = attempt.verdict_on(|response| response.quote_signature = signature);
        assert_eq!(refusal(verdict), Refusal::Signature(Part::Quote));
    }
}

//= TPM-41
#[test]
fn refuses_what_a_tpm_did_not_make() {
    let attempt = Attempt::new();
    let verdict = attempt.verdict(|draft| draft.quote.magic = 0x3082_0123);
    assert_eq!(refusal(verdict), Refusal::NotTpmGenerated(Part::Quote));
    let verdict = attempt.verdict(|draft| draft.certify.magic = 0);
    assert_eq!(refusal(verdict), Refusal::NotTpmGenerated(Part::Certify));
}

#[test]
fn refuses_an_attestation_of_another_kind() {
    let attempt = Attempt::new();
    let verdict = attempt.verdict(|draft| draft.quote = draft.certify.clone());
    assert_eq!(refusal(verdict), Refusal::AttestationKind(Part::Quote));
    let verdict = attempt.verdict(|draft| draft.certify = draft.quote.clone());
    assert_eq!(refusal(verdict), Refusal::AttestationKind(Part::Certify));
    // TIME: signed by the same key, over the caller's data too.
    let verdict = attempt.verdict(|draft| draft.quote.kind = 0x8019);
    assert_eq!(refusal(verdict), Refusal::AttestationKind(Part::Quote));
    // One kind in the other's body; CREATION, which another attestor reads, among them.
    let verdict = attempt.verdict(|draft| draft.quote.kind = 0x801a);
    assert!(matches!(refusal(verdict), Refusal::Structure { part: Part::Quote, .. }));
    let verdict = attempt.verdict(|draft| draft.quote.kind = CERTIFY);
    assert!(matches!(refusal(verdict), Refusal::Structure { part: Part::Quote, .. }));
    let verdict = attempt.verdict(|draft| draft.certify.kind = QUOTE);
    assert!(matches!(refusal(verdict), Refusal::Structure { part: Part::Certify, .. }));
}

/// Row 33.
//= TPM-33
#[test]
fn refuses_an_attestation_key_outside_the_endorsement_hierarchy() {
    let attempt = Attempt::new();
    let other_tpm = SoftwareTpm::new();
    for signer in [attempt.tpm.qualified_ak(OWNER), other_tpm.qualified_ak(ENDORSEMENT), name(&attempt.tpm.ak_public)] {
        let verdict = attempt.verdict(|draft| draft.quote.qualified_signer = signer.clone());
        assert_eq!(refusal(verdict), Refusal::ForeignSigner(Part::Quote));
        let verdict = attempt.verdict(|draft| draft.certify.qualified_signer = signer);
        assert_eq!(refusal(verdict), Refusal::ForeignSigner(Part::Certify));
    }
    let verdict = attempt.verdict(|draft| draft.quote.qualified_signer = vec![]);
    assert_eq!(refusal(verdict), Refusal::Structure { part: Part::Quote, error: StructureError::Name });
}

/// Row 29.
//= TPM-29 FLT-T8
#[test]
fn refuses_any_other_pcr_selection() {
    let attempt = Attempt::new();
    let expected = attempt.expectation.pcrs;
    let mask = expected.mask();
    let digest = vec![0; 32];
    for banks in [
        vec![(SHA256, 0)],
        vec![(SHA256, mask & !1)],
        vec![(SHA256, mask | 1 << 3)],
        vec![(SHA256, mask | 1 << 23)],
        vec![(SHA1, mask)],
        vec![(SHA384, mask)],
        vec![(SHA256, mask), (SHA1, 0)],
        vec![(SHA256, mask), (SHA256, mask)],
        vec![],
    ] {
        let info = quote_info(&banks, &digest);
        let verdict = attempt.verdict(|draft| draft.quote.info = info);
        assert_eq!(refusal(verdict), Refusal::PcrSelection { bank: PcrHash::Sha256, expected }, "{banks:?}");
    }
    let mut none = Attempt::new();
    none.expectation.pcrs = pcrs("");
    let verdict = none.verdict(|draft| draft.quote.info = quote_info(&[(SHA256, 1)], &digest));
    assert_eq!(refusal(verdict), Refusal::PcrSelection { bank: PcrHash::Sha256, expected: pcrs("") });
}

#[test]
fn refuses_pcr_values_that_were_not_quoted() {
    let attempt = Attempt::new();
    let expected = attempt.expectation.pcrs;
    let verdict = attempt.verdict(|draft| draft.pcr_values[1].1[0] ^= 1);
    assert_eq!(refusal(verdict), Refusal::PcrDigest);
    let values = Refusal::PcrValues { expected };
    assert_eq!(refusal(attempt.verdict(|draft| draft.pcr_values.truncate(3))), values);
    assert_eq!(refusal(attempt.verdict(|draft| draft.pcr_values.clear())), values);
    assert_eq!(refusal(attempt.verdict(|draft| draft.pcr_values.push((9, pcr_value(9).to_vec())))), values);
    assert_eq!(refusal(attempt.verdict(|draft| draft.pcr_values.swap(0, 1))), values);
    assert_eq!(refusal(attempt.verdict(|draft| draft.pcr_values[0].0 = 1)), values);
}

/// Row 18.
//= TPM-18
#[test]
fn refuses_a_tpm_whose_clock_or_counters_went_back() {
    let seen = |clock_ms, reset_count, restart_count| {
        let mut attempt = Attempt::new();
        attempt.expectation.last_seen = Some(ClockReading { clock_ms, reset_count, restart_count, safe: true });
        refusal(attempt.verdict(|_| {}))
    };
    let reading =
        |clock_ms, reset_count, restart_count| ClockReading { clock_ms, reset_count, restart_count, safe: true };
    let now = reading(1_000_000, 7, 1);
    assert_eq!(seen(0, 8, 0), Refusal::ResetCountWentBack { seen: reading(0, 8, 0), now });
    assert_eq!(seen(0, 7, 2), Refusal::RestartCountWentBack { seen: reading(0, 7, 2), now });
    let seen_ms = 1_000_000 + (1 << 22) + 1;
    assert_eq!(seen(seen_ms, 7, 1), Refusal::ClockWentBack { seen: reading(seen_ms, 7, 1), now });
}

#[test]
fn refuses_a_trust_domain_that_cannot_be_one() {
    let mut attempt = Attempt::new();
    attempt.expectation.trust_domain = "a".repeat(255);
    assert!(attempt.begin().is_ok(), "the longest that there can be");
    attempt.expectation.trust_domain = "a".repeat(256);
    assert_eq!(attempt.begin().map(|_| ()).expect_err("refused"), Refusal::TrustDomain);
}

#[test]
fn refuses_a_response_that_is_no_message() {
    let long = vec![b' '; MAX_RESPONSE_BYTES + 1];
    for (message, too_long) in [(&b"{}"[..], false), (b"", false), (b"null", false), (&long, true)] {
        let (pending, _) = Attempt::new().begin().expect("challenged");
        let refused = pending.complete(message, NOW).expect_err("refused");
        assert_eq!(matches!(refused, Refusal::MessageTooLong { .. }), too_long);
        assert_eq!(matches!(refused, Refusal::MessageFormat(_)), !too_long);
    }
}
