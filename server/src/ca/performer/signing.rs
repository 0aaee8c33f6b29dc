//! Who may sign now, and what the next ones will need.

use std::sync::Arc;

use super::Performer;
use crate::ca::CaError;
use crate::ca::issuer::{Issuer, Root};
use crate::ca::journal::{Authority, Place, Slot, SlotName};
use crate::ca::jwt::TokenSigner;
use crate::ca::purpose::Purpose;
use crate::ca::rotation::next_key_at;
use crate::ca::signers::Signers;
use crate::clock::{Moment, Trust};
use crate::keys::Key;

/// Keys that are in the token, each with its place.
struct FoundKeys(Vec<(SlotName, Key)>);

impl FoundKeys {
    /// The key in this place, if it is the one that `authority` is verified with.
    fn of(&self, slot: SlotName, authority: &Authority) -> Option<&Key> {
        let (_, key) = self.0.iter().find(|(held, _)| *held == slot)?;
        authority.credential.is_of(key.spki_der()).then_some(key)
    }
}

/// The root that signs CAs.
pub(super) struct SigningRoot {
    pub(super) root: Root,
    /// Its end, UNIX seconds.
    pub(super) until_unix: i64,
    /// Why the one that should sign does not, if there is one.
    passed_over: Option<CaError>,
}

impl Performer {
    /// Everyone who may sign, if a step has been done since this was asked last, or a CA that should sign was not found then.
    pub(in crate::ca) async fn new_signers(&mut self) -> Result<Option<Signers>, CaError> {
        if !self.unseen {
            return Ok(None);
        }
        let (jwt, wit) = (self.find_token_signers(Purpose::Jwt).await?, self.find_token_signers(Purpose::Wit).await?);
        self.signers = Signers::new(self.find_issuers().await?, jwt, wit);
        let active = self.journal.slots(Purpose::X509Ca).active();
        self.unseen = active.is_some_and(|(_, authority)| self.signers.of(authority).is_none());
        Ok(Some(self.signers.clone()))
    }

    /// The CAs, in the order in which they are asked. Who was among them before stays, with what was learnt about it.
    async fn find_issuers(&mut self) -> Result<Vec<Arc<Issuer>>, CaError> {
        let keys = self.find_keys(Purpose::X509Ca).await?;
        let mut issuers = Vec::new();
        for (slot, authority) in self.journal.slots(Purpose::X509Ca).signers() {
            let (Some(key), Some(certificate)) = (keys.of(slot, authority), authority.credential.certificate()) else {
                continue;
            };
            issuers.push(match self.signers.of(authority) {
                Some(known) => known,
                None => Arc::new(Issuer::new(key.clone(), authority, certificate)?),
            });
        }
        Ok(issuers)
    }

    /// The keys of tokens, likewise; the prepared one signs nothing before it is activated.
    async fn find_token_signers(&mut self, purpose: Purpose) -> Result<Vec<Arc<TokenSigner>>, CaError> {
        let keys = self.find_keys(purpose).await?;
        let slots = self.journal.slots(purpose);
        let mut signers = Vec::new();
        for (slot, authority) in slots.signers() {
            let (Some(key), Some(published)) = (keys.of(slot, authority), authority.credential.token_key()) else {
                continue;
            };
            if slots.prepared() == Some((slot, authority)) {
                continue;
            }
            signers.push(match self.signers.token_of(authority) {
                Some(known) => known,
                None => Arc::new(TokenSigner::new(key.clone(), authority, published)?),
            });
        }
        Ok(signers)
    }

    /// The keys in the places of a purpose, as far as the token has them. One of tokens that cannot be used keeps neither the other
    /// nor a CA from signing: of the one that should, `look_for_token_key` tells.
    async fn find_keys(&mut self, purpose: Purpose) -> Result<FoundKeys, CaError> {
        let mut keys = Vec::new();
        for slot in SlotName::BOTH {
            let held = self.journal.slots(purpose).slot(slot);
            let Some(authority) = held.authority() else { continue };
            let found = match held {
                Slot::Active(_) => self.keys.find_of(authority).await,
                _ => self.keys.find_fit(authority).await,
            };
            let found = match found {
                Err(unfit) if purpose.signs_tokens() && unfit.is_about_a_key() => None,
                found => found?,
            };
            keys.extend(found.map(|found| (slot, found.key)));
        }
        Ok(FoundKeys(keys))
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

    /// Has another key made for tokens of this kind if the one that signs them is lost; one that can be used again signs again.
    pub(in crate::ca) async fn look_for_token_key(&mut self, purpose: Purpose, moment: Moment) -> Result<(), CaError> {
        let active = self.journal.slots(purpose).active();
        let Some((slot, authority)) = active.map(|(slot, authority)| (slot, authority.clone())) else {
            return Ok(());
        };
        let place = Place { purpose, slot };
        if self.find_idle_key(place, &authority).await?.is_some() {
            self.unseen |= self.signers.token_of(&authority).is_none();
            return Ok(());
        }
        self.unseen = true;
        self.miss(place, moment).await
    }

    /// When the next key is needed, UNIX seconds, if it is one of an administrator's and none is free.
    pub(in crate::ca) async fn look_for_free_key(&mut self, moment: Moment) -> Result<Option<i64>, CaError> {
        if !self.keys.is_given() || self.keys.first_free(&self.journal, &self.others).await?.is_some() {
            return Ok(None);
        }
        Ok(next_key_at(moment.now_unix, &self.journal, &self.paces()))
    }
}
