//! A token: its sessions, each on its own named OS thread, and the queue in front of them.

pub(crate) mod facts;
mod job;
pub(crate) mod login;
mod places;
mod queue;
mod sessions;
mod shared;
mod threads;
mod trouble;
mod user_login;
mod worker;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::info;

use crate::error::HsmError;
use crate::key::{self, Held};
use crate::kind::{KeyKind, SigningInput};
use crate::module::Module;
use crate::name::{KeyId, KeyName};
use crate::pin::Pin;
use crate::signature::P256Signature;
use crate::uri::TokenUri;

pub use queue::Urgency;
pub use threads::{LAST_PATIENCE, session_threads_ended};
pub use user_login::UserLogin;

use facts::choose;
use job::{DEADLINE, GENERATION_DEADLINE, Job, Reply, answer_by, within};
use login::{Abilities, Logins, see_slots};
use places::Places;
use queue::Queue;
use shared::Shared;
use worker::Worker;

/// Most sessions opened on one token.
pub const MAX_SESSIONS: usize = 64;

/// What is needed to work with a token.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// The PKCS#11 module, a shared library.
    pub module_path: PathBuf,
    /// Which of the module's tokens.
    pub token: TokenUri,
    /// How to log in: with a PIN, at the token's own pad, or not at all.
    pub login: UserLogin,
    /// Sessions, and threads, to sign with: as many as the token can serve at once. 1 to 64. One more is kept for the login
    /// and for making keys. A token that grants fewer is worked with as it is, also with one.
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
    queue: Arc<Queue<Job<Worker>>>,
    places: Places,
}

impl Token {
    /// Loads the module, logs in and starts the session threads. Blocks for as long as the token needs.
    ///
    /// Errors: see [`HsmError`]; a wrong PIN is sent once and never again by this process.
    pub fn open(config: TokenConfig) -> Result<Self, HsmError> {
        let module = Module::load(&config.module_path)?;
        let wanted = config.sessions.clamp(1, MAX_SESSIONS);
        let logins = Logins::new(Arc::clone(&module), config.token, config.login);
        let (shared, queue) = (Arc::new(Shared::new(module, logins)), Arc::new(Queue::new()));
        let handle = Handle { shared: Arc::clone(&shared), queue: Arc::clone(&queue), places: Places::new() };
        let token = Self { handle: Arc::new(handle) };
        let abilities = shared.logins.first_login()?;
        let threads = signing_threads(wanted, abilities.max_sessions);
        let mut workers: Vec<Worker> = (0..threads).map(|_| Worker::new(Arc::clone(&shared))).collect();
        // When the token has no more for one, it has none for the next.
        let own_sessions = workers.iter_mut().position(|worker| !worker.open_session()).unwrap_or(threads);
        for (number, worker) in workers.into_iter().enumerate() {
            let queue = Arc::clone(&queue);
            threads::start(format!("hsm-{number}"), move || worker.run(&queue))
                .map_err(|e| HsmError::Thread(e.to_string()))?;
        }
        say_what_it_can(&shared, &abilities, wanted, own_sessions);
        Ok(token)
    }

    /// The token if it is there now; none if it is not plugged in. A module that nobody else of this process uses is asked anew: some see
    /// what was plugged in since their start only then. One that is in use is left alone. Blocks for as long as the token needs.
    pub fn open_if_present(config: TokenConfig) -> Result<Option<Self>, HsmError> {
        let module = Module::load(&config.module_path)?;
        let is_there = match is_in(&module, &config.token) {
            Ok(true) => true,
            Ok(false) | Err(_) if module.is_started_anew_if_unused() => is_in(&module, &config.token)?,
            absent => absent?,
        };
        drop(module);
        if is_there { Self::open(config).map(Some) } else { Ok(None) }
    }

    /// Makes a P-256 key inside the token: a token object, private, sensitive, never extractable, allowed to sign. The
    /// result has been read back, its attributes checked, and its two halves proved to belong together. A token that chooses
    /// CKA_IDs itself may give it another one than `id`; it is then found again by `label`.
    ///
    /// If it fails, nothing of the key stays in the token, and what may help a later try has been done: a new session, a new
    /// login, a new start of the module.
    pub async fn generate_p256(&self, id: &KeyId, label: &str) -> Result<TokenKey, HsmError> {
        self.generate(KeyKind::EcP256, id, label).await
    }

