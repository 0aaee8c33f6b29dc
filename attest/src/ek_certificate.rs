//! Endorsement key certificates: profile, chain to manufacturer roots, manufacturer and model.
//!
//! Source: TCG EK Credential Profile for TPM Family 2.0, version 2.5, §3.2.

mod chain;
mod error;
mod profile;
mod roots;

use aws_lc_rs::digest;
use der::{Decode, Encode};
use rustls_pki_types::CertificateDer;
use webpki::{EndEntityCert, KeyUsage};
use x509_cert::Certificate;

pub use error::EkCertificateError;
pub use profile::TpmModel;
pub use roots::ManufacturerRoots;

use crate::structures::PublicKey;

/// tcg-kp-EKCertificate, 2.23.133.8.1, DER content.
const EKU_EK_CERTIFICATE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];

/// A certificate for a key, not yet believed. [`verify`](EkCertificate::verify) tells whether it is an endorsement key
/// certificate of a trusted manufacturer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EkCertificate {
    der: Vec<u8>,
    key: PublicKey,
    issuer_common_name: Option<String>,
    profile: Result<TpmModel, EkCertificateError>,
}

impl EkCertificate {
    /// Parses one DER certificate. Only encoding and key must be acceptable; the profile is looked at in `verify`, so that
    /// a chip with an odd certificate can still be enrolled by its key.
    pub fn parse(der: &[u8]) -> Result<Self, EkCertificateError> {
        let certificate = Certificate::from_der(der).map_err(EkCertificateError::Malformed)?;
        let tbs = certificate.tbs_certificate();
        let spki = tbs.subject_public_key_info().to_der().map_err(EkCertificateError::Malformed)?;
        let key = PublicKey::from_spki_der(&spki).map_err(EkCertificateError::Key)?;
        let issuer = tbs.issuer().common_name().ok().flatten();
        Ok(Self {
            der: der.to_vec(),
            issuer_common_name: issuer.map(|name| name.value().into_owned()),
            profile: profile::check(tbs, &key),
            key,
        })
    }

    /// The certified key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// SHA-256 of the key's DER SubjectPublicKeyInfo: how a device is enrolled and named.
    pub fn ek_sha256(&self) -> [u8; 32] {
        ek_sha256(&self.key)
    }

    /// The certificate as received, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Common name of the issuer, as claimed until verified.
    pub fn issuer_common_name(&self) -> Option<&str> {
        self.issuer_common_name.as_deref()
    }

    /// Manufacturer, model and version, as claimed until verified; `None` if the certificate does not follow the profile.
    pub fn tpm_model(&self) -> Option<&TpmModel> {
        self.profile.as_ref().ok()
    }

    /// Checks profile, validity and the chain to a manufacturer root. `intermediates`: DER, any order; the caller bounds
    /// their number and size. A certificate that has expired is refused, although endorsement keys outlive them: enrol
    /// such a device by its key instead.
    pub fn verify(
        &self,
        intermediates: &[Vec<u8>],
        roots: &ManufacturerRoots,
        now_unix: i64,
    ) -> Result<&TpmModel, EkCertificateError> {
        let model = self.profile.as_ref().map_err(Clone::clone)?;
        match self.verify_by_webpki(intermediates, roots, now_unix) {
            Ok(()) => Ok(model),
            Err(EkCertificateError::Untrusted(webpki::Error::UnsupportedCriticalExtension)) => {
                chain::verify(&self.der, intermediates, roots, now_unix)
                    .map_err(|e| self.naming(e, intermediates, roots))?;
                Ok(model)
            }
            Err(error) => Err(self.naming(error, intermediates, roots)),
        }
    }

    fn verify_by_webpki(
        &self,
        intermediates: &[Vec<u8>],
        roots: &ManufacturerRoots,
        now_unix: i64,
    ) -> Result<(), EkCertificateError> {
        let leaf = CertificateDer::from(self.der.as_slice());
        let intermediates: Vec<_> = intermediates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let certificate = EndEntityCert::try_from(&leaf).map_err(EkCertificateError::from_webpki)?;
        // `required` would be asked of the CAs too, and most have no extended key usage.
        let usage = KeyUsage::required_if_present(EKU_EK_CERTIFICATE);
        let above = roots.0.above(&certificate, &intermediates, now_unix, usage);
        above.map(drop).map_err(EkCertificateError::from_webpki)
    }

    /// An unknown issuer is named.
    fn naming(
        &self,
        error: EkCertificateError,
        intermediates: &[Vec<u8>],
        roots: &ManufacturerRoots,
    ) -> EkCertificateError {
        let EkCertificateError::Untrusted(webpki::Error::UnknownIssuer) = error else { return error };
        match chain::missing_issuer(&self.der, intermediates, roots) {
            Some((issuer, address)) => EkCertificateError::IssuerMissing { issuer, address },
            None => error,
        }
    }
}

/// SHA-256 of the DER SubjectPublicKeyInfo of an endorsement key.
pub(crate) fn ek_sha256(key: &PublicKey) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, &key.to_spki_der());
    digest.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}
