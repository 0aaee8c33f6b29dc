//! Does what the plan says: the journal first, then what others can see. Dull on purpose.

use std::sync::Arc;

use ironroot_api::certificate::Certificate;
use ironroot_hsm::{KeyId, KeyName, Token, TokenKey};
use ironroot_shell::logging::utc;
use tracing::{error, info, warn};

use super::bundle::TrustBundle;
use super::issuer::{self, Issuer, Root, Signers};
use super::journal::{Authority, Journal, Place, RootSlot, Slot, SlotName};
use super::rotation::{Hierarchy, Step, plan};
use super::{CaError, CaPolicy};
use crate::clock::{ClockSource, Moment, ServerClock, Trust};
use crate::store::Store;

/// What is counted is written down this often, seconds counted: a crash loses no more of it.
const KEEP_EVERY: i64 = 60;
/// No CA is founded before this time, UNIX seconds (2026-01-01): the clock cannot be right.
const EARLIEST_FOUNDING: i64 = 1_767_225_600;

/// The only writer of the journal.
pub(super) struct Performer {
    token: Token,
    store: Store,
    policy: Arc<CaPolicy>,
    clock: Arc<ServerClock>,
    journal: Journal,
    /// Slots whose key the token does not have, of authorities that are not needed now. The journal keeps them: a token can
    /// be restored.
    absent: Vec<SlotName>,
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
        let stored = store.ca_journal().await?;
        let is_new = stored.is_none();
        let journal = match stored {
            Some(bytes) => Journal::from_bytes(&bytes, &policy.trust_domain)?,
            None => Journal::new(&policy.trust_domain),
        };
        let clock = Arc::new(ServerClock::start(source, journal.clock()));
        let moment = clock.moment();
        if is_new && moment.now_unix < EARLIEST_FOUNDING {
            return Err(CaError::ClockAtFounding { now: moment.now_unix });
        }
        let mut performer = Self { token, store, policy, clock, journal, absent: Vec::new(), unseen: true };
        for slot in SlotName::BOTH {
            performer.check_root(slot).await?;
            performer.check_slot(slot, moment).await?;
        }
        if is_new {
            info!(trust_domain = %performer.policy.trust_domain, "founding the CA");
        }
        Ok(performer)
    }

    /// The clock that it decides by.
    pub(super) fn clock(&self) -> Arc<ServerClock> {
        Arc::clone(&self.clock)
    }

    /// What to do at `moment`.
    pub(super) fn next_step(&self, moment: Moment) -> Step {
        let with_keys = self.absent.iter().fold(self.journal.clone(), |journal, slot| journal.forsake(*slot));
        let rooted = self.policy.root_ttl_seconds.is_some();
        plan(moment, &with_keys, if rooted { Hierarchy::Rooted } else { Hierarchy::SelfSigned })
    }

    /// The bundle as the journal has it.
    pub(super) fn bundle(&self) -> TrustBundle {
        TrustBundle::of(&self.journal, &self.policy)
    }

    /// Does one step. If it fails, nothing of it is visible, and it will be planned again.
    pub(super) async fn perform(&mut self, step: Step, moment: Moment) -> Result<(), CaError> {
        self.unseen = true;
        match step {
            Step::Wait { .. } => Ok(()),
            Step::IntendRoot(slot) => self.persist(self.journal.clone().intend_root(slot)).await,
            Step::MakeRoot(slot) => self.make_root(slot, moment).await,
            Step::Intend(slot) => self.intend(slot).await,
            Step::Prepare(slot) => self.prepare(slot, moment).await,
            Step::Renew(slot) => self.renew(slot, moment).await,
            Step::Activate(slot) => self.activate(slot).await,
            Step::Prune => self.prune(moment).await,
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
    async fn signers(&self) -> Result<Signers, CaError> {
        let mut keys = Vec::new();
        for slot in SlotName::BOTH {
            if self.journal.slot(slot).authority().is_some() {
                keys.extend(self.token.find(self.key_name(Place::Ca(slot))).await?.map(|key| (slot, key)));
            }
        }
        let mut issuers = Vec::new();
        for (slot, authority) in self.journal.signers() {
            let Some((_, key)) = keys.iter().find(|(held, _)| *held == slot) else { continue };
            let certificate = parse(authority)?;
            if certifies(&certificate, key) {
                issuers.push(Issuer::new(key.clone(), authority, &certificate)?);
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

    /// Writes down what was counted, if it is worth it.
    pub(super) async fn keep_clock(&mut self) -> Result<(), CaError> {
        let kept = self.journal.clock().map_or(i64::MIN / 2, |record| record.counted());
        if self.clock.record().counted() - kept < KEEP_EVERY {
            return Ok(());
        }
        self.persist(self.journal.clone()).await
    }

    async fn prune(&mut self, moment: Moment) -> Result<(), CaError> {
        let pruned = self.journal.clone().prune(moment);
        for slot in SlotName::BOTH {
            // The key goes first: an old authority may lack its key, an empty slot may not have one.
            if *pruned.slot(slot) == Slot::Empty {
                self.token.destroy(self.key_name(Place::Ca(slot))).await?;
            }
        }
        self.persist(pruned).await?;
        info!(authorities = self.journal.authorities().len(), "expired authorities left the trust bundle");
        Ok(())
    }

    async fn intend(&mut self, slot: SlotName) -> Result<(), CaError> {
        if self.absent.contains(&slot) && self.token.find(self.key_name(Place::Ca(slot))).await?.is_some() {
            info!(%slot, "the key of the CA is in the token again");
            self.absent.retain(|absent| *absent != slot);
            return Ok(());
        }
        self.persist(self.journal.clone().intend(slot)).await?;
        self.absent.retain(|absent| *absent != slot);
        Ok(())
    }

    async fn make_root(&mut self, slot: SlotName, moment: Moment) -> Result<(), CaError> {
        let Some(ttl_seconds) = self.policy.root_ttl_seconds else { return Ok(()) };
        let place = Place::Root(slot);
        let key = self.make_key(place).await?;
        let number = self.journal.next_key();
        let root = issuer::certify_root(&key, number, ttl_seconds, &self.policy, moment).await?;
        let not_after = root.not_after;
        self.persist(self.journal.clone().make_root(slot, root)).await?;
        info!(slot = %place, key_id = %self.key_id(place), not_after = utc(not_after), "root made and published");
        Ok(())
    }

    async fn prepare(&mut self, slot: SlotName, moment: Moment) -> Result<(), CaError> {
        // Who signs comes first: without the root no key is made.
        let root = self.root(moment).await?;
        let key = self.make_key(Place::Ca(slot)).await?;
        self.certify(slot, &key, self.journal.next_key(), root.as_ref(), moment).await
    }

    /// The journal says that whatever is there is nobody's: a key whose time is over, or one from before a crash.
    async fn make_key(&self, place: Place) -> Result<TokenKey, CaError> {
        let (id, label) = (self.key_id(place), place.key_label(&self.policy.trust_domain));
        self.token.destroy(self.key_name(place)).await?;
        Ok(self.token.generate_p256(&id, &label).await?)
    }

    /// The root that signs now, if the policy has one.
    async fn root(&self, moment: Moment) -> Result<Option<Root>, CaError> {
        if self.policy.root_ttl_seconds.is_none() {
            return Ok(None);
        }
        let now = moment.now_unix;
        let signing = self.journal.roots().signing(now, self.policy.ca_ttl_seconds);
        let (slot, root) = signing.ok_or(CaError::NoRootValid { now })?;
        let (slot, certificate) = (Place::Root(slot), parse(root)?);
        match self.find_key(slot, root).await? {
            Some(key) => Root::new(key, root, &certificate).map(Some),
            None => Err(CaError::RootLost { slot, id: self.key_id(slot) }),
        }
    }

    async fn renew(&mut self, slot: SlotName, moment: Moment) -> Result<(), CaError> {
        let Some(number) = self.journal.slot(slot).authority().map(|authority| authority.key) else { return Ok(()) };
        match self.token.find(self.key_name(Place::Ca(slot))).await? {
            Some(key) => self.certify(slot, &key, number, self.root(moment).await?.as_ref(), moment).await,
            None => self.miss(slot).await,
        }
    }

    async fn certify(
        &mut self,
        slot: SlotName,
        key: &TokenKey,
        number: u64,
        root: Option<&Root>,
        moment: Moment,
    ) -> Result<(), CaError> {
        let authority = issuer::certify(key, number, root, &self.policy, moment).await?;
        let not_after = authority.not_after;
        self.persist(self.journal.clone().prepare(slot, authority)).await?;
        info!(%slot, key_id = %self.key_id(Place::Ca(slot)), not_after = utc(not_after), "CA prepared and published");
        Ok(())
    }

    async fn activate(&mut self, slot: SlotName) -> Result<(), CaError> {
        let Slot::Prepared(authority) = self.journal.slot(slot).clone() else { return Ok(()) };
        if self.find_key(Place::Ca(slot), &authority).await?.is_none() {
            return self.miss(slot).await;
        }
        self.persist(self.journal.clone().activate(slot)).await?;
        info!(%slot, not_after = utc(authority.not_after), "CA activated");
        Ok(())
    }

    /// A slot holds what the journal says, or nothing. A key that the journal does not know means that the data store is older
    /// than the token: going on would overwrite a key that may be in use. The active authority must have its key, as long as
    /// it may be alive.
    async fn check_slot(&mut self, slot: SlotName, moment: Moment) -> Result<(), CaError> {
        let place = Place::Ca(slot);
        let held = self.journal.slot(slot).clone();
        match (&held, held.authority()) {
            (Slot::Empty, _) => self.check_unused(place).await,
            (_, None) => Ok(()),
            (_, Some(authority)) => match (self.find_key(place, authority).await?, &held) {
                (Some(_), _) => Ok(()),
                (None, Slot::Active(a)) if a.is_valid(moment.now_unix) || moment.trust == Trust::Incident => {
                    Err(CaError::KeyLost { slot: place, id: self.key_id(place) })
                }
                (None, _) => self.miss(slot).await,
            },
        }
    }

    /// The same for a root. Without its key what is signed already goes on being good.
    async fn check_root(&self, slot: SlotName) -> Result<(), CaError> {
        let place = Place::Root(slot);
        match self.journal.roots().slot(slot) {
            RootSlot::Empty => self.check_unused(place).await,
            RootSlot::Intended => Ok(()),
            RootSlot::Made(root) => {
                if self.find_key(place, root).await?.is_none() {
                    let lost = CaError::RootLost { slot: place, id: self.key_id(place) };
                    error!(error = &lost as &dyn std::error::Error, "the root cannot sign");
                }
                Ok(())
            }
        }
    }

    async fn check_unused(&self, slot: Place) -> Result<(), CaError> {
        let id = self.key_id(slot);
        match self.token.find(self.key_name(slot)).await? {
            Some(_) => Err(CaError::KeyWithoutJournal { slot, id }),
            None => Ok(()),
        }
    }

    /// The key of an authority that is not needed now is not in the token. A prepared one has signed nothing, another takes
    /// its place; an old one is left as it is.
    async fn miss(&mut self, slot: SlotName) -> Result<(), CaError> {
        let key_id = self.key_id(Place::Ca(slot));
        if !matches!(self.journal.slot(slot), Slot::Prepared(_)) {
            warn!(%slot, %key_id, "the key of a former CA is not in the token");
            self.absent.push(slot);
            return Ok(());
        }
        error!(%slot, %key_id, "the key of the prepared CA is lost; another one will be made: check the token");
        self.persist(self.journal.clone().forsake(slot)).await
    }

    async fn find_key(&self, slot: Place, authority: &Authority) -> Result<Option<TokenKey>, CaError> {
        let id = self.key_id(slot);
        let Some(key) = self.token.find(self.key_name(slot)).await? else { return Ok(None) };
        if !certifies(&parse(authority)?, &key) {
            return Err(CaError::KeyMismatch { slot, id });
        }
        Ok(Some(key))
    }

    /// Durable first; in memory only then.
    async fn persist(&mut self, journal: Journal) -> Result<(), CaError> {
        let journal = journal.with_clock(self.clock.record());
        self.store.put_ca_journal(journal.to_bytes()).await?;
        self.journal = journal;
        Ok(())
    }

    fn key_id(&self, place: Place) -> KeyId {
        place.key_id(&self.policy.trust_domain)
    }

    /// With the label: a token that chooses CKA_IDs itself keeps the key under that.
    fn key_name(&self, place: Place) -> KeyName {
        KeyName::new(self.key_id(place), &place.key_label(&self.policy.trust_domain))
    }
}

fn parse(authority: &Authority) -> Result<Certificate, CaError> {
    Ok(Certificate::parse(&authority.certificate).map_err(super::JournalError::Certificate)?)
}

fn certifies(certificate: &Certificate, key: &TokenKey) -> bool {
    certificate.spki_der() == key.spki_der()
}
