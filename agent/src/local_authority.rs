//! The agent's own CA: what it signs with for its own workloads while its server is away, and what it tells the server afterwards.
//!
//! ```text
//!  server ── entry (ironroot:local_authority, downstream) ── SVID of that entry, for one call ──► NewDownstreamX509CA
//!     ▲                                                                                                │
//!     │ report (journal.rs)                                key in chip, token or file ──► Intermediate ◄┘ proven by what it signs
//!     │                                                                                     │
//!     └── what was signed, on disk first ◄── minting.rs ◄── Mandate (mandate.rs: time, both bounds)
//! ```
//! Names come from entries; what is signed is verified as a server's answer is. JWT-SVIDs are signed by a key of their own, which the bundle
//! has: `jwt_keys.rs`, `token_signer.rs`.

mod allowances;
mod error;
mod journal;
mod jwt_keys;
mod mandate;
mod minting;
mod token_signer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ironroot_api::SpiffeId;
use ironroot_api::directory::{DirectoryError, prepare_private};
use ironroot_api::issuing::NOT_BEFORE_CUSHION;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

pub use error::AuthorityError;
pub use journal::{
    Issued, IssuedJwt, Journal, JournalError, MAX_JOURNAL_BYTES, MAX_REPORTED, MAX_REPORTED_BYTES,
    MAX_TOKEN_BYTES_NOTED,
};
pub use jwt_keys::{JWT_LABEL_SUFFIX, JwtKeys};
pub use mandate::{Mandate, NoMandate};
pub use minting::{Minted, ToMint};
pub use token_signer::{TokenMandate, TokenSigner, TokenToMint};

use crate::agent_key::{AgentKey, Keep, KeyOf, KeyPlace, KeyStore, WorkloadKeyKind};
use crate::agent_record::{KeptAuthority, KeptJwtKey};
use crate::config::LocalAuthorityConfig;
use crate::server_answers::{ClaimedIntermediate, Intermediate, TrustBundle};
use crate::trusted_time::{Moment, TrustedTime, utc};
use minting::prove;

/// Its directory, in the agent's.
const DIRECTORY: &str = "local-authority";
/// What is added to the labels of its keys in a token.
pub const LABEL_SUFFIX: &str = "-ca";
/// Pause before a server that gave no CA is asked again. A change of entries ends it.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);
/// Due before any moment of the agent's own clock.
const AT_ONCE: i64 = i64::MIN;
/// Another CA is asked for when one part in this many of its life is over: what is left has to last while the server is away.
const RENEWAL_PART: i64 = 4;

/// See the module.
pub struct LocalAuthority {
    config: LocalAuthorityConfig,
    keys: KeyStore,
    held: Option<Held>,
    /// When the server is asked for another CA, by the agent's own clock, which does not stand still while the device sleeps.
    due: i64,
    /// Locked only where blocking is allowed: whoever signs writes to the disk under it.
    journal: Arc<Mutex<Journal>>,
    unreported: Arc<AtomicUsize>,
    is_wipe_owed: bool,
    /// The keys for JWT-SVIDs, if it is to sign some.
    jwt: Option<JwtKeys>,
    /// What was said last of why nothing is signed.
    told: Option<String>,
    /// What was said last of why another CA could not be had.
    told_of_ca: Option<String>,
    /// The key of the CA that the record on the disk names.
    kept_spki_der: Option<Vec<u8>>,
}

/// A CA that was proven, and its key.
#[derive(Clone, Debug)]
struct Held {
    intermediate: Arc<Intermediate>,
    key: AgentKey,
}

/// A CA to ask for: its key is made, and nothing is certified yet.
#[derive(Debug)]
pub struct Asked {
    /// PKCS #10, DER.
    pub csr: Vec<u8>,
    key: AgentKey,
}

/// Where the keys and the journal of a server's agent are.
pub fn directory(of_the_agent: &Path) -> PathBuf {
    of_the_agent.join(DIRECTORY)
}

