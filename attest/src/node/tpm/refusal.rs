//! Why such a TPM, or the proof of it, is not accepted.

use thiserror::Error;

use crate::ek_certificate::EkCertificateError;
use crate::node::Refusal;
use crate::structures::KeyError;

/// A reason to say no: the whole story in one clause.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TpmRefusal {
    /// Not the JSON of this protocol, or the chip's part of the evidence does not hold.
    #[error("{0}")]
    Tpm(Refusal),
    /// Not one or two PEM sections: a certificate, a public key.
    #[error("the endorsement key is not PEM of a public key, and of its certificate if there is one")]
    Pem,
    /// The plugin's agents always send it.
    #[error("the device sent no public endorsement key")]
    NoKey,
    /// A key that no endorsement key is.
    #[error("the endorsement key is not acceptable: {0}")]
    Key(KeyError),
    /// A TPM 1.2, or an agent that asks for its form of credential.
    #[error("the attestation key is to be activated as in TPM 1.2, which is not supported")]
    Tpm12,
    /// The TPM's word on how the attestation key was made is about other data.
    #[error("the creation data are not those of the attestation key")]
    CreationData,
    /// Its hash is in no list, and no maker's certificate vouches for it.
    #[error(
        "endorsement key {ek_sha256} is not known: put a file of that name into hash_path, import the device, \
         or name its maker's CAs in ca_path{}", .certificate.as_ref().map(|error| format!(" ({error})")).unwrap_or_default()
    )]
    Unknown {
        /// SHA-256 of the key's SubjectPublicKeyInfo, hex.
        ek_sha256: String,
        /// What is wrong with the certificate, if one was looked at.
        certificate: Option<EkCertificateError>,
    },
}

impl From<Refusal> for TpmRefusal {
    fn from(refusal: Refusal) -> Self {
        Self::Tpm(refusal)
    }
}
