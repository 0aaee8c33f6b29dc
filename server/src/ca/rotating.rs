//! The one task that renews the CA, and what everyone else sees of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, warn};

use super::bundle::TrustBundle;
use super::local_authorities::LocalAuthorities;
use super::orders::{OrderError, Orders, Request};
use super::performer::Performer;
use super::purpose::Purpose;
use super::rotation::Step;
use super::rotation::by_hand::Order;
use super::rotation_failures::{Attempt, Failures};
use super::rotation_health::{Loudness, RootWanted, RotationHealth};
use super::signers::Signers;
use super::steps_done::StepsDone;
use super::upstream::Upstream;
use super::{CaError, CaPolicy};
use crate::clock::{ClockSource, Moment, ServerClock};
use crate::keys::KeyManagers;
use crate::rights::OwnAuthorities;
use crate::store::Store;

/// The plan is looked at no less often than this: the clock may have been set. Source: SPIRE `rotateInterval`.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Wait after a step that failed.
const RETRY: Duration = Duration::from_secs(2);
/// Steps that are done without a pause. Founding takes nine.
const MAX_STEPS: usize = 16;
/// The root's key, those of tokens, and a free key where keys are given, are looked for this often, so that their loss is noticed
/// before they are needed, or soon.
const LOOK_AHEAD: Duration = Duration::from_secs(60);

/// Renews the CA. Nothing is renewed unless it runs.
pub struct Rotation {
    performer: Performer,
    published: Arc<Published>,
    clock: Arc<ServerClock>,
    journals: watch::Receiver<u64>,
    /// How often they had changed when they were read last.
    read: u64,
    orders: mpsc::Receiver<Request>,
    looked: Option<Instant>,
}

/// Who signs, what the bundle holds, and how the renewal fares.
pub(super) struct Published {
    signers: ArcSwap<Signers>,
    bundle: watch::Sender<Arc<TrustBundle>>,
    local: ArcSwap<Local>,
    own: Arc<OwnAuthorities>,
    journals: watch::Receiver<u64>,
    /// How often they had changed when what is shown here was read.
    shown: watch::Sender<u64>,
    health: Mutex<RotationHealth>,
    done: Arc<StepsDone>,
}

/// The authorities of this server, as operators see them.
struct Local {
    x509: LocalAuthorities,
    jwt: LocalAuthorities,
    wit: LocalAuthorities,
    roots: LocalAuthorities,
}

impl Local {
    fn of(performer: &Performer) -> Self {
        let [x509, jwt, wit, roots] = [Purpose::X509Ca, Purpose::Jwt, Purpose::Wit, Purpose::Root]
            .map(|purpose| performer.local_authorities(purpose));
        Self { x509, jwt, wit, roots }
    }
}

impl Rotation {
    /// Brings the CA to where it should be now.
    pub(super) async fn start(
        keys: KeyManagers,
        store: Store,
        policy: Arc<CaPolicy>,
        upstream: Option<Arc<Upstream>>,
        source: ClockSource,
    ) -> Result<(Self, Orders), CaError> {
        let journals = store.bundle_changes().await?;
        let read = *journals.borrow();
        let mut performer = Performer::load(keys, store, policy, upstream, source).await?;
        let clock = performer.clock();
        let mut failures = advance_to_now(&mut performer, &clock).await;
        let (found, failed) = performer.new_signers().await;
        failures.note_unfound(failed);
        let signers = found.unwrap_or_default();
        tell_if_it_signs(failures, &signers, clock.moment().now_unix)?;
        if signers.is_empty() {
            return Err(CaError::NothingSigns);
        }
        let bundle = watch::Sender::new(Arc::new(performer.bundle()));
        let local = ArcSwap::from_pointee(Local::of(&performer));
        let published = Published {
            signers: ArcSwap::from_pointee(signers),
            bundle,
            local,
            own: Arc::default(),
            journals: journals.clone(),
            shown: watch::Sender::new(read),
            health: Mutex::default(),
            done: performer.done(),
        };
        published.own.replace(performer.own_authorities());
        let (given, orders) = Orders::channel();
        Ok((Self { performer, published: Arc::new(published), clock, journals, read, orders, looked: None }, given))
    }

    pub(super) fn clock(&self) -> Arc<ServerClock> {
        Arc::clone(&self.clock)
    }

