//! A chip, and the ESYS connection to it while there is one.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tracing::{info, warn};
use tss_esapi::Context;
use tss_esapi::constants::CapabilityType;
use tss_esapi::handles::ObjectHandle;
use tss_esapi::interface_types::session_handles::AuthSession;

use super::ek_nv::CertificatesRead;
use super::error::Failure;
use super::primaries::Primaries;
use super::response_code as rc;
use super::watch::Watch;
use super::{EndorsementKind, RememberedEndorsement, TpmAddress, TpmError, TpmSettings, strays};

/// Pause before a vanished TPM is looked for again, doubling up to [`LONGEST_PAUSE`]. Jobs that come in between fail at
/// once: nobody waits in the queue for a chip that is away.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// See [`FIRST_PAUSE`].
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often a task starts over, for each kind of trouble that starting over cures.
const RERUNS: u32 = 3;

/// The sessions of one command: authorizations first, then parameter encryption.
pub type Sessions = (Option<AuthSession>, Option<AuthSession>, Option<AuthSession>);

/// No session.
pub const NO_SESSION: Sessions = (None, None, None);
/// One authorization by empty password.
pub const EMPTY_PASSWORD: Sessions = (Some(AuthSession::Password), None, None);

/// The TPM, as its thread sees it. Every method is one task, complete in itself: it connects if need be, has the patience
/// that the TPM asks for, and leaves nothing loaded.
pub struct Chip {
    settings: Arc<TpmSettings>,
    /// Over a software TPM's commands; started with the first connection.
    watch: Option<Watch>,
    connection: Option<Connection>,
    absence: Option<Absence>,
    /// A connection broke with objects or sessions loaded.
    left_loaded: bool,
    /// Which EK this chip has; looked up once per connection.
    pub(super) endorsement: Option<EndorsementKind>,
}

struct Absence {
    failure: Failure,
    look_again: Instant,
    pause: Duration,
}

impl Chip {
    pub(super) fn new(settings: TpmSettings) -> Self {
        let settings = Arc::new(settings);
        Self { settings, watch: None, connection: None, absence: None, left_loaded: false, endorsement: None }
    }

    /// From now on this device is known by this endorsement key; see [`TpmSettings::remembered`].
    pub fn remember_endorsement(&mut self, remembered: RememberedEndorsement) {
        Arc::make_mut(&mut self.settings).remembered = Some(remembered);
    }

    pub(super) fn settings(&self) -> &TpmSettings {
        &self.settings
    }

    fn address(&self) -> &TpmAddress {
        &self.settings.address
    }

    /// Whether a started TPM 2.0 answers.
    pub fn probe(&mut self) -> Result<(), TpmError> {
        self.task(|tpm| {
            tpm.command("TPM2_GetCapability", NO_SESSION, |esys| {
                // TPM_PT_FAMILY_INDICATOR, which every TPM has.
                esys.get_capability(CapabilityType::TpmProperties, 0x100, 1)
            })?;
            Ok(())
        })
    }

    /// Runs `body` with nothing loaded before and after. It may run again from its start: when the connection turned out
    /// to be broken, when a PCR changed in the middle, when slots were taken.
    pub(super) fn task<T>(
        &mut self,
        mut body: impl FnMut(&mut Connection) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let mut reruns = 0;
        loop {
            let error = match self.task_once(&mut body) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if reruns == RERUNS || !self.curable(&error, reruns) {
                return Err(error);
            }
            reruns += 1;
        }
    }

    /// As [`task`](Chip::task), for what must not happen twice: never runs again.
    pub(super) fn task_once<T>(
        &mut self,
        body: impl FnOnce(&mut Connection) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let connection = self.connected()?;
        let result = body(connection);
        let swept = connection.sweep();
        if swept.is_err() || result.as_ref().is_err_and(breaks_connection) {
            self.disconnect();
        }
        result
    }

    /// Drops the connection. What is still loaded is flushed by the kernel's resource manager; where there is none, by us
    /// before the next task begins.
    pub(super) fn disconnect(&mut self) {
        self.left_loaded |= self.connection.is_some();
        self.connection = None;
        self.endorsement = None;
    }

