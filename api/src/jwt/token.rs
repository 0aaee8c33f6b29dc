//! A JWT-SVID: first read, then verified.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::authorities::JwtAuthorities;
use super::bounds::{MAX_KEY_ID_BYTES, MAX_TOKEN_BYTES};
use super::claims::{Claims, LEEWAY};
use super::json;
use super::refusal::JwtRefusal;
use crate::SpiffeId;

/// How much of a token's audiences an error tells: an error fits into a header of HTTP/2 and a line of a log.
const MAX_TOLD_AUDIENCES: usize = 8;
const MAX_TOLD_CHARACTERS: usize = 256;

/// A token that has the form of a JWT-SVID. Nobody has signed it yet, as far as is known.
#[derive(Debug)]
pub struct UnverifiedJwtSvid<'a> {
    header: Header,
    claims: Claims,
    /// Header and claims as they were signed.
    signed: &'a str,
    signature: Vec<u8>,
}

/// What a token says of its signature.
#[derive(Debug)]
pub(super) struct Header {
    pub algorithm: Algorithm,
    pub key_id: String,
}

/// A token's header, its claims, both as they were signed, and its signature. Header before claims: what names a wrong algorithm is
/// read no further.
pub(super) type Parts<'a> = (Header, Map<String, Value>, &'a str, Vec<u8>);

/// A token that a key of its subject's trust domain has signed. For whom it is and whether it still holds is asked besides.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtSvid {
    key_id: String,
    claims: Claims,
}

impl<'a> UnverifiedJwtSvid<'a> {
    /// Reads a token in JWS Compact Serialization.
    pub fn parse(token: &'a str) -> Result<Self, JwtRefusal> {
        let (header, claims, signed, signature) = parts(token)?;
        Ok(Self { header, claims: Claims::read(claims)?, signed, signature })
    }

    /// Whose it says that it is; the keys of that trust domain tell.
    pub fn subject(&self) -> &SpiffeId {
        &self.claims.subject
    }

    /// The ID of the key that is to have signed it.
    pub fn key_id(&self) -> &str {
        &self.header.key_id
    }

    /// Verifies the signature by the keys of the subject's trust domain, of which `authorities` are all.
    pub fn verify(self, authorities: &JwtAuthorities) -> Result<JwtSvid, JwtRefusal> {
        //= JWT-11 SPIFFE Workload API 6.3: "the validator MUST use the bundle corresponding to the trust domain of the subject."
        let trust_domain = self.claims.subject.trust_domain();
        if trust_domain != *authorities.trust_domain() {
            return Err(JwtRefusal::NoKeys(trust_domain));
        }
        let Header { algorithm, key_id } = self.header;
        let authority = authorities.find(&key_id);
        let authority = authority.ok_or_else(|| JwtRefusal::UnknownKey { key_id: key_id.clone(), trust_domain })?;
        match authority.key().has_signed(algorithm, self.signed.as_bytes(), &self.signature) {
            Some(true) => Ok(JwtSvid { key_id, claims: self.claims }),
            Some(false) => Err(JwtRefusal::Signature),
            None => Err(JwtRefusal::OtherKey),
        }
    }
}

/// Takes a token in JWS Compact Serialization apart.
pub(super) fn parts(token: &str) -> Result<Parts<'_>, JwtRefusal> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(JwtRefusal::TooLong);
    }
    //= JWT-01 JWT-SVID 1: "JWS JSON Serialization MUST NOT be used."
    let (signed, signature) = token.rsplit_once('.').ok_or(JwtRefusal::NotCompact)?;
    let (header, claims) = signed.split_once('.').ok_or(JwtRefusal::NotCompact)?;
    if claims.contains('.') {
        return Err(JwtRefusal::NotCompact);
    }
    let header = Header::read(&object("header", header)?)?;
    Ok((header, object("payload", claims)?, signed, decode("signature", signature)?))
}

