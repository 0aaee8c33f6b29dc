//! What the server answers, and to whom: TCP with mutual TLS for agents and administrators, a unix socket for whoever may
//! open it. This room alone makes a `tonic::Status`.

mod accept;
mod address;
mod agent_api;
mod agreed;
mod audit;
mod body;
mod bundle_api;
mod bundle_endpoint;
mod caller;
mod change_api;
mod debug_api;
mod device_api;
mod entry_api;
mod fair_share;
mod federation_status;
mod forks;
mod gate;
mod heads;
mod health_api;
mod issued_api;
mod limits;
mod local_authority_api;
mod logger_api;
mod looks;
mod oidc;
mod pcr_policy_api;
pub mod policy;
mod proxied;
mod roles;
mod root_api;
mod status_api;
mod svid_api;
mod tally;
mod token_exchange;
mod traced;
mod trust_domain_api;
mod unbroken;
mod web;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::grpc_message::with_spaces;
use ironroot_api::pb::agent::agent_server::AgentServer;
use ironroot_api::pb::bundle::bundle_server::BundleServer;
use ironroot_api::pb::change::change_server::ChangeServer;
use ironroot_api::pb::debug::debug_server::DebugServer;
use ironroot_api::pb::device::device_server::DeviceServer;
use ironroot_api::pb::entry_encoded::entry_server::EntryServer;
use ironroot_api::pb::issued::issued_server::IssuedServer;
use ironroot_api::pb::localauthority::local_authority_server::LocalAuthorityServer;
use ironroot_api::pb::logger::logger_server::LoggerServer;
use ironroot_api::pb::pcr_policy::pcr_policy_server::PcrPolicyServer;
use ironroot_api::pb::root::root_server::RootServer;
use ironroot_api::pb::server_status::status_server::StatusServer;
use ironroot_api::pb::svid::svid_server::SvidServer;
use ironroot_api::pb::trustdomain::trust_domain_server::TrustDomainServer;
use ironroot_api::pb::types;
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::permission_denied;
use ironroot_api::tls::{ClientTrust, KeyExchanges, SvidResolver, TrustAnchors};
use ironroot_api::unix_socket::SocketListener;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_shell::command_line::describe;
use ironroot_shell::health::Ready;
use ironroot_shell::logging::LevelControl;
use ironroot_shell::logging::in_moderation;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::http::Response;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Code, Status};
use tonic_health::pb::health_server::HealthServer;
use tower::util::MapResponseLayer;

pub use audit::{Audit, AuditFile};
pub use body::{FieldLimits, RequestShape};
pub use bundle_endpoint::BundleEndpoint;
pub use caller::Listener;
pub use change_api::{
    MAX_DELTA_BYTES, MAX_DELTA_ENTRIES, MAX_HELD_STREAMS, MAX_HELD_STREAMS_PER_AGENT, MAX_KEPT_ENTRIES, MAX_KEPT_VIEWS,
    Pushes,
};
pub use forks::Forks;
pub use heads::Heads;
pub use health_api::REASON_METADATA;
pub use limits::Limits;
pub use looks::Looks;
pub use oidc::Oidc;
pub use roles::{BODY_BUDGET_BYTES, Occupancy, Role, RoleLimits};
pub use status_api::StatusReport;
pub use tally::Tally;
pub use token_exchange::TokenExchange;
pub use unbroken::Unbroken;
pub use web::{Answers, WebListener};

use gate::Gate;
use proxied::Introductions;

use crate::bundle_client::Refresher;
use crate::ca::{CaError, CertificateAuthority};
use crate::config::Balancers;
use crate::devices::{DeviceError, Devices};
use crate::federation::Federation;
use crate::node_attestation::NodeAttestation;
use crate::registry::{Registry, RegistryError};
use crate::rights::OwnAuthorities;
use crate::store::{Store, StoreError};

/// A peer that does not answer a ping in this time is gone.
const PONG_DEADLINE: Duration = Duration::from_secs(20);

