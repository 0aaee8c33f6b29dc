//! Sessions as the token grants them.
//!
//! ```text
//!  shared session (read/write if the token allows): keeps the login alive; makes and destroys keys; serves workers without one
//!  own session of each worker (read-only if the token allows): signs. When the token has no more, its worker uses the shared
//!  one in turn with others, and asks again later.
//! ```
//! So one session is enough, and with n sessions n - 1 workers sign at once.

use std::sync::{Mutex, PoisonError};

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as CryptokiError, RvError};
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use tracing::warn;

use crate::error::HsmError;

/// An open session. It is never closed by drop: after its epoch the number may be another's.
pub(super) struct Open {
    pub(super) session: Session,
    pub(super) writable: bool,
}

/// The session that lasts as long as the login; one thread at a time works with it.
pub(super) struct SharedSession {
    slot: Slot,
    open: Mutex<Option<Open>>,
}

impl SharedSession {
    pub(super) fn new(slot: Slot, open: Open) -> Self {
        Self { slot, open: Mutex::new(Some(open)) }
    }

    /// Does `job` with it. If it could not be opened for writing and `writing` is asked for, that is tried again first.
    pub(super) fn with<T>(
        &self,
        pkcs11: &Pkcs11,
        writing: bool,
        job: impl FnOnce(&Session) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        let mut guard = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = guard.as_mut().ok_or(HsmError::SessionEnded)?;
        if writing && !open.writable {
            // If the token still refuses, the job's own call says why.
            if let Ok(session) = pkcs11.open_rw_session_no_drop(self.slot) {
                close(std::mem::replace(open, Open { session, writable: true }).session);
            }
        }
        job(&open.session)
    }

    /// Whether keys can be made with it.
    pub(super) fn is_writable(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|open| open.writable)
    }

    /// The session, once nobody works with it; none if it was taken before.
    pub(super) fn take(&self) -> Option<Session> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).take().map(|open| open.session)
    }
}

/// A session to make keys with, or at least one to sign with.
pub(super) fn open_shared(pkcs11: &Pkcs11, slot: Slot) -> Result<Open, HsmError> {
    if let Ok(session) = pkcs11.open_rw_session_no_drop(slot) {
        return Ok(Open { session, writable: true });
    }
    Ok(Open { session: pkcs11.open_ro_session_no_drop(slot)?, writable: false })
}

/// A worker's own session; none if the token has no more. Some tokens refuse read-only sessions as such.
pub(super) fn open_own(pkcs11: &Pkcs11, slot: Slot) -> Result<Option<Open>, HsmError> {
    let refused = match pkcs11.open_ro_session_no_drop(slot) {
        Ok(session) => return Ok(Some(Open { session, writable: false })),
        Err(refused) => refused,
    };
    if is_exhausted(&refused) {
        return Ok(None);
    }
    match pkcs11.open_rw_session_no_drop(slot) {
        Ok(session) => Ok(Some(Open { session, writable: true })),
        Err(error) if is_exhausted(&error) => Ok(None),
        Err(_) => Err(refused.into()),
    }
}

/// Closes a session of the current epoch.
pub(super) fn close(session: Session) {
    if let Err(error) = session.close() {
        warn!(error = %HsmError::from(error), "session could not be closed");
    }
}

fn is_exhausted(error: &CryptokiError) -> bool {
    matches!(error, CryptokiError::Pkcs11(RvError::SessionCount, _))
}
