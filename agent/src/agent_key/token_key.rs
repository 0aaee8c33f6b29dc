//! A P-256 key that was made in a PKCS#11 token and never leaves it.
//!
//! What lies on disk is its public half and its name: with them the agent knows at its start which certificate it has a key for, also
//! while the token is away. Each slot's key has one name, so a token never has more of them than slots, whatever moment a power cut
//! comes at: before a key is made, the one of that name is destroyed.

use std::fmt;
use std::sync::{Arc, mpsc};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use der::Decode;
use ironroot_hsm::{HsmError, KeyId, KeyKind, KeyName, TokenKey, Urgency};
use rustls::sign::Signer;
use rustls::{Error as TlsError, SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use serde::{Deserialize, Serialize};
use spki::SubjectPublicKeyInfoRef;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use super::KeyError;
use super::not_signed::NotSigned;
use super::request::request_signed_elsewhere;
use crate::token::{LazyToken, TokenFailure};

/// Bytes of a CKA_ID.
const ID_BYTES: usize = 16;

/// A key in a token, found there when it first signs. Cloning shares it.
#[derive(Clone)]
pub struct TokenHeldKey {
    known: Arc<Known>,
}

struct Known {
    token: LazyToken,
    name: KeyName,
    spki: Vec<u8>,
    /// The uncompressed point, as certificate requests carry it.
    point: Vec<u8>,
    found: OnceCell<TokenKey>,
}

/// A slot's file. In JSON: hexadecimal, text, base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    id: String,
    label: String,
    spki: String,
}

impl TokenHeldKey {
    /// Destroys the key of the slot called `label` and makes its successor in the token.
    pub async fn replace(token: &LazyToken, label: &str) -> Result<Self, KeyError> {
        let (opened, id) = (token.get().await.map_err(KeyError::Token)?, key_id(label));
        let failed = |error| KeyError::Token(TokenFailure::Token(error));
        opened.destroy(KeyName::new(id.clone(), label)).await.map_err(failed)?;
        let made = opened.generate_p256(&id, label).await.map_err(failed)?;
        let (name, spki) = (made.name().clone(), made.spki_der().to_vec());
        Self::of(token.clone(), name, spki, OnceCell::new_with(Some(made)))
    }

    /// Destroys the key of the slot called `label`, if there is one.
    pub async fn destroy(token: &LazyToken, label: &str) -> Result<(), KeyError> {
        let opened = token.get().await.map_err(KeyError::Token)?;
        let destroyed = opened.destroy(KeyName::new(key_id(label), label)).await;
        destroyed.map(drop).map_err(|error| KeyError::Token(TokenFailure::Token(error)))
    }

    /// The key called `label` as it is in the token now; none if there is none.
    pub async fn find(token: &LazyToken, label: &str) -> Result<Option<Self>, KeyError> {
        let failed = |error| KeyError::Token(TokenFailure::Token(error));
        let opened = token.get().await.map_err(KeyError::Token)?;
        let found = opened.find(KeyName::new(key_id(label), label)).await.map_err(failed)?;
        let of = |key: TokenKey| {
            let (name, spki) = (key.name().clone(), key.spki_der().to_vec());
            Self::of(token.clone(), name, spki, OnceCell::new_with(Some(key)))
        };
        found.map(of).transpose()
    }

    /// What the token calls it.
    pub fn name(&self) -> &KeyName {
        &self.known.name
    }

    /// A key that was made before, from its slot's file; none if the file is not one of ours.
    pub fn from_note(token: &LazyToken, note: &[u8]) -> Option<Self> {
        let note: Note = serde_json::from_slice(note).ok()?;
        let name = KeyName::new(note.id.parse().ok()?, &note.label);
        Self::of(token.clone(), name, STANDARD.decode(&note.spki).ok()?, OnceCell::new()).ok()
    }