/// What every service of the server works on.
#[derive(Debug)]
#[expect(missing_docs, reason = "rooms by their names")]
pub struct ServerState {
    pub trust_domain: TrustDomain,
    pub ca: Arc<CertificateAuthority>,
    pub registry: Arc<Registry>,
    pub devices: Arc<Devices>,
    /// What is known of other trust domains.
    pub federation: Arc<Federation>,
    /// Fetches a bundle of another trust domain now.
    pub refresher: Refresher,
    /// Where join tokens are made and used up; entries and agents are changed through the registry alone.
    pub store: Store,
    pub node_attestation: NodeAttestation,
    pub limits: Limits,
    /// Chips that may run twice.
    pub forks: Forks,
    /// What callers hold of connections, calls and bodies at this moment, by role.
    pub occupancy: Occupancy,
    /// Who waits for what other servers have written.
    pub looks: Looks,
    /// Streams that are held for agents, to tell them of changes.
    pub pushes: Pushes,
    pub audit: Arc<Audit>,
    /// Heads of the log of all that is done.
    pub heads: Arc<Heads>,
    /// How calls ended.
    pub tally: Arc<Tally>,
    /// How much this process logs.
    pub log_level: LevelControl,
    /// The certificate that the server shows.
    pub svid: Arc<SvidResolver>,
    /// What clients' certificates must lead to: the authorities of the bundle.
    pub anchors: Arc<TrustAnchors>,
    /// Whose signature makes an administrator, an agent or a server below.
    pub own: Arc<OwnAuthorities>,
    /// What links over TCP may agree on.
    pub key_exchanges: KeyExchanges,
    /// What is done to its end although its caller has gone.
    pub unbroken: Unbroken,
    /// Remote administrators named by configuration.
    pub admin_ids: BTreeSet<SpiffeId>,
    /// Whether entries may name a program and nobody who runs it.
    pub allow_executable_only: bool,
    /// The parents of entries for tokens of the issuers of the configuration.
    pub exchange_parents: Vec<SpiffeId>,
    /// The wall clock, UNIX seconds.
    pub now: fn() -> i64,
}

impl ServerState {
    fn now_unix(&self) -> i64 {
        (self.now)()
    }
}

/// Serves `tcp` until `stop` says so, where `balancers` may say whose a connection is: an HTTP/2 server for each role, with what its connections may occupy.
pub async fn serve_remote(
    shared: Arc<ServerState>,
    tcp: TcpListener,
    balancers: Balancers,
    stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let services = services(&shared, &stop);
    let clients = ClientTrust::new(shared.anchors.clone());
    let introductions = Introductions::new(balancers);
    let servers = accept::accept(tcp, clients, shared.clone(), introductions).map(|(role, connections)| {
        let gate = Gate::new(shared.clone(), Listener::Remote);
        let router = http2(role.limits()).layer(spelling()).layer(gate).add_routes(services.clone());
        router.serve_with_incoming_shutdown(accept::as_stream(connections), raised(stop.clone()))
    });
    futures_util::future::try_join_all(servers).await.map(drop)
}

/// Serves the admin socket until `stop` says so; beside the services those that are for people at this machine alone, as in SPIRE.
pub async fn serve_local(
    shared: Arc<ServerState>,
    socket: SocketListener,
    ready: Ready,
    status: StatusReport,
    stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let services = services(&shared, &stop)
        .add_service(HealthServer::new(health_api::HealthApi(ready)))
        .add_service(StatusServer::new(status_api::StatusApi(status)))
        .add_service(LoggerServer::new(logger_api::LoggerApi(shared.clone())))
        .add_service(DebugServer::new(debug_api::DebugApi { server: shared.clone(), began: Instant::now() }));
    let gate = Gate::new(shared, Listener::Local);
    let router = http2(Role::LocalAdministrator.limits()).layer(spelling()).layer(gate).add_routes(services);
    router.serve_with_incoming_shutdown(accept::accept_local(socket), raised(stop)).await
}

/// Serves the admin socket of a server that waits for the operator's word, until `stop` says so: it is asked whether it is ready, and
/// answers all else with what is the matter and what to do.
pub async fn serve_waiting(
    socket: SocketListener,
    ready: Ready,
    stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let health = HealthServer::new(health_api::HealthApi(ready.clone()));
    let refuse = move || {
        let reason = ready().unwrap_or_else(|| "the server is about to begin; try again".to_owned());
        std::future::ready(Status::failed_precondition(reason).into_http::<tonic::body::Body>())
    };
    let routes = Routes::from(Routes::new(health).into_axum_router().fallback(refuse));
    let router = http2(Role::LocalAdministrator.limits()).layer(spelling()).add_routes(routes);
    router.serve_with_incoming_shutdown(accept::accept_local(socket), raised(stop)).await
}

