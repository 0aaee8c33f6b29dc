//! Keys that are said to live in the TPM and do not, or are not the ones of the certificate request.

use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::binding;

use crate::attempt::{Attempt, NONCE, TRUST_DOMAIN, refusal};
use crate::software_tpm::{
    DECRYPT, FIXED_PARENT, FIXED_TPM, LEAF_ATTRIBUTES, PublicFields, SENSITIVE_DATA_ORIGIN, SIGN, SigningKey,
    SoftwareTpm,
};

//= TPM-16
#[test]
fn refuses_a_key_outside_the_tpm_where_policy_wants_it_inside() {
    let attempt = Attempt::new();
    assert_eq!(refusal(attempt.verdict_on(|response| response.key = None)), Refusal::KeyNotResident);
}

#[test]
fn refuses_a_certified_key_that_could_be_elsewhere_or_is_no_signing_key() {
    for attributes in [
        LEAF_ATTRIBUTES & !FIXED_TPM,
        LEAF_ATTRIBUTES & !FIXED_PARENT,
        LEAF_ATTRIBUTES & !SENSITIVE_DATA_ORIGIN,
        LEAF_ATTRIBUTES & !SIGN,
        LEAF_ATTRIBUTES | DECRYPT,
    ] {
        let mut attempt = Attempt::new();
        attempt.tpm.leaf_public = PublicFields::signing(&attempt.tpm.leaf, attributes);
        assert_eq!(refusal(attempt.verdict(|_| {})), Refusal::NotAResidentKey { attributes });
        // A claim that does not hold is refused also where nothing is required.
        attempt.expectation.require_resident_key = false;
        assert_eq!(refusal(attempt.verdict(|_| {})), Refusal::NotAResidentKey { attributes });
    }
}

#[test]
fn refuses_the_certification_of_another_object() {
    let attempt = Attempt::new();
    let other = SoftwareTpm::new();
    let info = other.certify(b"", &other.leaf_public).info;
    assert_eq!(refusal(attempt.verdict(|draft| draft.certify.info = info)), Refusal::CertifiedAnotherKey);
    let softer = PublicFields { attributes: LEAF_ATTRIBUTES & !FIXED_TPM, ..attempt.tpm.leaf_public.clone() };
    let info = attempt.tpm.certify(b"", &softer).info;
    assert_eq!(refusal(attempt.verdict(|draft| draft.certify.info = info)), Refusal::CertifiedAnotherKey);
}

/// Rows 12, 36: the binding names the request's key, the certified key is another.
//= TPM-36
#[test]
fn refuses_a_request_for_another_key_than_the_certified_one() {
    for request in [SigningKey::p256().spki_der(), vec![0x30, 0x00]] {
        let mut attempt = Attempt::new();
        attempt.expectation.csr_spki_der = request.clone();
        let extra_data = binding(TRUST_DOMAIN, &NONCE, &request).to_vec();
        let verdict = attempt.verdict(|draft| {
            draft.quote.extra_data.clone_from(&extra_data);
            draft.certify.extra_data = extra_data;
        });
        assert_eq!(refusal(verdict), Refusal::RequestForAnotherKey);
    }
}
