//! JWT-SVIDs: their bounds, their form, who signed them; and the keys of a trust domain that sign them.
//!
//! ```text
//!  text ─► UnverifiedJwtSvid (bounds, header, claims) ─► verify(authorities) ─► JwtSvid ─► for whom? until when?
//!  text ─► UnverifiedIdToken (of another issuer) ─► verify(IssuerKeys, which algorithms) ─► IdToken
//!  wire JWTKey ─► JwtAuthority ─► JwtAuthorities (one trust domain's) ─► JWKS
//!  JoseHeader, SvidClaims ─► signing_input ─► (whoever has the key) ─► compact ─► text
//! ```
//! Nothing here knows the time: it is an argument. Nothing costs asymmetric work before form and key are known to fit.
//! Source: JWT-SVID.md; RFC 7515, 7517, 7519.

mod algorithm;
mod audience;
mod authorities;
mod bounds;
mod claims;
mod compact;
mod es256;
mod holder;
mod id_token;
mod issuer_keys;
pub(crate) mod json;
mod jwk;
mod key_kind;
mod private_jwk;
mod public_key;
mod refusal;
mod svid_claims;
mod token;
mod wit;

pub use algorithm::Algorithm;
pub use audience::{AudienceRefusal, Audiences, MAX_AUDIENCE_BYTES, MAX_AUDIENCES, MAX_AUDIENCES_BYTES, check_room};
pub use authorities::{JwtAuthorities, JwtAuthority};
pub use bounds::{MAX_JWT_AUTHORITIES, MAX_KEY_ID_BYTES, MAX_TOKEN_BYTES};
pub use claims::LEEWAY;
pub use compact::{JoseHeader, compact, signing_input};
pub use es256::es256_signature;
pub use holder::{HolderKey, HolderKeyError};
pub use id_token::{IdToken, UnverifiedIdToken};
pub use issuer_keys::{IssuerKeys, JwksError, MAX_ISSUER_KEYS, MAX_JWKS_BYTES};
pub use json::MAX_DEPTH;
pub(crate) use jwk::spki_of_jwk;
pub use private_jwk::private_jwk;
pub(crate) use public_key::{Jwk, PublicKey};
pub use refusal::JwtRefusal;
pub use svid_claims::SvidClaims;
pub use token::{JwtSvid, UnverifiedJwtSvid};
pub use wit::WitSvid;
