//! Why a DevID, or the proof of it, is not accepted.

use thiserror::Error;

use super::MAX_CERTIFICATES;
use crate::authorities::words::plain;
use crate::ek_certificate::EkCertificateError;
use crate::node::Refusal;
use crate::structures::KeyError;

/// A reason to say no: the whole story in one clause.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TpmDevIdRefusal {
    /// Not the JSON of this protocol, or the chip's part of the evidence does not hold.
    #[error("{0}")]
    Tpm(Refusal),
    /// Nothing to attest with.
    #[error("the device sent no DevID certificate")]
    NoCertificate,
    /// More than are looked at.
    #[error("the device sent {0} DevID certificates, at most {MAX_CERTIFICATES} are accepted")]
    TooManyCertificates(usize),
    /// Not DER of RFC 5280.
    #[error("the DevID certificate is malformed")]
    Malformed,
    /// Its key is for something else.
    #[error("the DevID certificate is not for digital signatures")]
    KeyUsage,
    /// Neither RSA of 2048 to 4096 bits nor P-256 nor P-384.
    #[error("the key of the DevID certificate is not acceptable: {0}")]
    CertifiedKey(KeyError),
    /// No path to an authority that is configured.
    #[error("the DevID certificate is not acceptable: {}", plain(.0))]
    Untrusted(webpki::Error),
    /// The certificate is for another key than the one that is said to be in the chip (attack: a certificate for a key in a file,
    /// beside any key in a genuine chip).
    #[error("the DevID certificate is for another key than the DevID key in the TPM")]
    CertificateOfAnotherKey,
    /// It can leave its chip, was not made there, or signs nothing.
    #[error("the DevID key has attributes {attributes:#010x}: it is not a signing key made in and fixed to a TPM")]
    NotADevIdKey {
        /// TPMA_OBJECT.
        attributes: u32,
    },
    /// The protocol knows no other hash.
    #[error("the DevID key does not sign with SHA-256, which tpm_devid demands")]
    OtherHash,
    /// The device does not have the certificate's key.
    #[error("the signature of the nonce is not the DevID key's")]
    Possession,
}

impl From<Refusal> for TpmDevIdRefusal {
    fn from(refusal: Refusal) -> Self {
        Self::Tpm(refusal)
    }
}

impl From<EkCertificateError> for TpmDevIdRefusal {
    fn from(error: EkCertificateError) -> Self {
        Self::Tpm(error.into())
    }
}
