//! A token: its sessions, each on its own named OS thread, and the queue in front of them.

mod login;
mod queue;
mod worker;

use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::info;

use crate::error::HsmError;
use crate::key::{self, KeyId, TokenKey};
use crate::module::Module;
use crate::pin::Pin;
use crate::signature::P256Signature;
use crate::uri::TokenUri;

pub(crate) use login::{Login, is_logged_in};
pub use queue::Urgency;

use login::LoginState;
use queue::Queue;
use worker::Worker;

/// Most sessions opened on one token.
pub const MAX_SESSIONS: usize = 64;

/// How long a caller waits for the token before it is told that the token has stalled. A C call cannot be cancelled: the
/// thread stays with it. Generous, because slow tokens with a full queue are slow, not broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// What is needed to work with a token.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// The PKCS#11 module, a shared library.
    pub module_path: PathBuf,
    /// Which of the module's tokens.
    pub token: TokenUri,
    /// The user PIN.
    pub pin: Pin,
    /// Sessions, and threads, to work with: as many as the token can serve at once. 1 to 64; a token that allows fewer
    /// gets fewer.
    pub sessions: usize,
}

/// A handle to a token. When the last handle and the last key of it are dropped, its threads end.
#[derive(Clone)]
pub struct Token {
    handle: Arc<Handle>,
}

/// Closes the queue when the last `Token` and `TokenKey` are gone.
struct Handle {
    shared: Arc<Shared>,
}

/// What the threads and the handles share.
pub(crate) struct Shared {
    module: Arc<Module>,
    config: TokenConfig,
    queue: Queue<Job>,
    login: Mutex<LoginState>,
}

type Task = Box<dyn FnOnce(&mut Worker) + Send>;

enum Job {
    Sign { key: Arc<key::Held>, digest: [u8; 32], reply: Reply },
    Task(Task),
}

enum Reply {
    Async(oneshot::Sender<Result<P256Signature, HsmError>>),
    Blocking(SyncSender<Result<P256Signature, HsmError>>),
}

impl Token {
    /// Loads the module, logs in and starts the session threads. Blocks for as long as the token needs.
    ///
    /// Errors: see [`HsmError`]; a wrong PIN is sent once and never again by this process.
    pub fn open(config: TokenConfig) -> Result<Self, HsmError> {
        let module = Module::load(&config.module_path)?;
        let wanted = config.sessions.clamp(1, MAX_SESSIONS);
        let shared = Arc::new(Shared { module, config, queue: Queue::new(), login: Mutex::default() });
        let token = Self { handle: Arc::new(Handle { shared: Arc::clone(&shared) }) };
        let sessions = wanted.min(shared.first_login()?);
        for number in 0..sessions {
            let worker = Worker::new(Arc::clone(&shared));
            std::thread::Builder::new()
                .name(format!("hsm-{number}"))
                .spawn(move || worker.run())
                .map_err(|e| HsmError::Thread(e.to_string()))?;
        }
        info!(token = %shared.config.token, sessions, "token opened");
        Ok(token)
    }

    /// Makes a P-256 key inside the token: a token object, private, sensitive, never extractable, allowed to sign. The
    /// result has been read back, its attributes checked, and its two halves proved to belong together.
    pub async fn generate_p256(&self, id: &KeyId, label: &str) -> Result<TokenKey, HsmError> {
        let (id, label) = (id.clone(), label.to_owned());
        let held = self.run(move |worker| worker.generate(&id, &label)).await?;
        Ok(TokenKey::new(self.clone(), held))
    }

    /// The key with this CKA_ID, checked as [`Token::generate_p256`] does; `None` only if a logged-in session sees none.
    pub async fn find(&self, id: &KeyId) -> Result<Option<TokenKey>, HsmError> {
        let id = id.clone();
        let held = self.run(move |worker| worker.find(&id)).await?;
        Ok(held.map(|held| TokenKey::new(self.clone(), held)))
    }

    /// Destroys both halves of the key with this CKA_ID; true if there was anything to destroy.
    pub async fn destroy(&self, id: &KeyId) -> Result<bool, HsmError> {
        let id = id.clone();
        self.run(move |worker| worker.destroy(&id)).await
    }

    /// Requests waiting for a session now.
    pub fn waiting(&self) -> usize {
        self.handle.shared.queue.len()
    }

    pub(crate) async fn sign(
        &self,
        key: Arc<key::Held>,
        digest: [u8; 32],
        urgency: Urgency,
    ) -> Result<P256Signature, HsmError> {
        let (sender, receiver) = oneshot::channel();
        self.handle.shared.queue.push(urgency, Job::Sign { key, digest, reply: Reply::Async(sender) })?;
        within_deadline(receiver).await
    }

    pub(crate) fn sign_blocking(
        &self,
        key: Arc<key::Held>,
        digest: [u8; 32],
        urgency: Urgency,
    ) -> Result<P256Signature, HsmError> {
        let (sender, receiver) = sync_channel(1);
        self.handle.shared.queue.push(urgency, Job::Sign { key, digest, reply: Reply::Blocking(sender) })?;
        receiver.recv_timeout(DEADLINE).map_err(|e| match e {
            RecvTimeoutError::Timeout => HsmError::Stalled(DEADLINE),
            RecvTimeoutError::Disconnected => HsmError::Closed,
        })?
    }

    async fn run<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Worker) -> Result<T, HsmError> + Send + 'static,
    ) -> Result<T, HsmError> {
        let (sender, receiver) = oneshot::channel();
        let task: Task = Box::new(move |worker| {
            // A caller that has gone away needs no answer.
            let _ = sender.send(task(worker));
        });
        self.handle.shared.queue.push(Urgency::FIRST, Job::Task(task))?;
        within_deadline(receiver).await
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.handle.shared.config.token)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

impl Reply {
    /// Whether nobody waits any more.
    fn is_abandoned(&self) -> bool {
        matches!(self, Self::Async(sender) if sender.is_closed())
    }

    fn send(self, result: Result<P256Signature, HsmError>) {
        // A caller that has gone away needs no answer.
        match self {
            Self::Async(sender) => drop(sender.send(result)),
            Self::Blocking(sender) => drop(sender.send(result)),
        }
    }
}

async fn within_deadline<T>(receiver: oneshot::Receiver<Result<T, HsmError>>) -> Result<T, HsmError> {
    match tokio::time::timeout(DEADLINE, receiver).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(HsmError::Closed),
        Err(_) => Err(HsmError::Stalled(DEADLINE)),
    }
}
