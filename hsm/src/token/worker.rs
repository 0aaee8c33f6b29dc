//! One session thread: takes the most urgent job, does it, and climbs from remedy to remedy when the token fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cryptoki::session::Session;
use cryptoki::slot::Slot;
use tracing::{debug, error, warn};

use super::job::Job;
use super::login::{Current, answers};
use super::queue::Queue;
use super::sessions::{Open, close, open_own};
use super::shared::Shared;
use crate::error::{HsmError, Remedy};
use crate::key::{self, Before, Held};
use crate::kind::{KeyKind, SigningInput};
use crate::login::Login;
use crate::module::Entered;
use crate::name::{KeyId, KeyName};

/// A worker that found the token without a free session asks again after this time; meanwhile it shares one.
const OWN_SESSION_RETRY: Duration = Duration::from_secs(10);

/// How often a key is made anew at once when the token mixed up its handles.
const MIXED_UP_RETRIES: usize = 2;

/// A thread's own state: the session it works with, and the login that session belongs to.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    own: Option<(Login, Session)>,
    /// The token had no free session at this time.
    exhausted_at: Option<Instant>,
    /// The epoch and, if it got so far, the login of the last attempt, and whether it used the shared session: a failure is
    /// theirs.
    epoch: u64,
    login: Option<Login>,
    on_shared: bool,
}

/// What a job works with: leave to call the library, and a session of the current login.
struct Work<'a> {
    entered: &'a Entered<'a>,
    session: &'a Session,
    slot: Slot,
    login: Login,
}

