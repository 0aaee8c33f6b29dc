//! The SPIFFE Broker API: identities of workloads for the process that stands for them, such as a proxy that carries their traffic.
//!
//! ```text
//!  accept ─► admission (per user) ─► mutual TLS ─► BrokerTrust: is it configured? ─► Watched<Caller { ..., broker }> ─► door
//!    ┌─────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//!    └─► AuthenticatedBroker, still believed? ─► may it use this type? ─► Permitted ─► Workload (pidfd) ─► serving, for it
//!                    ▲ at each message                                                   ▲ looked at anew at each message
//! ```
//! Unlike a delegate, a broker is never believed about a workload: it names a process, and what is known of that the agent finds out. It
//! proves itself by its X509-SVID, to which the configuration grants types of references. Served on a unix socket alone: the
//! number of a process means nothing to another machine. Source: SPIFFE_Broker_API.md, SPIFFE_Broker_Endpoint.md; keys: SPIRE's.

mod accept;
mod brokers;
mod question;
mod reference;
mod refusal;
mod trust;
mod workload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ironroot_api::SpiffeId;
use ironroot_api::jwt::Audiences;
use ironroot_api::pb::broker::api_server::{Api, ApiServer};
use ironroot_api::pb::broker::{
    FetchJwtsvidRequest, FetchJwtsvidResponse, Jwtsvid, SubscribeToJwtBundlesRequest, SubscribeToJwtBundlesResponse,
    SubscribeToX509BundlesRequest, SubscribeToX509BundlesResponse, SubscribeToX509svidRequest,
    SubscribeToX509svidResponse, WorkloadReference,
};
use ironroot_api::tls::KeyExchanges;
use ironroot_api::unix_socket::SocketListener;
use rustls::server::ResolvesServerCert;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tracing::info;

pub(super) use accept::connections;
pub use brokers::{Brokers, ReferenceTypes};
pub(super) use trust::{AuthenticatedBroker, BrokerTrust};

use super::EndpointError;
use super::admin::is_apart;
use super::caller::Known;
use super::delegated::may_be_handed_on;
use super::door::MAX_JWT_MESSAGE_BYTES;
use super::reflection;
use super::serving::{Attested, MessageStream, Question, Serving, Subscription};
use crate::server_answers::EntryTerms;
use question::{Asked, JwtBundles, X509Bundles, X509Svids};
use reference::Permitted;
use refusal::BrokerRefusal;
use workload::Workload;

/// Who may open the socket at all: us and our group. Source: SPIRE.
const SOCKET_MODE: u32 = 0o770;

const SUBSCRIBE_SVIDS: &str = "SubscribeToX509SVID";
const SUBSCRIBE_BUNDLES: &str = "SubscribeToX509Bundles";
const SUBSCRIBE_JWT_BUNDLES: &str = "SubscribeToJWTBundles";
const FETCH_JWT: &str = "FetchJWTSVID";

/// What the brokers' socket is made of.
#[derive(Clone, Debug)]
pub struct BrokerSocketConfig {
    /// Where to listen; the directory is made if it is missing.
    pub socket_path: PathBuf,
    /// Who may ask for whom.
    pub brokers: Brokers,
    /// The agent's own certificate, by which brokers know it.
    pub certificate: Arc<dyn ResolvesServerCert>,
    /// What links with brokers may agree on.
    pub key_exchanges: KeyExchanges,
}

/// `spiffe.broker.API`.
struct BrokerApi {
    serving: Serving,
    trust: Arc<BrokerTrust>,
}

/// Binds the socket; not in the directory of the `workloads`' one or below it, as the admin socket.
pub(super) fn bind(config: &BrokerSocketConfig, workloads: &Path) -> Result<SocketListener, EndpointError> {
    let listener = SocketListener::bind(&config.socket_path, SOCKET_MODE).map_err(EndpointError::BrokerSocket)?;
    match is_apart(&config.socket_path, workloads) {
        true => Ok(listener),
        false => Err(EndpointError::BrokerSocketPlace(config.socket_path.clone())),
    }
}

/// The socket's services.
pub(super) fn routes(serving: Serving, trust: Arc<BrokerTrust>) -> Routes {
    let api = ApiServer::new(BrokerApi { serving, trust });
    reflection::add_to_brokers(Routes::new(api.max_decoding_message_size(MAX_JWT_MESSAGE_BYTES)))
}

impl BrokerApi {
    /// Finds out whether whoever asks may, and about whom.
    async fn asked(
        &self,
        request: &Request<impl Sized>,
        reference: Option<WorkloadReference>,
        method: &'static str,
    ) -> Result<(Known, Attested, Asked), Status> {
        let broker = self.serving.broker(request)?;
        let caller = self.serving.caller(request)?;
        let asked = self.resolved(&caller, &broker, reference).await?;
        let (asked, attested) = asked.map_err(|refusal| refusal.told(&self.serving, &caller, &broker, method))?;
        let (pid, workload) = (caller.peer.pid(), asked.workload.pid());
        if let Some(pass) = self.serving.admission().should_log_served(caller.peer.uid(), Instant::now()) {
            let (broker, suppressed) = (broker.spiffe_id(), pass.suppressed);
            info!(%broker, pid, workload, method, suppressed, "a broker asks for a workload");
        }
        Ok((caller, attested, asked))
    }