    /// Whether starting over may help, having done what is needed for that.
    fn curable(&mut self, error: &TpmError, reruns: u32) -> bool {
        match error {
            TpmError::WrongPolicy(failure) => failure.tpm_code() == rc::PCR_CHANGED,
            // A chip that was restarted since the last job: the new connection finds it.
            TpmError::Transport(_) => reruns == 0,
            TpmError::Full(failure) => {
                warn!(%failure, "TPM slots are taken; flushing what an earlier process left");
                self.disconnect();
                reruns == 0
            }
            // A persistent key that somebody removed since we looked.
            TpmError::Refused(failure) if failure.tpm_code() == rc::HANDLE => {
                let connection = self.connection.as_mut();
                reruns == 0 && connection.is_some_and(Connection::forget_primaries)
            }
            other => reruns == 0 && lost_track(other),
        }
    }

    fn connected(&mut self) -> Result<&mut Connection, TpmError> {
        if self.connection.is_none() {
            self.connection = Some(self.connect()?);
        }
        Ok(self.connection.as_mut().expect("set just above"))
    }

    fn connect(&mut self) -> Result<Connection, TpmError> {
        if let Some(absence) = self.absence.as_ref().filter(|a| Instant::now() < a.look_again) {
            return Err(TpmError::Absent { address: self.address().clone(), failure: absence.failure, source: None });
        }
        if self.left_loaded {
            strays::flush(self.address());
        }
        let (watch, tcti) = (self.watch()?, self.address().tcti()?);
        let context = watched(watch.as_ref(), "Esys_Initialize", || Context::new(tcti));
        match context {
            Ok(context) => {
                self.left_loaded = false;
                if self.absence.take().is_some() {
                    info!(address = %self.address(), "TPM is back");
                }
                Ok(Connection::new(context, Arc::clone(&self.settings), watch))
            }
            Err(TpmError::Transport(failure)) => Err(self.absent(failure)),
            Err(error) => Err(error),
        }
    }

    fn watch(&mut self) -> Result<Option<Watch>, TpmError> {
        if self.watch.is_none()
            && let Some(peer) = self.address().socket()
        {
            self.watch = Some(Watch::start(peer, self.settings.command_deadline).map_err(TpmError::Thread)?);
        }
        Ok(self.watch.clone())
    }

    fn absent(&mut self, failure: Failure) -> TpmError {
        let pause = self.absence.as_ref().map_or(FIRST_PAUSE, |a| (a.pause * 2).min(LONGEST_PAUSE));
        self.absence = Some(Absence { failure, look_again: Instant::now() + pause, pause });
        TpmError::Absent { address: self.address().clone(), failure, source: self.device_error() }
    }

    /// The operating system's word on why a device cannot be opened, which the library swallows.
    fn device_error(&self) -> Option<io::Error> {
        match self.address() {
            TpmAddress::Device(path) => File::options().read(true).write(true).open(path).err(),
            TpmAddress::Swtpm { .. } | TpmAddress::Mssim { .. } => None,
        }
    }
}

impl Drop for Chip {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.end();
        }
    }
}

/// One call into the library, under watch where there is one.
fn watched<T>(
    watch: Option<&Watch>,
    name: &'static str,
    call: impl FnOnce() -> tss_esapi::Result<T>,
) -> Result<T, TpmError> {
    let Some(watch) = watch else { return call().map_err(|e| TpmError::of(name, e)) };
    match watch.over(name, call) {
        (Ok(value), _) => Ok(value),
        (Err(_), true) => Err(TpmError::Hung { command: name, seconds: watch.deadline().as_secs() }),
        (Err(error), false) => Err(TpmError::of(name, error)),
    }
}

/// After these the library's context is of no use: ESYS answers BAD_SEQUENCE for ever after a broken transport, and a reset
/// chip has forgotten what the context thinks is loaded.
fn breaks_connection(error: &TpmError) -> bool {
    error.is_about_the_connection() || lost_track(error)
}

