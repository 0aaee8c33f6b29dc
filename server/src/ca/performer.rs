//! Does what the plan says: the journal first, then what others can see. Dull on purpose.

use std::sync::Arc;

use ironroot_api::utc;
use ironroot_hsm::{KeyName, Token, TokenKey};
use tracing::{error, info, warn};

use super::bundle::TrustBundle;
use super::issuer::{self, Candidate, Issuer, Root, Signers};
use super::journal::{Authority, Journal, KeyMark, KeyRecord, Origin, Place, Slot, SlotName};
use super::key_stock::{KeyStock, is_used};
use super::purpose::Purpose;
use super::rotation::{Step, next_key_at, plan};
use super::server_name::ServerName;
use super::{CaError, CaPolicy};
use crate::clock::{ClockSource, Moment, ServerClock, Trust};
use crate::store::Store;

/// What is counted is written down this often, seconds counted: a crash loses no more of it.
const KEEP_EVERY: i64 = 60;
/// No CA is founded before this time, UNIX seconds (2026-01-01): the clock cannot be right.
const EARLIEST_FOUNDING: i64 = 1_767_225_600;

/// The only writer of this server's journal.
pub(super) struct Performer {
    keys: KeyStock,
    store: Store,
    policy: Arc<CaPolicy>,
    clock: Arc<ServerClock>,
    journal: Journal,
    /// Those of the servers that share the data store, as they were read last.
    others: Vec<Journal>,
    /// Places whose key the token does not have, of authorities that are not needed now. The journal keeps them: a token can be
    /// restored.
    absent: Vec<Place>,
    /// Whether others may not have seen yet what was done.
    unseen: bool,
}

impl Performer {
    /// Reads the journal, begins to watch the clock, and makes sure that journal and token belong together.
    pub(super) async fn load(
        token: Token,
        store: Store,
        policy: Arc<CaPolicy>,
        source: ClockSource,
    ) -> Result<Self, CaError> {
        let stored = read_own(&store, &policy.server).await?;
        let is_new = stored.is_none();
        let journal = match stored {
            Some(bytes) => Journal::from_bytes(&bytes, &policy.trust_domain, &policy.server)?,
            None => Journal::new(&policy.trust_domain, &policy.server),
        };
        let clock = Arc::new(ServerClock::start(source, journal.clock()));
        let moment = clock.moment();
        if is_new && moment.now_unix < EARLIEST_FOUNDING {
            return Err(CaError::ClockAtFounding { now: moment.now_unix });
        }
        let others = read_others(&store, &policy).await?;
        if is_new {
            refuse_another_ca(&others, &policy)?;
        }
        let keys = KeyStock::new(token, policy.given_keys.clone());
        let absent = Vec::new();
        let mut performer = Self { keys, store, policy, clock, journal, others, absent, unseen: true };
        for place in Place::all() {
            performer.check_place(place, moment).await?;
        }
        if is_new {
            let CaPolicy { trust_domain, server, .. } = &*performer.policy;
            info!(%trust_domain, %server, others = performer.others.len(), "there is no CA of this server yet; making one");
        }
        Ok(performer)
    }

    /// The clock that it decides by.
    pub(super) fn clock(&self) -> Arc<ServerClock> {
        Arc::clone(&self.clock)
    }

    /// What to do at `moment`, but for what `failed`.
    pub(super) fn next_step(&self, moment: Moment, failed: &[Step]) -> Step {
        let with_keys = self.absent.iter().fold(self.journal.clone(), |journal, place| journal.forsake(*place));
        plan(moment, &with_keys, &self.policy.paces(), failed)
    }

    /// The bundle as the journals have it.
    pub(super) fn bundle(&self) -> TrustBundle {
        TrustBundle::of(&self.journal, &self.others, &self.policy)
    }

    /// Learns what the servers that share the data store have published.
    pub(super) async fn read_others(&mut self) -> Result<(), CaError> {
        self.others = read_others(&self.store, &self.policy).await?;
        Ok(())
    }

