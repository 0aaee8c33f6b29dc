//! The TPM manufacturers whose certificates are believed.

use ironroot_text::pem::{self, PemError};
use rustls_pki_types::TrustAnchor;

use super::EkCertificateError;

/// Trust anchors: certificates of manufacturers' CAs, roots or intermediates.
#[derive(Clone, Debug, Default)]
pub struct ManufacturerRoots(Vec<TrustAnchor<'static>>);

impl ManufacturerRoots {
    /// From PEM with one certificate or more; text between them is passed over, a section of another kind is refused.
    pub fn from_pem(text: &str) -> Result<Self, EkCertificateError> {
        let mut anchors = Vec::new();
        let certificates = pem::certificates(text).map_err(|error| match error {
            PemError::None => EkCertificateError::NoRoot,
            error => EkCertificateError::RootPem(error),
        })?;
        for (index, certificate) in certificates.iter().enumerate() {
            let anchor =
                webpki::anchor_from_trusted_cert(certificate).map_err(|_| EkCertificateError::Root(index + 1))?;
            anchors.push(anchor.to_owned());
        }
        Ok(Self(anchors))
    }

    /// These and those of `other`, for roots that come in several files.
    pub fn and(mut self, other: ManufacturerRoots) -> Self {
        self.0.extend(other.0);
        self
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.0
    }
}
