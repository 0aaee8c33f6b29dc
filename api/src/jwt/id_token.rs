//! A token of an OpenID Connect issuer, as whoever it is shown to reads it: who issued it, about whom, for whom, until when. Its claims
//! are the issuer's; only those that every token has are read here.
//!
//! Source: OpenID Connect Core 1.0 §2, §3.1.3.7; RFC 7519 §4.1; RFC 8725.

use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::claims::{audience, date};
use super::issuer_keys::IssuerKeys;
use super::refusal::JwtRefusal;
use super::token::{Header, parts};

/// A token that has the form of an issuer's. Nobody has signed it yet, as far as is known.
#[derive(Debug)]
pub struct UnverifiedIdToken<'a> {
    header: Header,
    claims: IdToken,
    /// Header and claims as they were signed.
    signed: &'a str,
    signature: Vec<u8>,
}

/// A token that a key of its issuer has signed. For whom it is and whether it holds now is asked besides.
#[derive(Clone, Debug, PartialEq)]
pub struct IdToken {
    issuer: String,
    subject: String,
    audience: Vec<String>,
    expires_at: i64,
    not_before: Option<i64>,
    issued_at: Option<i64>,
    all: Map<String, Value>,
}

impl<'a> UnverifiedIdToken<'a> {
    /// Reads a token in JWS Compact Serialization.
    pub fn parse(token: &'a str) -> Result<Self, JwtRefusal> {
        let (header, claims, signed, signature) = parts(token)?;
        Ok(Self { header, claims: IdToken::read(claims)?, signed, signature })
    }

    /// Whose it says that it is; the keys of that issuer tell.
    pub fn issuer(&self) -> &str {
        &self.claims.issuer
    }

    /// The ID of the key that is to have signed it.
    pub fn key_id(&self) -> &str {
        &self.header.key_id
    }

    /// What it is to be verified by.
    pub fn algorithm(&self) -> Algorithm {
        self.header.algorithm
    }

    /// Verifies the signature by the keys of its issuer, of which `keys` are all.
    pub fn verify(self, keys: &IssuerKeys) -> Result<IdToken, JwtRefusal> {
        let Header { algorithm, key_id } = self.header;
        let key = keys.find(&key_id).ok_or(JwtRefusal::UnknownIssuerKey(key_id))?;
        match key.has_signed(algorithm, self.signed.as_bytes(), &self.signature) {
            Some(true) => Ok(self.claims),
            Some(false) => Err(JwtRefusal::Signature),
            None => Err(JwtRefusal::OtherKey),
        }
    }
}

impl IdToken {
    fn read(all: Map<String, Value>) -> Result<Self, JwtRefusal> {
        let text = |name: &str| all.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let issuer = text("iss").ok_or(JwtRefusal::NoIssuer)?.to_owned();
        let subject = text("sub").ok_or(JwtRefusal::NoSubject)?.to_owned();
        let expires_at = date(&all, "exp")?.ok_or(JwtRefusal::NoExpiry)?;
        let (not_before, issued_at) = (date(&all, "nbf")?, date(&all, "iat")?);
        Ok(Self { issuer, subject, audience: audience(&all)?, expires_at, not_before, issued_at, all })
    }

    /// Who issued it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// About whom it is, in the issuer's words.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// For whom it is; empty if it does not say.
    pub fn audience(&self) -> &[String] {
        &self.audience
    }

    /// Its end, UNIX seconds by its issuer's clock.
    pub fn expires_at(&self) -> i64 {
        self.expires_at
    }

    /// When it begins to hold, and when it was made, if it says so, UNIX seconds.
    pub fn begins(&self) -> [Option<i64>; 2] {
        [self.not_before, self.issued_at]
    }

    /// Its ID, which no other token of its issuer has, if it has one. Source: RFC 7519 §4.1.7.
    pub fn token_id(&self) -> Option<&str> {
        self.all.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty())
    }

    /// All that it says.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.all
    }
}
