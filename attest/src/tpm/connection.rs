//! A live ESYS connection: commands with the patience that the chip asks for, and what they left loaded.

use std::sync::Arc;
use std::thread;

use tracing::{debug, info};
use tss_esapi::Context;
use tss_esapi::handles::{KeyHandle, ObjectHandle};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::Public;

use super::error::TpmError;
use super::known::{CertificatesRead, Known, Made, Primaries};
use super::patience::patience;
use super::primary::Primary;
use super::response_code as rc;
use super::settings::TpmSettings;
use super::watch::Watch;

/// The sessions of one command: authorizations first, then parameter encryption.
pub type Sessions = (Option<AuthSession>, Option<AuthSession>, Option<AuthSession>);

/// For commands that need no authorization and carry no secret.
pub const NO_SESSION: Sessions = (None, None, None);
/// One authorization by empty password.
pub const EMPTY_PASSWORD: Sessions = (Some(AuthSession::Password), None, None);

/// A live ESYS context, and what is loaded through it.
pub struct Connection {
    context: Context,
    settings: Arc<TpmSettings>,
    watch: Option<Watch>,
    loaded: Vec<ObjectHandle>,
    /// A primary key that was made and is still loaded: its context is saved before it is flushed.
    to_save: Option<ToSave>,
    known: Known,
    /// TPM2_SelfTest was sent on this connection.
    self_tested: bool,
}

struct ToSave {
    handle: KeyHandle,
    primary: Primary,
    public: Public,
    name: Vec<u8>,
}

impl Connection {
    pub fn new(context: Context, settings: Arc<TpmSettings>, watch: Option<Watch>) -> Self {
        Self {
            context,
            settings,
            watch,
            loaded: Vec::new(),
            to_save: None,
            known: Known::default(),
            self_tested: false,
        }
    }

    /// What the operator said.
    pub fn settings(&self) -> &TpmSettings {
        &self.settings
    }

    /// What was learnt of the chip's primary keys.
    pub fn primaries(&mut self) -> &mut Primaries {
        &mut self.known.primaries
    }

    /// What was read of the chip's certificates.
    pub fn certificates_read(&mut self) -> &mut CertificatesRead {
        &mut self.known.certificates
    }

    /// One TPM command, repeated with growing pauses while the TPM says "not now", and once more after a self-test that
    /// it asks for.
    ///
    /// The pauses hold up the queue. That is right: the chip would tell the next job the same.
    pub fn command<T>(
        &mut self,
        name: &'static str,
        sessions: Sessions,
        mut call: impl FnMut(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, TpmError> {
        let mut tries = 0;
        loop {
            let context = &mut self.context;
            let result = watched(self.watch.as_ref(), name, || context.execute_with_sessions(sessions, &mut call));
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if error.is(rc::NEEDS_TEST) && !self.self_tested {
                self.self_test()?;
                continue;
            }
            let pause = error.failure().and_then(|f| patience(f.tpm_code())).and_then(|p| p.pause(tries));
            match pause {
                Some(pause) => thread::sleep(pause),
                None => return Err(error),
            }
            tries += 1;
        }
    }

    /// TPM2_SelfTest of everything that was not tested yet (Part 3 §10.2): the chip says that it needs one.
    fn self_test(&mut self) -> Result<(), TpmError> {
        self.self_tested = true;
        info!("the TPM asks for a self-test");
        self.command("TPM2_SelfTest", NO_SESSION, |esys| esys.self_test(false))
    }

    /// Notes a loaded object or session, to be flushed at the end of the task at the latest.
    pub fn keep(&mut self, handle: ObjectHandle) {
        self.loaded.push(handle);
    }

    /// Frees a slot before the task ends.
    pub fn flush(&mut self, handle: ObjectHandle) -> Result<(), TpmError> {
        if self.to_save.as_ref().is_some_and(|made| ObjectHandle::from(made.handle) == handle) {
            self.save_made();
        }
        self.loaded.retain(|loaded| *loaded != handle);
        self.command("TPM2_FlushContext", NO_SESSION, |esys| esys.flush_context(handle))
    }

    /// A key was made, and will be of use again: its context is saved when it leaves its slot, which is when nobody waits any more where it
    /// is loaded until its task ends.
    pub fn save_later(&mut self, primary: Primary, handle: KeyHandle, public: Public, name: Vec<u8>) {
        // One that is still loaded would not be looked for among those that are to be saved.
        self.save_made();
        self.to_save = Some(ToSave { handle, primary, public, name });
    }

    /// TPM2_ContextSave of the key that was made last, if that was not done yet.
    pub fn save_made(&mut self) {
        let Some(ToSave { handle, primary, public, name }) = self.to_save.take() else { return };
        let object = ObjectHandle::from(handle);
        match self.command("TPM2_ContextSave", NO_SESSION, |esys| esys.context_save(object)) {
            Ok(context) => self.primaries().made.push((primary, Made { context, public, name })),
            // It will be made again next time.
            Err(error) => debug!(%error, "a primary key's context cannot be saved"),
        }
    }

    /// Takes a handle off the library's table, where it is not in one of the TPM's slots. An entry that stays does no harm.
    pub fn close(&mut self, mut handle: ObjectHandle) {
        let _ = self.command("Esys_TR_Close", NO_SESSION, |esys| esys.tr_close(&mut handle));
    }

    /// Flushes all that is loaded, newest first; goes on after a failure and reports the first.
    pub fn sweep(&mut self) -> Result<(), TpmError> {
        self.save_made();
        let mut swept = Ok(());
        while let Some(handle) = self.loaded.pop() {
            let flushed = self.command("TPM2_FlushContext", NO_SESSION, |esys| esys.flush_context(handle));
            swept = swept.and(flushed);
        }
        swept
    }
}

/// One call into the library, under watch where there is one.
pub fn watched<T>(
    watch: Option<&Watch>,
    name: &'static str,
    call: impl FnOnce() -> tss_esapi::Result<T>,
) -> Result<T, TpmError> {
    let Some(watch) = watch else { return call().map_err(|e| TpmError::of(name, e)) };
    match watch.over(name, call) {
        (Ok(value), _) => Ok(value),
        //= FLT-T2 chip faults: "that command fails in time"
        (Err(_), true) => Err(TpmError::Hung { command: name, seconds: watch.deadline().as_secs() }),
        (Err(error), false) => Err(TpmError::of(name, error)),
    }
}
