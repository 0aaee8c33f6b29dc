//! A token: its sessions, each on its own named OS thread, and the queue in front of them.

mod facts;
mod login;
mod queue;
mod sessions;
mod trouble;
mod worker;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::info;

use crate::error::HsmError;
use crate::key::{self, KeyId, KeyName, TokenKey};
use crate::module::Module;
use crate::pin::Pin;
use crate::signature::P256Signature;
use crate::uri::TokenUri;

pub(crate) use facts::{TokenFacts, without_padding};
pub(crate) use login::{Login, is_logged_in};
pub use queue::Urgency;

use login::{Abilities, LoginState};
use queue::Queue;
use trouble::Trouble;
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
    /// How to log in to it.
    pub login: UserLogin,
    /// Sessions, and threads, to sign with: as many as the token can serve at once. 1 to 64. One more is kept for the login
    /// and for making keys. A token that grants fewer is worked with as it is, also with one.
    pub sessions: usize,
}

/// How to log in to a token as its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserLogin {
    /// With this PIN.
    Pin(Pin),
    /// At the token: it has a pad, a reader or another way of its own to ask for the PIN.
    Pinpad,
    /// Not at all: the token shows its keys to whoever may use the module.
    None,
}

impl UserLogin {
    /// The PIN to send, if one is sent.
    pub(crate) fn pin(&self) -> Option<&Pin> {
        match self {
            Self::Pin(pin) => Some(pin),
            Self::Pinpad | Self::None => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Pin(_) => "pin",
            Self::Pinpad => "pinpad",
            Self::None => "none",
        }
    }
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
    trouble: Mutex<Trouble>,
    /// It was said that the token does not tell CKA_LOCAL.
    told_origin: AtomicBool,
    opened_at: Instant,
    /// When the token last signed, milliseconds after `opened_at`, plus one; zero if it never did.
    signed_at: AtomicU64,
}

type Task = Box<dyn FnOnce(&mut Worker) + Send>;

enum Job {
    Sign { key: Arc<key::Held>, digest: [u8; 32], reply: Reply },
    Task(Task),
}

/// Where a signature goes.
struct Reply(oneshot::Sender<Result<P256Signature, HsmError>>);

impl Token {
    /// Loads the module, logs in and starts the session threads. Blocks for as long as the token needs.
    ///
    /// Errors: see [`HsmError`]; a wrong PIN is sent once and never again by this process.
    pub fn open(config: TokenConfig) -> Result<Self, HsmError> {
        let module = Module::load(&config.module_path)?;
        let wanted = config.sessions.clamp(1, MAX_SESSIONS);
        let shared = Arc::new(Shared::new(module, config));
        let token = Self { handle: Arc::new(Handle { shared: Arc::clone(&shared) }) };
        let abilities = shared.first_login()?;
        let threads = signing_threads(wanted, abilities.max_sessions);
        let mut workers: Vec<Worker> = (0..threads).map(|_| Worker::new(Arc::clone(&shared))).collect();
        // When the token has no more for one, it has none for the next.
        let own_sessions = workers.iter_mut().position(|worker| !worker.open_session()).unwrap_or(threads);
        for (number, worker) in workers.into_iter().enumerate() {
            std::thread::Builder::new()
                .name(format!("hsm-{number}"))
                .spawn(move || worker.run())
                .map_err(|e| HsmError::Thread(e.to_string()))?;
        }
        shared.say_what_it_can(&abilities, own_sessions);
        Ok(token)
    }

    /// Makes a P-256 key inside the token: a token object, private, sensitive, never extractable, allowed to sign. The
    /// result has been read back, its attributes checked, and its two halves proved to belong together. A token that chooses
    /// CKA_IDs itself may give it another one than `id`; it is then found again by `label`.
    ///
    /// If it fails, nothing of the key stays in the token, and what may help a later try has been done: a new session, a new
    /// login, a new start of the module.
    pub async fn generate_p256(&self, id: &KeyId, label: &str) -> Result<TokenKey, HsmError> {
        let (id, label) = (id.clone(), label.to_owned());
        let held = self.run(move |worker| worker.generate(&id, &label)).await?;
        Ok(TokenKey::new(self.clone(), held))
    }