/// Where the keys of its CA are, if the agent's are at `place`.
pub fn key_place(place: KeyPlace) -> KeyPlace {
    match place {
        KeyPlace::Tpm { tpm, directory: of_the_agent } => KeyPlace::Tpm { tpm, directory: directory(&of_the_agent) },
        KeyPlace::Token { token, label, directory: of_the_agent } => {
            KeyPlace::Token { token, label: format!("{label}{LABEL_SUFFIX}"), directory: directory(&of_the_agent) }
        }
        KeyPlace::Disk { directory: of_the_agent } => KeyPlace::Disk { directory: directory(&of_the_agent) },
        KeyPlace::Memory => KeyPlace::Memory,
    }
}

impl LocalAuthority {
    /// With no CA yet. `keys`: where the agent's own key lives; `of_the_agent`: its directory.
    pub fn open(config: LocalAuthorityConfig, keys: KeyPlace, of_the_agent: &Path) -> Result<Self, DirectoryError> {
        let directory = directory(of_the_agent);
        prepare_private(&directory)?;
        let jwt = config.jwt_svids.clone();
        let jwt = jwt.map(|jwt| JwtKeys::open(jwt, config.max_offline, keys.clone(), of_the_agent)).transpose()?;
        let journal = Journal::open(&directory);
        Ok(Self {
            jwt,
            config,
            keys: KeyStore::open(key_place(keys), KeyOf::LocalAuthority),
            held: None,
            due: AT_ONCE,
            unreported: journal.count(),
            journal: Arc::new(Mutex::new(journal)),
            is_wipe_owed: false,
            told: None,
            told_of_ca: None,
            kept_spki_der: None,
        })
    }

    /// Takes up the CA that an earlier run kept. Why not, if it is not usable any more: another is asked for.
    pub fn restore(
        &mut self,
        kept: &KeptAuthority,
        bundle: &TrustBundle,
        moment: &Moment,
    ) -> Result<(), AuthorityError> {
        let proof = kept.proof.iter().map(Vec::as_slice);
        let intermediate = Intermediate::restored(proof, kept.left, bundle, moment)?;
        if !self.keys.adopt(intermediate.spki_der()) {
            return Err(AuthorityError::KeyMissing);
        }
        self.hold(intermediate, moment);
        self.note_kept();
        Ok(())
    }

    /// The record on the disk is of now.
    pub fn note_kept(&mut self) {
        self.kept_spki_der = self.held.as_ref().map(|held| held.key.spki_der().to_vec());
        self.jwt.iter_mut().for_each(JwtKeys::note_kept);
    }

    /// Whether the next key would take the place of the one that the record on the disk names, while that record does not name the one
    /// that is used: a power cut would leave neither.
    pub fn must_be_kept_first(&self) -> bool {
        self.held.as_ref().is_some_and(|held| Some(held.key.spki_der()) != self.kept_spki_der.as_deref())
    }

    /// What is to be kept of it.
    pub fn to_keep(&self, moment: &Moment) -> Option<KeptAuthority> {
        let intermediate = &self.held.as_ref()?.intermediate;
        Some(KeptAuthority { proof: intermediate.proof(), left: moment.left(intermediate.lifetime()) })
    }

    /// Takes up the key for JWT-SVIDs that an earlier run kept. Why not, if it is not usable any more: another is published.
    pub fn restore_jwt(
        &mut self,
        kept: &KeptJwtKey,
        bundle: &TrustBundle,
        moment: &Moment,
    ) -> Result<(), AuthorityError> {
        self.jwt.as_mut().map_or(Ok(()), |jwt| jwt.restore(kept, bundle, moment))
    }

    /// What is to be kept of the key for JWT-SVIDs.
    pub fn jwt_key_to_keep(&self, moment: &Moment) -> Option<KeptJwtKey> {
        self.jwt.as_ref()?.to_keep(moment)
    }

