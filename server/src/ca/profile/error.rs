//! Why a certificate cannot be composed.

use ironroot_api::certificate::CertificateError;
use ironroot_api::utc;
use thiserror::Error;

/// Why a certificate cannot be composed.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// The authority has expired.
    #[error(
        "this server's clock says {}, the CA certificate was valid until {}: correct the clock if it is ahead, else look for \
         what kept the CA from rotating",
        utc(*now),
        utc(*not_after)
    )]
    AuthorityExpired {
        /// Its notAfter, UNIX seconds.
        not_after: i64,
        /// The time, UNIX seconds.
        now: i64,
    },
    /// The clock went back to before the authority began.
    #[error("this server's clock says {}, the CA certificate is valid from {}: correct the clock", utc(*now), utc(*not_before))]
    ClockBehind {
        /// Its notBefore, UNIX seconds.
        not_before: i64,
        /// The time, UNIX seconds.
        now: i64,
    },
    /// The authority's own certificate does not parse.
    #[error("the CA certificate does not parse")]
    Authority(#[from] CertificateError),
    /// A value that DER cannot hold.
    #[error("a field cannot be encoded")]
    Encoding(#[from] der::Error),
}
