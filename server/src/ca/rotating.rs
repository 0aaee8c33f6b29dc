//! The one task that renews the CA, and what everyone else sees of it.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ironroot_hsm::Token;
use ironroot_shell::command_line::describe;
use tokio::sync::watch;
use tracing::{debug, error};

use super::bundle::TrustBundle;
use super::issuer::Signers;
use super::performer::Performer;
use super::rotation::Step;
use super::rotation_health::{Loudness, RotationHealth};
use super::{CaError, CaPolicy};
use crate::clock::{ClockSource, Moment, ServerClock};
use crate::store::Store;

/// The plan is looked at no less often than this: the clock may have been set. Source: SPIRE `rotateInterval`.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Wait after a step that failed.
const RETRY: Duration = Duration::from_secs(2);
/// Steps that are done without a pause. Founding takes six.
const MAX_STEPS: usize = 16;
/// The root's key, and a free key where keys are given, are looked for this often, so that their loss is noticed before they are needed.
const LOOK_AHEAD: Duration = Duration::from_secs(60);

/// Renews the CA. Nothing is renewed unless it runs.
pub struct Rotation {
    performer: Performer,
    published: Arc<Published>,
    clock: Arc<ServerClock>,
    journals: watch::Receiver<()>,
    looked: Option<Instant>,
}

/// Who signs, what the bundle holds, and how the renewal fares.
pub(super) struct Published {
    signers: ArcSwap<Signers>,
    bundle: watch::Sender<Arc<TrustBundle>>,
    health: Mutex<RotationHealth>,
}

impl Rotation {
    /// Brings the CA to where it should be now.
    pub(super) async fn start(
        token: Token,
        store: Store,
        policy: Arc<CaPolicy>,
        source: ClockSource,
    ) -> Result<Self, CaError> {
        let journals = store.ca_journal_changes().await?;
        let mut performer = Performer::load(token, store, policy, source).await?;
        let clock = performer.clock();
        let advanced = advance_to_now(&mut performer, &clock).await;
        let signers = performer.new_signers().await?.unwrap_or_default();
        tell_if_it_signs(advanced, &signers, clock.moment().now_unix)?;
        if signers.is_empty() {
            return Err(CaError::NothingSigns);
        }
        let bundle = watch::Sender::new(Arc::new(performer.bundle()));
        let published = Published { signers: ArcSwap::from_pointee(signers), bundle, health: Mutex::default() };
        Ok(Self { performer, published: Arc::new(published), clock, journals, looked: None })
    }

    pub(super) fn clock(&self) -> Arc<ServerClock> {
        Arc::clone(&self.clock)
    }

    pub(super) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }

    /// Rotates for as long as it is polled: at the planned times, when another server has changed its journal, and at least
    /// every ten seconds.
    pub async fn run(mut self) {
        loop {
            match self.advance().await {
                Ok(wait) => {
                    self.published.health().worked();
                    self.rest(wait).await;
                }
                Err(error) => {
                    self.tell_failure(&error);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Until the time is over, or a journal has changed: another server's, or this one's by what was just done.
    async fn rest(&mut self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            Ok(()) = self.journals.changed() => {}
        }
    }

    /// Does what is due; returns how long to wait for the next step. Each step asks the clocks anew: one that jumps is noticed
    /// before anything is decided by it.
    ///
    /// Errors: the first thing that failed, when all that does not need it is done.
    async fn advance(&mut self) -> Result<Duration, CaError> {
        self.journals.mark_unchanged();
        self.performer.keep_clock().await?;
        self.performer.read_others().await?;
        let mut failures = Failures::default();
        for _ in 0..MAX_STEPS {
            self.published.publish(self.performer.bundle());
            if let Some(signers) = self.performer.new_signers().await? {
                self.published.signers.store(Arc::new(signers));
            }
            let moment = self.clock.moment();
            let step = self.performer.next_step(moment, &failures.steps);
            if let Step::Wait { until_unix } = step {
                let looked = self.look_ahead(moment).await;
                failures.end_with(looked)?;
                let seconds = until_unix.saturating_sub(moment.now_unix).max(1).unsigned_abs();
                return Ok(Duration::from_secs(seconds).min(LONGEST_WAIT));
            }
            failures.note(step, self.performer.perform(step, moment).await);
        }
        failures.end_with(Err(CaError::Unsettled)).map(|()| LONGEST_WAIT)
    }

    /// Looks now and then for what the next steps will need.
    async fn look_ahead(&mut self, moment: Moment) -> Result<(), CaError> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_AHEAD) {
            return Ok(());
        }
        self.performer.look_for_root(moment).await?;
        let shortage = self.performer.look_for_free_key(moment).await?;
        if let Some(alarm) = self.published.health().look_at_keys(shortage, moment.now_unix) {
            error!(reason = alarm, "no key is left for the next rotation");
        }
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// In the log at once and when it gets serious; for health checks each time.
    fn tell_failure(&self, error: &CaError) {
        let now_unix = self.clock.moment().now_unix;
        let loudness = self.published.health().failed(describe(error), now_unix);
        match loudness {
            Loudness::Silent => debug!(error = error as &dyn Error, "CA rotation failed again"),
            Loudness::Once => error!(error = error as &dyn Error, "CA rotation failed; it is tried again"),
            Loudness::Critical => {
                error!(
                    reason = self.published.rotation_trouble(now_unix),
                    "CRITICAL: the CA or its root cannot be renewed"
                );
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

/// Steps that failed since the rotation began to do what is due. Each is tried once, and holds up nothing that does not need it.
#[derive(Default)]
struct Failures {
    steps: Vec<Step>,
    first: Option<CaError>,
}

impl Failures {
    fn note(&mut self, step: Step, done: Result<(), CaError>) {
        if let Err(error) = done {
            self.steps.push(step);
            self.first.get_or_insert(error);
        }
    }

    /// The first error, the last act's if there was none before.
    fn end_with(self, last: Result<(), CaError>) -> Result<(), CaError> {
        self.first.map_or(last, Err)
    }
}

/// What is due at the start.
async fn advance_to_now(performer: &mut Performer, clock: &ServerClock) -> Result<(), CaError> {
    let mut failures = Failures::default();
    for _ in 0..MAX_STEPS {
        let moment = clock.moment();
        match performer.next_step(moment, &failures.steps) {
            Step::Wait { .. } => return failures.end_with(Ok(())),
            step => failures.note(step, performer.perform(step, moment).await),
        }
    }
    failures.end_with(Err(CaError::Unsettled))
}

/// Whatever the next authority lacks is no reason not to start while one signs: it is tried again, as it is while the server runs.
fn tell_if_it_signs(advanced: Result<(), CaError>, signers: &Signers, now_unix: i64) -> Result<(), CaError> {
    match advanced {
        Err(error) if signers.trouble(now_unix).is_none() => {
            error!(error = &error as &dyn Error, "CA rotation failed; it is tried again");
            Ok(())
        }
        other => other,
    }
}
