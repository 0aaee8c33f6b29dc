//! An issuer of OpenID Connect tokens, as a CI has one: keys, a discovery document, a JWK Set, over real HTTPS; and whatever else a hostile
//! one would answer.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ironroot_api::jwt::HolderKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::web_certificate::WebCertificate;

/// Where the issuer says who it is.
pub const DISCOVERY: &str = "/.well-known/openid-configuration";
/// Where its keys are.
pub const KEYS: &str = "/keys";
/// As much as the server under test would have to hold, and more.
const FLOOD: usize = 64 * 1024 * 1024;

/// A key of an issuer.
#[derive(Debug)]
pub struct TokenKey {
    id: String,
    pair: Pair,
}

#[derive(Debug)]
enum Pair {
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl TokenKey {
    /// Signs ES256.
    pub fn p256(id: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self { id: id.to_owned(), pair: Pair::P256(pair) }
    }

    /// Signs RS256, as GitHub and GitLab do.
    pub fn rsa(id: &str) -> Self {
        Self { id: id.to_owned(), pair: Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")) }
    }

    /// What it signs by.
    pub fn algorithm(&self) -> &'static str {
        match &self.pair {
            Pair::P256(_) => "ES256",
            Pair::Rsa(_) => "RS256",
        }
    }

    /// Its public half, as a member of a JWK Set.
    pub fn jwk(&self) -> Value {
        let spki = match &self.pair {
            Pair::P256(pair) => {
                AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).expect("DER").as_ref().to_vec()
            }
            Pair::Rsa(pair) => AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).expect("DER").as_ref().to_vec(),
        };
        let key = HolderKey::new(&spki, self.algorithm()).expect("a key of a known kind");
        let mut jwk = serde_json::to_value(&key).expect("a JWK");
        (jwk["kid"], jwk["use"]) = (self.id.clone().into(), "sig".into());
        jwk
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({ "alg": self.algorithm(), "kid": self.id, "typ": "JWT" }), claims)
    }

    /// The same with another header.
    pub fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let input = format!("{}.{}", part(header), part(claims));
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(self.signature(input.as_bytes())))
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::P256(pair) => pair.sign(&random, message).expect("signs").as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("signs");
                signature
            }
        }
    }
}

/// A JWK Set of these keys.
pub fn key_set(keys: &[&TokenKey]) -> String {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string()
}

/// What is answered at a path.
#[derive(Clone, Debug)]
pub enum Page {
    /// A good answer with that body.
    Json(String),
    /// An answer of that status.
    Status(u16),
    /// Somewhere else.
    Redirect(String),
    /// A body that does not end.
    Flood,
    /// A good head, and then nothing for as long as the peer waits.
    Stall,
}

/// Serves until the process ends, proven for `localhost`.
#[derive(Clone, Debug)]
pub struct TokenIssuer {
    port: u16,
    pages: Arc<Mutex<HashMap<String, Page>>>,
    asked: Arc<Mutex<usize>>,
}

impl TokenIssuer {
    /// With nothing to say: every path is one that there is not.
    pub fn start(web: &WebCertificate) -> Self {
        let (config, listener) = (web.server_config(), TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
        let port = listener.local_addr().expect("bound").port();
        let issuer = Self { port, pages: Arc::default(), asked: Arc::default() };
        let serving = issuer.clone();
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let (config, serving) = (config.clone(), serving.clone());
                std::thread::spawn(move || serving.answer(&config, tcp));
            }
        });
        issuer
    }

    /// One whose documents lead to these keys.
    pub fn with_keys(web: &WebCertificate, keys: &[&TokenKey]) -> Self {
        let issuer = Self::start(web);
        issuer.say(DISCOVERY, Page::Json(issuer.document(&issuer.url(), &format!("{}{KEYS}", issuer.url()))));
        issuer.say(KEYS, Page::Json(key_set(keys)));
        issuer
    }

    /// A discovery document.
    pub fn document(&self, issuer: &str, keys: &str) -> String {
        json!({ "issuer": issuer, "jwks_uri": keys, "response_types_supported": ["id_token"] }).to_string()
    }

    /// The `iss` of its tokens.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// What it answers at `path` from now on.
    pub fn say(&self, path: &str, page: Page) {
        locked(&self.pages).insert(path.to_owned(), page);
    }

    /// How many requests came.
    pub fn asked(&self) -> usize {
        *locked(&self.asked)
    }

    fn answer(&self, config: &Arc<ServerConfig>, tcp: TcpStream) {
        let connection = ServerConnection::new(config.clone()).expect("made");
        let (mut tls, mut head) = (StreamOwned::new(connection, tcp), [0; 4096]);
        // A peer that has enough hangs up: that is its right.
        let Ok(length) = tls.read(&mut head) else { return };
        let head = String::from_utf8_lossy(&head[..length]).into_owned();
        *locked(&self.asked) += 1;
        let path = head.split(' ').nth(1).unwrap_or_default();
        let page = locked(&self.pages).get(path).cloned().unwrap_or(Page::Status(404));
        let _ = perform(&page, &mut tls).and_then(|()| tls.flush());
        tls.conn.send_close_notify();
        let _ = tls.flush();
    }
}

fn perform(page: &Page, to: &mut impl ReadWrite) -> std::io::Result<()> {
    match page {
        Page::Json(body) => write!(
            to,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ),
        Page::Status(status) => write!(to, "HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        Page::Redirect(place) => {
            write!(to, "HTTP/1.1 302 Found\r\nlocation: {place}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        }
        Page::Flood => {
            write!(to, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
            (0..FLOOD / 4096).try_for_each(|_| to.write_all(&[b' '; 4096]))
        }
        Page::Stall => {
            write!(to, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")?;
            to.flush()?;
            // Until the peer hangs up.
            to.read(&mut [0; 1]).map(drop)
        }
    }
}

trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
