//! Why a host is not attested.

use thiserror::Error;

use super::wire::Damaged;
use crate::node::Refusal;

/// Why a message is refused, or what it shows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SshPopRefusal {
    /// It is no such message.
    #[error(transparent)]
    Message(#[from] Refusal),
    /// What should be a key, a certificate or a signature is none.
    #[error("the SSH certificate, key or signature cannot be read: {0}")]
    Damaged(#[from] Damaged),
    /// It is a key without a certificate, or something else.
    #[error("pubkey in response is not a certificate")]
    NoCertificate,
    /// Of a kind that nothing is verified with here.
    #[error("keys of type {0:?} are not taken: use ssh-ed25519, ecdsa-sha2-nistp256, -nistp384, -nistp521 or ssh-rsa")]
    KeyKind(String),
    /// Numbers that are no key, or an RSA key of fewer than 2048 or more than 8192 bits.
    #[error("the key is none of its type, or an RSA key of fewer than 2048 or more than 8192 bits")]
    Key,
    /// It is a user's.
    #[error("it is no certificate of a host")]
    NotAHost,
    /// Nobody knows who signed it.
    #[error("its authority is none of cert_authorities")]
    UnknownAuthority,
    /// It names nobody.
    #[error("cert has no valid principals")]
    NoPrincipal,
    /// It names too many.
    #[error("it has too many principals")]
    TooManyPrincipals,
    /// It says that whoever does not understand it must not take it.
    #[error("it has critical options, and none is known for hosts")]
    CriticalOption,
    /// Its time is over, or has not come.
    #[error("it has ended, or is not valid yet")]
    Ended,
    /// Another made that, or nobody.
    #[error("its authority did not sign it")]
    CertificateSignature,
    /// A kind of signature that is not taken there: of another key, or by SHA-1.
    #[error("a signature by {0:?} is not taken there")]
    Algorithm(String),
    /// The device does not have the key.
    #[error("failed to verify signature: it is not by the certificate's key over the nonces")]
    Signature,
    /// The answer came after this many seconds, or before the challenge by the clock.
    #[error("the answer came {0} s after the challenge")]
    Late(i64),
}

impl SshPopRefusal {
    pub(super) fn algorithm(name: &str) -> Self {
        Self::Algorithm(name.chars().take(64).collect())
    }

    /// Whether the message can never be right.
    pub fn is_of_the_message(&self) -> bool {
        match self {
            Self::Message(_) | Self::Damaged(_) | Self::NoCertificate | Self::KeyKind(_) | Self::Key => true,
            Self::TooManyPrincipals | Self::Algorithm(_) => true,
            Self::NotAHost
            | Self::UnknownAuthority
            | Self::NoPrincipal
            | Self::CriticalOption
            | Self::Ended
            | Self::CertificateSignature
            | Self::Signature
            | Self::Late(_) => false,
        }
    }
}
