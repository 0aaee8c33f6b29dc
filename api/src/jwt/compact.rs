//! The JWS Compact Serialization. The signature is made in a token or a chip, which no JWS crate asks; what is left is two base64url texts.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

/// The JOSE header of what is signed, encoded once for each key.
#[derive(Clone, Debug)]
pub struct JoseHeader(String);

impl JoseHeader {
    /// `form`: the `typ` of such tokens.
    //= JWT-03 JWT-SVID 2: "Any header not described here, registered or private, MUST NOT be included in the JWT-SVID JOSE Header."
    pub fn new(algorithm: &str, key_id: &str, form: &str) -> Self {
        #[derive(Serialize)]
        struct Fields<'a> {
            alg: &'a str,
            kid: &'a str,
            typ: &'a str,
        }
        Self(encoded(&Fields { alg: algorithm, kid: key_id, typ: form }))
    }
}

/// What is signed: the header and the claims.
pub fn signing_input(header: &JoseHeader, claims: &impl Serialize) -> String {
    format!("{}.{}", header.0, encoded(claims))
}

/// The token. Source: RFC 7515 §7.1.
pub fn compact(signing_input: &str, signature: &[u8]) -> String {
    //= JWT-01 JWT-SVID 1: "JWS JSON Serialization MUST NOT be used."
    format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn encoded(value: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).expect("texts and numbers are JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    //= JWT-01 JWT-03 JWT-04
    // Vector: go-jose v4, SignerOptions.WithType("JWT") and a key ID.
    #[test]
    fn the_header_has_the_algorithm_the_key_and_the_type_and_nothing_else() {
        let header = URL_SAFE_NO_PAD.decode(JoseHeader::new("ES256", "k\"1", "JWT").0).expect("base64url");
        assert_eq!(header, br#"{"alg":"ES256","kid":"k\"1","typ":"JWT"}"#);
        assert_eq!(compact("a.b", &[0xff, 0xfe]), "a.b.__4");
    }
}
