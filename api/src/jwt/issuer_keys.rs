//! The keys of an OpenID Connect issuer, out of its JWK Set. What is no key for signatures, or of a kind that nobody here knows, is
//! passed over and counted: issuers publish keys for other uses beside them.
//!
//! Source: RFC 7517 §4, §5; OpenID Connect Discovery 1.0 §3.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use thiserror::Error;

use super::algorithm::Algorithm;
use super::bounds::MAX_KEY_ID_BYTES;
use super::json;
use super::jwk::spki_of_jwk;
use super::public_key::PublicKey;

/// Longest JWK Set read, bytes. Large issuers have some ten keys, of 2 kB each with their certificates.
pub const MAX_JWKS_BYTES: usize = 1024 * 1024;
/// Most keys of an issuer, those passed over among them.
pub const MAX_ISSUER_KEYS: usize = 256;

/// Why a text is no JWK Set of an issuer that is taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JwksError {
    /// Longer than [`MAX_JWKS_BYTES`].
    #[error("the JWK Set is longer than {MAX_JWKS_BYTES} bytes")]
    TooLong,
    /// Not JSON, or with a name that stands twice.
    #[error("the JWK Set is no JSON object that is taken: {0}")]
    Json(String),
    /// Another object.
    #[error("the JWK Set has no list \"keys\"")]
    NoList,
    /// More than [`MAX_ISSUER_KEYS`].
    #[error("the JWK Set has more than {MAX_ISSUER_KEYS} keys")]
    TooManyKeys,
    /// Which of the two counts, nobody could say.
    #[error("two keys of the JWK Set have the ID {0:?}")]
    DuplicateKeyId(String),
    /// No token could be verified with it.
    #[error(
        "the JWK Set has no key with an ID that verifies signatures of RSA (2048 to 8192 bits), P-256, P-384 or P-521"
    )]
    NoKeys,
}

/// Keys by their IDs: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerKeys {
    keys: BTreeMap<String, IssuerKey>,
    passed_over: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IssuerKey {
    key: PublicKey,
    /// The one that it is for, if its issuer says so.
    algorithm: Option<Algorithm>,
}

impl IssuerKeys {
    /// Reads a JWK Set, JSON.
    pub fn from_jwks(text: &[u8]) -> Result<Self, JwksError> {
        if text.len() > MAX_JWKS_BYTES {
            return Err(JwksError::TooLong);
        }
        let set = json::object(text).map_err(|error| JwksError::Json(error.to_string()))?;
        let list = set.get("keys").and_then(Value::as_array).ok_or(JwksError::NoList)?;
        if list.len() > MAX_ISSUER_KEYS {
            return Err(JwksError::TooManyKeys);
        }
        let mut keys = BTreeMap::new();
        for (id, key) in list.iter().filter_map(Value::as_object).filter_map(read) {
            if keys.insert(id.to_owned(), key).is_some() {
                return Err(JwksError::DuplicateKeyId(id.to_owned()));
            }
        }
        let passed_over = list.len() - keys.len();
        if keys.is_empty() { Err(JwksError::NoKeys) } else { Ok(Self { keys, passed_over }) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// How many others the set has.
    pub fn passed_over(&self) -> usize {
        self.passed_over
    }

    /// Whether there is a key of this ID.
    pub fn has(&self, key_id: &str) -> bool {
        self.keys.contains_key(key_id)
    }

    pub(super) fn find(&self, key_id: &str) -> Option<&IssuerKey> {
        self.keys.get(key_id)
    }
}

impl IssuerKey {
    /// Whether `signature` over `message` is this key's, by an algorithm that goes with it and that it is for; `None` if it does not.
    //= EXC-03 RFC 8725 3.1: "Each key MUST be used with exactly one algorithm, and this MUST be checked when the cryptographic operation is performed"
    pub fn has_signed(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Option<bool> {
        let is_for = self.algorithm.is_none_or(|only| only == algorithm);
        is_for.then(|| self.key.has_signed(algorithm, message, signature)).flatten()
    }
}

/// A key for signatures with its ID; none for anything else.
fn read(jwk: &Map<String, Value>) -> Option<(&str, IssuerKey)> {
    let member = |name: &str| jwk.get(name).and_then(Value::as_str);
    let id = member("kid").filter(|id| (1..=MAX_KEY_ID_BYTES).contains(&id.len()))?;
    let verifies = |operations: &Value| operations.as_array().is_some_and(|all| all.iter().any(|one| one == "verify"));
    if jwk.get("use").is_some_and(|purpose| purpose != "sig") || jwk.get("key_ops").is_some_and(|all| !verifies(all)) {
        return None;
    }
    let algorithm = match jwk.get("alg") {
        None => None,
        Some(name) => Some(Algorithm::named(name.as_str()?)?),
    };
    let key = PublicKey::parse(&spki_of_jwk(member).ok().flatten()?)?;
    let goes_with = algorithm.is_none_or(|algorithm| key.goes_with(algorithm));
    goes_with.then_some((id, IssuerKey { key, algorithm }))
}
