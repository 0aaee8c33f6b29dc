//! Does what the plan says: the journal first, then what others can see. Dull on purpose.

use std::sync::Arc;

use ironroot_api::certificate::Certificate;
use ironroot_hsm::{KeyId, KeyName, Token, TokenKey};
use tracing::{error, info};

use super::bundle::TrustBundle;
use super::issuer::{self, Issuer};
use super::journal::{Authority, Journal, Slot, SlotName};
use super::rotation::{Step, plan};
use super::{CaError, CaPolicy};
use crate::store::Store;

/// The only writer of the journal.
pub(super) struct Performer {
    token: Token,
    store: Store,
    policy: Arc<CaPolicy>,
    journal: Journal,
}

impl Performer {
    /// Reads the journal and makes sure that the token and it belong together. Returns the active authority too, if there is
    /// one that lives.
    pub(super) async fn load(
        token: Token,
        store: Store,
        policy: Arc<CaPolicy>,
        now_unix: i64,
    ) -> Result<(Self, Option<Issuer>), CaError> {
        let journal = match store.ca_journal().await? {
            Some(bytes) => Journal::from_bytes(&bytes, &policy.trust_domain)?,
            None => {
                info!(trust_domain = %policy.trust_domain, "founding the CA");
                Journal::new(&policy.trust_domain)
            }
        };
        let mut performer = Self { token, store, policy, journal };
        performer.check_unused().await?;
        let issuer = performer.find_active(now_unix).await?;
        performer.check_prepared().await?;
        Ok((performer, issuer))
    }

    /// What to do at `now_unix`.
    pub(super) fn next_step(&self, now_unix: i64) -> Step {
        plan(now_unix, &self.journal)
    }

    /// The bundle as the journal has it.
    pub(super) fn bundle(&self) -> TrustBundle {
        TrustBundle::of(&self.journal, &self.policy)
    }

    /// Does one step; returns the authority that signs from now on, if the step changed that. If it fails, nothing of it
    /// is visible, and it will be planned again.
    pub(super) async fn perform(&mut self, step: Step, now_unix: i64) -> Result<Option<Issuer>, CaError> {
        match step {
            Step::Wait { .. } => {}
            Step::Intend(slot) => self.persist(self.journal.clone().intend(slot)).await?,
            Step::Prepare(slot) => self.prepare(slot, now_unix).await?,
            Step::Activate(slot) => return self.activate(slot).await,
            Step::Prune => self.prune(now_unix).await?,
        }
        Ok(None)
    }

    async fn prune(&mut self, now_unix: i64) -> Result<(), CaError> {
        let pruned = self.journal.clone().prune(now_unix);
        for slot in SlotName::BOTH {
            // The key goes first: an old authority may lack its key, an empty slot may not have one.
            if *pruned.slot(slot) == Slot::Empty {
                self.token.destroy(self.key_name(slot)).await?;
            }
        }
        self.persist(pruned).await?;
        info!(authorities = self.journal.authorities().len(), "expired authorities left the trust bundle");
        Ok(())
    }

    async fn prepare(&mut self, slot: SlotName, now_unix: i64) -> Result<(), CaError> {
        let (id, label) = (self.key_id(slot), slot.key_label(&self.policy.trust_domain));
        // The journal says that whatever is there is nobody's: an old key, or one from before a crash.
        self.token.destroy(self.key_name(slot)).await?;
        let key = self.token.generate_p256(&id, &label).await?;
        let authority = issuer::certify(&key, &self.policy, now_unix).await?;
        let not_after = authority.not_after;
        self.persist(self.journal.clone().prepare(slot, authority)).await?;
        info!(%slot, key_id = %key.id(), not_after, "CA prepared and published");
        Ok(())
    }

    async fn activate(&mut self, slot: SlotName) -> Result<Option<Issuer>, CaError> {
        let Slot::Prepared(authority) = self.journal.slot(slot).clone() else { return Ok(None) };
        let Some(issuer) = self.find_issuer(slot, &authority).await? else {
            self.forsake(slot).await?;
            return Ok(None);
        };
        self.persist(self.journal.clone().activate(slot)).await?;
        info!(%slot, not_after = authority.not_after, "CA activated");
        Ok(Some(issuer))
    }

    /// Slots that nothing will sign with hold what the journal says, or nothing. A key that the journal does not know means
    /// that the data store is older than the token: going on would overwrite a key that may be in use.
    async fn check_unused(&self) -> Result<(), CaError> {
        for slot in SlotName::BOTH {
            let id = self.key_id(slot);
            match self.journal.slot(slot) {
                Slot::Empty if self.token.find(self.key_name(slot)).await?.is_some() => {
                    return Err(CaError::KeyWithoutJournal { slot, id });
                }
                Slot::Old(authority) => drop(self.find_issuer(slot, authority).await?),
                Slot::Empty | Slot::Intended | Slot::Prepared(_) | Slot::Active(_) => {}
            }
        }
        Ok(())
    }

    /// The active authority must have its key, as long as it lives.
    async fn find_active(&self, now_unix: i64) -> Result<Option<Issuer>, CaError> {
        let Some((slot, authority)) = self.journal.active().filter(|(_, a)| !a.is_expired(now_unix)) else {
            return Ok(None);
        };
        let found = self.find_issuer(slot, authority).await?;
        found.map(Some).ok_or_else(|| CaError::KeyLost { slot, id: self.key_id(slot) })
    }

    /// A prepared authority has signed nothing yet. If its key is lost another one takes its place, under the active one.
    async fn check_prepared(&mut self) -> Result<(), CaError> {
        let Some((slot, authority)) = self.journal.prepared() else { return Ok(()) };
        match self.find_issuer(slot, authority).await? {
            Some(_) => Ok(()),
            None => self.forsake(slot).await,
        }
    }

    async fn forsake(&mut self, slot: SlotName) -> Result<(), CaError> {
        error!(%slot, key_id = %self.key_id(slot), "the key of the prepared CA is lost; another one will be made: check the token");
        self.persist(self.journal.clone().forsake(slot)).await
    }

    async fn find_issuer(&self, slot: SlotName, authority: &Authority) -> Result<Option<Issuer>, CaError> {
        let id = self.key_id(slot);
        let Some(key) = self.token.find(self.key_name(slot)).await? else { return Ok(None) };
        let certificate = Certificate::parse(&authority.certificate).map_err(super::JournalError::Certificate)?;
        if !certifies(&certificate, &key) {
            return Err(CaError::KeyMismatch { slot, id });
        }
        Issuer::new(key, &certificate).map(Some)
    }

    /// Durable first; in memory only then.
    async fn persist(&mut self, journal: Journal) -> Result<(), CaError> {
        self.store.put_ca_journal(journal.to_bytes()).await?;
        self.journal = journal;
        Ok(())
    }

    fn key_id(&self, slot: SlotName) -> KeyId {
        slot.key_id(&self.policy.trust_domain)
    }

    /// With the label: a token that chooses CKA_IDs itself keeps the key under that.
    fn key_name(&self, slot: SlotName) -> KeyName {
        KeyName::new(self.key_id(slot), &slot.key_label(&self.policy.trust_domain))
    }
}

fn certifies(certificate: &Certificate, key: &TokenKey) -> bool {
    certificate.spki_der() == key.spki_der()
}
