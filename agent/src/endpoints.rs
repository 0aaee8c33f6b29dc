//! What local processes reach: the Workload API socket.
//!
//! ```text
//!  accept ─► admission (per user) ─► Watched<Caller { Peer, slot }> ─► door (method, header, room) ─► Admitted
//!                                                        workload_api ─► attestation ─► Identities::for_selectors
//! ```
//! A connection ends when the process that opened it exits, when another process writes into it, when it is of no use, or
//! when its user holds most and another user's needs the room. Connections, streams, attestations, hashing and the bytes of
//! requests are bounded per user, where a user's subordinate uids are the user's: so one user cannot shut out another's.

mod admission;
mod caller;
mod door;
mod reflection;
mod tenancy;
mod workload_api;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ironroot_api::pb::workload::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use ironroot_api::unix_socket::{SocketListener, UnixSocketError, incoming};
use ironroot_attest::workload::{ConnectionWriter, UnixAttestor};
use thiserror::Error;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server;

pub use admission::{Limits, SubordinateUids};

use crate::identities::Identities;
use crate::jwt_svids::JwtSvids;
use crate::requests::Requests;
use admission::Admission;
use caller::Gate;
use door::{DoorLayer, MAX_JWT_MESSAGE_BYTES, MAX_MESSAGE_BYTES};
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
/// Most requests of this API are a few bytes, none is larger than a token; what a client may have in flight is bounded by these.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 64 * 1024;
/// Clients send some 300 bytes of headers, with tracing some more. Each open stream may hold as many.
const HEADER_LIST_BYTES: u32 = 8 * 1024;
const STREAMS_PER_CONNECTION: u32 = 100;

/// The time as far as it is known, UNIX seconds: the later of the system's clock and what must have passed already.
pub type NowUnix = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What the Workload API socket is made of.
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
    /// Nothing that has ended by this clock is served.
    pub now: NowUnix,
}

/// Why the socket cannot be served.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// It cannot be bound.
    #[error("cannot open the Workload API socket")]
    Socket(#[from] UnixSocketError),
    /// Serving ended with an error.
    #[error("the Workload API server failed")]
    Serve(#[source] tonic::transport::Error),
}

/// Binds the Workload API socket at once; the returned future serves it until `shutdown` is done.
pub fn serve_workload_api(
    config: WorkloadApiConfig,
    sources: Sources,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<impl Future<Output = Result<(), EndpointError>> + Send, EndpointError> {
    //= WLE-01 SPIFFE Workload Endpoint 2: "SHOULD NOT expose the same endpoint instance to more than one host"
    //= WLE-02 SPIFFE Workload Endpoint 3: "Implementations SHOULD prefer Unix Domain Socket transport"
    let listener = SocketListener::bind(&config.socket_path, WORKLOAD_SOCKET_MODE)?;
    admission::raise_descriptor_limit(&config.limits);
    let admission = Admission::new(config.limits, config.subordinate_uids);
    let attestor = Arc::new(config.attestor);
    let (stop, stopping) = watch::channel(false);
    let api = WorkloadApi::new(attestor.clone(), admission.clone(), sources, stopping.clone());
    let door = DoorLayer::new(admission.clone());
    let gate = Gate { admission, attestor, writers: config.connection_writer };
    let connections = incoming(listener, move |stream| caller::admit(&gate, stream));
    let stopped = async move {
        shutdown.await;
        stop.send_replace(true);
    };
    let serving = server().layer(door).add_routes(routes(api)).serve_with_incoming_shutdown(connections, stopped);
    Ok(async move {
        tokio::select! {
            served = serving => served.map_err(EndpointError::Serve),
            () = grace_is_over(stopping) => Ok(()),
        }
    })
}

fn routes(api: WorkloadApi) -> Routes {
    let api = SpiffeWorkloadApiServer::new(api).max_decoding_message_size(MAX_JWT_MESSAGE_BYTES);
    // grpc.health.v1 beside it, as SPIRE has it on this socket: who is answered at all is answered "serving".
    let (_, health) = tonic_health::server::health_reporter();
    reflection::add_to(Routes::new(api).add_service(health.max_decoding_message_size(MAX_MESSAGE_BYTES)))
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

async fn grace_is_over(mut stopping: watch::Receiver<bool>) {
    // An error means that serving is over already.
    let _ = stopping.wait_for(|stop| *stop).await;
    tokio::time::sleep(GRACE).await;
}
