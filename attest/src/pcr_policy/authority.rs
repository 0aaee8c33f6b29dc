//! The operator's key, as a device has it.

use std::fmt;

use ironroot_text::hex::hex;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;

use super::digest::sha256;
use crate::structures::{Curve, KeyError, Name, PublicKey};

/// Why a text is not the operator's public key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthorityError {
    /// The one thing that must not be there.
    #[error(
        "it holds a private key, which must not be on a device: write its public half with openssl pkey -in KEY -pubout, and take this one away"
    )]
    Private,
    /// No PUBLIC KEY.
    #[error("it holds no public key in PEM (-----BEGIN PUBLIC KEY-----), as openssl pkey -pubout writes it")]
    Pem,
    /// Not one that a TPM could verify with.
    #[error("the key is not usable: {0}")]
    Key(#[from] KeyError),
    /// A curve that policies are not signed on.
    #[error("the key is on P-384: use P-256 or RSA, which every TPM verifies with SHA-256")]
    Curve,
}

/// The public half of the key that signs which states may have booted: P-256, or RSA of 2048 to 4096 bits.
#[derive(Clone, PartialEq, Eq)]
pub struct PolicyAuthority {
    key: PublicKey,
}

impl PolicyAuthority {
    /// From PEM with one SubjectPublicKeyInfo.
    pub fn from_pem(text: &str) -> Result<Self, AuthorityError> {
        if text.contains("PRIVATE KEY-----") {
            return Err(AuthorityError::Private);
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).map_err(|_| AuthorityError::Pem)?;
        Self::from_spki_der(&der)
    }

    /// From a DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
    pub fn from_spki_der(der: &[u8]) -> Result<Self, AuthorityError> {
        let key = PublicKey::from_spki_der(der)?;
        if key.curve() == Some(Curve::P384) { Err(AuthorityError::Curve) } else { Ok(Self { key }) }
    }

    /// What tells it from others: SHA-256 of its SubjectPublicKeyInfo, as `openssl pkey -pubout -outform der | sha256sum` prints.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&[&self.key.to_spki_der()])
    }

    /// TPMT_PUBLIC under which a TPM loads it.
    pub fn public_area(&self) -> Vec<u8> {
        self.key.verifying_area()
    }

    /// What a TPM calls it then.
    pub fn name(&self) -> Name {
        Name::of_verifying_area(&self.public_area())
    }

    /// Whether this key made `signature` over `message`: PKCS #1 v1.5 or ECDSA (DER), with SHA-256.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.signed_with_sha256(message, signature)
    }

    /// `signature`, which was verified, as TPMT_SIGNATURE.
    pub(super) fn tpm_signature(&self, signature: &[u8]) -> Option<Vec<u8>> {
        self.key.tpm_signature_of(signature)
    }
}

impl fmt::Debug for PolicyAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyAuthority({})", hex(&self.fingerprint()))
    }
}