    /// The outer error is about the caller's turn, the inner one about what it asks.
    async fn resolved(
        &self,
        caller: &Known,
        broker: &Arc<AuthenticatedBroker>,
        reference: Option<WorkloadReference>,
    ) -> Result<Result<(Asked, Attested), BrokerRefusal>, Status> {
        let permitted = self.trust.still_believes(broker).map_err(BrokerRefusal::from);
        let permitted = permitted.and_then(|()| Permitted::of(broker, reference));
        let process = match permitted.and_then(|permitted| permitted.process()) {
            Ok(process) => process,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let found = Workload::find(&self.serving, caller, &process).await?;
        Ok(found.map(|(workload, attested)| {
            (Asked { trust: self.trust.clone(), broker: broker.clone(), workload }, attested)
        }))
    }

    async fn subscribed<Q: Question>(
        &self,
        request: &Request<impl Sized>,
        reference: Option<WorkloadReference>,
        question: impl FnOnce(Asked) -> Q,
    ) -> Result<Response<MessageStream<Q::Answer>>, Status> {
        let (caller, attested, asked) = self.asked(request, reference, Q::METHOD).await?;
        Subscription::begin(self.serving.clone(), caller, attested, question(asked)).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl Api for BrokerApi {
    type SubscribeToX509SVIDStream = MessageStream<SubscribeToX509svidResponse>;
    type SubscribeToX509BundlesStream = MessageStream<SubscribeToX509BundlesResponse>;
    type SubscribeToJWTBundlesStream = MessageStream<SubscribeToJwtBundlesResponse>;

    async fn subscribe_to_x509svid(
        &self,
        mut request: Request<SubscribeToX509svidRequest>,
    ) -> Result<Response<Self::SubscribeToX509SVIDStream>, Status> {
        let reference = request.get_mut().reference.take();
        self.subscribed(&request, reference, X509Svids).await
    }

    async fn subscribe_to_x509_bundles(
        &self,
        mut request: Request<SubscribeToX509BundlesRequest>,
    ) -> Result<Response<Self::SubscribeToX509BundlesStream>, Status> {
        let reference = request.get_mut().reference.take();
        self.subscribed(&request, reference, X509Bundles).await
    }

    async fn subscribe_to_jwt_bundles(
        &self,
        mut request: Request<SubscribeToJwtBundlesRequest>,
    ) -> Result<Response<Self::SubscribeToJWTBundlesStream>, Status> {
        let reference = request.get_mut().reference.take();
        self.subscribed(&request, reference, JwtBundles).await
    }

    async fn fetch_jwtsvid(
        &self,
        mut request: Request<FetchJwtsvidRequest>,
    ) -> Result<Response<FetchJwtsvidResponse>, Status> {
        let FetchJwtsvidRequest { reference, audience, spiffe_id } = std::mem::take(request.get_mut());
        let audiences = Audiences::try_new(audience);
        let audiences = audiences.map_err(|refusal| Status::invalid_argument(refusal.to_string()))?;
        let wanted = super::workload_api::wanted(&spiffe_id)?;
        let (caller, attested, asked) = self.asked(&request, reference, FETCH_JWT).await?;
        let entries = self.entries(&asked, &attested, wanted.as_ref())?;
        let tokens = self.serving.tokens(&caller, entries, &audiences, (FETCH_JWT, wanted.as_ref())).await?;
        asked.check(&self.serving, &caller, FETCH_JWT)?;
        let svids = tokens.into_iter().map(|(terms, token)| {
            let (spiffe_id, svid) = (terms.spiffe_id.to_string(), token.text().to_owned());
            Jwtsvid { spiffe_id, svid, hint: terms.hint.clone() }
        });
        Ok(Response::new(FetchJwtsvidResponse { svids: svids.collect() }))
    }
}

impl BrokerApi {
    /// The entries that a token is for: the workload's own, or the one of them that is named.
    fn entries(
        &self,
        asked: &Asked,
        attested: &Attested,
        wanted: Option<&SpiffeId>,
    ) -> Result<Vec<Arc<EntryTerms>>, Status> {
        let all = self.serving.started()?;
        let mut entries = all.entries_for(&attested.selectors);
        entries.retain(|terms| may_be_handed_on(terms) && wanted.is_none_or(|wanted| terms.spiffe_id == *wanted));
        match entries.is_empty() {
            true => Err(asked.workload.not_entitled(&self.serving, attested, FETCH_JWT, &all)),
            false => Ok(entries.into_iter().cloned().collect()),
        }
    }
}
