//! Signs tokens as no server does.
#![allow(dead_code, reason = "each test file uses its part")]

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ironroot_api::pb::types::JwtKey;
use serde_json::{Value, json};
use std::sync::Arc;

pub struct Signer {
    pub algorithm: &'static str,
    key: Key,
}

enum Key {
    Ec(EcdsaKeyPair),
    Rsa(Arc<RsaKeyPair>, &'static dyn RsaEncoding),
    Ed25519(Ed25519KeyPair),
}

pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    /// ES256.
    pub fn new() -> Self {
        Self::ec("ES256", &ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    /// RSA ones first.
    pub fn of_every_algorithm() -> Vec<Self> {
        let key = Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"));
        let rsa: [(&str, &'static dyn RsaEncoding); 6] = [
            ("RS256", &RSA_PKCS1_SHA256),
            ("RS384", &RSA_PKCS1_SHA384),
            ("RS512", &RSA_PKCS1_SHA512),
            ("PS256", &RSA_PSS_SHA256),
            ("PS384", &RSA_PSS_SHA384),
            ("PS512", &RSA_PSS_SHA512),
        ];
        let rsa = rsa.into_iter().map(|(algorithm, form)| Self { algorithm, key: Key::Rsa(key.clone(), form) });
        let ec = [
            Self::new(),
            Self::ec("ES384", &ECDSA_P384_SHA384_FIXED_SIGNING),
            Self::ec("ES512", &ECDSA_P521_SHA512_FIXED_SIGNING),
        ];
        rsa.chain(ec).collect()
    }

    pub fn ed25519() -> Self {
        Self { algorithm: "EdDSA", key: Key::Ed25519(Ed25519KeyPair::generate().expect("a key")) }
    }

    fn ec(algorithm: &'static str, of: &'static EcdsaSigningAlgorithm) -> Self {
        Self { algorithm, key: Key::Ec(EcdsaKeyPair::generate(of).expect("a key")) }
    }

    /// With key ID `k`.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({ "alg": self.algorithm, "kid": "k", "typ": "JWT" }), claims)
    }

    pub fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let random = SystemRandom::new();
        let signature = match &self.key {
            Key::Ec(key) => key.sign(&random, signed.as_bytes()).expect("signs").as_ref().to_vec(),
            Key::Rsa(key, form) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*form, &random, signed.as_bytes(), &mut signature).expect("signs");
                signature
            }
            Key::Ed25519(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", encode(&signature))
    }

    /// The public key as servers send it.
    pub fn wire(&self, key_id: &str) -> JwtKey {
        let der: PublicKeyX509Der<'_> = match &self.key {
            Key::Ec(key) => key.public_key().as_der(),
            Key::Rsa(key, _) => key.public_key().as_der(),
            Key::Ed25519(key) => key.public_key().as_der(),
        }
        .expect("DER");
        JwtKey { public_key: der.as_ref().to_vec().into(), key_id: key_id.to_owned(), ..JwtKey::default() }
    }
}
