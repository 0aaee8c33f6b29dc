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

/// The key in a place, as far as it could be looked for.
enum InPlace {
    /// It is there, and fit.
    Key(Key),
    /// It is not, or cannot be used.
    None,
    /// The token failed meanwhile, or has it in a state that it should not be in.
    Unknown,
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
    /// Everyone who may sign, if a step has been done since this was asked last, or one that should sign was not found then; and what
    /// failed meanwhile. What is wrong with one key, or with those of one purpose, keeps no other from signing.
    pub(in crate::ca) async fn new_signers(&mut self) -> (Option<Signers>, Vec<(Purpose, CaError)>) {
        if !self.unseen {
            return (None, Vec::new());
        }
        let mut failed = Vec::new();
        let mut keys = Vec::new();
        for purpose in [Purpose::X509Ca, Purpose::Jwt, Purpose::Wit] {
            keys.extend(self.find_keys(purpose, &mut failed).await);
        }
        let x509 = self.signers_of(Purpose::X509Ca, &keys, &mut failed, Signers::of, |key, authority| {
            authority.credential.certificate().map(|own| Issuer::new(key, authority, own)).transpose()
        });
        let [jwt, wit] = [Purpose::Jwt, Purpose::Wit].map(|purpose| {
            self.signers_of(purpose, &keys, &mut failed, Signers::token_of, |key, authority| {
                authority.credential.token_key().map(|own| TokenSigner::new(key, authority, own)).transpose()
            })
        });
        self.signers = Signers::new(x509, jwt, wit);
        self.unseen = !failed.is_empty() || self.lacks_signer(Purpose::X509Ca);
        (Some(self.signers.clone()), failed)
    }

    /// Whether the authority that should sign is not at hand.
    pub(in crate::ca) fn lacks_signer(&self, purpose: Purpose) -> bool {
        let active = self.journal.slots(purpose).active();
        active.is_some_and(|(_, authority)| match purpose {
            Purpose::Root => false,
            Purpose::X509Ca => self.signers.of(authority).is_none(),
            Purpose::Jwt | Purpose::Wit => self.signers.token_of(authority).is_none(),
        })
    }

    /// Who may sign for a purpose, in the order in which they are asked. Who was among them before stays, with what was learnt about it, also
    /// if its key could not be looked for now. A prepared key signs no tokens before it is activated.
    fn signers_of<T>(
        &self,
        purpose: Purpose,
        keys: &[(Place, InPlace)],
        failed: &mut Vec<(Purpose, CaError)>,
        known: impl Fn(&Signers, &Authority) -> Option<Arc<T>>,
        new: impl Fn(Key, &Authority) -> Result<Option<T>, CaError>,
    ) -> Vec<Arc<T>> {
        let slots = self.journal.slots(purpose);
        let mut signers = Vec::new();
        for (slot, authority) in slots.signers() {
            if purpose.signs_tokens() && slots.prepared() == Some((slot, authority)) {
                continue;
            }
            let in_place = keys.iter().find(|(place, _)| *place == Place { purpose, slot }).map(|(_, key)| key);
            let known = known(&self.signers, authority);
            match (in_place, known) {
                (Some(InPlace::Unknown), known) => signers.extend(known),
                (Some(InPlace::Key(key)), known) if authority.credential.is_of(key.spki_der()) => match known {
                    Some(known) => signers.push(known),
                    None => match new(key.clone(), authority) {
                        Ok(new) => signers.extend(new.map(Arc::new)),
                        Err(error) => failed.push((purpose, error)),
                    },
                },
                _ => {}
            }
        }
        signers
    }

    /// The keys of those who may sign for a purpose. One that cannot be used keeps no other from signing: only of the CA that signs
    /// SVIDs now it is a failure, and of the key that signs tokens `look_for_token_key` tells.
    async fn find_keys(&mut self, purpose: Purpose, failed: &mut Vec<(Purpose, CaError)>) -> Vec<(Place, InPlace)> {
        let mut keys = Vec::new();
        for slot in SlotName::BOTH {
            let held = self.journal.slots(purpose).slot(slot);
            let Some(authority) = held.authority().filter(|authority| !authority.is_tainted()) else { continue };
            let is_active = matches!(held, Slot::Active(_));
            let found = match is_active {
                true => self.keys.find_of(authority).await,
                false => self.keys.find_fit(authority).await,
            };
            let in_place = match found {
                Ok(found) => found.map_or(InPlace::None, |found| InPlace::Key(found.key)),
                Err(unfit) if unfit.is_about_a_key() && (purpose.signs_tokens() || !is_active) => InPlace::None,
                Err(error) => {
                    failed.push((purpose, error));
                    InPlace::Unknown
                }
            };
            keys.push((Place { purpose, slot }, in_place));
        }
        keys
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