    /// The keys for JWT-SVIDs, if it is to sign some.
    pub fn jwt_keys(&mut self) -> Option<&mut JwtKeys> {
        self.jwt.as_mut()
    }

    /// What signs JWT-SVIDs while the server is away, which was heard at `synced_unix` for the last time.
    pub fn token_signer(&self, synced_unix: i64) -> Option<TokenSigner> {
        self.jwt.as_ref()?.signer(&self.journal, synced_unix)
    }

    /// Whether the server is to be asked for a CA: there is none, or what is left of it is to be more.
    pub fn is_due(&self, moment: &Moment) -> bool {
        self.due <= moment.own()
    }

    /// The same of a key for JWT-SVIDs.
    pub fn is_jwt_key_due(&self, moment: &Moment) -> bool {
        self.jwt.as_ref().is_some_and(|jwt| jwt.is_due(moment))
    }

    /// How long a CA is asked for, seconds.
    pub fn preferred_ttl(&self) -> i32 {
        self.config.ca_ttl.as_secs().try_into().unwrap_or(i32::MAX)
    }

    /// How long it signs after the server was heard for the last time.
    pub fn max_offline(&self) -> Duration {
        self.config.max_offline
    }

    /// How long SVIDs last of entries that do not say it, seconds.
    pub fn default_ttl(&self) -> i64 {
        self.config.default_x509_svid_ttl.as_secs().try_into().unwrap_or(i64::MAX)
    }

    /// Makes a key for the next CA; the one that is held keeps its own. What was to be destroyed goes first.
    pub async fn ask(&mut self) -> Result<Asked, AuthorityError> {
        self.wipe_own_if_owed().await?;
        let key = self.keys.prepare(Keep::IfPossible).await?;
        Ok(Asked { csr: key.certificate_request().await?, key })
    }

    /// Takes a server's answer to `asked`, if what it signs leads to `bundle`. `id`: of the entry that the agent has it by.
    pub async fn take(
        &mut self,
        asked: Asked,
        chain: &[prost::bytes::Bytes],
        id: &SpiffeId,
        bundle: &TrustBundle,
        time: &TrustedTime,
    ) -> Result<(), AuthorityError> {
        let claimed = ClaimedIntermediate::read(chain.iter().map(|der| &der[..]), asked.key.spki_der())?;
        let (id, key, runtime) = (id.clone(), asked.key, Handle::current());
        let proven = spawn_blocking(move || prove(&claimed, &id, &key, &runtime).map(|svid| (claimed, svid)));
        let (claimed, svid) = proven.await.map_err(|_| AuthorityError::Interrupted)??;
        let intermediate = claimed.prove(&svid, bundle, time)?;
        if !self.keys.adopt(intermediate.spki_der()) {
            return Err(AuthorityError::KeyMissing);
        }
        self.hold(intermediate, &time.moment());
        (self.told, self.told_of_ca) = (None, None);
        Ok(())
    }

    fn hold(&mut self, intermediate: Intermediate, moment: &Moment) {
        let Some(key) = self.keys.current().cloned() else { return };
        let whole = intermediate.lifetime().span().length().saturating_sub(NOT_BEFORE_CUSHION);
        self.due = after(renewal_in(moment.remaining(intermediate.lifetime()), whole), moment);
        self.held = Some(Held { intermediate: Arc::new(intermediate), key });
    }

    /// The server gave none: it is asked again after a while.
    pub fn postpone(&mut self, moment: &Moment) {
        self.due = after(REFUSED_PAUSE, moment);
    }

    /// What it may depend on has changed: it is asked at the next occasion.
    pub fn ask_soon(&mut self) {
        if self.held.is_none() {
            self.due = AT_ONCE;
        }
        self.jwt.iter_mut().for_each(JwtKeys::ask_soon);
    }

