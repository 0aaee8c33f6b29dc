//! Whether the token has the keys that the journal names, and what follows if it has not.

use ironroot_hsm::KeyName;
use tracing::{error, info, warn};

use super::Performer;
use crate::ca::CaError;
use crate::ca::journal::{Authority, Origin, Place, Slot};
use crate::ca::key_stock::FoundKey;
use crate::ca::purpose::Purpose;
use crate::clock::{Moment, Trust};
use crate::keys::Key;

impl Performer {
    /// A place holds what the journal says, or nothing. A key of ours that the journal does not know means that the data store is
    /// older than the token: going on would overwrite a key that may be in use. The active CA must have its key, as long as it may
    /// be alive; without the root's key what is signed already goes on being good. For a key of JWT-SVIDs that is lost another is made:
    /// whoever has the bundle learns of it as of any other.
    pub(super) async fn check_place(&mut self, place: Place, moment: Moment) -> Result<(), CaError> {
        if self.policy.accepts_older_journal && place.purpose != Purpose::Root {
            self.let_newer_keys_go(place).await?;
        }
        let held = self.journal.slot(place).clone();
        if held.key().is_none_or(|key| key.name != self.own_key(place).name) {
            self.check_unused(place).await?;
            if matches!(&held, Slot::Intended(key) if key.origin == Origin::Made) {
                // It was begun where keys are not made any more, and nobody knows it.
                return self.persist(self.journal.clone().forsake(place)).await;
            }
        }
        let Some(authority) = held.authority() else { return Ok(()) };
        let found = match (place.purpose, &held) {
            (Purpose::X509Ca, Slot::Active(_)) => self.find_where(place, authority).await,
            _ => self.find_idle_where(place, authority).await,
        };
        let may_lack = match place.purpose {
            Purpose::X509Ca => !matches!(held, Slot::Active(_)),
            Purpose::Jwt | Purpose::Wit => true,
            Purpose::Root => false,
        };
        let is_newer =
            |error: &CaError| place.purpose == Purpose::X509Ca && matches!(error, CaError::KeyMismatch { .. });
        let found = match found {
            // It keeps no CA from signing, and no other key of its purpose. It is destroyed when its place is needed.
            Err(unfit) if may_lack && unfit.is_about_a_key() && !is_newer(&unfit) => {
                let noun = place.purpose.noun();
                error!(slot = %place, error = &unfit as &dyn std::error::Error, "a {noun} cannot be used: check the token");
                return Ok(());
            }
            found => found?,
        };
        match found {
            Some(FoundKey { is_in_former: true, .. }) => return self.note_former(place, moment).await,
            Some(_) => return Ok(()),
            None if self.keys.managers().leave_keys_behind() => return self.leave_behind(place).await,
            None => {}
        }
        let key = authority.in_token.name.clone();
        match (place.purpose, &held) {
            (Purpose::Root, _) => {
                let lost = self.root_lost(place, key, moment).await;
                error!(error = &lost as &dyn std::error::Error, "a root cannot sign");
                Ok(())
            }
            (Purpose::X509Ca, Slot::Active(a)) if a.is_valid(moment.now_unix) || moment.trust == Trust::Incident => {
                //= FLT-H8 token faults: "never a new CA by itself"
                Err(match self.keys.managers().miss_the_former() {
                    true => CaError::FormerUnreachable { slot: place, key },
                    false => CaError::KeyLost { slot: place, key },
                })
            }
            _ => self.miss(place, moment).await,
        }
    }

    /// At an operator's word the journal counts although it is older than the key manager: a key of ours that it does not know is
    /// destroyed, and an authority without its key is forsaken, so that another one is made. What was signed stays good for as long as
    /// others know with what it is verified. A root is never given up so.
    async fn let_newer_keys_go(&mut self, place: Place) -> Result<(), CaError> {
        let held = self.journal.slot(place).clone();
        let own = self.own_key(place).name;
        let authority = held.authority();
        let is_its_own = match authority {
            Some(authority) => match self.find_where(place, authority).await {
                Ok(found) => found.is_some(),
                Err(CaError::KeyMismatch { .. }) => false,
                // Whose it is cannot be seen any more: it is not newer for that.
                Err(unfit) if unfit.is_about_a_key() => true,
                Err(other) => return Err(other),
            },
            None => false,
        };
        if is_its_own || matches!(held, Slot::Intended(_)) {
            return Ok(());
        }
        let key = held.key().map_or_else(|| own.clone(), |key| key.name.clone());
        let was_there = match key == own {
            true => self.keys.managers().current.destroy(&own).await?,
            false => false,
        };
        if was_there || authority.is_some() {
            warn!(slot = %place, %key, was_there, "the state that was accepted does not know this key: another {} is made", place.purpose.noun());
        }
        match authority {
            Some(_) => self.persist(self.journal.clone().forsake(place)).await,
            None => Ok(()),
        }
    }

