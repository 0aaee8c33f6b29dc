//! The key by which the agent signs JWT-SVIDs while its server is away: made and published while the server is there.
//!
//! ```text
//!  made in the free place ── PublishJWTAuthority ──► the server's bundle ──► this agent's bundle has it ──► it signs
//!                                                          │ gone from there, tainted, or over
//!                                                          └──► it does not
//! ```
//! The bundle alone says which key signs: one that is not in it proves nothing to anybody.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ironroot_api::directory::{DirectoryError, prepare_private};
use ironroot_api::pb::types::JwtKey;

use super::allowances::Allowances;
use super::token_signer::TokenSigner;
use super::{AT_ONCE, AuthorityError, Journal, REFUSED_PAUSE, after, directory};
use crate::agent_key::{AgentKey, Keep, KeyOf, KeyPlace, KeyStore};
use crate::agent_record::KeptJwtKey;
use crate::config::LocalJwtConfig;
use crate::server_answers::TrustBundle;
use crate::trusted_time::{Lifetime, Moment, Span, TrustedTime, utc};

/// Its directory, in that of the agent's own CA.
const DIRECTORY: &str = "jwt";
/// What is added to the labels of its keys in a token.
pub const JWT_LABEL_SUFFIX: &str = "-jwt";
/// A key is published for so many times `max_offline`, and another when one of them is over: what is left lasts for all of an absence, and no
/// more than two or three keys of a gateway are in the bundle at once.
const LIVES: i64 = 2;
/// How long SPIRE's server keeps a published key after its end. Source: its pruning of bundles, every 6 h.
const KEPT_AFTER_THE_END: Duration = Duration::from_secs(24 * 3600);
/// More keys of one agent in the bundle at once than this are too many.
const FEW_KEYS: u64 = 12;
/// Longest pause between two keys that the server gives less of a life than they were published with.
const SHORT_LIFE_PAUSE: Duration = Duration::from_secs(60);

/// See the module.
pub struct JwtKeys {
    config: LocalJwtConfig,
    max_offline: Duration,
    keys: KeyStore,
    held: Option<Held>,
    /// When another is published, by the agent's own clock.
    due: i64,
    allowances: Arc<Allowances>,
    is_wipe_owed: bool,
    /// What was said last of why none is published.
    told: Option<String>,
    /// One was published, and the bundle does not show it yet.
    is_awaited: bool,
    /// The key that the record on the disk names, by its ID.
    kept_key_id: Option<String>,
    /// Whether it was said that they pile up.
    is_pile_told: bool,
}

/// A key that the bundle has.
#[derive(Clone, Debug)]
struct Held {
    key: AgentKey,
    key_id: String,
    /// When it leaves the bundle, as that says, UNIX seconds.
    published_until: i64,
    lifetime: Lifetime,
}

/// Where its keys are, if the agent's are at `place`.
fn key_place(place: KeyPlace) -> KeyPlace {
    let own = |of_the_agent: &Path| directory(of_the_agent).join(DIRECTORY);
    match place {
        KeyPlace::Tpm { tpm, directory } => KeyPlace::Tpm { tpm, directory: own(&directory) },
        KeyPlace::Token { token, label, directory } => {
            KeyPlace::Token { token, label: format!("{label}{JWT_LABEL_SUFFIX}"), directory: own(&directory) }
        }
        KeyPlace::Disk { directory } => KeyPlace::Disk { directory: own(&directory) },
        KeyPlace::Memory => KeyPlace::Memory,
    }
}

impl JwtKeys {
    /// With no key yet. `place`: where the agent's own key lives; `of_the_agent`: its directory.
    pub(super) fn open(
        config: LocalJwtConfig,
        max_offline: Duration,
        place: KeyPlace,
        of_the_agent: &Path,
    ) -> Result<Self, DirectoryError> {
        prepare_private(&directory(of_the_agent).join(DIRECTORY))?;
        Ok(Self {
            config,
            max_offline,
            keys: KeyStore::open(key_place(place), KeyOf::LocalJwtAuthority),
            held: None,
            due: AT_ONCE,
            allowances: Arc::default(),
            is_wipe_owed: false,
            told: None,
            is_awaited: false,
            kept_key_id: None,
            is_pile_told: false,
        })
    }

