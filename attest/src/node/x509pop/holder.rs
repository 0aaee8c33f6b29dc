//! The device's side: a certificate, and its key here or elsewhere.

use aws_lc_rs::digest::{Digest, SHA256, SHA256_OUTPUT_LEN, SHA384, SHA384_OUTPUT_LEN, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA256_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair, RSA_PSS_SHA256, RsaKeyPair, Signature,
};
use rustls_pki_types::PrivateKeyDer;
use thiserror::Error;

use super::MAX_CERTIFICATES;
use super::NONCE_BYTES;
use super::certificate::DeviceCertificate;
use super::messages::{Challenge, Evidence, Response};
use super::proof_key::{Algorithm, Curve, ProofKey};
use super::refusal::X509PopRefusal;

/// Why a device cannot attest with its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HolderError {
    /// No certificate, or one that no server would take.
    #[error("{0}")]
    Certificate(#[from] X509PopRefusal),
    /// Damaged, or of another kind than the certificate's.
    #[error("the private key cannot be used, or is of another kind than the certificate's")]
    Key,
    /// A mix-up of files or objects.
    #[error("the private key is not that of the certificate")]
    OtherKey,
    /// The library did not sign.
    #[error("the private key did not sign")]
    Signing,
}

/// What a device shows: its certificate, whose key is kept elsewhere, in a token or a chip.
#[derive(Clone, Debug)]
pub struct Shown {
    evidence: Evidence,
    key: ProofKey,
}

/// A challenge, with what the certificate's key is to sign: [`digest`](Self::digest).
#[derive(Clone, Debug)]
pub struct Question {
    key: ProofKey,
    nonce: [u8; NONCE_BYTES],
    own: [u8; NONCE_BYTES],
}

/// A signature as the place of the key makes it, over the SHA-256 digest of a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    /// ECDSA: r, then s, both of one length, big-endian.
    Ecdsa(Vec<u8>),
    /// RSASSA-PSS with SHA-256, whatever the salt's length.
    RsaPss(Vec<u8>),
}

/// The kind of a certificate's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the standard's words")]
pub enum ShownKey {
    P256,
    P384,
    P521,
    /// Length of the modulus, bits.
    Rsa(usize),
}

/// A certificate with its key, which never leaves it.
pub struct Holder {
    shown: Shown,
    key: HolderKey,
}

enum HolderKey {
    Rsa(Box<RsaKeyPair>),
    Ecdsa(EcdsaKeyPair),
}

impl Shown {
    /// `certificates`: the device's, then intermediates in any order, DER.
    pub fn new(certificates: Vec<Vec<u8>>) -> Result<Self, HolderError> {
        if certificates.len() > MAX_CERTIFICATES {
            let (sent, most) = (certificates.len(), MAX_CERTIFICATES);
            return Err(X509PopRefusal::TooManyCertificates { sent, most }.into());
        }
        let leaf = DeviceCertificate::parse(certificates.first().ok_or(X509PopRefusal::NoCertificate)?)?;
        Ok(Self { evidence: Evidence { certificates }, key: leaf.key })
    }

    /// The first message, JSON.
    pub fn evidence(&self) -> Vec<u8> {
        self.evidence.to_json()
    }

    /// What kind of key the certificate has.
    pub fn key(&self) -> ShownKey {
        match self.key.algorithm {
            Algorithm::Ecdsa(Curve::P256) => ShownKey::P256,
            Algorithm::Ecdsa(Curve::P384) => ShownKey::P384,
            Algorithm::Ecdsa(Curve::P521) => ShownKey::P521,
            Algorithm::Rsa => ShownKey::Rsa(self.key.rsa_bits()),
        }
    }

    /// Reads a challenge, JSON. `nonce`: fresh from a cryptographic random source, used once.
    pub fn question(&self, challenge: &[u8], nonce: [u8; NONCE_BYTES]) -> Result<Question, HolderError> {
        let asked = Challenge::from_json(challenge, self.key.family())?;
        Ok(Question { key: self.key.clone(), nonce: asked.nonce, own: nonce })
    }

