//! JWT-SVIDs as a peer sees them: a verifier that shares nothing with the product but the crypto library.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::deployment::Server;

/// A token's parts, as they were written; nothing is verified yet.
pub fn parts(token: &str) -> (Value, Value) {
    let part = |number| token.split('.').nth(number).map(json_part).expect("three parts");
    (part(0), part(1))
}

fn json_part(part: &str) -> Value {
    serde_json::from_slice(&decoded(part)).expect("JSON")
}

fn decoded(part: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(part).expect("base64url without padding")
}

/// The keys for JWT-SVIDs of a SPIFFE bundle document, by their `kid`.
#[derive(Clone, Debug)]
pub struct Jwks(BTreeMap<String, Value>);

impl Jwks {
    /// Those of a document.
    pub fn of(document: &Value) -> Self {
        let keys = document["keys"].as_array().expect("keys").iter().filter(|key| key["use"] == "jwt-svid");
        Self(keys.map(|key| (key["kid"].as_str().expect("a key ID").to_owned(), key.clone())).collect())
    }

    /// Those that the server's command line prints.
    pub fn printed_by(server: &Server) -> Self {
        let document = server.cli(&["bundle", "show", "-format", "spiffe"]);
        Self::of(&serde_json::from_str(&document).expect("JSON"))
    }

    /// Their IDs.
    pub fn key_ids(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// The claims, if a key of the set has signed the token, it is for `audience`, and it has not ended at `now_unix`.
    pub fn verify(&self, token: &str, audience: &str, now_unix: i64) -> Result<Value, &'static str> {
        let (header, claims) = parts(token);
        let key = header["kid"].as_str().and_then(|kid| self.0.get(kid)).ok_or("no key of this ID")?;
        let (input, signature) = token.rsplit_once('.').ok_or("no signature")?;
        if !verifies(key, header["alg"].as_str().unwrap_or_default(), input.as_bytes(), &decoded(signature)) {
            return Err("the signature is wrong");
        }
        if !claims["aud"].as_array().is_some_and(|all| all.iter().any(|one| one == audience)) {
            return Err("for somebody else");
        }
        if claims["exp"].as_i64().is_none_or(|end| end <= now_unix) {
            return Err("it has ended");
        }
        Ok(claims)
    }
}

fn verifies(jwk: &Value, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
    let field = |name: &str| decoded(jwk[name].as_str().expect("a field of the key"));
    let point = || [&[4][..], &field("x"), &field("y")].concat();
    match (algorithm, jwk["crv"].as_str()) {
        ("ES256", Some("P-256")) => {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point()).verify(message, signature).is_ok()
        }
        ("ES384", Some("P-384")) => {
            UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point()).verify(message, signature).is_ok()
        }
        ("RS256", None) => RsaPublicKeyComponents { n: field("n"), e: field("e") }
            .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            .is_ok(),
        _ => false,
    }
}

/// Whether a key on P-256, DER SubjectPublicKeyInfo, has signed the token.
pub fn signed_by(token: &str, spki: &[u8]) -> bool {
    let Some((input, signature)) = token.rsplit_once('.') else { return false };
    let key = aws_lc_rs::signature::ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, spki);
    key.is_ok_and(|key| key.verify_sig(input.as_bytes(), &decoded(signature)).is_ok())
}

/// Whether that JWK has signed the token.
pub fn verified_by(token: &str, key: &Value) -> bool {
    let Some((input, signature)) = token.rsplit_once('.') else { return false };
    verifies(key, parts(token).0["alg"].as_str().unwrap_or_default(), input.as_bytes(), &decoded(signature))
}
