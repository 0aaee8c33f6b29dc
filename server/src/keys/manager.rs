//! A key manager and its keys, whatever they are kept in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ironroot_hsm::{HsmError, KeyKind, KeyName, Token, TokenKey, Urgency};

use super::error::KeyError;
use super::kept::SoftwareKeys;
use super::software::SoftwareKey;

/// Makes keys, finds and destroys them.
#[derive(Clone, Debug)]
pub enum KeyManager {
    /// They never leave the token.
    Token(Token),
    /// They are in this process, and in a file if it is told one.
    Software(SoftwareKeys),
}

/// The key manager that keys are made in, and the one that the CA moves away from.
#[derive(Clone, Debug)]
pub struct KeyManagers {
    /// Where keys are made.
    pub current: KeyManager,
    /// Where those are that signed before; none if the CA does not move.
    pub former: Option<FormerManager>,
}

/// The key manager that the CA moves away from, by the operator's word.
#[derive(Clone, Debug)]
pub enum FormerManager {
    /// Its keys sign until those of the next one are known to everybody.
    AtHand(KeyManager),
    /// It cannot be opened.
    Unreachable,
}

impl KeyManager {
    /// The key of this name; none if there is none. An error if it is of another kind.
    pub async fn find(&self, kind: KeyKind, name: &KeyName) -> Result<Option<Key>, KeyError> {
        match self {
            Self::Token(token) => Ok(token.find_of(kind, name).await?.map(Key::Token)),
            Self::Software(keys) => match keys.find(&id_of(name)) {
                Some(key) if key.kind() != kind => Err(KeyError::Kind { name: id_of(name), kind }),
                found => Ok(found.map(|key| Key::Software(name.clone(), key))),
            },
        }
    }

    /// Makes a key of this name. In a file it replaces one that is there; a token refuses that.
    pub async fn make(&self, kind: KeyKind, name: &KeyName) -> Result<Key, KeyError> {
        match self {
            Self::Token(token) => {
                let lost = || HsmError::KeyUnusable { name: name.clone(), reason: "a token's key has a CKA_ID".into() };
                let id = name.id().ok_or_else(lost)?;
                Ok(Key::Token(token.generate(kind, id, name.label().unwrap_or_default()).await?))
            }
            Self::Software(keys) => {
                let (keys, id) = (keys.clone(), id_of(name));
                let key = off_the_workers(move || keys.generate(&id, kind)).await?;
                Ok(Key::Software(name.clone(), key))
            }
        }
    }

    /// Destroys the key of this name; true if there was one.
    pub async fn destroy(&self, name: &KeyName) -> Result<bool, KeyError> {
        match self {
            Self::Token(token) => Ok(token.destroy(name).await?),
            Self::Software(keys) => {
                let (keys, id) = (keys.clone(), id_of(name));
                off_the_workers(move || keys.destroy(&id)).await
            }
        }
    }

    /// Whether its keys are gone when the process ends.
    pub fn is_volatile(&self) -> bool {
        matches!(self, Self::Software(keys) if keys.path().is_none())
    }

    /// Whether its keys can be copied.
    pub fn is_software(&self) -> bool {
        matches!(self, Self::Software(_))
    }
}

impl fmt::Display for KeyManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(token) => write!(f, "the token {}", token.uri()),
            Self::Software(keys) => match keys.path() {
                Some(path) => write!(f, "the key file {}", path.display()),
                None => f.write_str("memory"),
            },
        }
    }
}

impl KeyManagers {
    /// The one that was moved away from, if it can be used.
    pub fn former(&self) -> Option<&KeyManager> {
        match &self.former {
            Some(FormerManager::AtHand(former)) => Some(former),
            Some(FormerManager::Unreachable) | None => None,
        }
    }

    /// Whether keys of before may be gone for good without anything being wrong: by the operator's word they are, or were, in the
    /// memory of a process that has ended.
    pub fn leave_keys_behind(&self) -> bool {
        self.current.is_volatile() || self.former().is_some_and(KeyManager::is_volatile)
    }

    /// Whether a key that is nowhere may be in the key manager that cannot be opened.
    pub fn miss_the_former(&self) -> bool {
        matches!(self.former, Some(FormerManager::Unreachable))
    }
}

/// The CA stays where it is.
impl From<KeyManager> for KeyManagers {
    fn from(current: KeyManager) -> Self {
        Self { current, former: None }
    }
}

impl From<Token> for KeyManagers {
    fn from(token: Token) -> Self {
        KeyManager::Token(token).into()
    }
}

/// What a key is called in a file: its label. Source of those that the CA gives: SPIRE's `x509-CA-A`, `JWT-Signer-A`.
fn id_of(name: &KeyName) -> String {
    name.label().map_or_else(|| name.to_string(), str::to_owned)
}

/// For what takes long or writes files.
async fn off_the_workers<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| KeyError::CutOff)?
}

/// A key that can sign.
#[derive(Clone, Debug)]
pub enum Key {
    /// In a token.
    Token(TokenKey),
    /// In this process, under this name.
    Software(KeyName, Arc<SoftwareKey>),
}

impl Key {
    /// Its name, with the CKA_ID as a token has it: some choose it themselves.
    pub fn name(&self) -> &KeyName {
        match self {
            Self::Token(key) => key.name(),
            Self::Software(name, _) => name,
        }
    }

    /// The public half, a DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        match self {
            Self::Token(key) => key.spki_der(),
            Self::Software(_, key) => key.spki_der(),
        }
    }

    /// The public half, as its SubjectPublicKeyInfo has it: an uncompressed point, a DER RSAPublicKey, or ML-DSA's bytes.
    pub fn public_key(&self) -> &[u8] {
        match self {
            Self::Token(key) => key.public_key(),
            Self::Software(_, key) => key.public_key(),
        }
    }

    /// What kind of key it is.
    pub fn kind(&self) -> KeyKind {
        match self {
            Self::Token(key) => key.kind(),
            Self::Software(_, key) => key.kind(),
        }
    }

    /// Whether a token says that it was made inside (CKA_LOCAL).
    pub fn says_local(&self) -> bool {
        matches!(self, Self::Token(key) if key.says_local())
    }

    /// How long ago it last signed; none if it has not yet. What is in this process needs no asking.
    pub fn signed_ago(&self) -> Option<Duration> {
        match self {
            Self::Token(key) => key.signed_ago(),
            Self::Software(..) => Some(Duration::ZERO),
        }
    }

    /// Signs a message with the digest that goes with the kind, in the form of JWS; ML-DSA signs the message itself. Dropping the future takes a request out of a
    /// token's queue.
    pub async fn sign_message(&self, message: &[u8], urgency: Urgency) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Token(key) => Ok(key.sign_message(message, urgency).await?),
            Self::Software(_, key) => match key.kind() {
                KeyKind::EcP256 | KeyKind::EcP384 => key.sign(message),
                KeyKind::Rsa2048 | KeyKind::Rsa4096 | KeyKind::MlDsa(_) => {
                    let (key, message) = (Arc::clone(key), message.to_vec());
                    off_the_workers(move || key.sign(&message)).await
                }
            },
        }
    }
}