    /// Does one step. If it fails, nothing of it is visible, and it will be planned again.
    pub(super) async fn perform(&mut self, step: Step, moment: Moment) -> Result<(), CaError> {
        self.unseen = true;
        match step {
            Step::Wait { .. } => Ok(()),
            Step::Intend(place) => self.intend(place).await,
            Step::Prepare(place) => self.prepare(place, moment).await,
            Step::Renew(place) => self.renew(place, moment).await,
            Step::Activate(place) => self.activate(place, moment).await,
            Step::Prune(purpose) => self.prune(purpose, moment).await,
        }
    }

    /// Everyone who may sign, if a step has been done since this was asked last.
    pub(super) async fn new_signers(&mut self) -> Result<Option<Signers>, CaError> {
        if !self.unseen {
            return Ok(None);
        }
        let signers = self.signers().await?;
        self.unseen = false;
        Ok(Some(signers))
    }

    /// With their keys at hand, in the order in which they are asked.
    async fn signers(&mut self) -> Result<Signers, CaError> {
        let slots = self.journal.slots(Purpose::X509Ca);
        let mut keys = Vec::new();
        for slot in SlotName::BOTH {
            let held = slots.slot(slot);
            let Some(key) = held.authority().map(|authority| &authority.in_token) else { continue };
            let found = match held {
                Slot::Active(_) => self.keys.find(&key.name).await?,
                _ => self.keys.find_fit(key).await?,
            };
            keys.extend(found.map(|key| (slot, key)));
        }
        let mut issuers = Vec::new();
        for (slot, authority) in slots.signers() {
            let key = keys.iter().find(|(held, _)| *held == slot).map(|(_, key)| key);
            let (Some(key), Some(certificate)) = (key, authority.credential.certificate()) else { continue };
            if certificate.spki_der() == key.spki_der() {
                issuers.push(Issuer::new(key.clone(), authority, certificate)?);
            }
        }
        Ok(Signers::new(issuers))
    }

    /// Errors: no CA could be signed now.
    pub(super) async fn look_for_root(&self, moment: Moment) -> Result<(), CaError> {
        if moment.trust == Trust::Incident {
            return Ok(());
        }
        self.root(moment).await.map(drop)
    }

    /// When the next key is needed, UNIX seconds, if it is one of an administrator's and none is free.
    pub(super) async fn look_for_free_key(&mut self, moment: Moment) -> Result<Option<i64>, CaError> {
        if !self.keys.is_given() || self.keys.first_free(&self.journal, &self.others).await?.is_some() {
            return Ok(None);
        }
        Ok(next_key_at(moment.now_unix, &self.journal, &self.policy.paces()))
    }

    /// Writes down what was counted, if it is worth it.
    pub(super) async fn keep_clock(&mut self) -> Result<(), CaError> {
        let kept = self.journal.clock().map_or(i64::MIN / 2, |record| record.counted());
        if self.clock.record().counted() - kept < KEEP_EVERY {
            return Ok(());
        }
        self.persist(self.journal.clone()).await
    }

    async fn prune(&mut self, purpose: Purpose, moment: Moment) -> Result<(), CaError> {
        let pruned = self.journal.clone().prune(purpose, moment);
        for place in SlotName::BOTH.map(|slot| Place { purpose, slot }) {
            // The key goes first: an old authority may lack its key, an empty slot may not have one.
            if *pruned.slot(place) == Slot::Empty
                && let Some(key) = self.journal.slot(place).key()
            {
                self.keys.release(key).await?;
            }
        }
        self.persist(pruned).await?;
        info!(%purpose, authorities = self.journal.anchors().len(), "expired authorities left the trust bundle");
        Ok(())
    }