/// What a job does to the token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Reads,
    Writes,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let epoch = shared.module.epoch();
        Self { shared, own: None, exhausted_at: None, epoch, login: None, on_shared: false }
    }

    /// Opens the worker's own session; whether the token had one.
    pub(super) fn open_session(&mut self) -> bool {
        let opened = self.attempt(Access::Reads, &mut |_: &Work<'_>| Ok(()));
        if let Err(error) = &opened {
            debug!(error = %error, "session not opened yet");
        }
        self.own.is_some()
    }

    /// Serves jobs until the queue is closed and empty.
    pub(super) fn run(mut self, queue: &Queue<Job<Self>>) {
        while let Some(job) = queue.next() {
            // One that panics must not take the thread from all others: with the last one gone the queue would be served by nobody. Its
            // caller is told, since its reply is dropped.
            if catch_unwind(AssertUnwindSafe(|| self.serve(job))).is_err() {
                error!(token = %self.shared.logins.token(), "token job panicked; going on with a new session");
                self.begin_again();
            }
        }
        self.close_session();
    }

    fn serve(&mut self, job: Job<Self>) {
        match job {
            Job::Sign { reply, .. } if reply.is_abandoned() => {}
            Job::Sign { key, input, reply } => reply.send(self.sign(&key, &input)),
            Job::Task(task) => task(self),
        }
    }

    /// Leaves the session that the last job has worked with: what it has left in it, nobody knows. One that cannot even be closed is
    /// given up.
    fn begin_again(&mut self) {
        if catch_unwind(AssertUnwindSafe(|| self.apply(Remedy::NewSession))).is_err() {
            self.own = None;
        }
    }

    /// Makes a key, or leaves none behind. A failure is not answered by a second try here: a generation that failed half-way
    /// must be looked at. But what may help the next try is done before this one is reported. Handles that are mixed up are no
    /// failure of the token's: what they need is done, so it is tried again.
    pub(super) fn generate(&mut self, id: &KeyId, label: &str, kind: KeyKind) -> Result<Arc<Held>, HsmError> {
        let name = KeyName::new(id.clone(), label);
        let mut retries = MIXED_UP_RETRIES;
        loop {
            match self.generate_once(&name, kind) {
                Err(error @ HsmError::HandlesMixedUp(_)) if retries > 0 => {
                    retries -= 1;
                    warn!(error = %error, "key not made yet");
                }
                done => return done,
            }
        }
    }

    fn generate_once(&mut self, name: &KeyName, kind: KeyKind) -> Result<Arc<Held>, HsmError> {
        // This also mends what has happened since the last job: a lost login, a new epoch.
        self.check_unused(name, kind)?;
        self.check_makes(kind)?;
        let mut before = None;
        let made = self.attempt(Access::Writes, &mut |work: &Work<'_>| {
            let before = before.insert(Before::see(work.session, name)?);
            key::generate(work.session, name, kind, before, work.login)
        });
        match &made {
            Ok(held) => {
                self.shared.trouble().is_over();
                self.tell_origin(held);
            }
            Err(error) => self.mend(error, name, before.as_ref()),
        }
        made.map(Arc::new)
    }

    /// Makes sure that no key has the new one's CKA_ID.
    fn check_unused(&mut self, name: &KeyName, kind: KeyKind) -> Result<(), HsmError> {
        let Some(id) = name.id() else { return Ok(()) };
        match self.find(&KeyName::from(id), kind)? {
            Some(_) => Err(HsmError::KeyExists(id.clone())),
            None => Ok(()),
        }
    }

    /// Asks the token whether it makes keys of this kind. It is not asked for those on P-256, which every token makes that makes any:
    /// some make them and do not say so.
    fn check_makes(&mut self, kind: KeyKind) -> Result<(), HsmError> {
        if kind == KeyKind::EcP256 {
            return Ok(());
        }
        let lack = self.persist_with(Access::Reads, |work| key::what_it_lacks(work.entered.pkcs11, work.slot, kind))?;
        let token = self.shared.logins.token().to_string();
        lack.map_or(Ok(()), |reason| Err(HsmError::KindUnsupported { token, kind, reason }))
    }

    pub(super) fn find(&mut self, name: &KeyName, kind: KeyKind) -> Result<Option<Arc<Held>>, HsmError> {
        let found = self.persist_with(Access::Reads, |work| {
            let found = key::find(work.session, name, kind, work.login)?;
            if found.is_none() {
                answers(work.entered.pkcs11, work.slot)?;
            }
            Ok(found)
        })?;
        Ok(found.map(Arc::new).inspect(|held| self.tell_origin(held)))
    }

    pub(super) fn destroy(&mut self, name: &KeyName) -> Result<bool, HsmError> {
        self.persist_with(Access::Writes, |work| key::destroy(work.session, name))
    }

    fn sign(&mut self, key: &Held, input: &SigningInput) -> Result<Vec<u8>, HsmError> {
        let signature = self.persist_with(Access::Reads, |work| {
            let handle = match key.handle_in(work.login) {
                Some(handle) => handle,
                None => key.find_again(work.session, work.login)?,
            };
            let signature = work.session.sign(&key::mechanism(key.kind(), input), handle, input.as_bytes())?;
            key::checked_signature(key.name(), key.kind(), signature)
        })?;
        key.note_signature();
        Ok(signature)
    }

    /// After a failed generation: nothing of it stays in the token, and the next try meets a better one if that can be had.
    /// `before`: none if it was not even begun.
    fn mend(&mut self, error: &HsmError, name: &KeyName, before: Option<&Before>) {
        let look = |worker: &mut Self| match before {
            Some(before) => {
                worker.attempt(Access::Writes, &mut |work: &Work<'_>| key::remove_strays(work.session, name, before))
            }
            None => Ok(()),
        };
        let mut looked = look(self);
        let remedy = self.shared.trouble().remedy(error.remedy(), Instant::now());
        debug!(error = %error, remedy = ?remedy, "key generation failed");
        if self.apply(remedy) {
            if remedy == Remedy::NewEpoch {
                self.shared.trouble().epoch_begun(Instant::now());
            }
            if looked.is_err() {
                looked = look(self);
            }
        }
        if let Err(error) = looked {
            warn!(key = %name, error = %error, "whether a failed generation left a key behind could not be seen");
        }
    }

    /// Once per process: a token's word that a key was not made inside, where everything else says that it was.
    fn tell_origin(&self, held: &Held) {
        if !held.says_local() && self.shared.is_origin_untold() {
            warn!(
                key = %held.name(),
                "the token does not say that its keys were made inside (CKA_LOCAL); it says that they never were readable"
            );
        }
    }

    /// Does `job` with a logged-in session. After a failure that something can be done about, does that and tries again,
    /// each time with a stronger remedy: new session, new login, new epoch.
    fn persist_with<T>(
        &mut self,
        access: Access,
        mut job: impl FnMut(&Work<'_>) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        let mut weakest = Remedy::NewSession;
        loop {
            let error = match self.attempt(access, &mut job) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if error.remedy() == Remedy::None {
                return Err(error);
            }
            let remedy = error.remedy().max(weakest);
            debug!(error = %error, remedy = ?remedy, "token failed");
            let is_applied = match (&error, remedy) {
                // A key that is gone stays gone, as a rule: the others are not to pay for each look.
                (HsmError::KeyLost(_), Remedy::NewEpoch) => self.shared.module.renew_for_lost_key(self.epoch),
                _ => self.apply(remedy),
            };
            if !is_applied {
                return Err(error);
            }
            weakest = remedy.stronger();
        }
    }

    /// Does what may help; false if it could not be done.
    fn apply(&mut self, remedy: Remedy) -> bool {
        match remedy {
            Remedy::NewSession if !self.on_shared => {
                self.close_session();
                true
            }
            // The shared session ends with its login.
            Remedy::NewSession | Remedy::NewLogin => {
                self.close_session();
                if let Some(login) = self.login.take() {
                    self.shared.logins.forget_login(login);
                }
                true
            }
            Remedy::NewEpoch => self.shared.module.renew(self.epoch),
            Remedy::None => false,
        }
    }

    fn attempt<T>(
        &mut self,
        access: Access,
        job: &mut impl FnMut(&Work<'_>) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        let shared = Arc::clone(&self.shared);
        self.epoch = shared.module.epoch();
        let entered = shared.module.enter()?;
        self.epoch = entered.epoch;
        let current = shared.logins.logged_in(&entered)?;
        self.login = Some(current.login);
        self.take_own(&entered, &current)?;
        let (slot, login) = (current.slot, current.login);
        let mut with = |session: &Session| job(&Work { entered: &entered, session, slot, login });
        self.on_shared = access == Access::Writes || self.own.is_none();
        match &self.own {
            Some((_, own)) if access == Access::Reads => with(own),
            _ => current.shared.with(entered.pkcs11, access == Access::Writes, with),
        }
    }

    /// Makes sure that the worker's own session, if it can have one, is of the current login.
    fn take_own(&mut self, entered: &Entered<'_>, current: &Current) -> Result<(), HsmError> {
        if let Some((since, stale)) = self.own.take_if(|(since, _)| *since != current.login)
            && since.epoch == entered.epoch
        {
            close(stale);
        }
        let waits = self.exhausted_at.is_some_and(|at| at.elapsed() < OWN_SESSION_RETRY);
        if self.own.is_some() || waits {
            return Ok(());
        }
        let opened = open_own(entered.pkcs11, current.slot)?;
        self.exhausted_at = opened.is_none().then(Instant::now);
        self.own = opened.map(|Open { session, .. }| (current.login, session));
        Ok(())
    }

    fn close_session(&mut self) {
        if let Some((login, session)) = self.own.take() {
            self.shared.logins.close_in(login.epoch, session);
        }
    }
}
