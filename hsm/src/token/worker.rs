//! One session thread: takes the most urgent job, does it, and climbs from remedy to remedy when the token fails.

use std::sync::Arc;

use cryptoki::mechanism::Mechanism;
use cryptoki::session::Session;
use tracing::debug;

use super::login::{Login, close};
use super::{Job, Shared};
use crate::error::{HsmError, Remedy};
use crate::key::{self, Held, KeyId};
use crate::module::Entered;
use crate::signature::P256Signature;

/// A thread's own state: the session it works with, and the login that session belongs to.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    session: Option<(Login, Session)>,
    /// The epoch and, if it got so far, the login of the last attempt: a failure is theirs.
    epoch: u64,
    login: Option<Login>,
}

/// What a job works with: leave to call the library, and a session of the current login.
struct Work<'a> {
    entered: &'a Entered<'a>,
    session: &'a Session,
    login: Login,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let epoch = shared.module.epoch();
        Self { shared, session: None, epoch, login: None }
    }

    /// Serves jobs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while let Some(job) = self.shared.queue.next() {
            match job {
                Job::Sign { reply, .. } if reply.is_abandoned() => {}
                Job::Sign { key, digest, reply } => reply.send(self.sign(&key, &digest)),
                Job::Task(task) => task(&mut self),
            }
        }
        self.close_session();
    }

    pub(super) fn generate(&mut self, id: &KeyId, label: &str) -> Result<Arc<Held>, HsmError> {
        if self.find(id)?.is_some() {
            return Err(HsmError::KeyExists(id.clone()));
        }
        // No retry here: a generation that failed half-way must be looked at, not repeated.
        let entered = self.shared.module.enter()?;
        let login = self.shared.login_of(&entered)?;
        let session = self.shared.open_session(&entered, true)?;
        let made = key::generate(&session, id, label, login);
        close(session);
        made.map(Arc::new)
    }

    pub(super) fn find(&mut self, id: &KeyId) -> Result<Option<Arc<Held>>, HsmError> {
        let found = self.persist_with(|work| {
            let found = key::find(work.session, id, work.login)?;
            if found.is_none() {
                // Some modules go on with an empty list when their token is gone; its description is then gone too.
                work.entered.pkcs11.get_token_info(work.session.get_session_info()?.slot_id())?;
            }
            Ok(found)
        })?;
        Ok(found.map(Arc::new))
    }

    pub(super) fn destroy(&mut self, id: &KeyId) -> Result<bool, HsmError> {
        let shared = Arc::clone(&self.shared);
        self.persist_with(|work| {
            let session = shared.open_session(work.entered, true)?;
            let destroyed = key::destroy(&session, id);
            close(session);
            destroyed
        })
    }

    fn sign(&mut self, key: &Held, digest: &[u8; 32]) -> Result<P256Signature, HsmError> {
        self.persist_with(|work| {
            let handle = match key.handle_in(work.login) {
                Some(handle) => handle,
                None => key.find_again(work.session, work.login)?,
            };
            let signature = work.session.sign(&Mechanism::Ecdsa, handle, digest)?;
            key::checked_signature(key.id(), &signature)
        })
    }

    /// Does `job` with a logged-in session. After a failure that something can be done about, does that and tries again,
    /// each time with a stronger remedy: new session, new login, new epoch.
    fn persist_with<T>(&mut self, mut job: impl FnMut(&Work<'_>) -> Result<T, HsmError>) -> Result<T, HsmError> {
        let mut weakest = Remedy::NewSession;
        loop {
            let error = match self.attempt(&mut job) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if error.remedy() == Remedy::None {
                return Err(error);
            }
            let remedy = error.remedy().max(weakest);
            debug!(error = %error, remedy = ?remedy, "token failed");
            match remedy {
                Remedy::NewSession => self.close_session(),
                Remedy::NewLogin => {
                    self.close_session();
                    if let Some(login) = self.login.take() {
                        self.shared.forget_login(login);
                    }
                }
                Remedy::NewEpoch if self.shared.module.renew(self.epoch) => {}
                Remedy::NewEpoch | Remedy::None => return Err(error),
            }
            weakest = remedy.stronger();
        }
    }

    fn attempt<T>(&mut self, job: &mut impl FnMut(&Work<'_>) -> Result<T, HsmError>) -> Result<T, HsmError> {
        let shared = Arc::clone(&self.shared);
        self.epoch = shared.module.epoch();
        let entered = shared.module.enter()?;
        self.epoch = entered.epoch;
        let login = shared.login_of(&entered)?;
        self.login = Some(login);
        if let Some((since, stale)) = self.session.take_if(|(since, _)| *since != login)
            && since.epoch == entered.epoch
        {
            close(stale);
        }
        let session = match &mut self.session {
            Some((_, session)) => session,
            none => &none.insert((login, shared.open_session(&entered, false)?)).1,
        };
        job(&Work { entered: &entered, session, login })
    }

    fn close_session(&mut self) {
        if let Some((login, session)) = self.session.take() {
            self.shared.close_in(login.epoch, session);
        }
    }
}
