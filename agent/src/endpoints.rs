//! What local processes reach: the socket of the Workload API and of Envoy's secrets, the admin socket, and the brokers'.
//!
//! ```text
//!  accept ─► admission (per user) ─► Watched<Caller { Peer, slot }>, read at its user's pace ─► door (method, header, room) ─► Admitted
//!                            workload_api, secrets ─► serving: attestation ─► Identities::for_selectors, again on each change
//! ```
//! A connection ends when the process that opened it exits, when another process writes into it, when it is of no use, or
//! when its user holds most and another user's needs the room. Connections, streams, attestations, hashing and the bytes of
//! requests are bounded per user, where a user's subordinate uids are the user's: so one user cannot shut out another's.

mod admin;
mod admission;
mod broker;
mod call_rates;
mod caller;
mod debug;
mod delegated;
mod door;
mod exit;
mod explain;
mod hardware_key;
mod health;
mod logged_selectors;
mod logger;
mod paced;
mod reflection;
mod secrets;
mod serving;
mod shown;
mod status;
mod tally;
mod tenancy;
mod verifiers;
mod workload_api;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use futures_util::{FutureExt, Stream};
use ironroot_api::grpc_message::with_spaces;
use ironroot_api::pb::explain::explain_server::ExplainServer;
use ironroot_api::pb::hardware_key::hardware_key_server::HardwareKeyServer;
use ironroot_api::pb::secret::secret_discovery_service_server::SecretDiscoveryServiceServer;
use ironroot_api::pb::workload::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use ironroot_api::unix_socket::{SocketListener, UnixSocketError, incoming};
use ironroot_attest::workload::{ConnectionWriter, UnixAttestor};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tower::util::MapResponseLayer;

pub use admin::AdminSocketConfig;
pub use admission::{Limits, Most, SubordinateUids};
pub use broker::{BrokerSocketConfig, Brokers, ReferenceTypes};
pub use call_rates::{BoundedCall, CallRates};
pub use delegated::Delegates;
pub use door::Api;
pub use logged_selectors::{LoggedSelectors, SelectorPrefix};
pub use secrets::SdsConfig;
pub use tally::Tally;
pub use verifiers::VerifierPolicy;

use crate::hardware_keys::HardwareKeys;
use crate::identities::Identities;
use crate::jwt_svids::JwtSvids;
use crate::requests::Requests;
use crate::trusted_time::Jumps;
use admission::Admission;
use broker::BrokerTrust;
use caller::Gate;
use door::{DoorLayer, MAX_CONDENSED_BYTES, MAX_JWT_MESSAGE_BYTES, MAX_MESSAGE_BYTES, Socket};
use explain::ExplainApi;
use hardware_key::HardwareKeyApi;
use secrets::SecretsApi;
use serving::{Manners, Serving};
use workload_api::WorkloadApi;

/// Every local user may connect: who gets what is decided by attestation.
const WORKLOAD_SOCKET_MODE: u32 = 0o777;
/// How long open streams get to end at shutdown.
const GRACE: Duration = Duration::from_secs(1);
/// A connection whose client does not answer this long (idle, then after a ping) is closed. Processes that exit are seen at once: this
/// is for those that stand still, which occupy their own user's room. Each ping wakes the device and both processes, and with one in
/// 30 s costs a tenth of what it takes to renew an SVID of 60 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(300);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Most requests are a few bytes; what a client may have in flight is bounded by these. Streams that wait for their turn keep no
/// other one's bytes away: all of a connection's may be full at once.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = STREAMS_PER_CONNECTION * STREAM_WINDOW_BYTES;
/// Clients send some 300 bytes of headers, with tracing some more. Each open stream may hold as many.
const HEADER_LIST_BYTES: u32 = 8 * 1024;
const STREAMS_PER_CONNECTION: u32 = 100;