    /// The slot's file.
    pub fn note(&self) -> Vec<u8> {
        let name = &self.known.name;
        let id = name.id().map(ToString::to_string).unwrap_or_default();
        let note =
            Note { id, label: name.label().unwrap_or_default().to_owned(), spki: STANDARD.encode(&self.known.spki) };
        serde_json::to_vec(&note).expect("three texts always serialise")
    }

    fn of(token: LazyToken, name: KeyName, spki: Vec<u8>, found: OnceCell<TokenKey>) -> Result<Self, KeyError> {
        let unread = || KeyError::Crypto("read a token's public key");
        let info = SubjectPublicKeyInfoRef::from_der(&spki).map_err(|_| unread())?;
        let point = info.subject_public_key.as_bytes().ok_or_else(unread)?.to_vec();
        Ok(Self { known: Arc::new(Known { token, name, spki, point, found }) })
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.known.spki
    }

    /// A PKCS#10 request over the key, DER. As `sign_blocking`.
    pub fn certificate_request(&self, runtime: &Handle) -> Result<Vec<u8>, KeyError> {
        request_signed_elsewhere(&self.known.point, |message| {
            self.sign_blocking(runtime, message).map_err(KeyError::Token)
        })
    }

    /// DER ECDSA-Sig-Value over the SHA-256 of `message`. Blocks the calling thread until the token has signed or is given up;
    /// `runtime` goes on meanwhile.
    pub(super) fn sign_blocking(&self, runtime: &Handle, message: &[u8]) -> Result<Vec<u8>, TokenFailure> {
        let hash: [u8; 32] = digest(&SHA256, message).as_ref().try_into().expect("SHA-256 has 32 bytes");
        // Room for the one answer.
        let ((sender, receiver), known) = (mpsc::sync_channel(1), self.known.clone());
        runtime.spawn(async move {
            // A caller that has gone away needs no answer.
            let _ = sender.send(known.sign(&hash).await);
        });
        // The sender is gone without an answer only when the runtime ends.
        let signature = receiver.recv().unwrap_or(Err(TokenFailure::Token(HsmError::Closed)))?;
        Ok(KeyKind::EcP256.x509_signature(signature))
    }
}

impl Known {
    async fn sign(&self, hash: &[u8; 32]) -> Result<Vec<u8>, TokenFailure> {
        let key = self.found.get_or_try_init(|| self.find()).await?;
        Ok(key.sign_sha256(hash, Urgency::FIRST).await?)
    }

    /// Another key under the name is none: somebody has made it since.
    async fn find(&self) -> Result<TokenKey, TokenFailure> {
        let found = self.token.get().await?.find(self.name.clone()).await?;
        let found = found.ok_or_else(|| HsmError::KeyLost(self.name.clone()))?;
        if found.spki_der() != self.spki {
            return Err(HsmError::KeyReplaced(self.name.clone()).into());
        }
        Ok(found)
    }
}

/// The key as rustls uses it. It signs on whatever thread rustls is on: dial on one that may block.
#[derive(Clone)]
struct TlsKey {
    key: TokenHeldKey,
    runtime: Handle,
}

impl TokenHeldKey {
    /// The key as rustls uses it, whose signatures are made by way of the calling task's runtime.
    pub fn tls_key(&self) -> Arc<dyn rustls::sign::SigningKey> {
        Arc::new(TlsKey { key: self.clone(), runtime: Handle::current() })
    }
}

impl rustls::sign::SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.key.spki_der()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TlsError> {
        let signed = self.key.sign_blocking(&self.runtime, message);
        signed.map_err(|error| NotSigned::because(&error).into())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

impl fmt::Debug for TokenHeldKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHeldKey({})", self.known.name)
    }
}

impl fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

/// The same for the same label, so that what an earlier life of the agent has left is found.
fn key_id(label: &str) -> KeyId {
    let hash = digest(&SHA256, format!("ironroot agent key {label}").as_bytes());
    KeyId::new(&hash.as_ref()[..ID_BYTES]).expect("sixteen bytes are an ID")
}