    /// For how long a key is published, seconds.
    fn life(&self) -> i64 {
        i64::try_from(self.max_offline.as_secs()).unwrap_or(i64::MAX).saturating_mul(LIVES)
    }

    /// Takes up the key that an earlier run kept, if it is in the bundle that was kept with it.
    pub(super) fn restore(
        &mut self,
        kept: &KeptJwtKey,
        bundle: &TrustBundle,
        moment: &Moment,
    ) -> Result<(), AuthorityError> {
        let authority = bundle.jwt_authorities().find(&kept.key_id).filter(|authority| !authority.is_tainted());
        let authority = authority.ok_or(AuthorityError::NotInBundle)?;
        if !self.keys.adopt(authority.spki_der()) {
            return Err(AuthorityError::JwtKeyMissing);
        }
        let lifetime = Lifetime::kept(kept.span, Some(kept.left));
        self.hold(kept.key_id.clone(), authority.expires_at(), lifetime, moment);
        self.note_kept();
        Ok(())
    }

    /// The record on the disk is of now.
    pub(super) fn note_kept(&mut self) {
        self.kept_key_id = self.held.as_ref().map(|held| held.key_id.clone());
    }

    /// See [`LocalAuthority::must_be_kept_first`](super::LocalAuthority::must_be_kept_first).
    pub fn must_be_kept_first(&self) -> bool {
        self.held.as_ref().is_some_and(|held| Some(&held.key_id) != self.kept_key_id.as_ref())
    }

    /// What is to be kept of it.
    pub(super) fn to_keep(&self, moment: &Moment) -> Option<KeptJwtKey> {
        let Held { key_id, lifetime, .. } = self.held.as_ref()?;
        Some(KeptJwtKey { key_id: key_id.clone(), span: lifetime.span(), left: moment.left(lifetime) })
    }

    /// Whether another is to be published: there is none, or half of it is over.
    pub fn is_due(&self, moment: &Moment) -> bool {
        self.due <= moment.own()
    }

    /// How many keys of this agent's are in the bundle at once of a server that keeps them for a day after their end, if those are too many
    /// and that is news.
    pub fn piled_up(&mut self) -> Option<u64> {
        let each = self.max_offline.as_secs().max(1);
        let kept = KEPT_AFTER_THE_END.as_secs().div_ceil(each).saturating_add(LIVES.unsigned_abs());
        let is_news = kept > FEW_KEYS && !std::mem::replace(&mut self.is_pile_told, true);
        is_news.then_some(kept)
    }

    /// Makes a key to be published as `key_id`; the one that signs keeps its place. What was to be destroyed goes first.
    pub async fn prepare(&mut self, key_id: String, now_unix: i64) -> Result<JwtKey, AuthorityError> {
        self.wipe_if_owed().await?;
        let key = self.keys.prepare(Keep::IfPossible).await?;
        let expires_at = now_unix.saturating_add(self.life());
        Ok(JwtKey { public_key: key.spki_der().to_vec().into(), key_id, expires_at, tainted: false })
    }

    /// The bundle is this: of this agent's keys in it the one signs that lasts longest; none without one. What the server says of its end counts
    /// as far as that is no later than this agent would have asked for. Whether it is another than before.
    pub fn follow(&mut self, bundle: &TrustBundle, time: &TrustedTime) -> bool {
        let (authorities, now_unix) = (bundle.jwt_authorities(), time.now_unix());
        let kept = self.keys.kept().filter(|_| !self.is_wipe_owed);
        let published = kept.filter_map(|key| authorities.find_spki(key.spki_der()));
        let sound = published.filter(|authority| !authority.is_tainted() && authority.expires_at() > now_unix);
        let Some(best) = sound.max_by_key(|authority| authority.expires_at()) else {
            let was_held = self.held.take().is_some();
            self.due = if was_held { AT_ONCE } else { self.due };
            return was_held;
        };
        let is_held = |held: &Held| held.key_id == best.key_id() && held.published_until == best.expires_at();
        if self.held.as_ref().is_some_and(is_held) || !self.keys.adopt(best.spki_der()) {
            return false;
        }
        let not_after = best.expires_at().min(now_unix.saturating_add(self.life()));
        let lifetime = time.count(now_unix, Span { not_before: now_unix, not_after });
        self.hold(best.key_id().to_owned(), best.expires_at(), lifetime, &time.moment());
        true
    }