    async fn intend(&mut self, place: Place) -> Result<(), CaError> {
        if self.finds_absent_key(place).await? {
            return Ok(());
        }
        let (key, journal) = self.choose_key(place).await?;
        let before = self.journal.slot(place).key().filter(|before| before.name != key.name).cloned();
        if let Some(before) = before {
            self.keys.release(&before).await?;
        }
        self.persist(journal.intend(place, key)).await?;
        self.absent.retain(|absent| *absent != place);
        Ok(())
    }

    /// Whether the key of this place was missing and is in the token again.
    async fn finds_absent_key(&mut self, place: Place) -> Result<bool, CaError> {
        let was_absent = self.absent.contains(&place);
        let Some(key) = self.journal.slot(place).key().filter(|_| was_absent) else { return Ok(false) };
        if self.keys.find_fit(key).await?.is_none() {
            return Ok(false);
        }
        info!(slot = %place, "the key of the CA is in the token again");
        self.absent.retain(|absent| *absent != place);
        Ok(true)
    }

    /// The key that `place` gets next, and the journal that knows it as used.
    async fn choose_key(&mut self, place: Place) -> Result<(KeyRecord, Journal), CaError> {
        if !self.keys.is_given() {
            return Ok((self.own_key(place), self.journal.clone()));
        }
        if self.journal.remembers_no_more_keys() {
            return Err(CaError::TooManyUsedKeys);
        }
        self.read_others().await?;
        match self.keys.first_free(&self.journal, &self.others).await? {
            Some(free) => Ok((free.record, self.journal.clone().with_used(free.mark))),
            None => Err(self.keys.none_free(place)),
        }
    }

    async fn prepare(&mut self, place: Place, moment: Moment) -> Result<(), CaError> {
        let Slot::Intended(record) = self.journal.slot(place).clone() else { return Ok(()) };
        // Who signs comes first: without the root no key is made.
        let root = self.signer_of(place.purpose, moment).await?;
        // The journal says that whatever has the name of a key that is made is nobody's: one whose time is over, or one from
        // before a crash.
        match self.obtain(&record).await? {
            Some(key) => {
                let candidate = Candidate { key, number: self.journal.next_key(), record };
                self.certify(place, candidate, root.as_ref(), moment).await
            }
            None => {
                error!(
                    slot = %place,
                    key = %record.name,
                    "the key that was taken is gone from the token, cannot be used any more, or another server has taken it too: another \
                     one is taken"
                );
                self.persist(self.journal.clone().forsake(place)).await
            }
        }
    }

    /// The key of an intended place. One of an administrator's is not used if another server has it in its journal too: what is on disk
    /// before either looks, one of them sees.
    async fn obtain(&mut self, record: &KeyRecord) -> Result<Option<TokenKey>, CaError> {
        let key = self.keys.obtain(record).await?;
        if record.origin == Origin::Made {
            return Ok(key);
        }
        self.read_others().await?;
        let is_others = |key: &TokenKey| is_used(&self.others, &KeyMark::of(key.spki_der()));
        Ok(key.filter(|key| !is_others(key)))
    }

    async fn renew(&mut self, place: Place, moment: Moment) -> Result<(), CaError> {
        let Some(authority) = self.journal.slot(place).authority().cloned() else { return Ok(()) };
        let (number, record) = (authority.key, authority.in_token);
        match self.keys.find_fit(&record).await? {
            Some(key) => {
                let root = self.signer_of(place.purpose, moment).await?;
                self.certify(place, Candidate { key, number, record }, root.as_ref(), moment).await
            }
            None => self.miss(place, moment).await,
        }
    }

    /// Who signs an authority of this purpose, if not itself.
    async fn signer_of(&self, purpose: Purpose, moment: Moment) -> Result<Option<Root>, CaError> {
        match purpose {
            Purpose::Root => Ok(None),
            Purpose::X509Ca => self.root(moment).await,
        }
    }

