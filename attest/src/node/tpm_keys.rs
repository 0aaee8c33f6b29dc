//! The keys that a chip proves itself with, as far as their public areas say what they are.

use super::refusal::{Part, Refusal};
use crate::structures::{Attributes, Public};

/// A restricted decryption key: only such a key will not decrypt an activation secret for anyone who asks.
pub(super) fn endorsement_key(public: &[u8]) -> Result<Public, Refusal> {
    let ek = Public::parse(public).map_err(|error| Refusal::of_public(Part::EndorsementKey, error))?;
    let attributes = ek.attributes();
    let required = Attributes::RESIDENT | Attributes::RESTRICTED | Attributes::DECRYPT;
    if !attributes.are(required, Attributes::SIGN) || ek.symmetric_bits().is_none() {
        return Err(Refusal::NotAnEndorsementKey { attributes: attributes.bits() });
    }
    Ok(ek)
}

/// A restricted signing key: only such a key signs nothing but what its TPM made itself.
pub(super) fn attestation_key(public: &[u8]) -> Result<Public, Refusal> {
    let ak = Public::parse(public).map_err(|error| Refusal::of_public(Part::AttestationKey, error))?;
    let attributes = ak.attributes();
    //= TPM-03 TPM 2.0 Part 2, TPMA_OBJECT: "Key usage is restricted to manipulate structures of known format"
    //= TPM-04 TPM 2.0 Part 2, TPMA_OBJECT: "as indicated by its Qualified Name, may not change."
    //= TPM-06 TPM 2.0 Part 2, TPMA_OBJECT: "The parent of the object may not change."
    //= TPM-07 TPM 2.0 Part 2, TPMA_OBJECT: "the TPM generated all of the sensitive data other than the authValue"
    let required = Attributes::RESIDENT | Attributes::RESTRICTED | Attributes::SIGN;
    let forbidden = Attributes::DECRYPT | Attributes::ENCRYPTED_DUPLICATION | Attributes::X509_SIGN;
    if !attributes.are(required, forbidden) {
        return Err(Refusal::NotAnAttestationKey { attributes: attributes.bits() });
    }
    if ak.scheme().is_none() {
        return Err(Refusal::AkWithoutScheme);
    }
    Ok(ak)
}
