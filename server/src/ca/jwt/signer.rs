//! A key in the token that signs JWT-SVIDs, or WIT-SVIDs.

use std::fmt;

use ironroot_api::jwt::{JoseHeader, compact, signing_input};
use ironroot_hsm::Urgency;
use serde::Serialize;

use super::error::JwtError;
use crate::ca::CaError;
use crate::ca::journal::{Authority, Credential, JwtKey};
use crate::ca::lint::Verifier;
use crate::ca::profile::NOT_BEFORE_CUSHION;
use crate::ca::sampling::{Sampling, Scrutiny};
use crate::keys::Key;

/// What a token says, and for how long.
pub(in crate::ca) trait Lasting: Serialize {
    /// When it begins and when it ends, UNIX seconds.
    fn times(&self) -> (i64, i64);
    /// The same, ending with the key that signs it at the latest, UNIX seconds.
    fn ending_by(self, not_after_unix: i64) -> Self;
}

/// A signed token. Whoever holds a JWT-SVID is taken for its subject, so it is printed nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// JWS Compact Serialization.
    pub token: String,
    /// UNIX seconds.
    pub issued_at_unix: i64,
    /// UNIX seconds.
    pub expires_at_unix: i64,
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuedToken(until {})", self.expires_at_unix)
    }
}

/// An authority for tokens with its key at hand.
pub(in crate::ca) struct TokenSigner {
    key: Key,
    credential: Credential,
    header: JoseHeader,
    /// UNIX seconds.
    not_before: i64,
    not_after: i64,
    verifier: Verifier,
    sampling: Sampling,
}

impl TokenSigner {
    /// `key` is the one that `authority`, whose published half this is, has in the token.
    pub(in crate::ca) fn new(key: Key, authority: &Authority, published: &JwtKey) -> Result<Self, CaError> {
        let (algorithm, verifier) = Verifier::of_jws(&key)?;
        Ok(Self {
            verifier,
            header: JoseHeader::new(algorithm, published.key_id().as_str(), form(&authority.credential)),
            key,
            credential: authority.credential.clone(),
            not_before: authority.issued_at.saturating_sub(NOT_BEFORE_CUSHION),
            not_after: authority.not_after,
            sampling: Sampling::default(),
        })
    }

    /// Whether it is this authority.
    pub(in crate::ca) fn is_of(&self, authority: &Authority) -> bool {
        self.credential == authority.credential
    }

    /// Refuses to sign outside the authority's own time.
    pub(in crate::ca) fn check(&self, now: i64) -> Result<(), JwtError> {
        if self.not_after <= now {
            return Err(JwtError::KeyExpired { not_after: self.not_after, now });
        }
        if now < self.not_before {
            return Err(JwtError::ClockBehind { not_before: self.not_before, now });
        }
        Ok(())
    }

    /// Signs, and now and then verifies what the token has signed.
    pub(in crate::ca) async fn sign(&self, claims: impl Lasting) -> Result<IssuedToken, CaError> {
        self.check(claims.times().0)?;
        let claims = claims.ending_by(self.not_after);
        let (issued_at_unix, expires_at_unix) = claims.times();
        let input = signing_input(&self.header, &claims);
        // As X509-SVIDs: what lives shortest runs out first.
        let urgency = Urgency::by(issued_at_unix.midpoint(expires_at_unix));
        let signature = self.key.sign_message(input.as_bytes(), urgency).await?;
        if self.sampling.is_verified(Scrutiny::Sampled) {
            let verified = self.verifier.verify(input.as_bytes(), &signature);
            verified.inspect_err(|_| self.sampling.distrust())?;
        }
        let token = compact(&input, &signature);
        Ok(IssuedToken { token, issued_at_unix, expires_at_unix })
    }
}

/// The `typ` of tokens that are verified with that.
//= JWT-04 JWT-SVID 2.3: "its value MUST be either `JWT` or `JOSE`"
fn form(credential: &Credential) -> &'static str {
    match credential {
        //= WIT-02 WIT-SVID 2.2: "this parameter MUST be present and MUST be set to `wit+jwt`"
        Credential::WitKey(_) => "wit+jwt",
        Credential::JwtKey(_) | Credential::Certificate(_) => "JWT",
    }
}