    /// The key of this name, checked as [`Token::generate_p256`] does; `None` only if a logged-in session sees none.
    pub async fn find(&self, name: impl Into<KeyName>) -> Result<Option<TokenKey>, HsmError> {
        let name = name.into();
        let held = self.run(move |worker| worker.find(&name)).await?;
        Ok(held.map(|held| TokenKey::new(self.clone(), held)))
    }

    /// Destroys both halves of the key of this name; true if there was anything to destroy.
    pub async fn destroy(&self, name: impl Into<KeyName>) -> Result<bool, HsmError> {
        let name = name.into();
        self.run(move |worker| worker.destroy(&name)).await
    }

    /// How long ago the token last signed; none if it has not yet.
    pub fn signed_ago(&self) -> Option<Duration> {
        let shared = &self.handle.shared;
        let at = Duration::from_millis(shared.signed_at.load(Ordering::Relaxed).checked_sub(1)?);
        Some(shared.opened_at.elapsed().saturating_sub(at))
    }

    /// Logs in with `pin` from the next login on, where a PIN is sent: it has been changed in the token. Whoever is logged in stays
    /// so.
    pub fn replace_pin(&self, pin: Pin) {
        self.handle.shared.replace_pin(pin);
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
        self.handle.shared.queue.push(urgency, Job::Sign { key, digest, reply: Reply(sender) })?;
        within_deadline(receiver).await
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

impl Shared {
    fn new(module: Arc<Module>, config: TokenConfig) -> Self {
        Self {
            module,
            config,
            queue: Queue::new(),
            login: Mutex::default(),
            trouble: Mutex::default(),
            told_origin: AtomicBool::new(false),
            opened_at: Instant::now(),
            signed_at: AtomicU64::new(0),
        }
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_signature(&self) {
        let millis = u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.signed_at.store(millis + 1, Ordering::Relaxed);
    }

    /// The one line about what was found.
    fn say_what_it_can(&self, abilities: &Abilities, own_sessions: usize) {
        let wanted = self.config.sessions;
        info!(
            token = %self.config.token,
            login = self.config.login.name(),
            sessions = own_sessions + 1,
            signing_at_once = own_sessions.max(1),
            session_limit = abilities.max_sessions,
            writable = abilities.is_writable,
            makes_keys = abilities.makes_keys,
            "token opened"
        );
        if own_sessions < wanted.min(MAX_SESSIONS) {
            info!(wanted, own_sessions, "the token grants fewer sessions than configured; it signs as many at once");
        }
    }
}

/// Threads that sign: as many as wanted, but no more than the sessions that the token declares beside the shared one.
fn signing_threads(wanted: usize, max_sessions: Option<u64>) -> usize {
    let most = max_sessions.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    wanted.min(most.saturating_sub(1)).max(1)
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
        self.0.is_closed()
    }

    fn send(self, result: Result<P256Signature, HsmError>) {
        // A caller that has gone away needs no answer.
        let _ = self.0.send(result);
    }
}

async fn within_deadline<T>(receiver: oneshot::Receiver<Result<T, HsmError>>) -> Result<T, HsmError> {
    match tokio::time::timeout(DEADLINE, receiver).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(HsmError::Closed),
        Err(_) => Err(HsmError::Stalled(DEADLINE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_declared_session_is_kept_for_the_login_and_one_is_enough() {
        for (wanted, declared, threads) in [
            (4, None, 4),
            (4, Some(9), 4),
            (4, Some(5), 4),
            (4, Some(4), 3),
            (4, Some(2), 1),
            (4, Some(1), 1),
            (1, None, 1),
        ] {
            assert_eq!(signing_threads(wanted, declared), threads, "{wanted} wanted, {declared:?} declared");
        }
    }
}
