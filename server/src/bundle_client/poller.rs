//! Who is fetched when: one task that knows every relationship, and one fetch at a time for each.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ironroot_api::TrustDomain;
use ironroot_api::tls::KeyExchanges;
use rustls_pki_types::CertificateDer;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::fetch::{DEADLINE, EndpointProof, FetchError, fetch};
use super::fetched::Fetched;
use super::pace::pause;
use super::{MAX_WISHES, RefreshError, Refresher, UpdateError, Wish};
use crate::ca::TrustBundle;
use crate::chance::unit;
use crate::facts::federation::{EndpointProfile, FederationRelationship};
use crate::federation::{Federation, FederationError, FetchedBundle, TakenIn};

/// Fetches at once: a fleet of slow peers holds up nobody for longer than a few deadlines.
const MAX_FETCHES: usize = 8;

/// Keeps the bundles of all relationships current.
pub struct Poller {
    fetcher: Arc<Fetcher>,
    wishes: mpsc::Receiver<Wish>,
    peers: HashMap<TrustDomain, Peer>,
    fetches: JoinSet<(Arc<FederationRelationship>, Result<TakenIn, UpdateError>)>,
    fetched: Arc<Fetched>,
}

/// What a fetch works with.
struct Fetcher {
    federation: Arc<Federation>,
    own: watch::Receiver<Arc<TrustBundle>>,
    exchanges: KeyExchanges,
}

/// A trust domain whose bundle is fetched.
struct Peer {
    relationship: Arc<FederationRelationship>,
    due: Instant,
    failures: u32,
    is_fetching: bool,
    /// The last fetch lacked the bundle that proves the endpoint.
    lacks_proof: bool,
    waiting: Vec<oneshot::Sender<Result<(), RefreshError>>>,
}

impl Poller {
    /// Fetches for `federation`; endpoints of the own trust domain are proven by the `own` bundle. With whom asks it for more.
    pub fn new(
        federation: Arc<Federation>,
        own: watch::Receiver<Arc<TrustBundle>>,
        exchanges: KeyExchanges,
    ) -> (Self, Refresher) {
        let (wish, wishes) = mpsc::channel(MAX_WISHES);
        let fetcher = Arc::new(Fetcher { federation, own, exchanges });
        let (peers, fetches, fetched) = (HashMap::new(), JoinSet::new(), Arc::default());
        (Self { fetcher, wishes, peers, fetches, fetched }, Refresher(wish))
    }

    /// What came of fetches.
    pub fn fetched(&self) -> Arc<Fetched> {
        Arc::clone(&self.fetched)
    }

