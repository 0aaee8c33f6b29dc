//! How a key of each kind signs certificates.

use const_oid::db::rfc5912::{ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, SHA_256_WITH_RSA_ENCRYPTION};
use der::asn1::Null;
use ironroot_api::issuing::{self, Algorithm};
use ironroot_hsm::KeyKind;

use super::error::ProfileError;

/// The certificate: what was signed, and its signature by a key of this kind, as X.509 has it.
pub(in crate::ca) fn assemble(tbs: &[u8], signer: KeyKind, signature: &[u8]) -> Result<Vec<u8>, ProfileError> {
    Ok(issuing::assemble(tbs, algorithm(signer), signature)?)
}

/// How a key of this kind signs certificates: as Go does. ECDSA and ML-DSA have no parameters, RSA has NULL. Source: RFC 5758 §3.2, RFC 4055 §5,
/// RFC 9881 §2.
pub(super) fn algorithm(signer: KeyKind) -> Algorithm {
    let (oid, parameters) = match signer {
        KeyKind::EcP256 => (ECDSA_WITH_SHA_256, None),
        KeyKind::EcP384 => (ECDSA_WITH_SHA_384, None),
        KeyKind::Rsa2048 | KeyKind::Rsa4096 => (SHA_256_WITH_RSA_ENCRYPTION, Some(Null)),
        KeyKind::MlDsa(set) => (set.oid(), None),
    };
    Algorithm { oid, parameters }
}
