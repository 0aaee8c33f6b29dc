//! Who issues devices their certificates.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use ironroot_text::pem::{self, PemError};
use rustls_pki_types::TrustAnchor;
use thiserror::Error;

/// SHA-1 of a certificate's DER: a name, not a proof. Source: SPIRE, `x509pop.Fingerprint`.
pub(super) type Fingerprint = [u8; 20];

/// Why a file does not say whom to believe.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthoritiesError {
    /// Not PEM of certificates.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// One that cannot issue anything.
    #[error("certificate {0} is not one of an authority")]
    Certificate(usize),
}

/// The certificates of the authorities whose devices may attest.
#[derive(Clone, Debug, Default)]
pub struct Authorities {
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    fingerprints: Vec<Fingerprint>,
}

impl Authorities {
    /// From PEM with one certificate or more.
    pub fn from_pem(text: &str) -> Result<Self, AuthoritiesError> {
        let mut authorities = Self::default();
        for (index, certificate) in pem::certificates(text)?.iter().enumerate() {
            let anchor =
                webpki::anchor_from_trusted_cert(certificate).map_err(|_| AuthoritiesError::Certificate(index + 1))?;
            authorities.anchors.push(anchor.to_owned());
            authorities.fingerprints.push(fingerprint(certificate));
        }
        Ok(authorities)
    }

    /// These and those of `other`, for authorities that come in several files.
    pub fn and(mut self, other: Self) -> Self {
        self.anchors.extend(other.anchors);
        self.fingerprints.extend(other.fingerprints);
        self
    }

    /// The fingerprint of the authority that is `anchor`.
    pub(super) fn fingerprint_of(&self, anchor: &TrustAnchor<'_>) -> Option<Fingerprint> {
        let at = self.anchors.iter().position(|known| known == anchor)?;
        self.fingerprints.get(at).copied()
    }
}

/// What a certificate is called in IDs and selectors.
pub(super) fn fingerprint(der: &[u8]) -> Fingerprint {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, der).as_ref().try_into().expect("SHA-1 gives 20 bytes")
}
