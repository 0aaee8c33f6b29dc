//! What an operator orders, done as the plan's steps are: the journal first, then what others can see.

use std::time::Instant;

use ironroot_api::utc;
use tracing::{error, info};

use super::Performer;
use crate::ca::CaError;
use crate::ca::issuer::Candidate;
use crate::ca::journal::{Authority, Journal, Place, Slot};
use crate::ca::local_authorities::AuthorityState;
use crate::ca::orders::OrderError;
use crate::ca::purpose::Purpose;
use crate::ca::rotation::Step;
use crate::ca::rotation::by_hand::{
    Action, Leaving, MayActivate, MayDisown, MayDistrust, MayPrepare, MayRevoke, MayTaint, Order, OrderRefusal,
};
use crate::ca::upstream;
use crate::clock::Moment;
use crate::facts::tier::{TierAuthority, TierCredential};
use crate::store::{StoreError, Transaction};

impl Performer {
    /// Carries out an order, if the journal lets it; what it was about.
    pub(in crate::ca) async fn obey(&mut self, order: &Order, moment: Moment) -> Result<AuthorityState, OrderError> {
        self.unseen = true;
        if let Some(may) = self.distrust_of_others(order)? {
            return self.distrust(may).await;
        }
        let (journal, is_rooted) = (&self.journal, self.policy.root_ttl_seconds.is_some());
        let has_above = is_rooted || self.upstream.is_some();
        let root = |id: &str| journal.slots(Purpose::Root).key_named(&id.to_ascii_lowercase());
        match order {
            Order::Prepare(purpose) => {
                let may = MayPrepare::judge(journal, *purpose, moment)?;
                self.prepare_by_hand(may, moment).await
            }
            Order::Activate(purpose, id) => {
                let may = MayActivate::judge(journal, *purpose, named(journal, *purpose, id, OrderRefusal::NoId)?)?;
                self.activate_by_hand(may, moment).await
            }
            Order::Taint(purpose, id) => {
                let is_below = has_above && *purpose == Purpose::X509Ca;
                let missing = if is_below { OrderRefusal::IsBelowARoot(Action::Taint) } else { OrderRefusal::NoId };
                let may = named(journal, *purpose, id, missing)
                    .and_then(|key| MayTaint::judge(journal, *purpose, key, has_above));
                self.taint(may.map_err(|refusal| self.of_own_root(refusal))?).await
            }
            Order::Revoke(purpose, id) => {
                let is_below = has_above && *purpose == Purpose::X509Ca;
                let missing =
                    if is_below { OrderRefusal::IsBelowARoot(Action::Revoke) } else { OrderRefusal::RevokesNoId };
                let may = named(journal, *purpose, id, missing)
                    .and_then(|key| MayRevoke::judge(journal, *purpose, key, has_above));
                self.revoke(may.map_err(|refusal| self.of_own_root(refusal))?, moment).await
            }
            Order::TaintUpstream(id) if self.upstream.is_some() => {
                self.disown(MayDisown::judge(journal, &self.tiers, id, Action::Taint)?, id).await
            }
            Order::RevokeUpstream(id) if self.upstream.is_some() => {
                let may = MayDisown::judge(journal, &self.tiers, id, Action::Revoke)?;
                self.refuse_what_would_come_back(&may)?;
                self.disown(may, id).await
            }
            Order::TaintUpstream(id) => {
                refuse_no_subject(id, is_rooted, Action::Taint)?;
                self.taint(MayTaint::judge_upstream(journal, root(id), is_rooted)?).await
            }
            Order::RevokeUpstream(id) => {
                refuse_no_subject(id, is_rooted, Action::Revoke)?;
                self.revoke(MayRevoke::judge_upstream(journal, root(id), is_rooted)?, moment).await
            }
        }
    }

    /// An authority above that nobody has configured is called what it is.
    fn of_own_root(&self, refusal: OrderRefusal) -> OrderRefusal {
        match refusal {
            OrderRefusal::IsBelowARoot(action) if self.upstream.is_none() => OrderRefusal::IsBelowOwnRoot(action),
            other => other,
        }
    }

    /// Counted as the plan's own is.
    async fn prepare_by_hand(&mut self, may: MayPrepare, moment: Moment) -> Result<AuthorityState, OrderError> {
        let (place, began) = (may.place(), Instant::now());
        let done = self.prepare_at(place, moment).await;
        self.done.of(place.purpose).prepared.done(&done, began.elapsed());
        done
    }

