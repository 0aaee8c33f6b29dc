//! The CA as the rest of the server sees it: it signs, and it publishes its bundle.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ironroot_api::SpiffeId;
use ironroot_api::csr::Spki;
use ironroot_hsm::{HsmError, Token};
use ironroot_shell::command_line::describe;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, error};

use super::bundle::TrustBundle;
use super::issuer::{IssuedSvid, Scrutiny, Signers};
use super::performer::Performer;
use super::profile::Leaf;
use super::rotation::Step;
use super::rotation_health::{Loudness, RotationHealth};
use super::{CaError, CaPolicy};
use crate::clock::{ClockSource, ServerClock};
use crate::registry::AuthorizedEntry;
use crate::store::Store;

/// The plan is looked at no less often than this: the clock may have been set. Source: SPIRE `rotateInterval`.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Wait after a step that failed.
const RETRY: Duration = Duration::from_secs(2);
/// Steps that are done without a pause. Founding takes five.
const MAX_STEPS: usize = 16;
/// The root's key is looked for this often, so that its loss is noticed before it is needed.
const LOOK_FOR_ROOT: Duration = Duration::from_secs(60);

/// Signs for one trust domain with keys that stay in the token.
pub struct CertificateAuthority {
    policy: Arc<CaPolicy>,
    signers: ArcSwap<Signers>,
    clock: Arc<ServerClock>,
    bundle: watch::Sender<Arc<TrustBundle>>,
    /// Taken by `run`, its only user.
    performer: Mutex<Option<Performer>>,
    rotation: Mutex<RotationHealth>,
}

impl CertificateAuthority {
    /// Finds the CA's keys again, or founds the CA if there never was one, and brings it to where it should be now, by the
    /// clocks of `source`.
    ///
    /// Errors: the token or the store fails, or they do not belong together; see [`CaError`].
    pub async fn start(token: Token, store: Store, policy: CaPolicy, source: ClockSource) -> Result<Self, CaError> {
        let policy = Arc::new(policy);
        let mut performer = Performer::load(token, store, Arc::clone(&policy), source).await?;
        let clock = performer.clock();
        let advanced = advance_to_now(&mut performer, &clock).await;
        let signers = performer.new_signers().await?.unwrap_or_default();
        tell_if_it_signs(advanced, &signers, clock.moment().now_unix)?;
        if signers.is_empty() {
            return Err(CaError::NothingSigns);
        }
        let bundle = watch::Sender::new(Arc::new(performer.bundle()));
        let signers = ArcSwap::from_pointee(signers);
        let (performer, rotation) = (Mutex::new(Some(performer)), Mutex::default());
        Ok(Self { policy, signers, clock, bundle, performer, rotation })
    }

    /// The clock that the CA decides by.
    pub fn clock(&self) -> Arc<ServerClock> {
        Arc::clone(&self.clock)
    }

    /// Why nothing can be signed or decided now, whatever the token does; none if nothing speaks against it.
    pub fn trouble(&self) -> Option<String> {
        let now_unix = self.clock.moment().now_unix;
        self.clock.alarm().or_else(|| self.signers.load().trouble(now_unix).map(|error| describe(&error)))
    }

    /// Why the CA may end without a successor; none if nothing speaks for it.
    pub fn rotation_trouble(&self) -> Option<String> {
        let signer = self.signers.load().at(self.clock.moment().now_unix).ok()?;
        self.rotation().trouble(signer.not_after_unix())
    }

    /// Has the token sign something, unless it has within this time.
    pub async fn probe(&self, unless_within: Duration) -> Result<(), HsmError> {
        let signers = self.signers.load_full();
        match signers.at(self.clock.moment().now_unix) {
            Ok(issuer) => issuer.probe(unless_within).await,
            // What is wrong then is not the token's.
            Err(_) => Ok(()),
        }
    }

    /// The trust bundle, now and after each change.
    pub fn bundle(&self) -> watch::Receiver<Arc<TrustBundle>> {
        self.bundle.subscribe()
    }

    /// Signs an SVID for a workload of `entry`.
    pub async fn sign_workload_svid(
        &self,
        entry: &AuthorizedEntry,
        spki: &Spki,
        now_unix: i64,
    ) -> Result<IssuedSvid, CaError> {
        self.signers.load().at(now_unix)?.issue(&self.workload(entry, spki), Scrutiny::Sampled, now_unix).await
    }