    /// The bundle is another: a CA below what is tainted is replaced, and one below what is gone is worth nothing.
    pub fn follow(&mut self, bundle: &TrustBundle, moment: &Moment) {
        let stands = |held: &Held, anchors| held.intermediate.is_signed_by(anchors, moment);
        self.held = self.held.take().filter(|held| stands(held, bundle.anchors()));
        if !self.held.as_ref().is_some_and(|held| stands(held, bundle.untainted_anchors())) {
            self.due = AT_ONCE;
        }
    }

    /// Whether and until when it may sign now, with a server that confirmed everything at `synced_unix` for the last time.
    pub fn mandate(&self, moment: &Moment, synced_unix: i64) -> Result<Mandate, NoMandate> {
        let held = self.held.as_ref().ok_or(NoMandate::NoAuthority)?;
        Mandate::judge(moment, held.intermediate.lifetime(), synced_unix, self.config.max_offline)
    }

    /// Signs for each of `wanted` what `mandate` allows, for new keys of that kind, and notes it on the disk before it is handed out. In the
    /// order of `wanted`.
    pub async fn mint(
        &self,
        mandate: Mandate,
        (wanted, kind): (Vec<ToMint>, WorkloadKeyKind),
    ) -> Result<Vec<Minted>, AuthorityError> {
        let held = self.held.clone().ok_or(AuthorityError::NoAuthority)?;
        let (journal, runtime) = (self.journal.clone(), Handle::current());
        let minted = spawn_blocking(move || {
            let signer = (&*held.intermediate, &held.key, &runtime);
            let mint = |wanted| minting::mint(signer, &mandate, (wanted, kind));
            let minted: Vec<Minted> = wanted.into_iter().map(mint).collect::<Result<_, _>>()?;
            lock(&journal).append(minted.iter().map(|minted| minted.issued.clone()).collect())?;
            Ok(minted)
        });
        minted.await.map_err(|_| AuthorityError::Interrupted)?
    }

    /// Says once why nothing is signed; whether that is news.
    pub fn tell(&mut self, why: &impl fmt::Display) -> bool {
        let why = why.to_string();
        let is_news = self.told.as_ref() != Some(&why);
        self.told = Some(why);
        is_news
    }

    /// Says once why another CA could not be had; whether that is news.
    pub fn tell_of_ca(&mut self, why: &str) -> bool {
        self.told_of_ca.replace(why.to_owned()).as_deref() != Some(why)
    }

    /// It signs again, or need not.
    pub fn tell_anew(&mut self) {
        self.told = None;
    }

    /// The next of what was signed, to be reported: at most [`MAX_REPORTED`], [`MAX_REPORTED_BYTES`] of them.
    pub async fn to_report(&self) -> Vec<Issued> {
        if self.unreported.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let journal = self.journal.clone();
        // Interrupted only at the end of the process: what is noted is reported by the next one.
        spawn_blocking(move || lock(&journal).first(MAX_REPORTED, MAX_REPORTED_BYTES)).await.unwrap_or_default()
    }

    /// The server has noted these.
    pub async fn reported(&self, noted: Vec<Issued>) -> Result<(), AuthorityError> {
        let journal = self.journal.clone();
        let done = spawn_blocking(move || lock(&journal).forget(&noted));
        Ok(done.await.map_err(|_| AuthorityError::Interrupted)??)
    }

    /// The server takes no reports: all are set aside, in the file that is returned.
    pub async fn set_aside(&self) -> Result<PathBuf, AuthorityError> {
        let journal = self.journal.clone();
        let done = spawn_blocking(move || lock(&journal).set_aside());
        Ok(done.await.map_err(|_| AuthorityError::Interrupted)??)
    }

    /// The agent is banned or evicted: it has no CA any more. Its keys are to be destroyed. What it has signed is still to be reported.
    pub fn forget(&mut self) {
        (self.held, self.is_wipe_owed, self.due) = (None, true, AT_ONCE);
        self.kept_spki_der = None;
        self.jwt.iter_mut().for_each(JwtKeys::forget);
    }

