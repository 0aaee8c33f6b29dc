//! How large what a stranger sends may be before anything is computed with it.

use x509_cert::Certificate;

use super::proof_key::{self, rsa_bits};
use super::refusal::X509PopRefusal;

/// What is looked at of the certificates that a device sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeLimits {
    /// Most certificates behind the device's own.
    pub intermediates: usize,
    /// Longest RSA modulus in any of them, bits.
    pub rsa_bits: usize,
}

/// Source: SPIRE's defaults of `max_intermediates` and `max_rsa_key_size`.
impl Default for SizeLimits {
    fn default() -> Self {
        Self { intermediates: 4, rsa_bits: Self::MOST_RSA_BITS }
    }
}

impl SizeLimits {
    /// Most certificates that `intermediates` may allow: paths through more of them cost more signatures than any PKI needs.
    pub const MOST_INTERMEDIATES: usize = 16;
    /// Longest RSA modulus that the crypto library verifies with, bits.
    pub const MOST_RSA_BITS: usize = proof_key::MOST_RSA_BITS;

    /// Of a message with so many certificates.
    pub(super) fn check_number(&self, certificates: usize) -> Result<(), X509PopRefusal> {
        let most = self.intermediates.saturating_add(1);
        if certificates > most {
            return Err(X509PopRefusal::TooManyCertificates { sent: certificates, most });
        }
        Ok(())
    }

    /// Of one certificate, before a signature is verified with its key.
    pub(super) fn check_key(&self, certificate: &Certificate) -> Result<(), X509PopRefusal> {
        match rsa_bits(certificate) {
            Some(bits) if bits > self.rsa_bits => Err(X509PopRefusal::KeySize { bits, most: self.rsa_bits }),
            _ => Ok(()),
        }
    }
}
