//! The CA as the rest of the server sees it: it signs, and it publishes its bundle.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use ironroot_api::SpiffeId;
use ironroot_api::command_line::describe;
use ironroot_api::csr::Spki;
use ironroot_hsm::{HsmError, Token};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, error};

use super::bundle::TrustBundle;
use super::issuer::{IssuedSvid, Issuer, Scrutiny};
use super::performer::Performer;
use super::profile::Leaf;
use super::rotation::Step;
use super::rotation_health::{Loudness, RotationHealth};
use super::{CaError, CaPolicy};
use crate::registry::AuthorizedEntry;
use crate::store::Store;

/// The plan is looked at no less often than this: the clock may have been set. Source: SPIRE `rotateInterval`.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Wait after a step that failed.
const RETRY: Duration = Duration::from_secs(2);

/// Signs for one trust domain with keys that stay in the token.
pub struct CertificateAuthority {
    policy: Arc<CaPolicy>,
    issuer: ArcSwap<Issuer>,
    bundle: watch::Sender<Arc<TrustBundle>>,
    /// Taken by `run`, its only user.
    performer: Mutex<Option<Performer>>,
    rotation: Mutex<RotationHealth>,
}

impl CertificateAuthority {
    /// Finds the CA's keys again, or founds the CA if there never was one, and brings it to where it should be at
    /// `now_unix`.
    ///
    /// Errors: the token or the store fails, or they do not belong together; see [`CaError`].
    pub async fn start(token: Token, store: Store, policy: CaPolicy, now_unix: i64) -> Result<Self, CaError> {
        let policy = Arc::new(policy);
        let (mut performer, mut issuer) = Performer::load(token, store, Arc::clone(&policy), now_unix).await?;
        let issuer = loop {
            match (performer.next_step(now_unix), issuer) {
                (Step::Wait { .. }, Some(issuer)) => break issuer,
                (step, before) => issuer = performer.perform(step, now_unix).await?.or(before),
            }
        };
        let bundle = watch::Sender::new(Arc::new(performer.bundle()));
        Ok(Self {
            policy,
            issuer: ArcSwap::from_pointee(issuer),
            bundle,
            performer: Mutex::new(Some(performer)),
            rotation: Mutex::default(),
        })
    }

    /// Why nothing can be signed now, whatever the token does; none if nothing speaks against it.
    pub fn trouble(&self) -> Option<String> {
        self.issuer.load().check(now_unix()).err().map(|error| describe(&error))
    }

    /// Why the CA may end without a successor; none if nothing speaks for it.
    pub fn rotation_trouble(&self) -> Option<String> {
        self.rotation().trouble(self.issuer.load().not_after_unix())
    }

    /// Has the token sign something, unless it has within this time.
    pub async fn probe(&self, unless_within: Duration) -> Result<(), HsmError> {
        self.issuer.load_full().probe(unless_within).await
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
        self.issuer.load_full().issue(&self.workload(entry, spki), Scrutiny::Sampled, now_unix).await
    }

    /// Signs many, on all sessions of the token at once; one result for each request, in order. Dropping the future takes
    /// what is not signed yet out of the token's queue.
    pub async fn sign_workload_svids(
        &self,
        requests: Vec<(AuthorizedEntry, Spki)>,
        now_unix: i64,
    ) -> Vec<Result<IssuedSvid, CaError>> {
        let issuer = self.issuer.load_full();
        let mut results: Vec<_> = requests.iter().map(|_| Err(CaError::Interrupted)).collect();
        let mut tasks = JoinSet::new();
        for (number, (entry, spki)) in requests.into_iter().enumerate() {
            let (issuer, leaf) = (Arc::clone(&issuer), self.workload(&entry, &spki));
            tasks.spawn(async move { (number, issuer.issue(&leaf, Scrutiny::Sampled, now_unix).await) });
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
        self.issuer.load_full().issue(&leaf, Scrutiny::Full, now_unix).await
    }

    /// Signs an SVID for this server.
    pub async fn sign_server_svid(&self, spki: &Spki, now_unix: i64) -> Result<IssuedSvid, CaError> {
        let leaf = plain(self.policy.trust_domain.server_id(), spki, self.policy.x509_svid_ttl_seconds);
        self.issuer.load_full().issue(&leaf, Scrutiny::Full, now_unix).await
    }

    /// Rotates for as long as it is polled: at the planned times, and at least every ten seconds. A second call has nothing
    /// to do and waits for ever.
    pub async fn run(&self) {
        let performer = self.performer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut performer) = performer else { return std::future::pending().await };
        loop {
            let wait = match self.advance(&mut performer, now_unix()).await {
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
        let loudness = self.rotation().failed(describe(error), now_unix());
        match loudness {
            Loudness::Silent => debug!(error = error as &dyn Error, "CA rotation failed again"),
            Loudness::Once => error!(error = error as &dyn Error, "CA rotation failed; it is tried again"),
            Loudness::Critical => error!(reason = self.rotation_trouble(), "CRITICAL: the CA cannot be renewed"),
        }
    }

    fn rotation(&self) -> MutexGuard<'_, RotationHealth> {
        self.rotation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what is due; returns how long to wait for the next step.
    async fn advance(&self, performer: &mut Performer, now_unix: i64) -> Result<Duration, CaError> {
        loop {
            let step = performer.next_step(now_unix);
            if let Step::Wait { until_unix } = step {
                let seconds = until_unix.saturating_sub(now_unix).max(1).unsigned_abs();
                return Ok(Duration::from_secs(seconds).min(LONGEST_WAIT));
            }
            let issuer = performer.perform(step, now_unix).await?;
            self.publish(performer.bundle());
            if let Some(issuer) = issuer {
                self.issuer.store(Arc::new(issuer));
            }
        }
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

fn plain(id: SpiffeId, spki: &Spki, ttl_seconds: i64) -> Leaf {
    Leaf { id, dns_names: Vec::new(), spki: spki.as_der().to_vec(), ttl_seconds }
}

/// The wall clock, UNIX seconds.
fn now_unix() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.ok().and_then(|d| i64::try_from(d.as_secs()).ok()).unwrap_or(0)
}
