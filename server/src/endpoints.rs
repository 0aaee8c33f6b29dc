//! What the server answers, and to whom: TCP with mutual TLS for agents and administrators, a unix socket for whoever may
//! open it. This room alone makes a `tonic::Status`.

mod accept;
mod agent_api;
mod audit;
mod bundle_api;
mod caller;
mod device_api;
mod entry_api;
mod health_api;
mod limits;
mod svid_api;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ironroot_api::command_line::describe;
use ironroot_api::health::Ready;
use ironroot_api::pb::agent::agent_server::AgentServer;
use ironroot_api::pb::bundle::bundle_server::BundleServer;
use ironroot_api::pb::device::device_server::DeviceServer;
use ironroot_api::pb::entry_encoded::entry_server::EntryServer;
use ironroot_api::pb::svid::svid_server::SvidServer;
use ironroot_api::pb::types;
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::permission_denied;
use ironroot_api::{SpiffeId, TrustDomain};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_server::HealthServer;

pub use accept::{Accepted, accept};
pub use audit::Audit;
pub use caller::{Administrator, AuthenticatedAgent, Caller, Listener};
pub use health_api::REASON_METADATA;
pub use limits::Limits;

use crate::ca::{CaError, CertificateAuthority};
use crate::devices::{DeviceError, Devices};
use crate::node_attestation::NodeAttestation;
use crate::registry::{Registry, RegistryError};
use crate::store::{Store, StoreError};

/// RPCs one connection may have under way. SPIRE's agents use a handful.
const MAX_STREAMS_PER_CONNECTION: u32 = 128;
/// A peer that does not answer a ping in this time is gone.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));
/// Connections are ended after this time, so that load spreads after a restart of a neighbour.
const CONNECTION_AGE: Duration = Duration::from_secs(30 * 60);
/// Largest request accepted, bytes: a batch of 10,000 entries.
const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;
/// Largest message of a stranger, bytes: evidence is at most 64 kB.
const MAX_AGENT_REQUEST_BYTES: usize = 256 * 1024;
/// Largest GetBundle request accepted, bytes: a mask, from anyone.
const MAX_BUNDLE_REQUEST_BYTES: usize = 4 * 1024;

/// What every service of the server works on.
#[derive(Debug)]
pub struct Shared {
    /// The trust domain served.
    pub trust_domain: TrustDomain,
    /// Signs.
    pub ca: Arc<CertificateAuthority>,
    /// Entries and agents.
    pub registry: Arc<Registry>,
    /// The fleet.
    pub devices: Arc<Devices>,
    /// Join tokens.
    pub store: Store,
    /// Judges nodes.
    pub node_attestation: NodeAttestation,
    /// Rate limits.
    pub limits: Limits,
    /// The audit trail.
    pub audit: Audit,
    /// Remote administrators named by configuration.
    pub admin_ids: BTreeSet<SpiffeId>,
    /// Whether entries may name a program and nobody who runs it.
    pub allow_executable_only: bool,
    /// The wall clock, UNIX seconds.
    pub now: fn() -> i64,
}

impl Shared {
    fn now_unix(&self) -> i64 {
        (self.now)()
    }
}

/// The services as they answer on `listener`; grpc.health.v1 beside them on the admin socket, as in SPIRE.
pub fn router(shared: &Arc<Shared>, listener: Listener, ready: Ready) -> Router {
    let agent = AgentServer::new(agent_api::AgentApi(shared.clone(), listener));
    let entry = EntryServer::new(entry_api::EntryApi(shared.clone(), listener));
    let device = DeviceServer::new(device_api::DeviceApi(shared.clone(), listener));
    let svid = SvidServer::new(svid_api::SvidApi(shared.clone(), listener));
    let bundle = BundleServer::new(bundle_api::BundleApi(shared.clone()));
    let known = no_strangers(shared, listener);
    let mut server = Server::builder()
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1));
    if listener == Listener::Remote {
        server = server.max_connection_age(CONNECTION_AGE);
    }
    let health = HealthServer::new(health_api::HealthApi(ready));
    server
        .add_optional_service((listener == Listener::Local).then_some(health))
        .add_service(agent.max_decoding_message_size(MAX_AGENT_REQUEST_BYTES))
        .add_service(InterceptedService::new(entry.max_decoding_message_size(MAX_REQUEST_BYTES), known.clone()))
        .add_service(InterceptedService::new(device.max_decoding_message_size(MAX_REQUEST_BYTES), known.clone()))
        .add_service(InterceptedService::new(svid, known))
        .add_service(bundle.max_decoding_message_size(MAX_BUNDLE_REQUEST_BYTES))
}

/// Refuses who shows no certificate before its request is read: those of these services are large, and strangers any number.
/// What others may do each call decides.
fn no_strangers(shared: &Arc<Shared>, listener: Listener) -> impl Interceptor + Clone + use<> {
    let shared = shared.clone();
    move |request: Request<()>| {
        let caller = Caller::of(&request, listener)?;
        match caller.is_stranger() {
            true => {
                Err(shared.audit.denied(&caller, Status::permission_denied("this call needs a client certificate")))
            }
            false => Ok(request),
        }
    }
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
        AgentBanned, AgentNotFound, Entry, EntryIdTaken, EntryNotFound, NotActive, PageToken, Store, Token, TokenTaken,
    };
    match error {
        EntryNotFound | AgentNotFound => Status::not_found(error.to_string()),
        EntryIdTaken | TokenTaken => Status::already_exists(error.to_string()),
        Entry(_) | Token(_) | PageToken(_) => invalid(&error),
        AgentBanned => permission_denied(Reason::AgentBanned, "agent is banned"),
        NotActive => permission_denied(Reason::AgentNotActive, "agent SVID is not active"),
        Store(cause) => store_status(cause),
    }
}

/// Whose fault decides the code.
fn device_status(error: DeviceError) -> Status {
    match error {
        DeviceError::NotFound => Status::not_found(error.to_string()),
        DeviceError::Banned | DeviceError::Clock(_) => Status::permission_denied(describe(&error)),
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

/// The store is ours: its chain goes to the log, the caller learns that it is not the caller's fault, and what an operator has
/// to look at.
fn store_status(error: StoreError) -> Status {
    tracing::error!(error = &error as &dyn std::error::Error, "store failed");
    match error {
        StoreError::Locked => Status::unavailable("the data store is locked by another program"),
        StoreError::Full(_) => Status::resource_exhausted("the disk of the data store is full; nothing was changed"),
        StoreError::ReadOnly => Status::unavailable("the data store is read-only; nothing was changed"),
        StoreError::RolledBack => Status::unavailable("the data store gave up this change; nothing was changed"),
        StoreError::Closed => Status::unavailable("the server is stopping"),
        StoreError::Corrupt(_) => Status::internal("the data store is damaged; restore it from a backup"),
        _ => Status::internal("the data store failed; the server's log says why"),
    }
}

fn ca_status(error: CaError) -> Status {
    tracing::error!(error = &error as &dyn std::error::Error, "certificate not signed");
    Status::unavailable("the certificate authority cannot sign now")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rusqlite::ffi;

    use super::*;

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
            (StoreError::Corrupt("page 7".to_owned()), Code::Internal, "restore it from a backup"),
        ] {
            let status = store_status(error);
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().contains(words), "{status}");
        }
    }
}