impl Header {
    fn read(header: &Map<String, Value>) -> Result<Self, JwtRefusal> {
        //= JWT-02 JWT-SVID 2.1: "with the `alg` parameter set to a different value MUST reject the token"
        let algorithm = header.get("alg").and_then(Value::as_str).unwrap_or_default();
        let algorithm = Algorithm::named(algorithm).ok_or_else(|| JwtRefusal::Algorithm(clipped(algorithm)))?;
        //= JWT-04 JWT-SVID 2.3: "If set, its value MUST be either `JWT` or `JOSE`."
        match header.get("typ").map(|typ| typ.as_str().unwrap_or_default()) {
            None | Some("JWT" | "JOSE") => {}
            Some(other) => return Err(JwtRefusal::Type(clipped(other))),
        }
        if header.contains_key("crit") {
            return Err(JwtRefusal::Critical);
        }
        let key_id = header.get("kid").and_then(Value::as_str);
        let key_id = key_id.filter(|key_id| (1..=MAX_KEY_ID_BYTES).contains(&key_id.len()));
        Ok(Self { algorithm, key_id: key_id.ok_or(JwtRefusal::KeyId)?.to_owned() })
    }
}

impl JwtSvid {
    /// Whose it is.
    pub fn subject(&self) -> &SpiffeId {
        &self.claims.subject
    }

    /// The ID of the key that signed it.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// For whom it is.
    pub fn audience(&self) -> &[String] {
        &self.claims.audience
    }

    /// Its end, UNIX seconds by its issuer's clock.
    pub fn expires_at(&self) -> i64 {
        self.claims.expires_at
    }

    /// When it was made, if it says so, UNIX seconds by its issuer's clock.
    pub fn issued_at(&self) -> Option<i64> {
        self.claims.issued_at
    }

    /// All that it says.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims.all
    }

    /// Refuses a token that is not for `audience`.
    pub fn expect_audience(&self, audience: &str) -> Result<(), JwtRefusal> {
        //= JWT-06 JWT-SVID 3.2: "or if the value that the validator identifies with is not present as an `aud` element"
        match self.claims.audience.iter().any(|known| known == audience) {
            true => Ok(()),
            false => {
                let found = self.claims.audience.iter().take(MAX_TOLD_AUDIENCES).map(|known| told(known)).collect();
                Err(JwtRefusal::OtherAudience { expected: [told(audience)], found })
            }
        }
    }

    /// Refuses a token that has ended at `now`, UNIX seconds; [`LEEWAY`] is granted.
    pub fn expect_not_ended(&self, now: i64) -> Result<(), JwtRefusal> {
        match now.saturating_sub(LEEWAY) < self.claims.expires_at {
            true => Ok(()),
            false => Err(JwtRefusal::Expired),
        }
    }

    /// Refuses a token that does not hold yet at `now`, or was not made yet.
    pub fn expect_begun(&self, now: i64) -> Result<(), JwtRefusal> {
        let latest = now.saturating_add(LEEWAY);
        if self.claims.not_before.is_some_and(|not_before| latest < not_before) {
            return Err(JwtRefusal::NotYet);
        }
        if self.claims.issued_at.is_some_and(|issued_at| latest < issued_at) {
            return Err(JwtRefusal::FromTheFuture);
        }
        Ok(())
    }
}

pub(super) fn object(part: &'static str, text: &str) -> Result<Map<String, Value>, JwtRefusal> {
    json::object(&decode(part, text)?).map_err(|why| JwtRefusal::Json { part, why: why.to_string() })
}

pub(super) fn decode(part: &'static str, text: &str) -> Result<Vec<u8>, JwtRefusal> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| JwtRefusal::Encoding(part))
}

/// An audience for an error: all of a usual one.
fn told(audience: &str) -> String {
    audience.chars().take(MAX_TOLD_CHARACTERS).collect()
}

/// The beginning of a text that somebody else chose, for an error.
pub(super) fn clipped(text: &str) -> String {
    text.chars().take(64).collect()
}