    /// A question that no server has asked, to see whether a key is the certificate's.
    pub fn trial(&self, nonce: [u8; NONCE_BYTES]) -> Question {
        Question { key: self.key.clone(), nonce: [0; NONCE_BYTES], own: nonce }
    }
}

impl Question {
    /// The SHA-256 digest to sign.
    pub fn digest(&self) -> [u8; 32] {
        digest(&SHA256, &self.message()).as_ref().try_into().expect("SHA-256 gives 32 bytes")
    }

    /// The answer, JSON; refused if it is not by the certificate's key, which would tell the server nothing better.
    pub fn answer(&self, signed: Signed) -> Result<Vec<u8>, HolderError> {
        let response = match signed {
            Signed::RsaPss(signature) => Response::Rsa { nonce: self.own, signature },
            Signed::Ecdsa(both) => {
                let (r, s) = both.split_at(both.len() / 2);
                Response::Ecdsa { nonce: self.own, r: r.to_vec(), s: s.to_vec() }
            }
        };
        self.key.check(&self.nonce, &response).map_err(|_| HolderError::OtherKey)?;
        Ok(response.to_json())
    }

    fn message(&self) -> [u8; 2 * NONCE_BYTES] {
        let mut message = [0; 2 * NONCE_BYTES];
        message[..NONCE_BYTES].copy_from_slice(&self.nonce);
        message[NONCE_BYTES..].copy_from_slice(&self.own);
        message
    }
}

impl Holder {
    /// `certificates`: the device's, then intermediates in any order, DER. `key`: that of the first.
    pub fn new(certificates: Vec<Vec<u8>>, key: &PrivateKeyDer<'_>) -> Result<Self, HolderError> {
        let shown = Shown::new(certificates)?;
        let key = HolderKey::read(key, &shown.key)?;
        if key.public_bits() != shown.key.bits {
            return Err(HolderError::OtherKey);
        }
        Ok(Self { shown, key })
    }

    /// The first message, JSON.
    pub fn evidence(&self) -> Vec<u8> {
        self.shown.evidence()
    }

    /// The answer to `challenge`, both JSON. `nonce`: fresh from a cryptographic random source, used once.
    pub fn respond(&self, challenge: &[u8], nonce: [u8; NONCE_BYTES]) -> Result<Vec<u8>, HolderError> {
        let question = self.shown.question(challenge, nonce)?;
        question.answer(self.key.sign(&question.message()).map_err(|_| HolderError::Signing)?)
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
            Algorithm::Ecdsa(Curve::P384) => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::Ecdsa(Curve::P521) => ecdsa(&ECDSA_P521_SHA256_FIXED_SIGNING),
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

    fn public_bits(&self) -> &[u8] {
        match self {
            Self::Rsa(key) => key.public_key().as_ref(),
            Self::Ecdsa(key) => key.public_key().as_ref(),
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Signed, aws_lc_rs::error::Unspecified> {
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message, &mut signature)?;
                Ok(Signed::RsaPss(signature))
            }
            Self::Ecdsa(key) => Ok(Signed::Ecdsa(sign_sha256(key, message)?.as_ref().to_vec())),
        }
    }
}

/// ECDSA with SHA-256, on whatever curve. For P-384 the library has no such name, but its verifiers and everybody else's know it:
/// the digest is a number, so the 256 bits are given as the last of 384 whose first are zero. Source: FIPS 186-5 §6.4.1.
fn sign_sha256(key: &EcdsaKeyPair, message: &[u8]) -> Result<Signature, aws_lc_rs::error::Unspecified> {
    if *key.algorithm() != ECDSA_P384_SHA384_FIXED_SIGNING {
        return key.sign(&SystemRandom::new(), message);
    }
    let mut number = [0; SHA384_OUTPUT_LEN];
    number[SHA384_OUTPUT_LEN - SHA256_OUTPUT_LEN..].copy_from_slice(digest(&SHA256, message).as_ref());
    key.sign_digest(&Digest::import_less_safe(&number, &SHA384)?)
}