    /// Runs until dropped.
    pub async fn run(mut self) {
        let mut changes = self.fetcher.federation.changes();
        loop {
            self.reconcile();
            self.fetched.failing.store(self.count_failing(), Ordering::Relaxed);
            self.begin_those_due();
            let next = self.next_due();
            let due = async {
                match next {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Ok(()) = changes.changed() => {}
                Some(wish) = self.wishes.recv() => self.note(wish),
                Some(Ok((relationship, outcome))) = self.fetches.join_next() => self.end(&relationship, outcome),
                () = due => {}
            }
        }
    }

    /// Who is to be fetched from is what configuration and administrators say now.
    fn reconcile(&mut self) {
        let managed = self.fetcher.federation.managed();
        self.peers.retain(|trust_domain, _| {
            let stays = managed.iter().any(|relationship| relationship.trust_domain == *trust_domain);
            if !stays {
                info!(%trust_domain, "Trust domain no longer managed");
            }
            stays
        });
        for relationship in managed {
            self.manage(relationship);
        }
    }

    fn manage(&mut self, relationship: Arc<FederationRelationship>) {
        let (trust_domain, now) = (relationship.trust_domain.clone(), Instant::now());
        let (url, profile) = (relationship.url.to_string(), relationship.profile.name());
        match self.peers.get_mut(&trust_domain) {
            None => {
                info!(%trust_domain, bundle_endpoint_url = url, bundle_endpoint_profile = profile, "Trust domain is now managed");
                self.peers.insert(trust_domain, Peer::new(relationship, now));
            }
            Some(peer) if peer.relationship != relationship => {
                info!(
                    %trust_domain, bundle_endpoint_url = url, bundle_endpoint_profile = profile,
                    "Updated configuration for managed trust domain"
                );
                (peer.relationship, peer.due) = (relationship, now);
            }
            Some(peer) => {
                if peer.lacks_proof && self.fetcher.can_prove(&peer.relationship.profile) {
                    (peer.lacks_proof, peer.due) = (false, now);
                }
            }
        }
    }

    fn begin_those_due(&mut self) {
        let now = Instant::now();
        for (trust_domain, peer) in &mut self.peers {
            if self.fetches.len() >= MAX_FETCHES {
                return;
            }
            if !peer.is_fetching && peer.due <= now {
                debug!(%trust_domain, "Polling for bundle update");
                peer.is_fetching = true;
                let (fetcher, relationship) = (self.fetcher.clone(), peer.relationship.clone());
                let fetched = Arc::clone(&self.fetched);
                self.fetches.spawn(async move {
                    let began = Instant::now();
                    let outcome = fetcher.update(&relationship).await;
                    fetched.note(&outcome, began.elapsed());
                    (relationship, outcome)
                });
            }
        }
    }

    fn count_failing(&self) -> usize {
        self.peers.values().filter(|peer| peer.failures > 0).count()
    }

    /// None while as many fetch as may.
    fn next_due(&self) -> Option<Instant> {
        let idle = self.peers.values().filter(|peer| !peer.is_fetching);
        idle.map(|peer| peer.due).min().filter(|_| self.fetches.len() < MAX_FETCHES)
    }

    fn note(&mut self, Wish { trust_domain, outcome }: Wish) {
        match self.peers.get_mut(&trust_domain) {
            Some(peer) => {
                peer.due = Instant::now();
                peer.waiting.push(outcome);
            }
            // Whoever asked may have gone.
            None => drop(outcome.send(Err(RefreshError::NoRelationship(trust_domain)))),
        }
    }

    fn end(&mut self, fetched: &Arc<FederationRelationship>, outcome: Result<TakenIn, UpdateError>) {
        let trust_domain = &fetched.trust_domain;
        let Some(peer) = self.peers.get_mut(trust_domain) else { return tell_left_aside(fetched, &outcome) };
        peer.is_fetching = false;
        if peer.relationship != *fetched {
            // The bundle is shown elsewhere by now: that fetch is still due, and whoever waits, waits for it.
            return tell_left_aside(fetched, &outcome);
        }
        let held = self.fetcher.federation.bundle(trust_domain);
        peer.lacks_proof = matches!(outcome, Err(UpdateError::Fetch(FetchError::NoBundle(_))));
        peer.failures = if outcome.is_ok() { 0 } else { peer.failures.saturating_add(1) };
        let pause = pause(held.as_deref(), peer.failures, unit());
        peer.due = Instant::now() + pause;
        tell(trust_domain, &outcome, pause.as_secs());
        let mut outcome = outcome.map(drop).map_err(RefreshError::Failed);
        for waiting in peer.waiting.drain(..) {
            // All wait for one fetch: the first hears its reason, the others that it failed.
            let told = std::mem::replace(&mut outcome, Err(RefreshError::Failed(UpdateError::BrokenOff)));
            if told.is_ok() {
                outcome = Ok(());
            }
            drop(waiting.send(told));
        }
    }
}

/// What was on its way when an administrator deleted or changed the relationship.
fn tell_left_aside(fetched: &FederationRelationship, outcome: &Result<TakenIn, UpdateError>) {
    if let Err(error @ UpdateError::Store(FederationError::NoLongerManaged)) = outcome {
        let (trust_domain, url) = (&fetched.trust_domain, fetched.url.to_string());
        let error = error as &dyn std::error::Error;
        info!(%trust_domain, bundle_endpoint_url = url, error, "fetched bundle left aside");
    }
}

/// One line for each fetch that changed something or failed.
fn tell(trust_domain: &TrustDomain, outcome: &Result<TakenIn, UpdateError>, next_s: u64) {
    match outcome {
        Ok(TakenIn::Same) => debug!(%trust_domain, next_s, "bundle is as it was"),
        Ok(TakenIn::New { passed_over, is_empty: false }) => {
            info!(%trust_domain, passed_over, next_s, "Bundle refreshed");
        }
        Ok(TakenIn::New { is_empty: true, .. }) => {
            warn!(%trust_domain, next_s, "Bundle refreshed: it is empty, nobody of that trust domain is believed any more");
        }
        Err(error) => {
            warn!(%trust_domain, error = error as &dyn std::error::Error, next_s, "Error updating bundle; the one that is held stays");
        }
    }
}

impl Peer {
    fn new(relationship: Arc<FederationRelationship>, due: Instant) -> Self {
        Self { relationship, due, failures: 0, is_fetching: false, lacks_proof: false, waiting: Vec::new() }
    }
}

impl Fetcher {
    async fn update(&self, relationship: &FederationRelationship) -> Result<TakenIn, UpdateError> {
        let proof = match &relationship.profile {
            EndpointProfile::HttpsWeb => {
                let exchanges = self.exchanges;
                let read = tokio::task::spawn_blocking(move || EndpointProof::web(exchanges));
                read.await.map_err(|_| UpdateError::BrokenOff)??
            }
            EndpointProfile::HttpsSpiffe(id) => {
                let of = id.trust_domain();
                let authorities = self.authorities(&of).ok_or(FetchError::NoBundle(of))?;
                EndpointProof::spiffe(id.clone(), &authorities, self.exchanges)?
            }
        };
        let document = fetch(&relationship.url, &proof, DEADLINE).await?;
        let fetched = FetchedBundle::read(relationship, &document).map_err(FetchError::Document)?;
        Ok(self.federation.take_in(fetched).await?)
    }

    fn can_prove(&self, profile: &EndpointProfile) -> bool {
        match profile {
            EndpointProfile::HttpsWeb => true,
            EndpointProfile::HttpsSpiffe(id) => self.authorities(&id.trust_domain()).is_some(),
        }
    }

    /// The authorities of that trust domain as they are held at this moment.
    fn authorities(&self, of: &TrustDomain) -> Option<Vec<CertificateDer<'static>>> {
        let owned = |der: &[u8]| CertificateDer::from(der.to_vec());
        let own = self.own.borrow();
        if own.trust_domain == *of {
            return Some(own.authorities.iter().map(|der| owned(der)).collect());
        }
        drop(own);
        Some(self.federation.bundle(of)?.x509_authorities().map(owned).collect())
    }
}
