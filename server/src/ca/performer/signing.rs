//! Who may sign now, and what the next ones will need.

use super::Performer;
use crate::ca::CaError;
use crate::ca::issuer::{Issuer, Root, Signers};
use crate::ca::journal::{Place, Slot, SlotName};
use crate::ca::purpose::Purpose;
use crate::ca::rotation::next_key_at;
use crate::clock::{Moment, Trust};

impl Performer {
    /// Everyone who may sign, if a step has been done since this was asked last.
    pub(in crate::ca) async fn new_signers(&mut self) -> Result<Option<Signers>, CaError> {
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

    /// The root that signs now, if the policy has one.
    pub(super) async fn root(&self, moment: Moment) -> Result<Option<Root>, CaError> {
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

    /// Errors: no CA could be signed now.
    pub(in crate::ca) async fn look_for_root(&self, moment: Moment) -> Result<(), CaError> {
        if moment.trust == Trust::Incident {
            return Ok(());
        }
        self.root(moment).await.map(drop)
    }

    /// When the next key is needed, UNIX seconds, if it is one of an administrator's and none is free.
    pub(in crate::ca) async fn look_for_free_key(&mut self, moment: Moment) -> Result<Option<i64>, CaError> {
        if !self.keys.is_given() || self.keys.first_free(&self.journal, &self.others).await?.is_some() {
            return Ok(None);
        }
        Ok(next_key_at(moment.now_unix, &self.journal, &self.policy.paces()))
    }
}