    pub(super) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }

    /// Rotates for as long as it is polled: at the planned times, when another server has changed its journal, at an operator's word,
    /// and at least every ten seconds.
    pub async fn run(mut self) {
        loop {
            let order = match self.advance().await {
                Ok(wait) => {
                    self.published.health().worked();
                    self.rest(wait, true).await
                }
                Err(failures) => {
                    self.tell(&failures);
                    self.rest(RETRY, false).await
                }
            };
            if let Some(request) = order {
                self.obey(request).await;
            }
        }
    }

    /// Until the time is over, an order comes, or a journal has changed: another server's, or this one's by what was just done. What
    /// failed is not tried again at once because a journal has changed.
    async fn rest(&mut self, wait: Duration, follows_journals: bool) -> Option<Request> {
        tokio::select! {
            () = tokio::time::sleep(wait) => None,
            Ok(()) = self.journals.changed(), if follows_journals => None,
            Some(order) = self.orders.recv() => Some(order),
        }
    }

    /// Carries out what is asked for. What came of it is published before whoever asked hears of it; who has hung up knows by looking.
    async fn obey(&mut self, request: Request) {
        let moment = self.clock.moment();
        match request {
            Request::Order { order, reply } => {
                let outcome = self.performer.obey(&order, moment).await;
                let failures = self.publish_and_tell().await;
                let _ = reply.send(outcome.and_then(|state| self.require_signer(&order, &failures).map(|()| state)));
            }
            Request::LeaveRoots { roots, reply } => {
                let outcome = self.performer.leave_roots(&roots, moment).await;
                self.publish_and_tell().await;
                let _ = reply.send(outcome);
            }
        }
    }

    async fn publish_and_tell(&mut self) -> Failures {
        let mut failures = Failures::default();
        self.publish(&mut failures).await;
        if !failures.is_empty() {
            self.tell(&failures);
        }
        failures
    }

    /// What is to sign from now on, by an order that was carried out, is at hand.
    fn require_signer(&self, order: &Order, failures: &Failures) -> Result<(), OrderError> {
        match order {
            Order::Activate(purpose, _) | Order::Taint(purpose, _) if self.performer.lacks_signer(*purpose) => {
                let why = match failures.is_empty() {
                    true => "its key is not in the token, or cannot be used".to_owned(),
                    false => failures.to_string(),
                };
                Err(OrderError::SignerMissing { noun: purpose.noun(), why })
            }
            _ => Ok(()),
        }
    }

    /// Does what is due; returns how long to wait for the next step. Each step asks the clocks anew: one that jumps is noticed
    /// before anything is decided by it.
    ///
    /// Errors: all that failed, when all that does not need it is done.
    async fn advance(&mut self) -> Result<Duration, Failures> {
        let changed = *self.journals.borrow_and_update();
        self.use_store().await.map_err(|error| Failures::of(Attempt::UseStore, error))?;
        self.read = changed;
        let mut failures = Failures::default();
        for _ in 0..MAX_STEPS {
            self.publish(&mut failures).await;
            let moment = self.clock.moment();
            match self.performer.next_step(moment, &failures.steps()) {
                Step::Wait { until_unix } => {
                    self.look_at_root(moment, failures.awaited());
                    self.look_ahead(moment, &mut failures).await;
                    let seconds = until_unix.saturating_sub(moment.now_unix).max(1).unsigned_abs();
                    return failures.or(Duration::from_secs(seconds).min(LONGEST_WAIT));
                }
                step => failures.note(Attempt::Do(step), self.performer.perform(step, moment).await),
            };
        }
        failures.note(Attempt::Settle, Err::<(), _>(CaError::Unsettled));
        failures.or(LONGEST_WAIT)
    }

    async fn use_store(&mut self) -> Result<(), CaError> {
        self.performer.keep_clock().await?;
        self.performer.read_others().await?;
        self.performer.read_tiers().await
    }

    /// What is in the journals is in the bundle before anybody signs with it.
    async fn publish(&mut self, failures: &mut Failures) {
        self.published.local.store(Arc::new(Local::of(&self.performer)));
        self.published.own.replace(self.performer.own_authorities());
        self.published.shown.send_replace(self.read);
        self.published.publish(self.performer.bundle());
        if failures.attempts().any(|failed| matches!(failed, Attempt::FindSigners(_))) {
            return;
        }
        let (found, failed) = self.performer.new_signers().await;
        failures.note_unfound(failed);
        if let Some(signers) = found {
            self.published.signers.store(Arc::new(signers));
        }
    }

    /// Looks now and then for what the next steps will need, and soon again for what it did not find.
    async fn look_ahead(&mut self, moment: Moment, failures: &mut Failures) {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_AHEAD) {
            return;
        }
        let root = failures.note(Attempt::LookForRoot, self.performer.look_for_root(moment).await);
        let mut are_there = root.is_some();
        for purpose in Purpose::ALL.into_iter().filter(|purpose| purpose.signs_tokens()) {
            let found = self.performer.look_for_token_key(purpose, moment).await;
            are_there &= failures.note(Attempt::LookForTokenKey(purpose), found).is_some();
        }
        let shortage = failures.note(Attempt::LookForFreeKey, self.performer.look_for_free_key(moment).await);
        if let Some(shortage) = shortage
            && let Some(alarm) = self.published.health().look_at_keys(shortage, moment.now_unix)
        {
            error!(reason = alarm, "no key is left for the next rotation");
        }
        if are_there && shortage.is_some() {
            self.looked = Some(Instant::now());
        }
    }

    /// Says that the root is awaited, and for how long the CA that is there goes on.
    fn look_at_root(&self, moment: Moment, awaited: Option<String>) {
        let ends = self.published.signers().at(moment.now_unix).map(|signer| signer.not_after_unix());
        let awaited = awaited.map(|why| (why, ends.unwrap_or(moment.now_unix)));
        let wanted = self.published.health().look_at_root(awaited, moment.now_unix);
        match wanted {
            Some(RootWanted { words, is_urgent: true }) => error!(reason = words, "the root is needed soon"),
            Some(RootWanted { words, is_urgent: false }) => warn!(reason = words, "the root is needed"),
            None => {}
        }
    }

    /// In the log at once and when it gets serious; for health checks each time.
    fn tell(&self, failures: &Failures) {
        let now_unix = self.clock.moment().now_unix;
        let loudness = self.published.health().failed(failures, now_unix);
        match loudness {
            Loudness::Silent => debug!(reason = %failures, "CA rotation failed again"),
            Loudness::Once => warn!(reason = %failures, "CA rotation failed; it is tried again"),
            Loudness::Critical => {
                error!(reason = self.published.rotation_trouble(now_unix), "CRITICAL: the rotation keeps failing");
            }
        }
    }
}

