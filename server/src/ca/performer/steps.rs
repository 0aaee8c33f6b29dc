//! The steps of the plan, each: the journal first, then what others can see.

use ironroot_api::utc;
use tracing::{error, info};

use super::Performer;
use crate::ca::CaError;
use crate::ca::issuer::{self, Candidate, Root};
use crate::ca::journal::{Authority, Credential, Journal, KeyId, KeyMark, KeyRecord, Origin, Place, Slot, SlotName};
use crate::ca::jwt;
use crate::ca::key_stock::is_used;
use crate::ca::purpose::Purpose;
use crate::ca::upstream::{self, Upstream, UpstreamError};
use crate::clock::Moment;
use crate::keys::Key;

impl Performer {
    pub(super) async fn intend(&mut self, place: Place) -> Result<(), CaError> {
        if self.finds_absent_key(place).await? {
            return Ok(());
        }
        let (key, journal) = self.choose_key(place).await?;
        let before = self.journal.slot(place).key().filter(|before| before.name != key.name).cloned();
        if let Some(before) = before {
            self.keys.release(&before).await?;
        }
        self.persist(journal.intend(place, key)).await?;
        self.uncertified = None;
        self.absent.retain(|absent| *absent != place);
        self.in_former.retain(|former| *former != place);
        Ok(())
    }

    /// The key that `place` gets next, and the journal that knows it as used.
    pub(super) async fn choose_key(&mut self, place: Place) -> Result<(KeyRecord, Journal), CaError> {
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

    pub(super) async fn prepare(&mut self, place: Place, moment: Moment) -> Result<(), CaError> {
        let Slot::Intended(record) = self.journal.slot(place).clone() else { return Ok(()) };
        // Who signs comes first: without the root no key is made.
        let root = self.signer_of(place.purpose, moment).await?;
        // The journal says that whatever has the name of a key that is made is nobody's: one whose time is over, or one from
        // before a crash.
        let key = match self.uncertified.take_if(|(of, _)| *of == place) {
            Some((_, key)) => Some(key),
            None => match self.find_asked_for(place, &record).await? {
                Some(key) => Some(key),
                None => self.obtain(place, &record).await?,
            },
        };
        match key {
            Some(key) => {
                let made = (record.origin == Origin::Made).then(|| (place, key.clone()));
                let candidate = Candidate { key, number: self.journal.next_key(), record };
                let certified = self.certify(place, candidate, root.as_ref(), moment).await;
                if let Err(CaError::Upstream(_)) = &certified {
                    self.uncertified = made;
                }
                certified
            }
            None => {
                error!(
                    slot = %place,
                    key = %record.name,
                    "the key that was taken is gone from the token, is another one by now, cannot be used any more, or another server has \
                     taken it too: another one is taken"
                );
                self.persist(self.journal.clone().forsake(place)).await
            }
        }
    }

    /// The key that was made for this place and whose request waits for the authority above: also after a restart it is that one.
    async fn find_asked_for(&self, place: Place, record: &KeyRecord) -> Result<Option<Key>, CaError> {
        let Some(upstream) = self.upstream.as_ref().filter(|upstream| upstream.is_away()) else { return Ok(None) };
        if place.purpose != Purpose::X509Ca || record.origin != Origin::Made {
            return Ok(None);
        }
        let found = match self.keys.find_made(&record.name, self.policy.key_kind(place.purpose)).await {
            // A leftover, of another kind or unfit: it is destroyed, and a key made in its place.
            Err(leftover) if leftover.is_about_a_key() => None,
            found => found?,
        };
        Ok(found.filter(|key| upstream.has_asked_for(key.spki_der())))
    }

    /// The key of an intended place. One of an administrator's is used only if it is the one that was taken, whatever has its name by
    /// now, and not if another server has it in its journal too: what is on disk before either looks, one of them sees.
    async fn obtain(&mut self, place: Place, record: &KeyRecord) -> Result<Option<Key>, CaError> {
        let key = self.keys.obtain(record, self.policy.key_kind(place.purpose)).await?;
        if record.origin == Origin::Made {
            return Ok(key);
        }
        self.read_others().await?;
        let is_ours_alone = |key: &Key| {
            let found = KeyMark::of(key.spki_der());
            let is_taken = record.mark().map_or_else(|| self.journal.has_used(&found), |taken| *taken == found);
            is_taken && !is_used(&self.others, &found)
        };
        Ok(key.filter(is_ours_alone))
    }

    pub(super) async fn renew(&mut self, place: Place, moment: Moment) -> Result<(), CaError> {
        let Some(authority) = self.journal.slot(place).authority().cloned() else { return Ok(()) };
        match self.find_idle_key(place, &authority).await? {
            Some(key) => {
                let (number, record) = (authority.key, authority.in_token);
                let root = self.signer_of(place.purpose, moment).await?;
                self.certify(place, Candidate { key, number, record }, root.as_ref(), moment).await
            }
            None => self.miss(place, moment).await,
        }
    }

    /// Who signs an authority of this purpose, if not itself.
    pub(super) async fn signer_of(&self, purpose: Purpose, moment: Moment) -> Result<Option<Root>, CaError> {
        match purpose {
            Purpose::Root | Purpose::Jwt | Purpose::Wit => Ok(None),
            Purpose::X509Ca => Ok(self.root(moment).await?.map(|signing| signing.root)),
        }
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
            Purpose::X509Ca => match self.upstream.clone() {
                Some(upstream) => self.certify_above(&upstream, candidate, moment).await?,
                None => issuer::certify_ca(candidate, root, &self.policy, moment).await?,
            },
            Purpose::Jwt => jwt::publishable(candidate, Credential::JwtKey, &self.policy, moment, KeyId::random())?,
            Purpose::Wit => jwt::publishable(candidate, Credential::WitKey, &self.policy, moment, KeyId::random())?,
        };
        let (not_after, local_authority_id) = (utc(authority.not_after), authority.credential.id());
        let spki_der = authority.credential.spki_der();
        self.persist(self.journal.clone().prepare(place, authority)).await?;
        if let Some(upstream) = &self.upstream {
            upstream.has_got(&spki_der);
        }
        info!(slot = %place, %key, local_authority_id, not_after, "{} prepared and published", place.purpose.noun());
        Ok(())
    }

