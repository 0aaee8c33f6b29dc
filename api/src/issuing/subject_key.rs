//! The key that a certificate is for.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::csr::Spki;
use crate::ml_dsa::MlDsa;

/// A public key to certify. It was parsed where it came from and is not parsed again.
#[derive(Clone, Copy, Debug)]
pub struct SubjectKey<'a> {
    spki_der: &'a [u8],
    key: &'a [u8],
}

impl<'a> SubjectKey<'a> {
    /// `spki_der`: DER SubjectPublicKeyInfo. `key`: its subjectPublicKey.
    pub fn new(spki_der: &'a [u8], key: &'a [u8]) -> Self {
        Self { spki_der, key }
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki_der(self) -> &'a [u8] {
        self.spki_der
    }

    /// The parameter set, if it is a key of ML-DSA.
    pub(super) fn ml_dsa(self) -> Option<MlDsa> {
        MlDsa::of_spki(self.spki_der)
    }

    /// SHA-1 over the bits of the public key: a name, not a proof. Source: RFC 5280 §4.2.1.2 (1), as SPIRE does.
    pub fn id(self) -> Vec<u8> {
        digest(&SHA1_FOR_LEGACY_USE_ONLY, self.key).as_ref().to_vec()
    }
}

impl<'a> From<&'a Spki> for SubjectKey<'a> {
    fn from(spki: &'a Spki) -> Self {
        Self::new(spki.as_der(), spki.key())
    }
}
