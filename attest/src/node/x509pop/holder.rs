//! The device's side: a certificate with its key.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P521_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
    RSA_PSS_SHA256, RsaKeyPair,
};
use rustls_pki_types::PrivateKeyDer;
use thiserror::Error;

use super::certificate::DeviceCertificate;
use super::family::Family;
use super::messages::{Challenge, Evidence, Response};
use super::proof_key::{Algorithm, Curve, ProofKey};
use super::refusal::X509PopRefusal;
use super::{MAX_CERTIFICATES, NONCE_BYTES};

/// Why a device cannot attest with its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HolderError {
    /// No certificate, or one that no server would take.
    #[error("{0}")]
    Certificate(#[from] X509PopRefusal),
    /// The library that signs does not do SHA-256 on this curve, which the protocol demands.
    #[error("the key is on P-384, with which this agent cannot sign for x509pop: use P-256, P-521 or RSA")]
    Curve,
    /// Damaged, or of another kind than the certificate's.
    #[error("the private key cannot be used, or is of another kind than the certificate's")]
    Key,
    /// A mix-up of files.
    #[error("the private key is not that of the certificate")]
    OtherKey,
    /// The library did not sign.
    #[error("the private key did not sign")]
    Signing,
}

/// A certificate with its key, which never leaves it.
pub struct Holder {
    evidence: Evidence,
    key: HolderKey,
}

enum HolderKey {
    Rsa(Box<RsaKeyPair>),
    Ecdsa(EcdsaKeyPair),
}

impl Holder {
    /// `certificates`: the device's, then intermediates in any order, DER. `key`: that of the first.
    pub fn new(certificates: Vec<Vec<u8>>, key: &PrivateKeyDer<'_>) -> Result<Self, HolderError> {
        if certificates.len() > MAX_CERTIFICATES {
            return Err(X509PopRefusal::TooManyCertificates(certificates.len()).into());
        }
        let leaf = DeviceCertificate::parse(certificates.first().ok_or(X509PopRefusal::NoCertificate)?)?;
        let key = HolderKey::read(key, &leaf.key)?;
        if key.public_bits() != leaf.key.bits {
            return Err(HolderError::OtherKey);
        }
        Ok(Self { evidence: Evidence { certificates }, key })
    }

    /// The first message, JSON.
    pub fn evidence(&self) -> Vec<u8> {
        self.evidence.to_json()
    }

    /// The answer to `challenge`, both JSON. `nonce`: fresh from a cryptographic random source, used once.
    pub fn respond(&self, challenge: &[u8], nonce: [u8; NONCE_BYTES]) -> Result<Vec<u8>, HolderError> {
        let asked = Challenge::from_json(challenge, self.key.family())?;
        let signed = [asked.nonce, nonce].concat();
        Ok(self.key.sign(&signed, nonce).map_err(|_| HolderError::Signing)?.to_json())
    }
}

impl HolderKey {
    fn read(key: &PrivateKeyDer<'_>, public: &ProofKey) -> Result<Self, HolderError> {
        let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm| {
            EcdsaKeyPair::from_private_key_der(algorithm, key.secret_der())
                .map(Self::Ecdsa)
                .map_err(|_| HolderError::Key)
        };
        match public.algorithm {
            Algorithm::Ecdsa(Curve::P256) => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::Ecdsa(Curve::P521) => ecdsa(&ECDSA_P521_SHA256_FIXED_SIGNING),
            Algorithm::Ecdsa(Curve::P384) => Err(HolderError::Curve),
            Algorithm::Rsa => {
                let pair = match key {
                    PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
                    PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
                    _ => return Err(HolderError::Key),
                };
                pair.map(|pair| Self::Rsa(Box::new(pair))).map_err(|_| HolderError::Key)
            }
        }
    }

    fn family(&self) -> Family {
        match self {
            Self::Rsa(_) => Family::Rsa,
            Self::Ecdsa(_) => Family::Ecdsa,
        }
    }

    fn public_bits(&self) -> &[u8] {
        match self {
            Self::Rsa(key) => key.public_key().as_ref(),
            Self::Ecdsa(key) => key.public_key().as_ref(),
        }
    }

    fn sign(&self, message: &[u8], nonce: [u8; NONCE_BYTES]) -> Result<Response, aws_lc_rs::error::Unspecified> {
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message, &mut signature)?;
                Ok(Response::Rsa { nonce, signature })
            }
            Self::Ecdsa(key) => {
                let signature = key.sign(&SystemRandom::new(), message)?;
                let (r, s) = signature.as_ref().split_at(signature.as_ref().len() / 2);
                Ok(Response::Ecdsa { nonce, r: r.to_vec(), s: s.to_vec() })
            }
        }
    }
}
