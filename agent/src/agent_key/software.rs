//! P-256 keys in this process: for workloads always, for the agent where no chip holds its key.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::{KeyError, WorkloadKey};

/// A P-256 key pair. Its PKCS#8 form is wiped when dropped and never shown by Debug.
pub struct SoftwareKey {
    pkcs8: WorkloadKey,
    pair: EcdsaKeyPair,
    spki: Vec<u8>,
}

impl SoftwareKey {
    /// A fresh P-256 key from the crypto library's random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let failed = |_| KeyError::Crypto("generate a P-256 key");
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
        let document = pair.to_pkcs8v1().map_err(failed)?;
        Ok(Self::of(pair, document.as_ref()))
    }

    /// A stored key; `None` if it is not PKCS#8 of a P-256 key.
    pub fn parse_pkcs8(der: &[u8]) -> Option<Self> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der).ok().map(|pair| Self::of(pair, der))
    }

    fn of(pair: EcdsaKeyPair, pkcs8_der: &[u8]) -> Self {
        let pkcs8 = WorkloadKey::new(Zeroizing::new(pkcs8_der.to_vec()));
        let mut key = Self { pkcs8, pair, spki: Vec::new() };
        key.spki = key.subject_public_key_info();
        key
    }

    /// The private key, DER PKCS#8.
    pub fn pkcs8(&self) -> &WorkloadKey {
        &self.pkcs8
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The bits of the public key, of which key identifiers are made: the uncompressed point.
    pub fn point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// DER ECDSA-Sig-Value over the SHA-256 of `message`.
    pub(super) fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_| KeyError::Crypto("sign"))?;
        Ok(signature.as_ref().to_vec())
    }

    /// The key as rustls uses it.
    pub fn tls_key(&self) -> Arc<dyn rustls::sign::SigningKey> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&self.pkcs8.pkcs8_der()[..]));
        rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der).expect("rustls uses the same library for the same key")
    }
}

impl fmt::Debug for SoftwareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftwareKey").finish_non_exhaustive()
    }
}

impl PublicKeyData for SoftwareKey {
    fn der_bytes(&self) -> &[u8] {
        self.point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for SoftwareKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.sign_message(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_key_is_the_same_key() {
        let key = SoftwareKey::generate().expect("key");
        let again = SoftwareKey::parse_pkcs8(key.pkcs8().pkcs8_der()).expect("parsed");
        assert_eq!(again.spki_der(), key.spki_der());
        assert!(ironroot_api::csr::Spki::parse(key.spki_der()).is_ok());
    }

    #[test]
    fn refuses_other_bytes_and_other_curves() {
        assert!(SoftwareKey::parse_pkcs8(b"no key").is_none());
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("key");
        assert!(SoftwareKey::parse_pkcs8(&p384.serialize_der()).is_none());
    }

    //= FLT-S21
    #[test]
    fn debug_shows_no_key_material() {
        assert_eq!(format!("{:?}", SoftwareKey::generate().expect("key")), "SoftwareKey { .. }");
    }
}
