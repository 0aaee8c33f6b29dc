//! Why a certificate, or the proof of its key, is not accepted.

use thiserror::Error;

use crate::authorities::words::plain;
use crate::node::Refusal;

/// A reason to say no: the whole story in one clause.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum X509PopRefusal {
    /// Not the JSON of this protocol, or over a cap.
    #[error("{0}")]
    Message(Refusal),
    /// Nothing to attest with.
    #[error("the device sent no certificate")]
    NoCertificate,
    /// More than are looked at.
    #[error("the device sent {sent} certificates, at most {most} are accepted")]
    #[expect(missing_docs, reason = "the message names the fields")]
    TooManyCertificates { sent: usize, most: usize },
    /// A key that costs more than a stranger may.
    #[error("a certificate has an RSA key of {bits} bits, at most {most} are accepted")]
    #[expect(missing_docs, reason = "the message names the fields")]
    KeySize { bits: usize, most: usize },
    /// Not DER of RFC 5280.
    #[error("the device's certificate is malformed")]
    Malformed,
    /// One of those behind it is not. Counted from 1.
    #[error("intermediate certificate {0} is malformed")]
    Intermediate(usize),
    /// No path to an authority that is configured.
    #[error("the device's certificate is not acceptable: {}", plain(.0))]
    Untrusted(webpki::Error),
    /// Its key is for something else.
    #[error("the device's certificate is not for digital signatures")]
    KeyUsage,
    /// Neither RSA of 2048 to 8192 bits nor a NIST curve.
    #[error("the key of the device's certificate is not RSA of 2048 to 8192 bits, P-256, P-384 or P-521")]
    Key,
    /// The answer is for a key of another kind than the certificate's.
    #[error("the answer is not of the kind that was asked for")]
    OtherFamily,
    /// The challenge is for a key of another kind than the certificate's.
    #[error("the challenge is not for the kind of key that the device's certificate has")]
    OtherChallenge,
    /// The answer came too late, or the clock of the server went back.
    #[error("the answer came {0} s after the challenge")]
    Late(i64),
    /// The device does not have the certificate's key.
    #[error("the signature is not by the key of the device's certificate")]
    Signature,
}

impl From<Refusal> for X509PopRefusal {
    fn from(refusal: Refusal) -> Self {
        Self::Message(refusal)
    }
}