/// The time as far as it is known, UNIX seconds: the later of the system's clock and what must have passed already.
pub type NowUnix = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What the workloads' socket, and the other ones as far as they are there, are made of.
#[derive(Debug)]
pub struct WorkloadApiConfig {
    /// Where to listen; the directory is made if it is missing.
    pub socket_path: PathBuf,
    /// Tells processes apart.
    pub attestor: UnixAttestor,
    /// Whether other processes than the one that opened a connection may write into it.
    pub connection_writer: ConnectionWriter,
    /// How much of the agent one user may occupy.
    pub limits: Limits,
    /// Which uids are one user's.
    pub subordinate_uids: SubordinateUids,
    /// Whether the Workload API is served.
    pub workload_api: bool,
    /// Whether WIT-SVIDs are a part of it.
    pub wit_svids: bool,
    /// What those are told who verify SVIDs of others.
    pub verifiers: VerifierPolicy,
    /// How often workloads of one set of selectors may call.
    pub call_rates: CallRates,
    /// Which selectors of callers stand in the log.
    pub logged_selectors: LoggedSelectors,
    /// How Envoy's secrets are served, if they are.
    pub secrets: Option<SdsConfig>,
    /// The admin socket, if there is one.
    pub admin: Option<AdminSocketConfig>,
    /// The brokers' socket, if there is one.
    pub broker: Option<BrokerSocketConfig>,
}

/// Where what is served comes from.
#[derive(Clone)]
pub struct Sources {
    /// Everything that may be served; answers are from the newest.
    pub identities: watch::Receiver<Arc<Identities>>,
    /// Asks for what is made only when somebody asks for it.
    pub requests: Requests,
    /// JWT-SVIDs, which are.
    pub jwt_svids: JwtSvids,
    /// Certificates for keys that workloads hold in hardware, likewise.
    pub hardware_keys: HardwareKeys,
    /// Nothing that has ended by this clock is served.
    pub now: NowUnix,
    /// Told when that clock, or the one that timers are on, jumps.
    pub jumps: Jumps,
    /// Where calls are counted.
    pub tally: Arc<Tally>,
}

/// Why a socket cannot be served.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// The workloads' cannot be bound.
    #[error("cannot open the Workload API socket")]
    Socket(#[from] UnixSocketError),
    /// The admin socket cannot be bound.
    #[error("cannot open the admin socket; admin_socket_path names it")]
    AdminSocket(#[source] UnixSocketError),
    /// Workloads that are given their socket's directory would be given it.
    #[error(
        "the admin socket {0:?} is in the directory of the Workload API socket, or below it: give it one of its own"
    )]
    AdminSocketPlace(PathBuf),
    /// The brokers' socket cannot be bound.
    #[error("cannot open the socket for brokers; experimental {{ broker {{ socket_path }} }} names it")]
    BrokerSocket(#[source] UnixSocketError),
    /// As with the admin socket.
    #[error(
        "the socket for brokers {0:?} is in the directory of the Workload API socket, or below it: give it one of its own"
    )]
    BrokerSocketPlace(PathBuf),
    /// Serving ended with an error.
    #[error("the Workload API server failed")]
    Serve(#[source] tonic::transport::Error),
}