/// The TPM no longer knows a handle or session that we hold: it was reset, or a resource manager lost it.
fn lost_track(error: &TpmError) -> bool {
    error.failure().is_some_and(|failure| {
        let code = failure.tpm_code();
        code == rc::CONTEXT_GAP || (rc::REFERENCE_H0..=rc::REFERENCE_S6).contains(&code)
    })
}

/// A live ESYS context, and what is loaded through it.
pub struct Connection {
    context: Context,
    settings: Arc<TpmSettings>,
    watch: Option<Watch>,
    loaded: Vec<ObjectHandle>,
    primaries: Primaries,
    certificates_read: CertificatesRead,
    /// TPM2_SelfTest was sent on this connection.
    self_tested: bool,
}

impl Connection {
    fn new(context: Context, settings: Arc<TpmSettings>, watch: Option<Watch>) -> Self {
        Self {
            context,
            settings,
            watch,
            loaded: Vec::new(),
            primaries: Primaries::default(),
            certificates_read: CertificatesRead::default(),
            self_tested: false,
        }
    }

    /// What the operator said.
    pub fn settings(&self) -> &TpmSettings {
        &self.settings
    }

    /// What is known of the chip's primary keys.
    pub fn primaries(&mut self) -> &mut Primaries {
        &mut self.primaries
    }

    /// What was read of the chip's certificates.
    pub fn certificates_read(&mut self) -> &mut CertificatesRead {
        &mut self.certificates_read
    }

    fn forget_primaries(&mut self) -> bool {
        self.forget_persistent();
        true
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
        self.loaded.retain(|loaded| *loaded != handle);
        self.command("TPM2_FlushContext", NO_SESSION, |esys| esys.flush_context(handle))
    }

    /// Takes a handle off the library's table, where it is not in one of the TPM's slots. An entry that stays does no harm.
    pub fn close(&mut self, mut handle: ObjectHandle) {
        let _ = self.command("Esys_TR_Close", NO_SESSION, |esys| esys.tr_close(&mut handle));
    }

    /// Flushes all that is loaded, newest first; goes on after a failure and reports the first.
    fn sweep(&mut self) -> Result<(), TpmError> {
        let mut swept = Ok(());
        while let Some(handle) = self.loaded.pop() {
            let flushed = self.command("TPM2_FlushContext", NO_SESSION, |esys| esys.flush_context(handle));
            swept = swept.and(flushed);
        }
        swept
    }
}

/// How long to insist on a command that the TPM puts off. Source: Part 1 §39.4, Part 2 §6.6.3 (warnings).
#[derive(Clone, Copy)]
struct Patience {
    first: Duration,
    longest: Duration,
    tries: u32,
}

impl Patience {
    /// The pause after `tries` failed tries; none when patience has ended.
    fn pause(self, tries: u32) -> Option<Duration> {
        (tries < self.tries).then(|| (self.first * 2u32.saturating_pow(tries.min(16))).min(self.longest))
    }
}

/// LOCKOUT is missing on purpose: trying again costs another mark.
fn patience(code: u16) -> Option<Patience> {
    let patience = |first, longest, tries| {
        Some(Patience { first: Duration::from_millis(first), longest: Duration::from_millis(longest), tries })
    };
    match code {
        // Could not start: about 8 s in all.
        rc::RETRY => patience(20, 2000, 10),
        // Suspended with progress made: at once.
        rc::YIELDED => patience(0, 0, 100),
        // Somebody cancelled it, such as a driver at suspend: 700 ms in all.
        rc::CANCELED => patience(100, 400, 3),
        // Self-test: about 30 s in all.
        rc::TESTING => patience(50, 2000, 20),
        // Sparing its flash: 7 s in all.
        rc::NV_RATE | rc::NV_UNAVAILABLE => patience(1000, 4000, 3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_end() {
        let retry = patience(rc::RETRY).expect("RETRY is repeated");
        let pauses: Vec<u128> = (0..12).map_while(|n| retry.pause(n)).map(|p| p.as_millis()).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1280, 2000, 2000, 2000]);
    }

    //= TPM-34
    #[test]
    fn a_lockout_is_never_tried_again() {
        assert!(patience(rc::LOCKOUT).is_none());
        assert!(patience(rc::BAD_AUTH).is_none());
    }
}