    /// After the start: keys of a CA that was not taken up are of no use to anybody. A ban whose wipe was cut off leaves such, and so does a
    /// cache that is not used. A key for JWT-SVIDs may still be in the bundle, if there is a `bundle` that may have it.
    pub fn disown_unused_keys(&mut self, bundle: Option<&TrustBundle>) {
        self.is_wipe_owed |= self.held.is_none();
        self.jwt.iter_mut().filter(|_| bundle.is_none()).for_each(JwtKeys::disown);
    }

    /// Destroys the keys of a CA that was forgotten, if that is still to be done.
    pub async fn wipe_if_owed(&mut self) -> Result<(), AuthorityError> {
        self.wipe_own_if_owed().await?;
        match &mut self.jwt {
            Some(jwt) => jwt.wipe_if_owed().await,
            None => Ok(()),
        }
    }

    async fn wipe_own_if_owed(&mut self) -> Result<(), AuthorityError> {
        if self.is_wipe_owed {
            self.keys.wipe().await?;
            self.is_wipe_owed = false;
        }
        Ok(())
    }

    /// Until when there is a CA, and what is not reported yet, for people.
    pub fn in_words(&self) -> String {
        let unreported = match self.unreported.load(Ordering::Relaxed) {
            0 => String::new(),
            count => {
                format!(", {} of its own to report", ironroot_shell::command_line::counted(count, "SVID", "SVIDs"))
            }
        };
        let tokens = self.jwt.as_ref().map(|jwt| format!(", JWT-SVIDs {}", jwt.in_words())).unwrap_or_default();
        match &self.held {
            Some(held) => {
                let until = utc(held.intermediate.lifetime().span().not_after);
                let silent = self.told.as_ref().map(|why| format!(", signs nothing: {why}")).unwrap_or_default();
                format!("until {until}{silent}{tokens}{unreported}")
            }
            None => format!("none{tokens}{unreported}"),
        }
    }
}

/// When another is asked for, if `left` of `whole` is left, both in seconds.
fn renewal_in(left: i64, whole: i64) -> Duration {
    let wait = whole / RENEWAL_PART - (whole - left).max(0);
    Duration::from_secs(wait.max(1).unsigned_abs())
}

fn lock(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    // Each change of it is whole before the next begins, on the disk and in memory.
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When `wait` is over, by the agent's own clock.
fn after(wait: Duration, moment: &Moment) -> i64 {
    moment.own().saturating_add(wait.as_secs().try_into().unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn whoever_asks_how_it_stands_does_not_wait_for_the_disk() {
        let directory = tempfile::tempdir().expect("directory");
        let life = Duration::from_secs(3600);
        let config =
            LocalAuthorityConfig { ca_ttl: life, max_offline: life, default_x509_svid_ttl: life, jwt_svids: None };
        let authority = LocalAuthority::open(config, KeyPlace::Memory, directory.path()).expect("opened");
        let (entry_id, spiffe_id, serial) = ("e".to_owned(), "spiffe://td/w".to_owned(), "7".to_owned());
        let issued = Issued { entry_id, spiffe_id, serial, issued_at: 1, expires_at: 2, jwt: None };
        {
            let mut writing = lock(&authority.journal);
            assert_eq!(
                (authority.in_words().as_str(), authority.to_report().now_or_never()),
                ("none", Some(Vec::new()))
            );
            writing.append(vec![issued]).expect("noted");
            assert_eq!(authority.in_words(), "none, 1 SVID of its own to report");
        }
        assert_eq!(authority.to_report().await.len(), 1);
    }

    #[test]
    fn another_ca_is_asked_for_when_a_quarter_of_it_is_over() {
        let renewal = |left, whole| renewal_in(left, whole).as_secs();
        assert_eq!((renewal(4000, 4000), renewal(3500, 4000), renewal(3000, 4000)), (1000, 500, 1));
        assert_eq!(
            (renewal(4010, 4000), renewal(-5, 4000), renewal(0, -10)),
            (1000, 1, 1),
            "never at once, again and again"
        );
    }
}
