//! Keys on a token, through one session: made, found, checked, destroyed.

mod examination;
mod generation;
mod objects;
mod protection;

use std::sync::{PoisonError, RwLock};

use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;

use crate::error::HsmError;
use crate::login::Login;
use crate::name::KeyName;

pub(crate) use examination::checked_signature;
pub(crate) use generation::{Before, generate, remove_strays};
pub(crate) use objects::{destroy, find};

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

    /// Its name, with the CKA_ID as the token has it.
    pub(crate) fn name(&self) -> &KeyName {
        &self.name
    }

    /// The public half, a DER SubjectPublicKeyInfo.
    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The public half, an uncompressed point.
    pub(crate) fn point(&self) -> &[u8] {
        &self.spki[examination::P256_SPKI_PREFIX.len()..]
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
        let found = find(session, &self.name, login)?.ok_or_else(|| HsmError::KeyLost(self.name.clone()))?;
        if found.spki != self.spki {
            return Err(HsmError::KeyReplaced(self.name.clone()));
        }
        let handle = found.handle_in(login).expect("find learnt it in this login");
        *self.handle.write().unwrap_or_else(PoisonError::into_inner) = Some((login, handle));
        Ok(handle)
    }
}
