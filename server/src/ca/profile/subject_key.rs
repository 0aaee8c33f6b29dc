//! The key that a certificate is for.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use ironroot_api::csr::Spki;

use crate::keys::Key;

/// A public key to certify. It was parsed where it came from and is not parsed again.
#[derive(Clone, Copy)]
pub(in crate::ca) struct SubjectKey<'a> {
    /// DER SubjectPublicKeyInfo.
    pub(super) spki_der: &'a [u8],
    /// Its subjectPublicKey.
    key: &'a [u8],
}

impl<'a> SubjectKey<'a> {
    /// DER SubjectPublicKeyInfo.
    pub(in crate::ca) fn spki_der(self) -> &'a [u8] {
        self.spki_der
    }

    /// SHA-1 over the bits of the public key: a name, not a proof. Source: RFC 5280 §4.2.1.2 (1), as SPIRE does.
    pub(super) fn id(self) -> Vec<u8> {
        digest(&SHA1_FOR_LEGACY_USE_ONLY, self.key).as_ref().to_vec()
    }
}

impl<'a> From<&'a Spki> for SubjectKey<'a> {
    fn from(spki: &'a Spki) -> Self {
        Self { spki_der: spki.as_der(), key: spki.key() }
    }
}

impl<'a> From<&'a Key> for SubjectKey<'a> {
    fn from(key: &'a Key) -> Self {
        Self { spki_der: key.spki_der(), key: key.public_key() }
    }
}