/// The services of both listeners. Who may call what, with which request, the gate before them decides.
fn services(shared: &Arc<ServerState>, stop: &watch::Receiver<bool>) -> Routes {
    let entry = EntryServer::new(entry_api::EntryApi(shared.clone()));
    let device = DeviceServer::new(device_api::DeviceApi::new(shared.clone()));
    Routes::new(AgentServer::new(agent_api::AgentApi(shared.clone())))
        .add_service(entry.max_decoding_message_size(policy::MAX_BATCH_BYTES))
        .add_service(device.max_decoding_message_size(policy::MAX_BATCH_BYTES))
        .add_service(SvidServer::new(svid_api::SvidApi(shared.clone())))
        .add_service(BundleServer::new(bundle_api::BundleApi(shared.clone())))
        .add_service(LocalAuthorityServer::new(local_authority_api::LocalAuthorityApi(shared.clone())))
        .add_service(RootServer::new(root_api::RootApi(local_authority_api::LocalAuthorityApi(shared.clone()))))
        .add_service(TrustDomainServer::new(trust_domain_api::TrustDomainApi(shared.clone())))
        .add_service(IssuedServer::new(issued_api::IssuedApi(shared.clone())))
        .add_service(PcrPolicyServer::new(pcr_policy_api::PcrPolicyApi(shared.clone())))
        .add_service(ChangeServer::new(change_api::ChangeApi { server: shared.clone(), stopping: stop.clone() }))
}

/// Messages as gRPC writes them.
fn spelling() -> MapResponseLayer<fn(Response<Body>) -> Response<Body>> {
    MapResponseLayer::new(with_spaces)
}

fn http2(limits: RoleLimits) -> Server {
    let server = Server::builder()
        .max_concurrent_streams(limits.streams)
        .http2_max_header_list_size(limits.header_bytes)
        .initial_stream_window_size(limits.windows.0)
        .initial_connection_window_size(limits.windows.1)
        .http2_keepalive_interval(Some(limits.ping_after))
        .http2_keepalive_timeout(Some(PONG_DEADLINE));
    match limits.connection_age {
        Some(age) => server.max_connection_age(age),
        None => server,
    }
}

async fn raised(mut flag: watch::Receiver<bool>) {
    // The sender outlives every receiver; if it were gone, stopping would be right too.
    let _ = flag.wait_for(|raised| *raised).await;
}

/// An item of a batch that went well.
fn item_ok() -> types::Status {
    types::Status { code: Code::Ok.into(), message: "OK".to_owned() }
}

/// An item of a batch that did not.
fn item_status(status: &Status) -> types::Status {
    types::Status { code: status.code().into(), message: status.message().to_owned() }
}

fn count(number: usize) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

/// Whose fault decides the code.
fn registry_status(error: RegistryError) -> Status {
    use RegistryError::{
        AgentBanned, AgentNotFound, AlreadyAttested, CertificateTaken, Device, Entry, EntryIdTaken, EntryNotFound,
        JoinToken, NotActive, OtherAttestation, PageToken, ParentFull, Store, Token, TokenTaken, UnknownBundle,
    };
    match error {
        EntryNotFound | AgentNotFound => Status::not_found(error.to_string()),
        EntryIdTaken | TokenTaken => Status::already_exists(error.to_string()),
        Entry(_) | Token(_) | PageToken(_) => invalid(&error),
        JoinToken(refusal) => Status::invalid_argument(format!("failed to attest: {refusal}")),
        // The caller's mistake; the code is SPIRE's, which scripts know.
        UnknownBundle(_) => Status::internal(error.to_string()),
        ParentFull { .. } => Status::resource_exhausted(error.to_string()),
        AgentBanned => permission_denied(Reason::AgentBanned, "agent is banned"),
        AlreadyAttested | CertificateTaken { .. } | OtherAttestation { .. } => {
            Status::permission_denied(error.to_string())
        }
        NotActive => permission_denied(Reason::AgentNotActive, "agent SVID is not active"),
        Device(cause) => device_status(cause),
        Store(cause) => store_status(cause),
    }
}

