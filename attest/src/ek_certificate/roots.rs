//! The TPM manufacturers whose certificates are believed.

use ironroot_text::pem::PemError;
use rustls_pki_types::{TrustAnchor, UnixTime};

use super::EkCertificateError;
use crate::authorities::{Authorities, AuthoritiesError};

/// Trust anchors: certificates of manufacturers' CAs, roots or intermediates.
#[derive(Clone, Debug, Default)]
pub struct ManufacturerRoots(pub(super) Authorities);

impl ManufacturerRoots {
    /// From PEM with one certificate of a CA or more; text between them is passed over, a section of another kind is refused.
    pub fn from_pem(text: &str) -> Result<Self, EkCertificateError> {
        Authorities::from_pem(text).map(Self).map_err(|error| match error {
            AuthoritiesError::Pem(PemError::None) => EkCertificateError::NoRoot,
            AuthoritiesError::Pem(error) => EkCertificateError::RootPem(error),
            AuthoritiesError::Malformed(number) => EkCertificateError::Root(number),
            AuthoritiesError::NotAnAuthority(error) => EkCertificateError::RootNotAnAuthority(error),
        })
    }

    /// These and those of `other`, for roots that come in several files.
    pub fn and(self, other: ManufacturerRoots) -> Self {
        Self(self.0.and(other.0))
    }

    /// Those that have ended by `now_unix` (UNIX seconds) and vouch for nobody any more: for an operator, with the time.
    pub fn ended(&self, now_unix: i64) -> Vec<String> {
        self.0.ended(now_unix)
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        self.0.anchors()
    }

    /// Whether `anchor`, one of these, may vouch now for a path with so many authorities between.
    pub(super) fn vouches(
        &self,
        anchor: &TrustAnchor<'_>,
        between: usize,
        now: UnixTime,
    ) -> Result<(), EkCertificateError> {
        self.0.vouching(anchor, between, now).map(drop).map_err(EkCertificateError::from_webpki)
    }
}
