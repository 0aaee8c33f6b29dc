//! Keys on a token: made, found, checked, destroyed.

mod objects;
mod protection;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;

use crate::error::HsmError;
use crate::signature::P256Signature;
use crate::token::{Login, Token, Urgency};

pub(crate) use objects::{Before, checked_signature, destroy, find, generate, remove_strays};

/// Longest CKA_ID accepted, bytes.
const MAX_ID_BYTES: usize = 255;

/// A key's CKA_ID.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyId(Vec<u8>);

impl KeyId {
    /// 1 to 255 bytes.
    pub fn new(id: &[u8]) -> Option<Self> {
        (1..=MAX_ID_BYTES).contains(&id.len()).then(|| Self(id.to_vec()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// What a key is called in the token: by its CKA_ID, and by its CKA_LABEL where the token chose another CKA_ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyName {
    id: KeyId,
    label: String,
}

impl KeyName {
    /// `label`: what [`Token::generate_p256`] was given. A key of that label is only looked for if none has the identifier.
    pub fn new(id: KeyId, label: &str) -> Self {
        Self { id, label: label.to_owned() }
    }

    /// The CKA_ID.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The CKA_LABEL, if keys may be found by it.
    pub(crate) fn label(&self) -> Option<&str> {
        Some(self.label.as_str()).filter(|label| !label.is_empty())
    }
}

/// By its identifier alone.
impl From<&KeyId> for KeyName {
    fn from(id: &KeyId) -> Self {
        Self { id: id.clone(), label: String::new() }
    }
}

impl From<&KeyName> for KeyName {
    fn from(name: &KeyName) -> Self {
        name.clone()
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.label() {
            Some(label) => write!(f, "{} ({label:?})", self.id),
            None => self.id.fmt(f),
        }
    }
}

/// A P-256 key pair whose private half is, and stays, in a token.
#[derive(Clone)]
pub struct TokenKey {
    token: Token,
    held: Arc<Held>,
}

impl TokenKey {
    pub(crate) fn new(token: Token, held: Arc<Held>) -> Self {
        Self { token, held }
    }

    /// The CKA_ID, as the token has it: some choose it themselves.
    pub fn id(&self) -> &KeyId {
        self.held.id()
    }

    /// The public half, a DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.held.spki
    }

    /// The public half, an uncompressed point: 0x04‖x‖y, 65 bytes.
    pub fn public_point(&self) -> &[u8] {
        &self.held.spki[objects::P256_SPKI_PREFIX.len()..]
    }

    /// How long ago its token last signed, with whatever key; none if it has not yet.
    pub fn signed_ago(&self) -> Option<Duration> {
        self.token.signed_ago()
    }

    /// Signs a SHA-256 digest.
    ///
    /// Errors: [`HsmError::Busy`] if too much is waiting, [`HsmError::KeyLost`] if the key is gone, and what else the token
    /// says. Dropping the future takes the request out of the queue.
    pub async fn sign_digest(&self, digest: [u8; 32], urgency: Urgency) -> Result<P256Signature, HsmError> {
        self.token.sign(Arc::clone(&self.held), digest, urgency).await
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({})", self.held.id())
    }
}

/// What is known of a key: who it is for ever, and its handle in one login.
pub(crate) struct Held {
    name: KeyName,
    spki: Vec<u8>,
    says_local: bool,
    handle: RwLock<Option<(Login, ObjectHandle)>>,
}

impl Held {
    /// `name`: the CKA_ID as the token has it.
    fn new(name: KeyName, spki: Vec<u8>, says_local: bool, handle: ObjectHandle, login: Login) -> Self {
        Self { name, spki, says_local, handle: RwLock::new(Some((login, handle))) }
    }

    pub(crate) fn id(&self) -> &KeyId {
        &self.name.id
    }

    /// Whether the token says that it was made inside (CKA_LOCAL).
    pub(crate) fn says_local(&self) -> bool {
        self.says_local
    }

    /// The handle, if it was learnt in this login.
    pub(crate) fn handle_in(&self, login: Login) -> Option<ObjectHandle> {
        let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        handle.filter(|(since, _)| *since == login).map(|(_, handle)| handle)
    }

    /// Looks the key up again and makes sure that it is still the same one.
    pub(crate) fn find_again(&self, session: &Session, login: Login) -> Result<ObjectHandle, HsmError> {
        let found = find(session, &self.name, login)?.ok_or_else(|| HsmError::KeyLost(self.id().clone()))?;
        if found.spki != self.spki {
            return Err(HsmError::KeyReplaced(self.id().clone()));
        }
        let handle = found.handle_in(login).expect("find learnt it in this login");
        *self.handle.write().unwrap_or_else(PoisonError::into_inner) = Some((login, handle));
        Ok(handle)
    }
}