    fn hold(&mut self, key_id: String, published_until: i64, lifetime: Lifetime, moment: &Moment) {
        let Some(key) = self.keys.current().cloned() else { return };
        self.due = after(renewal_in(moment.remaining(&lifetime), self.life()), moment);
        (self.told, self.is_awaited) = (None, false);
        self.held = Some(Held { key, key_id, published_until, lifetime });
    }

    /// The server took none, or does not show it yet: it is asked again after a while. Whether `why` is news.
    pub fn postpone(&mut self, why: &str, moment: &Moment) -> bool {
        self.due = after(REFUSED_PAUSE, moment);
        let is_news = self.told.as_deref() != Some(why);
        self.told = Some(why.to_owned());
        is_news
    }

    /// One was published, and the bundle that was fetched then does not have it: servers may show one of a moment ago.
    pub fn await_it(&mut self, moment: &Moment) {
        (self.due, self.is_awaited) = (after(REFUSED_PAUSE, moment), true);
    }

    /// Whether one that was published is missing still; asked once, a sync later.
    pub fn is_missed(&mut self) -> bool {
        std::mem::take(&mut self.is_awaited)
    }

    /// What it may depend on has changed: another is published at the next occasion.
    pub(super) fn ask_soon(&mut self) {
        if self.held.is_none() && !self.is_awaited {
            self.due = AT_ONCE;
        }
    }

    /// What signs while the server is away, which was heard at `synced_unix` for the last time; none without a key in the bundle.
    pub(super) fn signer(&self, journal: &Arc<Mutex<Journal>>, synced_unix: i64) -> Option<TokenSigner> {
        let Held { key, key_id, lifetime, .. } = self.held.clone()?;
        let limits = (lifetime, synced_unix, self.max_offline);
        Some(TokenSigner::new((key, key_id), limits, self.config.clone(), journal.clone(), self.allowances.clone()))
    }

    /// The agent is banned or evicted: its keys are to be destroyed.
    pub(super) fn forget(&mut self) {
        (self.held, self.is_wipe_owed, self.due) = (None, true, AT_ONCE);
        (self.is_awaited, self.kept_key_id) = (false, None);
    }

    /// After a start at which nothing was taken up, not even a bundle: a ban whose wipe was cut off leaves keys then.
    pub(super) fn disown(&mut self) {
        self.is_wipe_owed = true;
    }

    /// Destroys keys that were forgotten, if that is still to be done.
    pub(super) async fn wipe_if_owed(&mut self) -> Result<(), AuthorityError> {
        if self.is_wipe_owed {
            self.keys.wipe().await?;
            self.is_wipe_owed = false;
        }
        Ok(())
    }

    /// Until when there is a key, for people.
    pub fn in_words(&self) -> String {
        match &self.held {
            Some(held) => format!("until {} by key {}", utc(held.lifetime.span().not_after), held.key_id),
            None => "none: no key of this agent's is in the bundle".to_owned(),
        }
    }
}

/// When another is published, if `left` of a key's `life` is left, both in seconds. Never at once, again and again, whatever a server makes of
/// the lives.
fn renewal_in(left: i64, life: i64) -> Duration {
    let wait = left.saturating_sub(life / LIVES).max(0);
    let least = SHORT_LIFE_PAUSE.min(Duration::from_secs((life / 8).max(1).unsigned_abs()));
    Duration::from_secs(wait.unsigned_abs()).max(least)
}

#[cfg(test)]
mod tests;
