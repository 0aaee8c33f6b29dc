//! Bundles as JSON: the document of the standard, and the plain JWK set that OpenID Connect reads.
//!
//! Source: SPIFFE Trust Domain and Bundle §4, X509-SVID §6, JWT-SVID §6, RFC 7517.

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use thiserror::Error;

use crate::certificate::Certificate;
use crate::csr::{KeyKind, Spki};
use crate::jwt::{Jwk, PublicKey};
use crate::pb::types;

/// A bundle that cannot be said as a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the bundle has a key that is none of P-256, P-384, P-521, RSA of 2048 to 8192 bits and, of X.509 authorities, ML-DSA"
)]
pub struct NoDocument;

#[derive(Serialize)]
struct Document<'a> {
    keys: Vec<Jwk<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    spiffe_sequence: u64,
    //= TDB-03 SPIFFE Trust Domain and Bundle 4.1.2: "its value MUST be an integer"
    #[serde(skip_serializing_if = "is_none_said")]
    spiffe_refresh_hint: i64,
}

#[derive(Serialize)]
struct JwkSet<'a> {
    keys: Vec<Jwk<'a>>,
}

/// The bundle document, JSON, indented as SPIRE does it.
pub fn document(bundle: &types::Bundle) -> Result<String, NoDocument> {
    let x509 = bundle.x509_authorities.iter().map(|authority| x509_jwk(&authority.asn1));
    let jwt = bundle.jwt_authorities.iter().map(|key| jwt_jwk(key, Some("jwt-svid")));
    let keys = x509.chain(jwt).collect::<Option<_>>().ok_or(NoDocument)?;
    let (spiffe_sequence, spiffe_refresh_hint) = (bundle.sequence_number, bundle.refresh_hint);
    Ok(indented(&Document { keys, spiffe_sequence, spiffe_refresh_hint }))
}

/// The keys of JWT-SVIDs alone, as a JWK set for verifiers that know no SPIFFE, each with its algorithm; `purpose` is their `use`, if they
/// are to have one: such verifiers take SPIFFE's for a reason not to use a key.
pub fn jwks<'a>(
    keys: impl IntoIterator<Item = &'a types::JwtKey>,
    purpose: Option<&'static str>,
) -> Result<String, NoDocument> {
    let jwk = |key| jwt_jwk(key, purpose).map(Jwk::with_algorithm);
    let keys = keys.into_iter().map(jwk).collect::<Option<_>>().ok_or(NoDocument)?;
    Ok(indented(&JwkSet { keys }))
}

fn x509_jwk(der: &[u8]) -> Option<Jwk<'static>> {
    let spki = Certificate::parse(der).ok()?.spki_der();
    //= X509-16 X509-SVID 6.1: "the `kid` parameter of each JWK entry MUST NOT be set"
    let jwk = match Spki::parse(&spki).map(|spki| (spki.kind(), spki.key().to_vec())) {
        Ok((KeyKind::MlDsa(set), key)) => Jwk::of_ml_dsa(set, &key),
        _ => PublicKey::parse(&spki)?.jwk(None, Some("x509-svid"))?,
    };
    jwk.with_certificate(der).into()
}

fn jwt_jwk<'a>(key: &'a types::JwtKey, purpose: Option<&'static str>) -> Option<Jwk<'a>> {
    //= JWT-09 JWT-SVID 6.1: "the `kid` parameter of each JWK entry MUST be set"
    PublicKey::parse(&key.public_key)?.jwk(Some(&key.key_id), purpose)
}

fn indented(value: &impl Serialize) -> String {
    let mut json = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut json, PrettyFormatter::with_indent(b"    ")))
        .expect("texts and numbers into memory");
    String::from_utf8(json).expect("JSON is UTF-8")
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_none_said(seconds: &i64) -> bool {
    *seconds <= 0
}
