//! By which authority something was verified.

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::TrustAnchor;
use webpki::anchor_from_trusted_cert;

use crate::certificate::{Certificate, CertificateError};

/// The authority that a path led to, or that has signed a leaf: the SHA-256 of its public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AuthorityMark([u8; 32]);

impl AuthorityMark {
    /// Of a CA's certificate.
    pub fn of_certificate(certificate: &Certificate) -> Result<Self, CertificateError> {
        let anchor = anchor_from_trusted_cert(certificate.der()).map_err(|_| CertificateError::Malformed)?;
        Ok(Self::of(&anchor))
    }

    pub(super) fn of(anchor: &TrustAnchor<'_>) -> Self {
        let hash = digest(&SHA256, &anchor.subject_public_key_info);
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}
