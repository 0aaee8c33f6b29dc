//! Keys in this process: for workloads always, for the agent, on P-256, where no chip holds its key.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
    RSA_PKCS1_SHA256, RsaKeyPair,
};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::{KeyError, WorkloadKey, WorkloadKeyKind};

/// A key pair. Its PKCS#8 form is wiped when dropped and never shown by Debug.
pub struct SoftwareKey {
    pkcs8: WorkloadKey,
    pair: Pair,
    spki: Vec<u8>,
}

enum Pair {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl SoftwareKey {
    /// A fresh P-256 key from the crypto library's random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        Self::generate_of(WorkloadKeyKind::EcP256)
    }

    /// A fresh key of that kind, likewise. One of RSA takes a tenth of a second, or some: not for a thread that serves.
    pub fn generate_of(kind: WorkloadKeyKind) -> Result<Self, KeyError> {
        let ec = |algorithm: &'static EcdsaSigningAlgorithm| {
            let pair = EcdsaKeyPair::generate(algorithm)?;
            let document = pair.to_pkcs8v1()?;
            Ok((pair, Zeroizing::new(document.as_ref().to_vec())))
        };
        let made = match kind {
            WorkloadKeyKind::EcP256 => ec(&ECDSA_P256_SHA256_ASN1_SIGNING).map(|(pair, der)| (Pair::P256(pair), der)),
            WorkloadKeyKind::EcP384 => ec(&ECDSA_P384_SHA384_ASN1_SIGNING).map(|(pair, der)| (Pair::P384(pair), der)),
            WorkloadKeyKind::Rsa2048 => RsaKeyPair::generate(KeySize::Rsa2048).and_then(|pair| {
                let document: Pkcs8V1Der<'_> = pair.as_der()?;
                let der = Zeroizing::new(document.as_ref().to_vec());
                Ok((Pair::Rsa(pair), der))
            }),
        };
        let (pair, der) = made.map_err(|_| KeyError::Crypto("generate a key"))?;
        Ok(Self::of(pair, der))
    }

    /// A stored key; `None` if it is not PKCS#8 of a P-256 key.
    pub fn parse_pkcs8(der: &[u8]) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der).ok()?;
        Some(Self::of(Pair::P256(pair), Zeroizing::new(der.to_vec())))
    }

    fn of(pair: Pair, pkcs8_der: Zeroizing<Vec<u8>>) -> Self {
        let pkcs8 = WorkloadKey::new(pkcs8_der);
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

    /// The bits of the public key, of which key identifiers are made: the uncompressed point, or a DER RSAPublicKey.
    pub fn public_key(&self) -> &[u8] {
        match &self.pair {
            Pair::P256(pair) | Pair::P384(pair) => pair.public_key().as_ref(),
            Pair::Rsa(pair) => pair.public_key().as_ref(),
        }
    }

    /// A signature over `message` by the digest that goes with the key. On P-256: a DER ECDSA-Sig-Value over its SHA-256.
    pub(super) fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let (random, failed) = (SystemRandom::new(), |_| KeyError::Crypto("sign"));
        match &self.pair {
            Pair::P256(pair) | Pair::P384(pair) => Ok(pair.sign(&random, message).map_err(failed)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }

    /// The key as rustls uses it.
    pub fn tls_key(&self) -> Arc<dyn rustls::sign::SigningKey> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&self.pkcs8.pkcs8_der()[..]));
        rustls::crypto::aws_lc_rs::sign::any_supported_type(&der)
            .expect("rustls uses the same library for the same key")
    }
}

impl fmt::Debug for SoftwareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftwareKey").finish_non_exhaustive()
    }
}

impl PublicKeyData for SoftwareKey {
    fn der_bytes(&self) -> &[u8] {
        self.public_key()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.pair {
            Pair::P256(_) => &PKCS_ECDSA_P256_SHA256,
            Pair::P384(_) => &PKCS_ECDSA_P384_SHA384,
            Pair::Rsa(_) => &PKCS_RSA_SHA256,
        }
    }
}

impl rcgen::SigningKey for SoftwareKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.sign_message(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::csr;

    use super::super::certificate_request;
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

    #[test]
    fn keys_of_each_kind_that_workloads_may_have_prove_themselves_and_are_told_again_by_their_private_half() {
        for (kind, expected) in [
            (WorkloadKeyKind::EcP256, csr::KeyKind::EcP256),
            (WorkloadKeyKind::EcP384, csr::KeyKind::EcP384),
            (WorkloadKeyKind::Rsa2048, csr::KeyKind::Rsa),
        ] {
            let key = SoftwareKey::generate_of(kind).expect("key");
            let request = csr::Csr::parse(&certificate_request(&key).expect("request")).expect("accepted");
            assert_eq!((request.spki().as_der(), request.spki().kind()), (key.spki_der(), expected));
            assert_eq!(request.spki().key(), key.public_key());
            assert_eq!(request.spki().modulus_bits(), (kind == WorkloadKeyKind::Rsa2048).then_some(2048));
            assert_eq!(key.pkcs8().spki_der().as_deref(), Some(key.spki_der()), "as one that was kept is known");
            assert_eq!(key.tls_key().public_key().as_deref(), Some(key.spki_der()));
            assert_eq!(SoftwareKey::parse_pkcs8(key.pkcs8().pkcs8_der()).is_some(), kind == WorkloadKeyKind::EcP256);
        }
    }

    //= FLT-S21
    #[test]
    fn debug_shows_no_key_material() {
        assert_eq!(format!("{:?}", SoftwareKey::generate().expect("key")), "SoftwareKey { .. }");
    }
}
