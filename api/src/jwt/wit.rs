//! A WIT-SVID as whoever it was signed for reads it: by whom, for whom and for which key. Nobody here is shown one by a peer.

use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::authorities::JwtAuthorities;
use super::bounds::{MAX_KEY_ID_BYTES, MAX_TOKEN_BYTES};
use super::holder::HolderKey;
use super::refusal::JwtRefusal;
use super::token::{clipped, decode, object};
use crate::SpiffeId;

/// A token that a key of its subject's trust domain has signed.
#[derive(Clone, Debug, PartialEq)]
pub struct WitSvid {
    key_id: String,
    subject: SpiffeId,
    issued_at: i64,
    expires_at: i64,
    holder: Value,
}

impl WitSvid {
    /// Reads a token in JWS Compact Serialization and verifies its signature by `authorities`, the keys of WIT-SVIDs of its trust domain.
    pub fn verify(token: &str, authorities: &JwtAuthorities) -> Result<Self, JwtRefusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwtRefusal::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtRefusal::NotCompact)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtRefusal::NotCompact)?;
        let header = object("header", header)?;
        let claims = object("payload", claims)?;
        let (algorithm, key_id) = read_header(&header)?;
        let subject = text(&claims, "sub").ok_or(JwtRefusal::NoSubject)?;
        let subject = SpiffeId::parse(subject).map_err(JwtRefusal::Subject)?;
        let trust_domain = subject.trust_domain();
        if trust_domain != *authorities.trust_domain() {
            return Err(JwtRefusal::NoKeys(trust_domain));
        }
        let unknown = || JwtRefusal::UnknownKey { key_id: key_id.clone(), trust_domain };
        let authority = authorities.find(&key_id).ok_or_else(unknown)?;
        match authority.key().has_signed(algorithm, signed.as_bytes(), &decode("signature", signature)?) {
            Some(true) => {}
            Some(false) => return Err(JwtRefusal::Signature),
            None => return Err(JwtRefusal::OtherKey),
        }
        let date = |name| claims.get(name).and_then(Value::as_i64).ok_or(JwtRefusal::Date(name));
        let (issued_at, expires_at) = (date("iat")?, date("exp")?);
        let holder = claims.get("cnf").and_then(|cnf| cnf.get("jwk")).cloned().unwrap_or_default();
        Ok(Self { key_id, subject, issued_at, expires_at, holder })
    }

    /// Whose it is.
    pub fn subject(&self) -> &SpiffeId {
        &self.subject
    }

    /// The ID of the key that signed it.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// When it was made and when it ends, UNIX seconds by its issuer's clock.
    pub fn times(&self) -> (i64, i64) {
        (self.issued_at, self.expires_at)
    }

    /// Whether that key may use it.
    pub fn is_for(&self, holder: &HolderKey) -> bool {
        serde_json::to_value(holder).is_ok_and(|holder| holder == self.holder)
    }
}

fn read_header(header: &Map<String, Value>) -> Result<(Algorithm, String), JwtRefusal> {
    let algorithm = text(header, "alg").unwrap_or_default();
    let algorithm = Algorithm::named(algorithm).ok_or_else(|| JwtRefusal::Algorithm(clipped(algorithm)))?;
    match text(header, "typ").unwrap_or_default() {
        "wit+jwt" => {}
        other => return Err(JwtRefusal::Type(clipped(other))),
    }
    if header.contains_key("crit") {
        return Err(JwtRefusal::Critical);
    }
    let key_id = text(header, "kid").filter(|key_id| (1..=MAX_KEY_ID_BYTES).contains(&key_id.len()));
    Ok((algorithm, key_id.ok_or(JwtRefusal::KeyId)?.to_owned()))
}

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    members.get(name).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use rcgen::{KeyPair, PublicKeyData};
    use serde_json::json;

    use super::*;
    use crate::TrustDomain;
    use crate::pb::types;

    struct Lab {
        signer: KeyPair,
        holder: HolderKey,
        authorities: JwtAuthorities,
    }

    impl Lab {
        fn new() -> Self {
            let (signer, workload) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
            let public_key = signer.subject_public_key_info().into();
            let key = types::JwtKey { public_key, key_id: "k".to_owned(), expires_at: 9, tainted: false };
            let authorities = JwtAuthorities::from_wire(&TrustDomain::new("td").unwrap(), &[key]);
            let holder = HolderKey::new(&workload.subject_public_key_info(), "ES256").unwrap();
            Self { signer, holder, authorities }
        }

        fn token(&self, header: &Value, claims: &Value) -> String {
            let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
            let input = format!("{}.{}", part(header), part(claims));
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.signer.serialize_der()).unwrap();
            let signature = key.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
            format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
        }

        fn claims(&self) -> Value {
            json!({ "sub": "spiffe://td/a", "iat": 5, "exp": 9, "cnf": { "jwk": self.holder } })
        }
    }

    fn header() -> Value {
        json!({ "alg": "ES256", "kid": "k", "typ": "wit+jwt" })
    }

    #[test]
    fn a_token_says_whose_it_is_until_when_and_for_which_key() {
        let lab = Lab::new();
        let svid = WitSvid::verify(&lab.token(&header(), &lab.claims()), &lab.authorities).unwrap();
        assert_eq!((svid.subject().as_str(), svid.key_id(), svid.times()), ("spiffe://td/a", "k", (5, 9)));
        assert!(svid.is_for(&lab.holder) && !svid.is_for(&Lab::new().holder));
    }

    #[test]
    fn what_is_no_wit_svid_of_the_trust_domain_is_refused_by_name() {
        let lab = Lab::new();
        let refused =
            |header: Value, claims: Value| WitSvid::verify(&lab.token(&header, &claims), &lab.authorities).unwrap_err();
        let with = |mut value: Value, name: &str, to: Value| {
            value[name] = to;
            value
        };
        assert!(matches!(refused(with(header(), "typ", "JWT".into()), lab.claims()), JwtRefusal::Type(_)));
        assert!(matches!(refused(with(header(), "alg", "none".into()), lab.claims()), JwtRefusal::Algorithm(_)));
        assert!(matches!(refused(with(header(), "alg", "RS256".into()), lab.claims()), JwtRefusal::OtherKey));
        assert!(matches!(refused(with(header(), "kid", "l".into()), lab.claims()), JwtRefusal::UnknownKey { .. }));
        assert!(matches!(refused(with(header(), "kid", Value::Null), lab.claims()), JwtRefusal::KeyId));
        assert!(matches!(refused(with(header(), "crit", json!([])), lab.claims()), JwtRefusal::Critical));
        assert!(matches!(refused(header(), with(lab.claims(), "sub", Value::Null)), JwtRefusal::NoSubject));
        let foreign = with(lab.claims(), "sub", "spiffe://other/a".into());
        assert!(matches!(refused(header(), foreign), JwtRefusal::NoKeys(_)));
        assert!(matches!(refused(header(), with(lab.claims(), "exp", Value::Null)), JwtRefusal::Date("exp")));
        let token = lab.token(&header(), &lab.claims());
        let (input, signature) = token.rsplit_once('.').unwrap();
        let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        signature[0] ^= 1;
        let forged = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));
        assert!(matches!(WitSvid::verify(&forged, &lab.authorities), Err(JwtRefusal::Signature)));
        assert!(matches!(WitSvid::verify("a", &lab.authorities), Err(JwtRefusal::NotCompact)));
        let long = "a".repeat(MAX_TOKEN_BYTES + 1);
        assert!(matches!(WitSvid::verify(&long, &lab.authorities), Err(JwtRefusal::TooLong)));
    }
}