    pub(super) async fn check_unused(&self, slot: Place) -> Result<(), CaError> {
        let key = self.own_key(slot).name;
        match self.keys.find_made(&key, self.policy.key_kind(slot.purpose)).await {
            Ok(None) => Ok(()),
            // Of whatever kind, and whether it is fit or not.
            Ok(Some(_)) => Err(CaError::KeyWithoutJournal { slot, key }),
            Err(one) if one.is_about_a_key() => Err(CaError::KeyWithoutJournal { slot, key }),
            Err(other) => Err(other),
        }
    }

    /// The key of an authority that is not needed now is not in the token. A prepared CA has signed nothing, another takes
    /// its place; an old one is left as it is. A root that others may know already is not replaced.
    pub(super) async fn miss(&mut self, place: Place, moment: Moment) -> Result<(), CaError> {
        let held = self.journal.slot(place);
        let Some(key) = held.key().map(|key| key.name.clone()) else { return Ok(()) };
        match (place.purpose, held) {
            (Purpose::Root, _) => Err(self.root_lost(place, key, moment).await),
            (Purpose::Jwt | Purpose::Wit, Slot::Active(_)) => {
                let noun = place.purpose.noun();
                error!(slot = %place, %key, "the {noun} that signs is lost; another one will be made: check the token");
                self.persist(self.journal.clone().forsake(place)).await
            }
            (_, Slot::Prepared(_)) => {
                error!(slot = %place, %key, "the key of the prepared {} is lost; another one will be made: check the token", place.purpose.noun());
                self.persist(self.journal.clone().forsake(place)).await
            }
            _ => {
                warn!(slot = %place, %key, "the key of a former {} is not in the token", place.purpose.noun());
                self.absent.push(place);
                Ok(())
            }
        }
    }

    /// Whether the key of this place was missing and is in the token again: that one, and no other of its name.
    pub(super) async fn finds_absent_key(&mut self, place: Place) -> Result<bool, CaError> {
        let was_absent = self.absent.contains(&place);
        let former = self.journal.slot(place).authority().filter(|_| was_absent).cloned();
        let Some(former) = former else { return Ok(false) };
        if self.find_idle_key(place, &former).await?.is_none() {
            return Ok(false);
        }
        info!(slot = %place, "the key of the {} is in the token again", place.purpose.noun());
        self.absent.retain(|absent| *absent != place);
        Ok(true)
    }

    /// What is lost with the key of the root in `slot`: now, or later.
    async fn root_lost(&self, slot: Place, key: KeyName, moment: Moment) -> CaError {
        let lost = CaError::RootLost { slot, key };
        match self.root(moment).await {
            Ok(Some(signing)) => lost.while_a_root_signs_until(signing.until_unix),
            _ => lost,
        }
    }

    pub(super) async fn find_key(&self, slot: Place, authority: &Authority) -> Result<Option<Key>, CaError> {
        Ok(self.find_where(slot, authority).await?.map(|found| found.key))
    }

    async fn find_where(&self, slot: Place, authority: &Authority) -> Result<Option<FoundKey>, CaError> {
        require_certified(slot, authority, self.keys.find_of(authority).await)
    }

    /// The same of an authority that signs no SVIDs now.
    pub(super) async fn find_idle_key(&mut self, slot: Place, authority: &Authority) -> Result<Option<Key>, CaError> {
        Ok(self.find_idle_where(slot, authority).await?.map(|found| found.key))
    }

    async fn find_idle_where(&mut self, slot: Place, authority: &Authority) -> Result<Option<FoundKey>, CaError> {
        require_certified(slot, authority, self.keys.find_fit(authority).await)
    }
}

/// What was found is the key that `authority` certifies, or nothing. One of another kind is another one.
fn require_certified(
    slot: Place,
    authority: &Authority,
    found: Result<Option<FoundKey>, CaError>,
) -> Result<Option<FoundKey>, CaError> {
    let is_another = match &found {
        Ok(found) => found.as_ref().is_some_and(|found| !authority.credential.is_of(found.key.spki_der())),
        Err(error) => error.is_of_another_kind(),
    };
    if is_another { Err(CaError::KeyMismatch { slot, key: authority.in_token.name.clone() }) } else { found }
}
