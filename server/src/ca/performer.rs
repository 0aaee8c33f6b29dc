//! Does what the plan says: the journal first, then what others can see. Dull on purpose.

mod belonging;
mod by_hand;
mod journals;
mod moving;
mod signing;
mod steps;

use std::sync::Arc;
use std::time::Instant;

use ironroot_api::tls::AuthorityMark;
use ironroot_api::utc;
use tracing::{info, warn};

use super::bundle::TrustBundle;
use super::journal::{Journal, KeyRecord, Place};
use super::key_stock::KeyStock;
use super::local_authorities::LocalAuthorities;
use super::published::longest_published_life;
use super::purpose::Purpose;
use super::rotation::{Step, plan};
use super::signers::Signers;
use super::steps_done::StepsDone;
use super::upstream::Upstream;
use super::{CaError, CaPolicy};
use crate::clock::{ClockSource, Moment, ServerClock};
use crate::facts::tier::TierAuthorities;
use crate::keys::{Key, KeyManagers};
use crate::store::Store;

pub use journals::refuse_another_name;
use journals::{read_others, read_own, refuse_another_ca};

/// What is counted is written down this often, seconds counted: a crash loses no more of it.
const KEEP_EVERY: i64 = 60;
/// An authority of another tier stays this long after its end, seconds, for peers whose clocks are behind.
pub(super) const KEEP_EXPIRED_FOR: i64 = 60;
/// No CA is founded before this time, UNIX seconds (2026-01-01): the clock cannot be right.
const EARLIEST_FOUNDING: i64 = 1_767_225_600;

/// The only writer of this server's journal.
pub(super) struct Performer {
    keys: KeyStock,
    store: Store,
    policy: Arc<CaPolicy>,
    /// Who certifies CAs, if not this server.
    upstream: Option<Arc<Upstream>>,
    /// A key that was made for this place, and that the authority above has not certified yet: it is not made anew for each try.
    uncertified: Option<(Place, Key)>,
    clock: Arc<ServerClock>,
    journal: Journal,
    /// Those of the servers that share the data store, as they were read last.
    others: Vec<Journal>,
    /// Authorities of other tiers, as they were read last.
    tiers: TierAuthorities,
    /// Places whose key the token does not have, of authorities that are not needed now. The journal keeps them: a token can be
    /// restored.
    absent: Vec<Place>,
    /// Places whose key is in the key manager that the CA moves away from.
    in_former: Vec<Place>,
    /// Who may sign, as it was found last.
    signers: Signers,
    /// Whether something was done since, so that they may be others.
    unseen: bool,
    done: Arc<StepsDone>,
}

impl Performer {
    /// Reads the journal, begins to watch the clock, and makes sure that journal and token belong together.
    pub(super) async fn load(
        managers: KeyManagers,
        store: Store,
        policy: Arc<CaPolicy>,
        upstream: Option<Arc<Upstream>>,
        source: ClockSource,
    ) -> Result<Self, CaError> {
        let stored = read_own(&store, &policy.server).await?;
        let journal = match stored {
            Some(bytes) => Journal::from_bytes(&bytes, &policy.trust_domain, &policy.server)?,
            None => Journal::new(&policy.trust_domain, &policy.server),
        };
        let journal = policy.unwanted().fold(journal, Journal::lay_down);
        let clock = Arc::new(ServerClock::start(source, journal.clock()));
        store.decide_by(clock.clone());
        let moment = clock.moment();
        // A start that failed before it had founded one may have left a journal.
        let is_founding = !journal.is_founded();
        if is_founding && moment.now_unix < EARLIEST_FOUNDING {
            return Err(CaError::ClockAtFounding { now: moment.now_unix });
        }
        let others = read_others(&store, &policy).await?;
        let tiers = store.tier_authorities().await?;
        if is_founding {
            refuse_another_ca(&store, &others, &policy)?;
        }
        let keys = KeyStock::new(managers, policy.given_keys.clone());
        let (absent, in_former, signers) = (Vec::new(), Vec::new(), Signers::default());
        let mut performer = Self {
            keys,
            store,
            policy,
            upstream,
            uncertified: None,
            clock,
            journal,
            others,
            tiers,
            absent,
            in_former,
            signers,
            unseen: true,
            done: Arc::default(),
        };
        if performer.policy.accepts_older_journal {
            performer.persist(performer.journal.clone().outrun(moment.now_unix)).await?;
        }
        for place in Place::all() {
            performer.check_place(place, moment).await?;
        }
        if is_founding {
            let CaPolicy { trust_domain, server, .. } = &*performer.policy;
            info!(%trust_domain, %server, others = performer.others.len(), "there is no CA of this server yet; making one");
        }
        Ok(performer)
    }