    /// The root that signs now, if the policy has one.
    async fn root(&self, moment: Moment) -> Result<Option<Root>, CaError> {
        if self.policy.root_ttl_seconds.is_none() {
            return Ok(None);
        }
        let now = moment.now_unix;
        let (slot, root) = self.journal.slots(Purpose::Root).signer(now).ok_or(CaError::NoRootValid { now })?;
        let (slot, key) = (Place::root(slot), root.in_token.name.clone());
        let lost = CaError::RootLost { slot, key };
        let held = self.find_key(slot, root).await?.ok_or(lost)?;
        let certificate = root.credential.certificate().ok_or(CaError::NoRootValid { now })?;
        Root::new(held, root, certificate).map(Some)
    }

    async fn certify(
        &mut self,
        place: Place,
        candidate: Candidate,
        root: Option<&Root>,
        moment: Moment,
    ) -> Result<(), CaError> {
        let key = candidate.record.name.clone();
        let authority = match place.purpose {
            Purpose::Root => {
                let ttl_seconds = self.policy.root_ttl_seconds.unwrap_or(self.policy.ca_ttl_seconds);
                issuer::certify_root(candidate, ttl_seconds, &self.policy, moment).await?
            }
            Purpose::X509Ca => issuer::certify_ca(candidate, root, &self.policy, moment).await?,
        };
        let not_after = authority.not_after;
        self.persist(self.journal.clone().prepare(place, authority)).await?;
        info!(slot = %place, %key, not_after = utc(not_after), "{} prepared and published", place.purpose.noun());
        Ok(())
    }

    async fn activate(&mut self, place: Place, moment: Moment) -> Result<(), CaError> {
        let Slot::Prepared(authority) = self.journal.slot(place).clone() else { return Ok(()) };
        if self.find_idle_key(place, &authority).await?.is_none() {
            return self.miss(place, moment).await;
        }
        self.persist(self.journal.clone().activate(place)).await?;
        info!(slot = %place, not_after = utc(authority.not_after), "{} activated", place.purpose.noun());
        Ok(())
    }

    /// A place holds what the journal says, or nothing. A key of ours that the journal does not know means that the data store is
    /// older than the token: going on would overwrite a key that may be in use. The active CA must have its key, as long as it may
    /// be alive; without the root's key what is signed already goes on being good.
    async fn check_place(&mut self, place: Place, moment: Moment) -> Result<(), CaError> {
        let held = self.journal.slot(place).clone();
        if held.key().is_none_or(|key| key.name != self.own_key(place).name) {
            self.check_unused(place).await?;
        }
        let Some(authority) = held.authority() else { return Ok(()) };
        let found = match (place.purpose, &held) {
            (Purpose::X509Ca, Slot::Active(_)) => self.find_key(place, authority).await?,
            _ => self.find_idle_key(place, authority).await?,
        };
        if found.is_some() {
            return Ok(());
        }
        let key = authority.in_token.name.clone();
        match (place.purpose, &held) {
            (Purpose::Root, _) => {
                let lost = self.root_lost(place, key, moment);
                error!(error = &lost as &dyn std::error::Error, "a root cannot sign");
                Ok(())
            }
            (_, Slot::Active(a)) if a.is_valid(moment.now_unix) || moment.trust == Trust::Incident => {
                //= FLT-H8 token faults: "never a new CA by itself"
                Err(CaError::KeyLost { slot: place, key })
            }
            _ => self.miss(place, moment).await,
        }
    }

    async fn check_unused(&self, slot: Place) -> Result<(), CaError> {
        let key = self.own_key(slot).name;
        match self.keys.find(&key).await? {
            Some(_) => Err(CaError::KeyWithoutJournal { slot, key }),
            None => Ok(()),
        }
    }