/// Whose fault decides the code.
fn device_status(error: DeviceError) -> Status {
    match error {
        DeviceError::NotFound | DeviceError::UnknownAmong { .. } => Status::not_found(error.to_string()),
        DeviceError::Banned | DeviceError::BannedAmong { .. } | DeviceError::Clock(_) => {
            Status::permission_denied(describe(&error))
        }
        DeviceError::TooManyPending => Status::resource_exhausted(error.to_string()),
        DeviceError::PageToken(_) | DeviceError::Device(_) => invalid(&error),
        DeviceError::DuplicateSerials { .. } => Status::already_exists(error.to_string()),
        DeviceError::Store(cause) => store_status(cause),
    }
}

/// The caller's mistake, with its causes: `invalid entry: invalid SPIFFE ID: path is empty`.
fn invalid(error: &(dyn std::error::Error + 'static)) -> Status {
    Status::invalid_argument(describe(error))
}

/// What the log says of a data store or a CA that fails, which every caller meets.
const STORE_FAILED: &str = "the data store failed";
const NOT_SIGNED: &str = "certificate not signed";

/// The store is ours: its chain goes to the log, the caller learns that it is not the caller's fault, and what an operator has
/// to look at.
fn store_status(error: StoreError) -> Status {
    if let Some(pass) = in_moderation(STORE_FAILED) {
        tracing::error!(error = &error as &dyn std::error::Error, suppressed = pass.suppressed, "{STORE_FAILED}");
    }
    match error {
        StoreError::Locked => Status::unavailable("the data store is locked by another program"),
        StoreError::Full(_) => Status::resource_exhausted("the disk of the data store is full; nothing was changed"),
        StoreError::ReadOnly => Status::unavailable("the data store is read-only; nothing was changed"),
        StoreError::RolledBack => Status::unavailable("the data store gave up this change; nothing was changed"),
        StoreError::Closed => Status::unavailable("the server is stopping"),
        StoreError::Unreachable(_) => Status::unavailable("the data store does not answer; nothing was changed"),
        StoreError::OutcomeUnknown(_) => Status::unavailable(
            "the data store broke off, and whether this was done is not known; look before you try again",
        ),
        StoreError::OtherHistory { .. } => Status::unavailable(
            "the data store went back to an earlier state; nothing is changed before an operator has looked",
        ),
        StoreError::OwnSession => Status::unavailable(
            "the data store has not ended a commit of this server's yet: it waits for a standby or a disk; nothing was changed",
        ),
        StoreError::SameName(_) => Status::unavailable("another server with this one's name is on the data store"),
        StoreError::Corrupt(_) => Status::internal("the data store is damaged; restore it from a backup"),
        _ => Status::internal("the data store failed; the server's log says why"),
    }
}

fn ca_status(error: CaError) -> Status {
    if let Some(pass) = in_moderation(NOT_SIGNED) {
        tracing::error!(error = &error as &dyn std::error::Error, suppressed = pass.suppressed, "{NOT_SIGNED}");
    }
    Status::unavailable("the certificate authority cannot sign now")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rusqlite::ffi;

    use super::*;

    fn cause() -> crate::store::Cause {
        Arc::new(std::io::Error::other("cut"))
    }

    fn full() -> StoreError {
        StoreError::Full(Arc::new(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None)))
    }

    #[test]
    fn a_store_that_fails_names_what_an_operator_has_to_look_at() {
        for (error, code, words) in [
            (StoreError::Locked, Code::Unavailable, "locked by another program"),
            (full(), Code::ResourceExhausted, "the disk of the data store is full"),
            (StoreError::ReadOnly, Code::Unavailable, "read-only"),
            (StoreError::RolledBack, Code::Unavailable, "gave up this change"),
            (StoreError::Closed, Code::Unavailable, "the server is stopping"),
            (StoreError::Unreachable(cause()), Code::Unavailable, "does not answer; nothing was changed"),
            (StoreError::OutcomeUnknown(cause()), Code::Unavailable, "whether this was done is not known"),
            (StoreError::OtherHistory { followed: 9, found: 8 }, Code::Unavailable, "went back to an earlier state"),
            (StoreError::OwnSession, Code::Unavailable, "waits for a standby"),
            (StoreError::SameName("a".to_owned()), Code::Unavailable, "another server with this one's name"),
            (StoreError::Corrupt("page 7".to_owned()), Code::Internal, "restore it from a backup"),
        ] {
            let status = store_status(error);
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().contains(words), "{status}");
        }
    }
}
