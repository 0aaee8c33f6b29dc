//! Why a token is exchanged for nothing.

use std::sync::Arc;

use ironroot_api::SpiffeId;
use ironroot_api::jwt::JwtRefusal;
use ironroot_attest::Selector;
use thiserror::Error;

use super::judgement::{MAX_LIFETIME_SECONDS, MAX_TOLD};
use super::single_use::MAX_REMEMBERED;

/// One reason each. Until the issuer's signature is verified none of them says more than the caller said itself.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum TokenRefusal {
    /// It has not the form of an issuer's token, or none of its keys has signed it.
    #[error(transparent)]
    Token(#[from] JwtRefusal),
    #[error("tokens of issuer {0:?} are not taken here")]
    UnknownIssuer(String),
    #[error(
        "tokens of this issuer are signed by {allowed}, this one by {found}: algorithms in token_exchange says which are taken"
    )]
    Algorithm { found: &'static str, allowed: String },
    /// Nothing to verify it by: what was held is too old, too, if there was anything.
    #[error("the keys of issuer {0:?} are not known at this moment; the server's log says why")]
    NoKeys(String),
    /// They were fetched before this was asked: the issuer may have a new key since.
    #[error("the keys of issuer {issuer:?} were fetched just now, and {key_id:?} was not among them; try again")]
    LookedJustNow { issuer: String, key_id: String },
    /// Too many wait for an issuer's keys already.
    #[error("too many wait for the keys of issuer {0:?}; try again")]
    Busy(String),
    #[error("token has expired")]
    Expired,
    #[error("token is not valid yet (nbf)")]
    NotYet,
    #[error("token was issued in the future (iat)")]
    FromTheFuture,
    /// Whoever finds it could use it for too long.
    #[error("token lasts for another {0} s, more than {MAX_LIFETIME_SECONDS}")]
    LastsTooLong(i64),
    #[error("token is for {found:?}, not for this server: it must be for one of {expected:?}")]
    OtherAudience { expected: Arc<[String]>, found: Vec<String> },
    /// Whoever else it is for could show it here.
    #[error("token is for {0:?} besides: it must be for this server alone")]
    FurtherAudience(String),
    #[error("token does not say {0}, as each of this issuer's must")]
    MissingClaim(Selector),
    #[error("token was exchanged already: it is good once")]
    Used,
    /// Tokens that were exchanged and have not ended are held.
    #[error("no room for another token: of {MAX_REMEMBERED} that are remembered too few have ended; try again")]
    TooManyUsed,
    /// It is not known to be on disk that the token is used up.
    #[error("the data store takes no note of the token: nothing is issued for one that may be shown again")]
    NotNoted,
    #[error("no entry below {parent} is for a token that says {said}")]
    NoEntry {
        parent: SpiffeId,
        /// The subject, in the issuer's words.
        said: String,
    },
    #[error("the token may have none of the identities below {parent} called {wanted}")]
    NotThisOne { parent: SpiffeId, wanted: String },
    /// A stolen token would be an administrator's.
    #[error("{0} has rights at this server (admin, downstream): no token is exchanged for it")]
    Privileged(SpiffeId),
    #[error("the token may have several identities, name one as scope: {}", listed(.0))]
    Ambiguous(Vec<SpiffeId>),
}

fn listed(ids: &[SpiffeId]) -> String {
    let told: Vec<&str> = ids.iter().take(MAX_TOLD).map(SpiffeId::as_str).collect();
    let more = if ids.len() > MAX_TOLD { ", ..." } else { "" };
    format!("{}{more}", told.join(", "))
}
