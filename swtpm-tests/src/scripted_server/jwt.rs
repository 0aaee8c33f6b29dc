//! The keys and tokens of a scripted server.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ironroot_api::pb::svid::NewJwtsvidRequest;
use ironroot_api::pb::types;
use serde_json::{Value, json};
use tonic::Status;

use super::{Play, TRUST_DOMAIN, lock};

/// What is wrong with the JWT-SVIDs it signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtLie {
    /// A right server's token.
    Honest,
    /// It signs none, in SPIRE's words.
    Disabled,
    /// For another ID than the entry's.
    OtherId,
    /// For one audience more than was asked for.
    OtherAudience,
    /// By a key that has the ID of one in the bundle.
    Forged,
    /// It ended before it was made.
    Ended,
    /// It does not say when it was made.
    Undated,
    /// No token.
    Garbage,
    /// A token above every bound.
    Oversized,
    /// The call is taken and never answered.
    Silence,
}

/// What a scripted server signs tokens with.
#[derive(Clone, Debug)]
pub struct JwtScript {
    /// Lies about tokens.
    pub lie: JwtLie,
    /// Lifetime of tokens, seconds.
    pub ttl: i64,
    /// The ID of the key that signs, `a` or `b`.
    pub signer: &'static str,
    /// The IDs of the keys in the bundle.
    pub bundle: Vec<&'static str>,
    /// Whether they are tainted.
    pub tainted: bool,
    /// So many calls are answered with `Unavailable` first.
    pub away_for: u32,
}

impl Default for JwtScript {
    fn default() -> Self {
        Self { lie: JwtLie::Honest, ttl: 300, signer: "a", bundle: vec!["a"], tainted: false, away_for: 0 }
    }
}

/// Two keys, `a` and `b`.
pub(crate) struct JwtKeys([EcdsaKeyPair; 2]);

impl JwtKeys {
    pub fn generate() -> Self {
        let key = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self([key(), key()])
    }

    /// The keys of the bundle, as servers send them.
    pub fn bundle(&self, script: &JwtScript) -> Vec<types::JwtKey> {
        let wire = |id: &&str| types::JwtKey {
            public_key: self.spki(id).into(),
            key_id: (*id).to_owned(),
            expires_at: 0,
            tainted: script.tainted,
        };
        script.bundle.iter().map(wire).collect()
    }

    fn spki(&self, id: &str) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = self.named(id).public_key().as_der().expect("DER");
        der.as_ref().to_vec()
    }

    fn named(&self, id: &str) -> &EcdsaKeyPair {
        &self.0[usize::from(id == "b")]
    }

    fn sign(&self, key: &str, key_id: &str, claims: &Value) -> String {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let header = json!({ "alg": "ES256", "kid": key_id, "typ": "JWT" });
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = self.named(key).sign(&SystemRandom::new(), signed.as_bytes()).expect("signs");
        format!("{signed}.{}", encode(signature.as_ref()))
    }
}

/// Answers NewJWTSVID by the script.
pub(super) async fn answer(play: &Play, request: NewJwtsvidRequest) -> Result<types::Jwtsvid, Status> {
    let (script, entry) = {
        let mut script = lock(&play.script);
        let entry = script.entries.iter().find(|entry| entry.id == request.entry_id).cloned();
        if script.jwt.away_for > 0 {
            script.jwt.away_for -= 1;
            return Err(Status::unavailable("scripted"));
        }
        (script.jwt.clone(), entry)
    };
    match script.lie {
        JwtLie::Disabled => return Err(Status::unimplemented("JWT functionality is disabled")),
        JwtLie::Silence => std::future::pending::<()>().await,
        _ => {}
    }
    let path = entry.and_then(|entry| entry.spiffe_id).ok_or_else(|| Status::not_found("no such entry"))?.path;
    let path = if script.lie == JwtLie::OtherId { "/somebody-else" } else { &path };
    let mut audience = request.audience;
    if script.lie == JwtLie::OtherAudience {
        audience.push("everybody".to_owned());
    }
    let now = ironroot_agent::trusted_time::system_unix();
    let expires_at = if script.lie == JwtLie::Ended { now - 1 } else { now + script.ttl };
    let id = format!("spiffe://{TRUST_DOMAIN}{path}");
    // Tokens of one second differ all the same.
    let number = lock(&play.asked).tokens;
    let mut claims = json!({ "sub": id, "aud": audience, "iat": now, "exp": expires_at, "number": number });
    if script.lie == JwtLie::Undated {
        claims.as_object_mut().expect("an object").remove("iat");
    }
    let key = match (script.lie, script.signer) {
        (JwtLie::Forged, "a") => "b",
        (_, signer) => signer,
    };
    let token = match script.lie {
        JwtLie::Garbage => "no token".to_owned(),
        JwtLie::Oversized => "a.".repeat(4 * 1024 * 1024),
        _ => play.jwt.sign(key, script.signer, &claims),
    };
    let id = types::Spiffeid { trust_domain: TRUST_DOMAIN.to_owned(), path: path.to_owned() };
    Ok(types::Jwtsvid { token, id: Some(id), expires_at, issued_at: now, hint: String::new() })
}