    /// Has the authority above certify a key. What verifies that is in the bundle before it signs.
    async fn certify_above(
        &mut self,
        upstream: &Upstream,
        candidate: Candidate,
        moment: Moment,
    ) -> Result<Authority, CaError> {
        let (authority, roots) = upstream::certify(upstream, candidate, &self.policy, moment).await?;
        let kept = self.store.change(move |tx| upstream::keep_roots(tx, &roots)).await;
        kept.map_err(UpstreamError::from)?;
        self.read_tiers().await?;
        Ok(authority)
    }

    pub(super) async fn activate(&mut self, place: Place, moment: Moment) -> Result<(), CaError> {
        let Slot::Prepared(authority) = self.journal.slot(place).clone() else { return Ok(()) };
        let found = match self.find_idle_key(place, &authority).await {
            // It has signed nothing: another takes its place, over whatever has its name.
            Err(unfit) if unfit.is_about_an_unfit_key() => {
                error!(slot = %place, error = &unfit as &dyn std::error::Error, "the key of the prepared {} cannot be used", place.purpose.noun());
                None
            }
            found => found?,
        };
        if found.is_none() {
            return self.miss(place, moment).await;
        }
        self.persist(self.without_former(place, self.journal.clone().activate(place))).await?;
        let (not_after, local_authority_id) = (utc(authority.not_after), authority.credential.id());
        info!(slot = %place, local_authority_id, not_after, "{} activated", place.purpose.noun());
        self.note_moved(place);
        Ok(())
    }

    /// Of a place that an operator has revoked.
    pub(super) async fn destroy(&mut self, place: Place) -> Result<(), CaError> {
        let Slot::Revoked(key) = self.journal.slot(place).clone() else { return Ok(()) };
        self.keys.release(&key).await?;
        self.persist(self.journal.clone().destroyed(place)).await?;
        self.absent.retain(|absent| *absent != place);
        if key.origin == Origin::Made {
            info!(slot = %place, key = %key.name, "the key of a revoked {} is destroyed", place.purpose.noun());
        }
        Ok(())
    }

    pub(super) async fn prune(&mut self, purpose: Purpose, moment: Moment) -> Result<(), CaError> {
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
}