impl Published {
    pub(super) fn signers(&self) -> Arc<Signers> {
        self.signers.load_full()
    }

    pub(super) fn bundle(&self) -> watch::Receiver<Arc<TrustBundle>> {
        self.bundle.subscribe()
    }

    pub(super) fn own(&self) -> Arc<OwnAuthorities> {
        Arc::clone(&self.own)
    }

    /// Waits until [`own`](Self::own) has what the store's followers have been told of the journals.
    pub(super) async fn shows_journals(&self) {
        let told = *self.journals.borrow();
        let shown = self.shown.subscribe().wait_for(|shown| *shown >= told).await.map(drop);
        shown.expect("its sender is beside it");
    }

    pub(super) fn done(&self) -> &StepsDone {
        &self.done
    }

    /// The authorities of that purpose, as operators see them.
    pub(super) fn local_authorities(&self, purpose: Purpose) -> LocalAuthorities {
        let local = self.local.load();
        match purpose {
            Purpose::Root => local.roots.clone(),
            Purpose::X509Ca => local.x509.clone(),
            Purpose::Jwt => local.jwt.clone(),
            Purpose::Wit => local.wit.clone(),
        }
    }

    /// Whether the CA that signs, or the next, hangs on one of these roots of the authority above, by their subject key IDs.
    pub(super) fn hangs_on(&self, roots: &[String]) -> bool {
        let LocalAuthorities { active, prepared, .. } = self.local_authorities(Purpose::X509Ca);
        active.into_iter().chain(prepared).any(|ca| roots.contains(&ca.upstream_id))
    }

    /// Why the CA may end without a successor; none if nothing speaks for it.
    pub(super) fn rotation_trouble(&self, now_unix: i64) -> Option<String> {
        let signer = self.signers().at(now_unix).ok()?;
        self.health().trouble(now_unix, signer.not_after_unix())
    }

    /// Wakes receivers only if something changed.
    fn publish(&self, bundle: TrustBundle) {
        self.bundle.send_if_modified(|current| {
            let changed = **current != bundle;
            if changed {
                *current = Arc::new(bundle);
            }
            changed
        });
    }

    fn health(&self) -> MutexGuard<'_, RotationHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is due at the start; returns what of it failed.
async fn advance_to_now(performer: &mut Performer, clock: &ServerClock) -> Failures {
    let mut failures = Failures::default();
    for _ in 0..MAX_STEPS {
        let moment = clock.moment();
        match performer.next_step(moment, &failures.steps()) {
            Step::Wait { .. } => return failures,
            step => failures.note(Attempt::Do(step), performer.perform(step, moment).await),
        };
    }
    failures.note(Attempt::Settle, Err::<(), _>(CaError::Unsettled));
    failures
}

/// Whatever the next authority lacks is no reason not to start while one signs: it is tried again, as it is while the server runs.
fn tell_if_it_signs(failures: Failures, signers: &Signers, now_unix: i64) -> Result<(), CaError> {
    if signers.trouble(now_unix).is_none() {
        if !failures.is_empty() {
            warn!(reason = %failures, "CA rotation failed; it is tried again");
        }
        return Ok(());
    }
    let Some((why, beside)) = failures.why_nobody_signs() else { return Ok(()) };
    if !beside.is_empty() {
        error!(reason = %beside, "this failed too, beside what keeps the server from starting");
    }
    Err(why)
}