    /// The same of another kind, as far as the token makes such keys.
    pub async fn generate(&self, kind: KeyKind, id: &KeyId, label: &str) -> Result<TokenKey, HsmError> {
        let (id, label) = (id.clone(), label.to_owned());
        let held = self.run(GENERATION_DEADLINE, move |worker| worker.generate(&id, &label, kind)).await?;
        Ok(TokenKey { token: self.clone(), held })
    }

    /// The P-256 key of this name, checked as [`Token::generate_p256`] does; `None` only if a logged-in session sees none.
    pub async fn find(&self, name: impl Into<KeyName>) -> Result<Option<TokenKey>, HsmError> {
        self.find_of(KeyKind::EcP256, name).await
    }

    /// The same of another kind; one that is of none but this kind is refused.
    pub async fn find_of(&self, kind: KeyKind, name: impl Into<KeyName>) -> Result<Option<TokenKey>, HsmError> {
        let name = name.into();
        let held = self.run(DEADLINE, move |worker| worker.find(&name, kind)).await?;
        Ok(held.map(|held| TokenKey { token: self.clone(), held }))
    }

    /// Destroys both halves of the key of this name; true if there was anything to destroy.
    pub async fn destroy(&self, name: impl Into<KeyName>) -> Result<bool, HsmError> {
        let name = name.into();
        self.run(DEADLINE, move |worker| worker.destroy(&name)).await
    }

    /// Which token it is, as it was named when it was opened.
    pub fn uri(&self) -> &TokenUri {
        self.handle.shared.logins.token()
    }

    /// How many requests wait for a session. Those of a burst that wait for a place in the queue are not among them.
    pub fn waiting(&self) -> usize {
        self.handle.queue.len()
    }

    /// Logs in with `pin` from the next login on, where a PIN is sent: it has been changed in the token. Whoever is logged in stays
    /// so.
    pub fn replace_pin(&self, pin: Pin) {
        self.handle.shared.logins.replace_pin(pin);
    }

    async fn run<T: Send + 'static>(
        &self,
        patience: Duration,
        task: impl FnOnce(&mut Worker) -> Result<T, HsmError> + Send + 'static,
    ) -> Result<T, HsmError> {
        let (sender, receiver) = oneshot::channel();
        let task = move |worker: &mut Worker| {
            // A caller that has gone away needs no answer.
            let _ = sender.send(task(worker));
        };
        self.handle.queue.push(Urgency::FIRST, Job::Task(Box::new(task)))?;
        within(patience, receiver).await
    }
}

