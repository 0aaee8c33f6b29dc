//! Reading a bundle document: whole, or refused by name. What the standard lets pass is counted.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::bytes::Bytes;
use serde_json::{Map, Value};
use thiserror::Error;

use super::{Bundle, BundleError, Numbers};
use crate::jwt::{json, spki_of_jwk};
use crate::pb::types;
use crate::spiffe_id::TrustDomain;

/// Longest bundle document read, bytes: the largest bundle and its keys once more, in base64.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;
/// Most keys looked at: what is passed over counts, too.
const MAX_KEYS: usize = 1024;

/// Why a text is no bundle document that is taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum DocumentError {
    /// Longer than [`MAX_DOCUMENT_BYTES`].
    #[error("the bundle document is longer than {MAX_DOCUMENT_BYTES} bytes")]
    TooLong,
    #[error("the bundle document is no JSON object that is taken: {0}")]
    Json(String),
    /// A bundle that trusts nobody has an empty list; one without a list is none.
    #[error("the bundle document has no list \"keys\"")]
    NoKeys,
    #[error("the bundle document has more than {MAX_KEYS} keys")]
    TooManyKeys,
    #[error("{0:?} in the bundle document is not a whole number from 0")]
    Number(&'static str),
    #[error("key {place} of the bundle document {why}")]
    Key {
        /// The first is 0.
        place: usize,
        why: &'static str,
    },
    /// Its authorities are not taken.
    #[error("the bundle document cannot be used")]
    Bundle(#[from] BundleError),
}

/// A bundle, and how much of its document was passed over.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadBundle {
    /// What was understood.
    pub bundle: Bundle,
    /// Keys for uses, or of kinds, that nobody here knows.
    pub passed_over: usize,
}

/// What one element of the list is.
enum Element {
    Authority(Bytes),
    JwtKey(types::JwtKey),
    Unknown,
}

impl Bundle {
    /// Reads the bundle document of `trust_domain`, JSON. What the standard says is to be ignored is; whatever else is not understood is
    /// refused, and then nothing of it is taken.
    //= TDB-01 SPIFFE Trust Domain and Bundle 4.1: "MUST NOT require their presence in order to function."
    pub fn from_document(trust_domain: TrustDomain, text: &[u8]) -> Result<ReadBundle, DocumentError> {
        //= FED-14 RFC 8259 9: "An implementation may set limits on the size of texts that it accepts."
        if text.len() > MAX_DOCUMENT_BYTES {
            return Err(DocumentError::TooLong);
        }
        let document = json::object(text).map_err(|error| DocumentError::Json(error.to_string()))?;
        let keys = document.get("keys").and_then(Value::as_array).ok_or(DocumentError::NoKeys)?;
        if keys.len() > MAX_KEYS {
            return Err(DocumentError::TooManyKeys);
        }
        let (mut authorities, mut jwt, mut passed_over) = (Vec::new(), Vec::new(), 0);
        for (place, key) in keys.iter().enumerate() {
            match element(key).map_err(|why| DocumentError::Key { place, why })? {
                Element::Authority(der) => authorities.push(der),
                Element::JwtKey(key) => jwt.push(key),
                Element::Unknown => passed_over += 1,
            }
        }
        let sequence_number = number(&document, "spiffe_sequence")?;
        let refresh_hint = number(&document, "spiffe_refresh_hint")?.try_into().unwrap_or(i64::MAX);
        let bundle = Self::of_parts(trust_domain, authorities, jwt, Numbers { refresh_hint, sequence_number })?;
        Ok(ReadBundle { bundle, passed_over })
    }
}

fn number(document: &Map<String, Value>, name: &'static str) -> Result<u64, DocumentError> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => value.as_u64().ok_or(DocumentError::Number(name)),
    }
}

fn element(key: &Value) -> Result<Element, &'static str> {
    let key = key.as_object().ok_or("is not a JSON object")?;
    //= TDB-05 SPIFFE Trust Domain and Bundle 4.2.2: "or an unknown `use` value MUST ignore the entire JWK element"
    match key.get("use").and_then(Value::as_str) {
        Some("x509-svid") => authority(key),
        Some("jwt-svid") => jwt_key(key),
        _ => Ok(Element::Unknown),
    }
}

fn authority(key: &Map<String, Value>) -> Result<Element, &'static str> {
    let certificates = match key.get("x5c") {
        None => return Ok(Element::Unknown),
        Some(list) => list.as_array().ok_or("has an x5c that is no list")?,
    };
    //= X509-18 X509-SVID 6.2: "If `x5c` is not set, or is empty, then the entry MUST be ignored."
    //= X509-19 X509-SVID 6.2: "then all but the first MUST be ignored"
    let Some(first) = certificates.first() else { return Ok(Element::Unknown) };
    let der = first.as_str().and_then(|text| STANDARD.decode(text).ok());
    Ok(Element::Authority(der.ok_or("has a certificate that is not base64")?.into()))
}

fn jwt_key(key: &Map<String, Value>) -> Result<Element, &'static str> {
    let key_id = key.get("kid").and_then(Value::as_str).filter(|id| !id.is_empty());
    let key_id = key_id.ok_or("is for JWT-SVIDs and has no kid")?.to_owned();
    let member = |name: &str| key.get(name).and_then(Value::as_str);
    Ok(match spki_of_jwk(member)? {
        Some(spki) => Element::JwtKey(types::JwtKey { public_key: spki.into(), key_id, ..types::JwtKey::default() }),
        None => Element::Unknown,
    })
}