    async fn prepare_at(&mut self, place: Place, moment: Moment) -> Result<AuthorityState, OrderError> {
        if !matches!(self.journal.slot(place), Slot::Intended(_)) {
            // Who signs comes first, as in the plan: without a root nothing is given up.
            self.signer_of(place.purpose, moment).await?;
            self.ask_above_first(place, moment).await?;
            let (key, journal) = self.choose_key(place).await?;
            let before = self.journal.slot(place).key().filter(|before| before.name != key.name).cloned();
            self.persist(journal.replace(place, key)).await?;
            self.absent.retain(|absent| *absent != place);
            self.in_former.retain(|former| *former != place);
            if let Some(before) = before {
                self.keys.release(&before).await?;
            }
        }
        self.prepare(place, moment).await?;
        match self.journal.slot(place) {
            Slot::Prepared(authority) => Ok(authority.state()),
            // The log says why.
            _ => Err(self.keys.none_free(place).into()),
        }
    }

    /// What is prepared already gives way only if the authority above certifies at all: it is asked with the key that is there, and what it
    /// answers is nobody's. One that is not there most of the time is asked by a request that waits, for the new key.
    async fn ask_above_first(&mut self, place: Place, moment: Moment) -> Result<(), CaError> {
        let Some(upstream) = self.upstream.clone().filter(|above| place.purpose == Purpose::X509Ca && !above.is_away())
        else {
            return Ok(());
        };
        let Slot::Prepared(prepared) = self.journal.slot(place).clone() else { return Ok(()) };
        let Some(key) = self.find_idle_key(place, &prepared).await? else { return Ok(()) };
        let (number, record) = (prepared.key, prepared.in_token);
        upstream::certify(&upstream, Candidate { key, number, record }, &self.policy, moment).await.map(drop)
    }

    async fn activate_by_hand(&mut self, may: MayActivate, moment: Moment) -> Result<AuthorityState, OrderError> {
        let place = may.place();
        let Slot::Prepared(authority) = self.journal.slot(place).clone() else {
            return Err(OrderRefusal::OtherId.into());
        };
        if self.find_idle_key(place, &authority).await?.is_none() {
            let key = authority.in_token.name.clone();
            self.miss(place, moment).await?;
            return Err(CaError::PreparedLost { slot: place, key }.into());
        }
        self.persist(self.without_former(place, self.journal.clone().activate_by_hand(place))).await?;
        self.note_moved(place);
        self.done.of(place.purpose).activated.one_more();
        let state = authority.state();
        let (noun, not_after) = (place.purpose.noun(), utc(authority.not_after));
        info!(slot = %place, local_authority_id = state.id, not_after, "{noun} activated");
        Ok(state)
    }

    async fn taint(&mut self, may: MayTaint) -> Result<AuthorityState, OrderError> {
        let (purpose, key) = may.key();
        let state = self.state_of(purpose, key)?;
        self.persist(self.journal.clone().taint(purpose, key)).await?;
        Ok(state)
    }

    /// It leaves the bundle first, on disk too; a token that does not answer then is asked again until its key is destroyed.
    async fn revoke(&mut self, may: MayRevoke, moment: Moment) -> Result<AuthorityState, OrderError> {
        let (purpose, key) = may.key();
        let state = self.state_of(purpose, key)?;
        self.persist(self.journal.clone().revoke(purpose, key)).await?;
        let Self { absent, in_former, journal, .. } = self;
        for places in [absent, in_former] {
            places.retain(|place| !matches!(journal.slot(*place), Slot::Revoked(_)));
        }
        while let step @ Step::Destroy(place) = self.next_step(moment, &[]) {
            if let Err(failed) = self.perform(step, moment).await {
                error!(slot = %place, error = &failed as &dyn std::error::Error, "a revoked key is not destroyed yet; it is tried again");
                break;
            }
        }
        Ok(state)
    }

    /// A root that the file of roots still has would be in the bundle again at the next look.
    fn refuse_what_would_come_back(&self, may: &MayDisown) -> Result<(), OrderRefusal> {
        let (root, _) = may.clone().root();
        match (&root.credential, &self.upstream) {
            (TierCredential::Certificate(der), Some(upstream)) if upstream.lists(der) => Err(OrderRefusal::StillListed),
            _ => Ok(()),
        }
    }

