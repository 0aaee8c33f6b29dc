//! Why a JWT-SVID is not believed.

use thiserror::Error;

use super::bounds::{MAX_KEY_ID_BYTES, MAX_TOKEN_BYTES};
use crate::{SpiffeIdError, TrustDomain};

/// One reason each. Where SPIRE has words for it, these are its words: scripts search for them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum JwtRefusal {
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("unable to parse JWT token: longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// Not three parts: another serialization, encrypted, or no JWT at all.
    #[error("unable to parse JWT token: compact JWS format must have three parts")]
    NotCompact,
    /// A part is not base64url without padding.
    #[error("unable to parse JWT token: the {0} is not base64url")]
    Encoding(&'static str),
    /// A part is not one JSON object whose names are unique.
    #[error("unable to parse JWT token: the {part} is no JSON object that is taken: {why}")]
    Json {
        /// The header or the claims.
        part: &'static str,
        why: String,
    },
    /// `alg` is missing, not a text, or none of the nine.
    #[error(
        "unable to parse JWT token: unexpected signature algorithm {0:?}; expected ES, RS or PS with 256, 384 or 512"
    )]
    Algorithm(String),
    /// `typ` is there and says something else.
    #[error("unable to parse JWT token: token type is {0:?}, neither \"JWT\" nor \"JOSE\"")]
    Type(String),
    /// `crit` is there: it demands what is not understood here.
    #[error("unable to parse JWT token: unsupported critical header")]
    Critical,
    /// `kid` is missing, empty, not a text, or longer than [`MAX_KEY_ID_BYTES`].
    #[error("token header missing key id, which is a text of 1 to {MAX_KEY_ID_BYTES} bytes")]
    KeyId,
    /// `sub` is missing or not a text.
    #[error("token missing subject claim")]
    NoSubject,
    /// `sub` is no SPIFFE ID.
    #[error("token has in invalid subject claim: {0}")]
    Subject(SpiffeIdError),
    /// `exp` is missing.
    #[error("token missing exp claim")]
    NoExpiry,
    /// A date is not a number of seconds from 1970 to the year 9999.
    #[error("token has an invalid {0} claim: not a number of seconds between 1970 and the year 9999")]
    Date(&'static str),
    /// `aud` is neither a text nor a list of texts.
    #[error("token has an invalid aud claim: neither a text nor a list of texts")]
    Audience,
    /// No keys of the subject's trust domain are known.
    #[error("no keys found for trust domain \"{0}\"")]
    NoKeys(TrustDomain),
    /// None of its keys has this ID.
    #[error("public key {key_id:?} not found in trust domain \"{trust_domain}\"")]
    UnknownKey { key_id: String, trust_domain: TrustDomain },
    /// None of an issuer's keys has this ID.
    #[error("the issuer has no key {0:?}")]
    UnknownIssuerKey(String),
    /// `iss` is missing or not a text.
    #[error("token missing issuer claim")]
    NoIssuer,
    /// The key is not one that the algorithm goes with.
    #[error("token's signature algorithm does not go with its key")]
    OtherKey,
    /// The key has not signed this.
    #[error("token's signature does not verify")]
    Signature,
    /// It is past its end.
    #[error("token has expired")]
    Expired,
    /// It does not hold yet.
    #[error("token is not valid yet (nbf)")]
    NotYet,
    /// It says that it will be made.
    #[error("token was issued in the future (iat)")]
    FromTheFuture,
    /// It is for somebody else.
    #[error("expected audience in {expected:?} (audience={found:?})")]
    OtherAudience {
        expected: [String; 1],
        /// For whom it is.
        found: Vec<String>,
    },
}