    /// Signs many, on all sessions of the token at once; one result for each request, in order. Dropping the future takes
    /// what is not signed yet out of the token's queue.
    pub async fn sign_workload_svids(
        &self,
        requests: Vec<(AuthorizedEntry, Spki)>,
        now_unix: i64,
    ) -> Vec<Result<IssuedSvid, CaError>> {
        let signers = self.signers.load_full();
        let mut results: Vec<_> = requests.iter().map(|_| Err(CaError::Interrupted)).collect();
        let mut tasks = JoinSet::new();
        for (number, (entry, spki)) in requests.into_iter().enumerate() {
            let (issuer, leaf) = (signers.at(now_unix), self.workload(&entry, &spki));
            tasks.spawn(async move {
                match issuer {
                    Ok(issuer) => (number, issuer.issue(&leaf, Scrutiny::Sampled, now_unix).await),
                    Err(error) => (number, Err(error)),
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            if let Ok((number, result)) = done {
                results[number] = result;
            }
        }
        results
    }

    /// Signs an SVID for the agent `id`.
    pub async fn sign_agent_svid(&self, id: &SpiffeId, spki: &Spki, now_unix: i64) -> Result<IssuedSvid, CaError> {
        let leaf = plain(id.clone(), spki, self.policy.agent_ttl_seconds);
        self.signers.load().at(now_unix)?.issue(&leaf, Scrutiny::Full, now_unix).await
    }

    /// Signs an SVID for this server.
    pub async fn sign_server_svid(&self, spki: &Spki, now_unix: i64) -> Result<IssuedSvid, CaError> {
        let leaf = plain(self.policy.trust_domain.server_id(), spki, self.policy.x509_svid_ttl_seconds);
        self.signers.load().at(now_unix)?.issue(&leaf, Scrutiny::Full, now_unix).await
    }

    /// Rotates for as long as it is polled: at the planned times, and at least every ten seconds. A second call has nothing
    /// to do and waits for ever.
    pub async fn run(&self) {
        let performer = self.performer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut performer) = performer else { return std::future::pending().await };
        let mut looked = None;
        loop {
            let wait = match self.advance(&mut performer, &mut looked).await {
                Ok(wait) => {
                    self.rotation().worked();
                    wait
                }
                Err(error) => {
                    self.tell_failure(&error);
                    RETRY
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// In the log at once and when it gets serious; for health checks each time.
    fn tell_failure(&self, error: &CaError) {
        let loudness = self.rotation().failed(describe(error), self.clock.moment().now_unix);
        match loudness {
            Loudness::Silent => debug!(error = error as &dyn Error, "CA rotation failed again"),
            Loudness::Once => error!(error = error as &dyn Error, "CA rotation failed; it is tried again"),
            Loudness::Critical => error!(reason = self.rotation_trouble(), "CRITICAL: the CA cannot be renewed"),
        }
    }

    fn rotation(&self) -> MutexGuard<'_, RotationHealth> {
        self.rotation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what is due; returns how long to wait for the next step. Each step asks the clocks anew: one that jumps is noticed
    /// before anything is decided by it.
    async fn advance(&self, performer: &mut Performer, looked: &mut Option<Instant>) -> Result<Duration, CaError> {
        for _ in 0..MAX_STEPS {
            self.publish(performer.bundle());
            if let Some(signers) = performer.new_signers().await? {
                self.signers.store(Arc::new(signers));
            }
            let moment = self.clock.moment();
            let step = performer.next_step(moment);
            if let Step::Wait { until_unix } = step {
                performer.keep_clock().await?;
                if looked.is_none_or(|looked| looked.elapsed() >= LOOK_FOR_ROOT) {
                    performer.look_for_root(moment).await?;
                    *looked = Some(Instant::now());
                }
                let seconds = until_unix.saturating_sub(moment.now_unix).max(1).unsigned_abs();
                return Ok(Duration::from_secs(seconds).min(LONGEST_WAIT));
            }
            performer.perform(step, moment).await?;
        }
        Err(CaError::Unsettled)
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

    fn workload(&self, entry: &AuthorizedEntry, spki: &Spki) -> Leaf {
        let entry = entry.entry();
        let ttl_seconds = match entry.x509_svid_ttl() {
            0 => self.policy.x509_svid_ttl_seconds,
            seconds => i64::from(seconds),
        };
        let dns_names = entry.dns_names().to_vec();
        Leaf { id: entry.spiffe_id().clone(), dns_names, spki: spki.as_der().to_vec(), ttl_seconds }
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateAuthority({})", self.policy.trust_domain)
    }
}

/// What is due at the start.
async fn advance_to_now(performer: &mut Performer, clock: &ServerClock) -> Result<(), CaError> {
    for _ in 0..MAX_STEPS {
        let moment = clock.moment();
        match performer.next_step(moment) {
            Step::Wait { .. } => return Ok(()),
            step => performer.perform(step, moment).await?,
        }
    }
    Err(CaError::Unsettled)
}

/// A root that cannot sign is no reason not to start while a CA can: it is tried again.
fn tell_if_it_signs(advanced: Result<(), CaError>, signers: &Signers, now_unix: i64) -> Result<(), CaError> {
    match advanced {
        Err(error @ (CaError::RootLost { .. } | CaError::NoRootValid { .. }))
            if signers.trouble(now_unix).is_none() =>
        {
            error!(error = &error as &dyn Error, "CA rotation failed; it is tried again");
            Ok(())
        }
        other => other,
    }
}

fn plain(id: SpiffeId, spki: &Spki, ttl_seconds: i64) -> Leaf {
    Leaf { id, dns_names: Vec::new(), spki: spki.as_der().to_vec(), ttl_seconds }
}