    /// A root of the authority above is tainted, or leaves the bundle, here alone.
    async fn disown(&mut self, may: MayDisown, id: &str) -> Result<AuthorityState, OrderError> {
        let (root, action) = may.root();
        let state =
            AuthorityState { id: id.to_ascii_lowercase(), expires_at_unix: root.expires_at, ..Default::default() };
        let change = move |tx: &Transaction<'_>| match action {
            Action::Taint => tx.taint_tier_authority(&root),
            Action::Revoke => tx.remove_tier_authority(&root).map(|()| true),
        };
        self.persist(self.journal.clone().disown(std::slice::from_ref(&state.id))).await?;
        let was_there = self.store.change(change).await.map_err(CaError::from)?;
        self.read_tiers().await?;
        if was_there { Ok(state) } else { Err(OrderRefusal::SignedNoOld(action).into()) }
    }

    /// What an order says of a key that a server below has published.
    fn distrust_of_others(&self, order: &Order) -> Result<Option<MayDistrust>, OrderRefusal> {
        let (purpose, id, action) = match order {
            Order::Taint(purpose, id) => (*purpose, id, Action::Taint),
            Order::Revoke(purpose, id) => (*purpose, id, Action::Revoke),
            _ => return Ok(None),
        };
        MayDistrust::judge(&self.journal, &self.tiers, purpose, id, action)
    }

    /// A key that a server below has published is tainted, or leaves the bundle.
    async fn distrust(&mut self, may: MayDistrust) -> Result<AuthorityState, OrderError> {
        let (told, action) = may.key();
        let id = told.first().and_then(TierAuthority::key_id).unwrap_or_default().to_owned();
        let expires_at_unix = told.iter().map(|key| key.expires_at).max().unwrap_or_default();
        let change = move |tx: &Transaction<'_>| {
            told.iter().try_fold(false, |was_there, key| match action {
                Action::Taint => Ok(tx.taint_tier_authority(key)? || was_there),
                Action::Revoke => tx.remove_tier_authority(key).map(|()| true),
            })
        };
        let was_there = self.store.change::<_, StoreError>(change).await.map_err(CaError::from)?;
        self.read_tiers().await?;
        match was_there {
            true => Ok(AuthorityState { id, expires_at_unix, ..Default::default() }),
            false => Err(OrderRefusal::OtherId.into()),
        }
    }

    /// The authority above has called these roots tainted: the CA that signs, and the next, hang on others when this is done.
    pub(in crate::ca) async fn leave_roots(&mut self, roots: &[String], moment: Moment) -> Result<(), OrderError> {
        self.unseen = true;
        let leaving = Leaving::judge(&self.journal, roots, moment)?;
        if matches!(leaving, Leaving::Activate(_) | Leaving::Replace(_)) {
            info!("Current root CA is signed by a tainted upstream authority, preparing rotation");
        }
        match leaving {
            Leaving::Done => {}
            Leaving::Prepare(may) => drop(self.prepare_by_hand(may, moment).await?),
            Leaving::Activate(may) => drop(self.activate_by_hand(may, moment).await?),
            Leaving::Replace(may) => {
                let id = self.prepare_by_hand(may, moment).await?.id;
                let key = self.journal.slots(Purpose::X509Ca).key_named(&id);
                let may = MayActivate::judge(&self.journal, Purpose::X509Ca, key)?;
                self.activate_by_hand(may, moment).await?;
            }
        }
        Ok(self.persist(self.journal.clone().disown(roots)).await?)
    }

    fn state_of(&self, purpose: Purpose, key: u64) -> Result<AuthorityState, OrderError> {
        let authorities = self.journal.slots(purpose).authorities();
        let newest: Option<&&Authority> = authorities.iter().rfind(|authority| authority.key == key);
        newest.map(|authority| authority.state()).ok_or(OrderRefusal::OtherId.into())
    }
}

/// The key of the authority of that ID, if there is one; `missing` if there is no ID.
fn named(journal: &Journal, purpose: Purpose, id: &str, missing: OrderRefusal) -> Result<Option<u64>, OrderRefusal> {
    if id.is_empty() { Err(missing) } else { Ok(journal.slots(purpose).key_named(id)) }
}

fn refuse_no_subject(id: &str, is_rooted: bool, action: Action) -> Result<(), OrderRefusal> {
    match id.is_empty() && is_rooted {
        true => Err(OrderRefusal::NoSubject(action)),
        false => Ok(()),
    }
}
