//! Why no token is signed.

use ironroot_api::csr::CsrError;
use ironroot_api::utc;
use thiserror::Error;

/// Why no JWT-SVID, or no WIT-SVID, is signed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JwtError {
    /// The configuration says so.
    #[error("JWT functionality is disabled")]
    Disabled,
    /// The configuration does not ask for them. Source of the words: SPIRE.
    #[error("WIT functionality is disabled")]
    WitDisabled,
    /// There is none yet, or it is not in the token.
    #[error("no key that signs such tokens is at hand; see the errors before this one")]
    NoKey,
    /// The key's time is over.
    #[error(
        "this server's clock says {}, the key that signs such tokens was valid until {}: correct the clock if it is ahead, else look \
         for what kept the key from being replaced",
        utc(*now),
        utc(*not_after)
    )]
    KeyExpired {
        /// Its end, UNIX seconds.
        not_after: i64,
        /// The time, UNIX seconds.
        now: i64,
    },
    /// The clock went back to before the key began.
    #[error("this server's clock says {}, the key that signs such tokens is valid from {}: correct the clock", utc(*now), utc(*not_before))]
    ClockBehind {
        /// Its beginning, UNIX seconds.
        not_before: i64,
        /// The time, UNIX seconds.
        now: i64,
    },
    /// What the token says of the key is no public key.
    #[error("the public half of the key for tokens cannot be published; the token may be faulty")]
    Key(#[source] CsrError),
}
