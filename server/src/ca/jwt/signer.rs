//! A key in the token that signs JWT-SVIDs.

use std::fmt;

use ironroot_hsm::{KeyKind, Urgency};

use super::claims::Claims;
use super::compact::{self, Header};
use super::error::JwtError;
use crate::ca::CaError;
use crate::ca::journal::{Authority, Credential, JwtKey};
use crate::ca::lint::Verifier;
use crate::ca::profile::NOT_BEFORE_CUSHION;
use crate::ca::sampling::{Sampling, Scrutiny};
use crate::keys::Key;

/// A signed token. Whoever holds it is taken for its subject, so it is printed nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedJwtSvid {
    /// JWS Compact Serialization.
    pub token: String,
    /// UNIX seconds.
    pub issued_at_unix: i64,
    /// UNIX seconds.
    pub expires_at_unix: i64,
}

impl fmt::Debug for IssuedJwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuedJwtSvid(until {})", self.expires_at_unix)
    }
}

/// An authority for JWT-SVIDs with its key at hand.
pub(in crate::ca) struct JwtSigner {
    key: Key,
    credential: Credential,
    header: Header,
    /// UNIX seconds.
    not_before: i64,
    not_after: i64,
    verifier: Verifier,
    sampling: Sampling,
}

impl JwtSigner {
    /// `key` is the one that `authority`, whose published half this is, has in the token.
    pub(in crate::ca) fn new(key: Key, authority: &Authority, published: &JwtKey) -> Result<Self, CaError> {
        Ok(Self {
            verifier: Verifier::of_jws(&key)?,
            header: Header::new(algorithm(key.kind()), published.key_id().as_str()),
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
    pub(in crate::ca) async fn sign(&self, claims: Claims) -> Result<IssuedJwtSvid, CaError> {
        self.check(claims.iat)?;
        let claims = claims.ending_by(self.not_after);
        let input = compact::signing_input(&self.header, &claims);
        // As X509-SVIDs: what lives shortest runs out first.
        let urgency = Urgency::by(claims.iat.midpoint(claims.exp));
        let signature = self.key.sign_message(input.as_bytes(), urgency).await?;
        if self.sampling.is_verified(Scrutiny::Sampled) {
            let verified = self.verifier.verify(input.as_bytes(), &signature);
            verified.inspect_err(|_| self.sampling.distrust())?;
        }
        let token = compact::token(&input, &signature);
        Ok(IssuedJwtSvid { token, issued_at_unix: claims.iat, expires_at_unix: claims.exp })
    }
}

/// Source: SPIRE `cryptoutil.JoseAlgFromPublicKey`; RFC 7518 §3.1.
fn algorithm(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::EcP256 => "ES256",
        KeyKind::EcP384 => "ES384",
        KeyKind::Rsa2048 | KeyKind::Rsa4096 => "RS256",
    }
}
