//! The device's TPM 2.0: one named OS thread owns the ESYS context, closures are sent to it.
//!
//! ```text
//!  Tpm (handle, Clone) ─ bounded queue, two lanes ─► thread "tpm" ─► Chip ─► Connection (ESYS) ─► TCTI ─► chip
//! ```
//!
//! Invariants: no TPM call happens on another thread; every task of a [`Chip`] starts and ends with no transient object
//! and no session loaded, also when it fails (chips have three slots of each); dropping a future never leaves half a
//! command, because the job finishes on its thread. Every object made here has noDA, so that power cuts never lock out.
//!
//! The TSS library writes its own log lines to standard error, one for every failed command, unless the environment variable
//! `TSS2_LOG` says `all+none` when it is first used: the agent's command line sees to that.

mod activate;
mod address;
mod ak;
mod authorization;
mod birth;
mod certify;
mod chip;
mod clock;
mod connection;
mod counter;
mod describe;
mod devid;
mod devid_request;
mod ek;
mod ek_nv;
mod endorsement_kind;
mod endorsement_policy;
mod error;
mod hierarchy;
mod key_blob;
mod known;
mod loaded;
mod nv;
mod objects;
mod patience;
mod pcr;
mod persistent_key;
mod primaries;
mod primary;
mod queue;
mod quote;
mod raw;
mod response_code;
mod seal;
mod seal_signed;
mod sessions;
mod settings;
mod signing_key;
mod stage;
mod strays;
mod templates;
mod watch;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::error;

pub use address::{TpmAddress, TpmAddressError};
pub use birth::AttestationKeyBirth;
pub use chip::Chip;
pub use counter::{CounterAt, DEFAULT_COUNTER_INDEX};
pub use describe::ChipDescription;
pub use devid::{DevIdAlgorithm, DevIdKey, DevIdKeyError};
pub use devid_request::DevIdRequest;
pub use ek::EndorsementKey;
pub use endorsement_kind::{EndorsementChoice, EndorsementKind, RememberedEndorsement, UnknownEndorsementKind};
pub use error::{Failure, TpmError};
pub use hierarchy::KeyHierarchy;
pub use key_blob::KeyBlob;
pub use pcr::PcrValues;
pub use persistent_key::PersistentSignature;
pub use quote::Quote;
pub use response_code::ResponseCode;
pub use seal::MAX_SEALED_BYTES;
pub use seal_signed::OpenedBy;
pub use settings::{COMMAND_DEADLINE, HierarchyPassword, MAX_PASSWORD_BYTES, TpmSettings};

use queue::{Lane, Queue};
use stage::{PATIENCE, Stage, Stages};

/// How long a caller waits for its answer. RSA key generation takes minutes on some chips, and the kernel itself allows
/// 300 s for it; whoever waits longer has a chip that hangs. The job itself cannot be cancelled.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(300);

/// Handle to the thread that owns a TPM. Clones share it; the thread ends when the last one is dropped, which waits until what an
/// answered job has loaded is flushed and the device is closed; not for a job that is still being done.
#[derive(Clone)]
pub struct Tpm {
    owner: Arc<Owner>,
}

struct Owner {
    address: TpmAddress,
    queue: Arc<Queue>,
    stages: Arc<Stages>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.queue.close();
        self.stages.wait_for_the_end(PATIENCE);
    }
}

impl fmt::Debug for Tpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tpm({})", self.owner.address)
    }
}

impl Tpm {
    /// Starts the thread and checks that a TPM 2.0 answers.
    ///
    /// Once open, the handle outlives the chip: when the TPM vanishes, jobs fail and the thread connects again when the next
    /// one comes.
    pub async fn open(settings: impl Into<TpmSettings>) -> Result<Tpm, TpmError> {
        let tpm = Self::start(settings.into())?;
        tpm.run("probe", Chip::probe).await?;
        Ok(tpm)
    }

    /// As [`open`](Tpm::open), for a thread that may block.
    pub fn open_blocking(settings: impl Into<TpmSettings>) -> Result<Tpm, TpmError> {
        let tpm = Self::start(settings.into())?;
        tpm.run_blocking("probe", Chip::probe)?;
        Ok(tpm)
    }

    /// The device or socket that it was opened at, for messages.
    pub fn address(&self) -> &TpmAddress {
        &self.owner.address
    }

    /// Runs `job` on the TPM's thread, after the jobs that were queued before. `what` names it in errors and logs.
    ///
    /// A dropped future withdraws its job if that has not begun; a job that has begun finishes.
    pub async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&mut Chip) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let (answer, answered) = oneshot::channel();
        let stages = Arc::clone(&self.owner.stages);
        self.owner.queue.push(
            Lane::Normal,
            what,
            Box::new(move |chip| {
                if !answer.is_closed() {
                    let result = job(chip);
                    stages.come_to(Stage::Answered);
                    // The caller may be gone by now: the job is done all the same, there is nobody to tell.
                    let _ = answer.send(result);
                }
            }),
        )?;
        match tokio::time::timeout(ANSWER_DEADLINE, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(TpmError::Stopped { what }),
            Err(_) => Err(TpmError::NoAnswer { what, seconds: ANSWER_DEADLINE.as_secs() }),
        }
    }

    /// As [`run`](Tpm::run), for a thread that may block, and ahead of all queued [`run`](Tpm::run) jobs: a TLS handshake
    /// waits for its signature. Does not touch the async runtime, so that it also works inside `Handle::block_on`.
    pub fn run_blocking<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&mut Chip) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let (answer, answered) = mpsc::sync_channel(1);
        let stages = Arc::clone(&self.owner.stages);
        self.owner.queue.push(
            Lane::Urgent,
            what,
            Box::new(move |chip| {
                let result = job(chip);
                stages.come_to(Stage::Answered);
                // As above: a caller that gave up is not told.
                let _ = answer.send(result);
            }),
        )?;
        match answered.recv_timeout(ANSWER_DEADLINE) {
            Ok(result) => result,
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(TpmError::Stopped { what }),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(TpmError::NoAnswer { what, seconds: ANSWER_DEADLINE.as_secs() })
            }
        }
    }

    fn start(settings: TpmSettings) -> Result<Tpm, TpmError> {
        let queue = Arc::new(Queue::default());
        let stages = Arc::new(Stages::default());
        let (jobs, told, address) = (Arc::clone(&queue), Arc::clone(&stages), settings.address.clone());
        let serve = move || serve(&jobs, &told, settings);
        thread::Builder::new().name("tpm".into()).spawn(serve).map_err(TpmError::Thread)?;
        Ok(Tpm { owner: Arc::new(Owner { address, queue, stages }) })
    }
}

/// The thread's life: one job after the other until the last handle is gone.
fn serve(queue: &Queue, stages: &Stages, settings: TpmSettings) {
    let mut chip = Chip::new(settings);
    while let Some((what, job)) = queue.next() {
        stages.come_to(Stage::Working);
        // A job that panics must not take the TPM from all others. What it left behind goes with the connection.
        let done = catch_unwind(AssertUnwindSafe(|| {
            job(&mut chip);
            chip.tidy();
        }));
        if done.is_err() {
            error!(job = what, "TPM job panicked; reconnecting");
            chip.disconnect();
        }
        stages.come_to(Stage::Idle);
    }
    drop(chip);
    stages.come_to(Stage::Ended);
}
