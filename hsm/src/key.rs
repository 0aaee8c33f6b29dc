//! Keys on a token, through one session: made, found, checked, destroyed.

mod examination;
mod generation;
mod objects;
mod protection;
mod public_half;

use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;

use crate::error::HsmError;
use crate::kind::KeyKind;
use crate::login::Login;
use crate::name::KeyName;

pub(crate) use examination::{checked_signature, mechanism};
pub(crate) use generation::{Before, generate, remove_strays, what_it_lacks};
pub(crate) use objects::{destroy, find};

pub(crate) use protection::REQUIRED;

use public_half::PublicHalf;

/// What is known of a key: who it is for ever, and its handle in one login.
pub(crate) struct Held {
    name: KeyName,
    kind: KeyKind,
    spki: Vec<u8>,
    /// How many of the last bytes of `spki` are the key itself.
    key_bytes: usize,
    says_local: bool,
    handle: RwLock<Option<(Login, ObjectHandle)>>,
    signed_at: Mutex<Option<Instant>>,
}

impl Held {
    /// `name`: the CKA_ID as the token has it.
    fn new(
        name: KeyName,
        (kind, public): (KeyKind, &PublicHalf),
        says_local: bool,
        handle: ObjectHandle,
        login: Login,
    ) -> Self {
        let (spki, key_bytes) = (public.spki(), public.key_bytes());
        let handle = RwLock::new(Some((login, handle)));
        Self { name, kind, spki, key_bytes, says_local, handle, signed_at: Mutex::default() }
    }

    /// Its name, with the CKA_ID as the token has it.
    pub(crate) fn name(&self) -> &KeyName {
        &self.name
    }

    /// What kind of key it is.
    pub(crate) fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The public half, a DER SubjectPublicKeyInfo.
    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The public half, an uncompressed point, an RSAPublicKey, or ML-DSA's bytes.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.spki[self.spki.len() - self.key_bytes..]
    }

    /// Whether the token says that it was made inside (CKA_LOCAL).
    pub(crate) fn says_local(&self) -> bool {
        self.says_local
    }

    pub(crate) fn note_signature(&self) {
        *self.signed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago it last signed; none if it has not yet.
    pub(crate) fn signed_ago(&self) -> Option<Duration> {
        self.signed_at.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }

    /// The handle, if it was learnt in this login.
    pub(crate) fn handle_in(&self, login: Login) -> Option<ObjectHandle> {
        let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        handle.filter(|(since, _)| *since == login).map(|(_, handle)| handle)
    }

    /// Looks the key up again and makes sure that it is still the same one.
    pub(crate) fn find_again(&self, session: &Session, login: Login) -> Result<ObjectHandle, HsmError> {
        let found = find(session, &self.name, self.kind, login)?.ok_or_else(|| HsmError::KeyLost(self.name.clone()))?;
        if found.spki != self.spki {
            return Err(HsmError::KeyReplaced(self.name.clone()));
        }
        let handle = found.handle_in(login).expect("find learnt it in this login");
        *self.handle.write().unwrap_or_else(PoisonError::into_inner) = Some((login, handle));
        Ok(handle)
    }
}
