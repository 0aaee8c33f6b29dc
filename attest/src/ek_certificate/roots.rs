//! The TPM manufacturers whose certificates are believed.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use super::EkCertificateError;

/// Trust anchors: certificates of manufacturers' CAs, roots or intermediates.
#[derive(Clone, Debug)]
pub struct ManufacturerRoots(Vec<TrustAnchor<'static>>);

impl ManufacturerRoots {
    /// From PEM with one certificate or more; other PEM sections and text between them are passed over.
    pub fn from_pem(pem: &str) -> Result<Self, EkCertificateError> {
        let mut anchors = Vec::new();
        for (index, certificate) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
            let certificate = certificate.map_err(|_| EkCertificateError::Root(index + 1))?;
            let anchor =
                webpki::anchor_from_trusted_cert(&certificate).map_err(|_| EkCertificateError::Root(index + 1))?;
            anchors.push(anchor.to_owned());
        }
        if anchors.is_empty() { Err(EkCertificateError::NoRoot) } else { Ok(Self(anchors)) }
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
