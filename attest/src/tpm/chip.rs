//! A chip, and the connection to it while there is one: tasks that start over where that cures.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};
use tss_esapi::Context;
use tss_esapi::constants::PropertyTag;

use super::address::TpmAddress;
use super::connection::{Connection, watched};
use super::endorsement_kind::{EndorsementKind, RememberedEndorsement};
use super::error::{Failure, TpmError};
use super::response_code as rc;
use super::settings::TpmSettings;
use super::strays;
use super::watch::Watch;

/// Pause before a vanished TPM is looked for again, doubling up to [`LONGEST_PAUSE`]. Jobs that come in between fail at
/// once: nobody waits in the queue for a chip that is away.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// See [`FIRST_PAUSE`].
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often a task starts over, for each kind of trouble that starting over cures.
const RERUNS: u32 = 3;

/// The TPM, as its thread sees it. Every method is one task, complete in itself: it connects if need be, has the patience
/// that the TPM asks for, and leaves nothing loaded: what it loaded is flushed when its caller has the answer, before anything else is
/// done.
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
        // Every TPM has such a list, if an empty one, and whoever opens a TPM looks for its storage root key next.
        match self.task(|tpm| tpm.ask_for_persistent_handles().map(drop)) {
            // In failure mode it tells its properties alone (Part 1, Failure Mode).
            Err(TpmError::FailureMode(_)) => self.task(|tpm| tpm.property(PropertyTag::FamilyIndicator).map(drop)),
            answered => answered,
        }
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
        self.tidy();
        let result = body(self.connected()?);
        if let Err(error) = &result {
            self.tidy();
            if breaks_connection(error) {
                self.disconnect();
            }
        }
        result
    }

    /// Flushes what the last task left loaded. Nobody waits for it but the next task: a slow chip takes tens of milliseconds for each.
    pub(super) fn tidy(&mut self) {
        if self.connection.as_mut().is_some_and(|connection| connection.sweep().is_err()) {
            self.disconnect();
        }
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
                reruns == 0 && self.connection.as_mut().map(Connection::forget_persistent).is_some()
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
        let watch = self.watch()?;
        let tcti = self.address().tcti().map_err(|error| TpmError::of("Tss2_TctiLdr_Initialize", error))?;
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
