//! The SPIFFE Workload API: each caller's whole state, again whenever it changes.
//!
//! Source: SPIFFE_Workload_API.md §5. What is not built here (JWT, WIT) is answered `Unimplemented` by the router.

mod message;
mod subscription;

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::Stream;
use ironroot_api::pb::workload::spiffe_workload_api_server::SpiffeWorkloadApi;
use ironroot_api::pb::workload::{X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse};
use ironroot_attest::SelectorSet;
use ironroot_attest::workload::{HashDemand, Peer, UnixAttestor, WorkloadRefusal};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tracing::warn;

use super::NowUnix;
use super::admission::{Admission, Kind, Slot};
use super::caller::Caller;
use crate::identities::Identities;
use subscription::{Message, Subscription};

/// Keeps browsers and naive proxies from being talked into asking. Source: SPIFFE_Workload_Endpoint.md §3.
const SECURITY_HEADER: &str = "workload.spiffe.io";
/// How long one attestation may take, and wait for its turn; longer means a file system or user database that hangs.
const ATTESTATION_DEADLINE: Duration = Duration::from_secs(5);

/// A message stream to a workload.
type MessageStream<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// The service. Clones share everything.
#[derive(Clone)]
pub(super) struct WorkloadApi(Arc<Shared>);

struct Shared {
    attestor: Arc<UnixAttestor>,
    admission: Admission,
    identities: watch::Receiver<Arc<Identities>>,
    now: NowUnix,
    stopping: watch::Receiver<bool>,
}

/// What is known about a caller.
struct Attested {
    selectors: SelectorSet,
    /// Which entries' wish for a hash was heard.
    demand: HashDemand,
}

impl Attested {
    /// Whether nothing more must be known to tell what of `identities` is the caller's.
    fn suffices_for(&self, identities: &Identities) -> bool {
        let demand = identities.hash_demand();
        *demand == self.demand || !demand.concerns(&self.selectors)
    }
}

impl WorkloadApi {
    pub fn new(
        attestor: UnixAttestor,
        admission: Admission,
        identities: watch::Receiver<Arc<Identities>>,
        now: NowUnix,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self(Arc::new(Shared { attestor: Arc::new(attestor), admission, identities, now, stopping }))
    }

    async fn subscribe<M: Message>(&self, request: &Request<impl Sized>) -> Result<MessageStream<M>, Status> {
        let caller = caller(request)?;
        let peer = caller.peer().map_err(attestation_failed)?.clone();
        let slot = self.stream_slot(&peer)?;
        let attested = self.attest(&peer).await?;
        Subscription::begin(self.clone(), peer, attested, slot).await
    }

    fn stream_slot(&self, peer: &Peer) -> Result<Slot, Status> {
        let (admission, now) = (&self.0.admission, Instant::now());
        if !admission.is_in_rate(peer.uid(), now) {
            return Err(Status::unavailable("too many requests of this user; try again later"));
        }
        let slot = admission.occupy(peer.uid(), Kind::Stream, now);
        slot.ok_or_else(|| Status::resource_exhausted("too many open streams of this user"))
    }

    /// Finds out who `peer` is now, off the runtime's threads.
    async fn attest(&self, peer: &Peer) -> Result<Attested, Status> {
        let turns = self.0.admission.attestations(peer.uid(), Instant::now());
        let Ok(Ok(turn)) = tokio::time::timeout(ATTESTATION_DEADLINE, turns.acquire_owned()).await else {
            return Err(Status::unavailable("too many attestations of this user are in progress"));
        };
        let (attestor, caller) = (self.0.attestor.clone(), peer.clone());
        let demand = self.0.identities.borrow().hash_demand().clone();
        let job = tokio::task::spawn_blocking(move || {
            let attested = attestor.attest(&caller, &demand).map(|selectors| Attested { selectors, demand });
            // Held until the thread is really free, also when nobody waits any more.
            drop(turn);
            attested
        });
        match tokio::time::timeout(ATTESTATION_DEADLINE, job).await {
            Ok(Ok(Ok(attested))) => Ok(attested),
            Ok(Ok(Err(refusal))) => Err(self.refused(peer, &refusal)),
            Ok(Err(_)) => Err(Status::unavailable("workload attestation failed")),
            Err(_) => Err(Status::unavailable("workload attestation takes too long")),
        }
    }

    fn refused(&self, peer: &Peer, refusal: &WorkloadRefusal) -> Status {
        if self.0.admission.should_log(peer.uid(), Instant::now()) {
            warn!(uid = peer.uid(), pid = peer.pid(), error = refusal as &dyn Error, "workload not attested");
        }
        attestation_failed(refusal)
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = MessageStream<X509svidResponse>;
    type FetchX509BundlesStream = MessageStream<X509BundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.subscribe(&request).await.map(Response::new)
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.subscribe(&request).await.map(Response::new)
    }
}

fn attestation_failed(refusal: &WorkloadRefusal) -> Status {
    Status::unavailable(format!("workload attestation failed: {refusal}"))
}

fn caller(request: &Request<impl Sized>) -> Result<Caller, Status> {
    let mut values = request.metadata().get_all(SECURITY_HEADER).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value == "true" => {}
        _ => return Err(Status::invalid_argument("security header \"workload.spiffe.io: true\" missing from request")),
    }
    request.extensions().get::<Caller>().cloned().ok_or_else(|| Status::internal("connection without a caller"))
}