/// Binds the sockets at once; the returned future serves them until `shutdown` is done.
pub fn serve_workload_api(
    config: WorkloadApiConfig,
    sources: Sources,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<impl Future<Output = Result<(), EndpointError>> + Send, EndpointError> {
    //= WLE-01 SPIFFE Workload Endpoint 2: "SHOULD NOT expose the same endpoint instance to more than one host"
    //= WLE-02 SPIFFE Workload Endpoint 3: "Implementations SHOULD prefer Unix Domain Socket transport"
    let listener = SocketListener::bind(&config.socket_path, WORKLOAD_SOCKET_MODE)?;
    let bind = |admin| admin::bind(admin, &config.socket_path);
    let admin_listener = config.admin.as_ref().map(bind).transpose()?;
    let broker_listener = config.broker.as_ref().map(|broker| broker::bind(broker, &config.socket_path)).transpose()?;
    admission::raise_descriptor_limit(&config.limits);
    let admission = Admission::new(config.limits, config.subordinate_uids);
    let trust = |broker: &BrokerSocketConfig| BrokerTrust::new(broker.brokers.clone(), &sources);
    let trust = config.broker.as_ref().map(trust);
    let attestor = Arc::new(config.attestor);
    let (stop, stopping) = watch::channel(false);
    let tally = sources.tally.clone();
    let manners = Manners {
        verifiers: config.verifiers,
        logged_selectors: config.logged_selectors,
        call_rates: config.call_rates,
    };
    let serving = Serving::new(attestor.clone(), admission.clone(), manners, sources, stopping.clone());
    let gate = Gate { admission, attestor, writers: config.connection_writer, tally };
    let (api, wit_svids, secrets) = (config.workload_api, config.wit_svids, config.secrets.is_some());
    let socket = Socket::Workloads { api, wit_svids, secrets };
    let routes = routes(serving.clone(), config.secrets.unwrap_or_default());
    let workloads = serve(listener, gate.clone(), socket, routes, stopping.clone());
    let brokers = config.broker.zip(trust).zip(broker_listener).map(|((config, trust), listener)| {
        let door = door_of(&gate, Socket::Brokers);
        let connections = broker::connections(listener, gate.clone(), config, trust.clone(), serving.clone());
        serve_on(connections, door, broker::routes(serving.clone(), trust), stopping.clone())
    });
    let admin = config.admin.map(|config| admin::routes(config, serving));
    let admin = admin
        .zip(admin_listener)
        .map(|(routes, listener)| serve(listener, gate, Socket::Administration, routes, stopping.clone()));
    tokio::spawn(async move {
        shutdown.await;
        stop.send_replace(true);
    });
    Ok(async move {
        let admin = OptionFuture::from(admin).map(Option::transpose);
        let brokers = OptionFuture::from(brokers).map(Option::transpose);
        tokio::select! {
            served = futures_util::future::try_join3(workloads, admin, brokers) => served.map(drop).map_err(EndpointError::Serve),
            () = grace_is_over(stopping) => Ok(()),
        }
    })
}

/// Serves one socket, until it is told to stop.
fn serve(
    listener: SocketListener,
    gate: Gate,
    socket: Socket,
    routes: Routes,
    stopping: watch::Receiver<bool>,
) -> impl Future<Output = Result<(), tonic::transport::Error>> + Send {
    let door = door_of(&gate, socket);
    let connections = incoming(listener, move |stream| caller::admit(&gate, stream));
    serve_on(connections, door, routes, stopping)
}

/// The same of connections that come from elsewhere.
fn serve_on<C>(
    connections: impl Stream<Item = Result<C, Infallible>> + Send,
    door: DoorLayer,
    routes: Routes,
    stopping: watch::Receiver<bool>,
) -> impl Future<Output = Result<(), tonic::transport::Error>> + Send
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let mut server = server().layer(MapResponseLayer::new(with_spaces)).layer(door);
    server.add_routes(routes).serve_with_incoming_shutdown(connections, is_stopping(stopping))
}

fn door_of(gate: &Gate, socket: Socket) -> DoorLayer {
    DoorLayer::new(gate.admission.clone(), socket, gate.tally.clone())
}

/// All services; which of them are offered the door says.
fn routes(serving: Serving, secrets: SdsConfig) -> Routes {
    let health = health::service(&serving);
    let api = SpiffeWorkloadApiServer::new(WorkloadApi(serving.clone()));
    let api = api.max_decoding_message_size(MAX_JWT_MESSAGE_BYTES);
    let explain = ExplainServer::new(ExplainApi(serving.clone())).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let hardware_key = HardwareKeyServer::new(HardwareKeyApi(serving.clone()));
    let hardware_key = hardware_key.max_decoding_message_size(MAX_JWT_MESSAGE_BYTES);
    let secrets = SecretDiscoveryServiceServer::new(SecretsApi { serving, config: Arc::new(secrets) });
    let secrets = secrets.max_decoding_message_size(MAX_CONDENSED_BYTES);
    reflection::add_to(
        Routes::new(api)
            .add_service(explain)
            .add_service(hardware_key)
            .add_service(secrets)
            .add_service(health.max_decoding_message_size(MAX_MESSAGE_BYTES)),
    )
}

fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        //= FLT-A9 agent faults: "what they hold of the agent's memory is bounded"
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

async fn grace_is_over(stopping: watch::Receiver<bool>) {
    is_stopping(stopping).await;
    tokio::time::sleep(GRACE).await;
}

async fn is_stopping(mut stopping: watch::Receiver<bool>) {
    // An error means that serving is over already.
    let _ = stopping.wait_for(|stop| *stop).await;
}
