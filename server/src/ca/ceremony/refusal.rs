//! Why a ceremony stops.

use ironroot_api::certificate::CertificateError;
use ironroot_api::csr::CsrError;
use ironroot_api::utc;
use ironroot_hsm::KeyName;
use thiserror::Error;

/// Why a ceremony stops. Nothing was signed then.
#[derive(Debug, Error)]
pub enum CeremonyRefusal {
    /// Another token, or another name.
    #[error(
        "the token has no key with {0}: is it the root's token, and is that the name that the ceremony gave the key?"
    )]
    NoKey(KeyName),
    /// Another root's token.
    #[error(
        "wrong token: its key with {0} is not the one that the root's certificate is for; plug in the token of that root, or name the \
         certificate of this one"
    )]
    WrongToken(KeyName),
    /// There is one of that name.
    #[error(
        "the token has a key with {0} already: a root that exists is not made again; for the next root on the same token give -keyLabel another name"
    )]
    KeyExists(KeyName),
    /// It signs no CAs.
    #[error("the root's certificate is no CA's: {0}")]
    NoCa(&'static str),
    /// It is too late.
    #[error("the root ended at {}: nothing that it signs is accepted; the next root must sign", utc(*.0))]
    RootEnded(i64),
    /// It is too early, or the clock is wrong.
    #[error("this machine's clock says {}, and the root begins at {}: correct the clock", utc(*now), utc(*begins))]
    RootNotYet {
        /// What the clock says, UNIX seconds.
        now: i64,
        /// When the root begins, UNIX seconds.
        begins: i64,
    },
    /// Another trust domain's root.
    #[error("the root is that of {found}, and {wanted} is meant")]
    RootOfAnotherTrustDomain {
        /// What the certificate says.
        found: String,
        /// What it should say.
        wanted: String,
    },
    /// What is asked for is not to be read, or its own key has not signed it.
    #[error("the request is refused")]
    Request(#[from] CsrError),
    /// Another trust domain's server asks.
    #[error("the request is of {found}, and the root is that of {wanted}: it signs no CA of another trust domain")]
    RequestOfAnotherTrustDomain {
        /// Whom the request names.
        found: String,
        /// Whose root it is.
        wanted: String,
    },
    /// A certificate is damaged.
    #[error("a certificate cannot be read")]
    Certificate(#[from] CertificateError),
    /// No request is there.
    #[error("no request waits for the root in {0}: nothing is to be delivered now")]
    NothingWaits(String),
    /// It is for an older request, or another server's.
    #[error(
        "the certificate does not belong to the key that waits: its public key has SHA-256 {found}, the waiting one {waiting}; it is for an older \
         request or another server's: carry the request that waits to the ceremony"
    )]
    NotTheWaitingKey {
        /// Of the certificate, hexadecimal.
        found: String,
        /// Of the request, hexadecimal.
        waiting: String,
    },
    /// Too late.
    #[error("the certificate ended at {}", utc(*.0))]
    Ended(i64),
    /// Not of ours.
    #[error(
        "none of the roots in {0} has signed the certificate, nor what is delivered with it: add the root that did, or use another root"
    )]
    NotBelowTheRoots(String),
}