    /// What it has done.
    pub(super) fn done(&self) -> Arc<StepsDone> {
        Arc::clone(&self.done)
    }

    /// The clock that it decides by.
    pub(super) fn clock(&self) -> Arc<ServerClock> {
        Arc::clone(&self.clock)
    }

    /// What to do at `moment`, but for what `failed`.
    pub(super) fn next_step(&self, moment: Moment, failed: &[Step]) -> Step {
        let with_keys = self.absent.iter().fold(self.journal.clone(), |journal, place| journal.forsake(*place));
        plan(moment, &with_keys, &self.paces(), failed)
    }

    /// The bundle as the journals have it.
    pub(super) fn bundle(&self) -> TrustBundle {
        TrustBundle::of(&self.journal, &self.others, &self.tiers, &self.policy)
    }

    /// The CAs that sign SVIDs, of this server and of those that share its data store, for as long as the journals have them.
    pub(super) fn own_authorities(&self) -> Vec<AuthorityMark> {
        let journals = std::iter::once(&self.journal).chain(&self.others);
        let authorities = journals.flat_map(|journal| journal.slots(Purpose::X509Ca).authorities());
        let certificates = authorities.filter_map(|authority| authority.credential.certificate());
        certificates.filter_map(|certificate| AuthorityMark::of_certificate(certificate).ok()).collect()
    }

    /// The authorities of a purpose, as an operator sees them.
    pub(super) fn local_authorities(&self, purpose: Purpose) -> LocalAuthorities {
        match (purpose, &self.upstream) {
            (Purpose::Root, Some(_)) => LocalAuthorities::above(&self.journal, &self.tiers),
            _ => LocalAuthorities::of(&self.journal, purpose),
        }
    }

    /// Learns what the servers that share the data store have published.
    pub(super) async fn read_others(&mut self) -> Result<(), CaError> {
        self.others = read_others(&self.store, &self.policy).await?;
        Ok(())
    }

    /// Learns which authorities servers of other tiers have, and forgets those whose time is over.
    pub(super) async fn read_tiers(&mut self) -> Result<(), CaError> {
        self.tiers = self.store.tier_authorities().await?;
        let moment = self.clock.moment();
        let over_at = moment.now_unix.saturating_sub(KEEP_EXPIRED_FOR);
        if moment.may_destroy() && self.tiers.has_expired(over_at) {
            let expired = self.store.change(move |tx| tx.remove_tier_authorities_expired_at(over_at)).await?;
            info!(expired, "authorities of other tiers whose time is over left the trust bundle");
            self.tiers = self.store.tier_authorities().await?;
        }
        // What was taken in before there was a bound, or while ca_ttl was longer.
        let latest = moment.now_unix.saturating_add(longest_published_life(self.policy.ca_ttl_seconds));
        if moment.may_destroy() && self.tiers.outlast(latest.saturating_add(KEEP_EXPIRED_FOR)) {
            let bounded = self.store.change(move |tx| tx.bound_published_keys(latest)).await?;
            warn!(
                bounded,
                until = utc(latest),
                "keys that servers below have published were good for too long, and end earlier now"
            );
            self.tiers = self.store.tier_authorities().await?;
        }
        Ok(())
    }

    /// Does one step. If it fails, nothing of it is visible, and it will be planned again.
    pub(super) async fn perform(&mut self, step: Step, moment: Moment) -> Result<(), CaError> {
        let began = Instant::now();
        let done = self.carry_out(step, moment).await;
        self.done.note(step, &done, began.elapsed());
        done?;
        self.unseen = true;
        Ok(())
    }

    async fn carry_out(&mut self, step: Step, moment: Moment) -> Result<(), CaError> {
        match step {
            Step::Wait { .. } => Ok(()),
            Step::Intend(place) => self.intend(place).await,
            Step::Prepare(place) => self.prepare(place, moment).await,
            Step::Renew(place) => self.renew(place, moment).await,
            Step::Activate(place) => self.activate(place, moment).await,
            Step::Prune(purpose) => self.prune(purpose, moment).await,
            Step::Destroy(place) => self.destroy(place).await,
        }
    }

    /// Writes down what was counted, if it is worth it.
    pub(super) async fn keep_clock(&mut self) -> Result<(), CaError> {
        let kept = self.journal.clock().map_or(i64::MIN / 2, |record| record.counted());
        if self.clock.record().counted() - kept < KEEP_EVERY {
            return Ok(());
        }
        self.persist(self.journal.clone()).await
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
        KeyRecord::made(self.keys.name_of(place, &self.policy.trust_domain, &self.policy.server))
    }
}