/// Whether the module shows the one token that is meant.
fn is_in(module: &Module, wanted: &TokenUri) -> Result<bool, HsmError> {
    let entered = module.enter()?;
    match choose(wanted, &see_slots(entered.pkcs11)?) {
        Ok(_) => Ok(true),
        Err(HsmError::TokenAbsent { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The one line about what was found.
fn say_what_it_can(shared: &Shared, abilities: &Abilities, wanted: usize, own_sessions: usize) {
    info!(
        token = %shared.logins.token(),
        login = shared.logins.user_login().name(),
        sessions = own_sessions + 1,
        signing_at_once = own_sessions.max(1),
        session_limit = abilities.max_sessions,
        writable = abilities.is_writable,
        makes_keys = abilities.makes_keys,
        "token opened"
    );
    if own_sessions < wanted {
        info!(wanted, own_sessions, "the token grants fewer sessions than configured; it signs as many at once");
    }
}

/// Threads that sign: as many as wanted, but no more than the sessions that the token declares beside the shared one.
fn signing_threads(wanted: usize, max_sessions: Option<u64>) -> usize {
    let most = max_sessions.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    wanted.min(most.saturating_sub(1)).max(1)
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.handle.shared.logins.token())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// A key pair whose private half is, and stays, in a token.
#[derive(Clone)]
pub struct TokenKey {
    token: Token,
    held: Arc<Held>,
}

impl TokenKey {
    /// Its name, with the CKA_ID as the token has it: some choose it themselves.
    pub fn name(&self) -> &KeyName {
        self.held.name()
    }

    /// The public half, a DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        self.held.spki()
    }

    /// What kind of key it is.
    pub fn kind(&self) -> KeyKind {
        self.held.kind()
    }

    /// The public half, as its SubjectPublicKeyInfo has it: an uncompressed point 0x04‖x‖y (65 bytes on P-256), a DER RSAPublicKey, or the
    /// bytes of FIPS 204.
    pub fn public_key(&self) -> &[u8] {
        self.held.public_key()
    }

    /// Whether the token says that it was made inside (CKA_LOCAL).
    pub fn says_local(&self) -> bool {
        self.held.says_local()
    }

    /// What the token says of the private half: each was asked of it, and but for CKA_LOCAL a key of which it says anything else is not
    /// used.
    pub fn attributes(&self) -> Vec<(&'static str, bool)> {
        let required = key::REQUIRED.map(|(_, value, name)| (name, value));
        required.into_iter().chain([("CKA_LOCAL", self.says_local())]).collect()
    }

    /// How long ago this key last signed; none if it has not yet.
    pub fn signed_ago(&self) -> Option<Duration> {
        self.held.signed_ago()
    }

    /// Signs a SHA-256 digest with a key on P-256.
    ///
    /// Errors: [`HsmError::Busy`] if so much is waiting that it found no place in the queue in half a minute, [`HsmError::KeyLost`] if the key is gone,
    /// [`HsmError::KeyUnusable`] if it is of another kind, and what else the token says. Dropping the future takes the request out of
    /// the queue.
    pub async fn sign_digest(&self, digest: [u8; 32], urgency: Urgency) -> Result<P256Signature, HsmError> {
        let unusable = |reason: String| HsmError::KeyUnusable { name: self.name().clone(), reason };
        if self.kind() != KeyKind::EcP256 {
            return Err(unusable(format!("it is a {} key, and not on P-256", self.kind())));
        }
        let signature = self.sign(SigningInput::of_digest(&digest), urgency).await?;
        let signature: Result<[u8; 64], _> = signature.try_into();
        signature
            .map(P256Signature::from)
            .map_err(|_| unusable("its signature has another length than 64 bytes".into()))
    }

    /// Signs a message with the digest that goes with the key (see [`KeyKind`]), in the form of JWS: r‖s of fixed width, or RSA's
    /// PKCS #1 v1.5; ML-DSA signs the message itself. Source of the form: RFC 7518 §3.3, §3.4; FIPS 204. Errors as [`sign_digest`](Self::sign_digest).
    pub async fn sign_message(&self, message: &[u8], urgency: Urgency) -> Result<Vec<u8>, HsmError> {
        self.sign(SigningInput::of(self.kind(), message), urgency).await
    }

    /// Signs a SHA-256 digest with a key that signs digests: ECDSA on whatever curve, as r‖s of fixed width, or RSASSA-PSS with a salt of
    /// 32 bytes. Errors as [`sign_digest`](Self::sign_digest).
    pub async fn sign_sha256(&self, digest: &[u8; 32], urgency: Urgency) -> Result<Vec<u8>, HsmError> {
        if let KeyKind::MlDsa(set) = self.kind() {
            let reason = format!("it is an {set} key, which signs messages and no digests");
            return Err(HsmError::KeyUnusable { name: self.name().clone(), reason });
        }
        self.sign(SigningInput::of_sha256(digest), urgency).await
    }

    async fn sign(&self, input: SigningInput, urgency: Urgency) -> Result<Vec<u8>, HsmError> {
        let deadline = Instant::now() + DEADLINE;
        let handle = &self.token.handle;
        let place = handle.places.take(urgency, deadline).await?;
        let (sender, receiver) = oneshot::channel();
        let job = Job::Sign { key: Arc::clone(&self.held), input, reply: Reply::new(sender, place) };
        handle.queue.push(urgency, job)?;
        answer_by(deadline, DEADLINE, receiver).await
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({})", self.held.name())
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