    /// The key of an authority that is not needed now is not in the token. A prepared CA has signed nothing, another takes
    /// its place; an old one is left as it is. A root that others may know already is not replaced.
    async fn miss(&mut self, place: Place, moment: Moment) -> Result<(), CaError> {
        let held = self.journal.slot(place);
        let Some(key) = held.key().map(|key| key.name.clone()) else { return Ok(()) };
        match (place.purpose, held) {
            (Purpose::Root, _) => Err(self.root_lost(place, key, moment)),
            (_, Slot::Prepared(_)) => {
                error!(slot = %place, %key, "the key of the prepared CA is lost; another one will be made: check the token");
                self.persist(self.journal.clone().forsake(place)).await
            }
            _ => {
                warn!(slot = %place, %key, "the key of a former CA is not in the token");
                self.absent.push(place);
                Ok(())
            }
        }
    }

    /// What is lost with the key of the root in `slot`: now, or later.
    fn root_lost(&self, slot: Place, key: KeyName, moment: Moment) -> CaError {
        match self.journal.slots(Purpose::Root).signer(moment.now_unix) {
            Some((signing, root)) if signing != slot.slot => {
                CaError::IdleRootLost { slot, key, until_unix: root.not_after }
            }
            _ => CaError::RootLost { slot, key },
        }
    }

    async fn find_key(&self, slot: Place, authority: &Authority) -> Result<Option<TokenKey>, CaError> {
        require_certified(slot, authority, self.keys.find(&authority.in_token.name).await?)
    }

    /// The same of an authority that signs no SVIDs now.
    async fn find_idle_key(&mut self, slot: Place, authority: &Authority) -> Result<Option<TokenKey>, CaError> {
        require_certified(slot, authority, self.keys.find_fit(&authority.in_token).await?)
    }

    /// Durable first; in memory only then.
    async fn persist(&mut self, journal: Journal) -> Result<(), CaError> {
        let journal = journal.with_clock(self.clock.record());
        self.store.put_ca_journal(self.policy.server.as_str(), journal.to_bytes()).await?;
        self.journal = journal;
        Ok(())
    }

    /// The key that this server makes for a place.
    fn own_key(&self, place: Place) -> KeyRecord {
        KeyRecord::made(place.key_name(&self.policy.trust_domain, &self.policy.server))
    }
}

/// What was found is the key that `authority` certifies, or nothing.
fn require_certified(slot: Place, authority: &Authority, found: Option<TokenKey>) -> Result<Option<TokenKey>, CaError> {
    let certified = authority.credential.certificate().map(|certificate| certificate.spki_der());
    match found {
        Some(key) if certified.as_deref() != Some(key.spki_der()) => {
            Err(CaError::KeyMismatch { slot, key: authority.in_token.name.clone() })
        }
        found => Ok(found),
    }
}

/// This server's row. A server that is given a name takes over what it wrote without one.
async fn read_own(store: &Store, server: &ServerName) -> Result<Option<Vec<u8>>, CaError> {
    let own = store.ca_journal(server.as_str()).await?;
    if own.is_some() || server.is_unnamed() || !store.name_ca_journal(server.as_str()).await? {
        return Ok(own);
    }
    info!(%server, "the CA that this server had without a name goes on under its name");
    Ok(store.ca_journal(server.as_str()).await?)
}

/// What other servers have published in the data store.
async fn read_others(store: &Store, policy: &CaPolicy) -> Result<Vec<Journal>, CaError> {
    let rows = store.ca_journals().await?;
    let others = rows.into_iter().filter(|(server, _)| *server != policy.server.as_str());
    let read = others.map(|(server, bytes)| {
        let server = server.parse().unwrap_or_default();
        Ok(Journal::from_bytes(&bytes, &policy.trust_domain, &server)?)
    });
    read.collect()
}

/// A server without a journal founds a CA only where there is none, or where others have theirs too.
fn refuse_another_ca(others: &[Journal], policy: &CaPolicy) -> Result<(), CaError> {
    if others.is_empty() || policy.shares_store {
        return Ok(());
    }
    let found = others.iter().map(Journal::server).collect();
    Err(CaError::OtherServersCa { found, server: policy.server.clone() })
}
