//! Who may sign now, and what the next ones will need.

use std::sync::Arc;

use super::Performer;
use crate::ca::CaError;
use crate::ca::issuer::{Issuer, Root, Signers};
use crate::ca::journal::{Authority, Place, Slot, SlotName};
use crate::ca::purpose::Purpose;
use crate::ca::rotation::next_key_at;
use crate::clock::{Moment, Trust};

/// The root that signs CAs.
pub(super) struct SigningRoot {
    pub(super) root: Root,
    /// Its end, UNIX seconds.
    pub(super) until_unix: i64,
    /// Why the one that should sign does not, if there is one.
    passed_over: Option<CaError>,
}

impl Performer {
    /// Everyone who may sign, if a step has been done since this was asked last, or the one that should sign was not found then.
    pub(in crate::ca) async fn new_signers(&mut self) -> Result<Option<Signers>, CaError> {
        if !self.unseen {
            return Ok(None);
        }
        self.signers = self.find_signers().await?;
        let active = self.journal.slots(Purpose::X509Ca).active();
        self.unseen = active.is_some_and(|(_, authority)| self.signers.of(authority).is_none());
        Ok(Some(self.signers.clone()))
    }

    /// With their keys at hand, in the order in which they are asked. Who was among them before stays, with what was learnt about it.
    async fn find_signers(&mut self) -> Result<Signers, CaError> {
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
            if certificate.spki_der() != key.spki_der() {
                continue;
            }
            issuers.push(match self.signers.of(authority) {
                Some(known) => known,
                None => Arc::new(Issuer::new(key.clone(), authority, certificate)?),
            });
        }
        Ok(Signers::new(issuers))
    }

    /// The root that signs CAs now, if the policy has one: of those that are valid the first whose key is at hand. Each is in the
    /// bundle, so one that was activated before its key was lost keeps no CA from being signed by the one before it.
    pub(super) async fn root(&self, moment: Moment) -> Result<Option<SigningRoot>, CaError> {
        if self.policy.root_ttl_seconds.is_none() {
            return Ok(None);
        }
        let mut passed_over = None;
        for (slot, authority) in self.journal.slots(Purpose::Root).valid_signers(moment.now_unix) {
            let until_unix = authority.not_after;
            match self.hold_root(Place::root(slot), authority).await {
                Ok(root) => {
                    let passed_over = passed_over.map(|lost: CaError| lost.while_a_root_signs_until(until_unix));
                    return Ok(Some(SigningRoot { root, until_unix, passed_over }));
                }
                Err(lost) if lost.is_about_a_key() => passed_over = passed_over.or(Some(lost)),
                Err(other) => return Err(other),
            }
        }
        Err(passed_over.unwrap_or_else(|| self.no_root(moment.now_unix)))
    }

    async fn hold_root(&self, slot: Place, root: &Authority) -> Result<Root, CaError> {
        let lost = CaError::RootLost { slot, key: root.in_token.name.clone() };
        let (key, certificate) = (self.find_key(slot, root).await?, root.credential.certificate());
        match (key, certificate) {
            (Some(key), Some(certificate)) => Root::new(key, root, certificate),
            _ => Err(lost),
        }
    }

    /// Why there is none that is valid.
    fn no_root(&self, now: i64) -> CaError {
        let roots = self.journal.slots(Purpose::Root);
        let is_coming = roots.prepared().is_some_and(|(_, next)| next.is_valid(now));
        if roots.authorities().is_empty() || is_coming { CaError::NoRoot } else { CaError::NoRootValid { now } }
    }

    /// Errors: no CA could be signed now, or the root that should sign it cannot.
    pub(in crate::ca) async fn look_for_root(&self, moment: Moment) -> Result<(), CaError> {
        if moment.trust == Trust::Incident {
            return Ok(());
        }
        let passed_over = self.root(moment).await?.and_then(|signing| signing.passed_over);
        passed_over.map_or(Ok(()), Err)
    }

    /// When the next key is needed, UNIX seconds, if it is one of an administrator's and none is free.
    pub(in crate::ca) async fn look_for_free_key(&mut self, moment: Moment) -> Result<Option<i64>, CaError> {
        if !self.keys.is_given() || self.keys.first_free(&self.journal, &self.others).await?.is_some() {
            return Ok(None);
        }
        Ok(next_key_at(moment.now_unix, &self.journal, &self.policy.paces()))
    }
}
