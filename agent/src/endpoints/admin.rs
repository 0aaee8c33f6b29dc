//! The admin socket: for people at this machine and for delegates. It must not stand where workloads' socket stands.
//!
//! ```text
//!  accept ─► the same admission, tenancy and door ─► debug, explain, logger, status: whoever may open the socket
//!                                               └──► delegated: who is it? a delegate? ─► serving, for others
//! ```
//! Source: SPIRE, pkg/agent/api. No reflection there, as in SPIRE.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ironroot_api::pb::agent_debug::debug_server::DebugServer;
use ironroot_api::pb::agent_logger::logger_server::LoggerServer;
use ironroot_api::pb::agent_status::status_server::StatusServer;
use ironroot_api::pb::delegated::delegated_identity_server::DelegatedIdentityServer;
use ironroot_api::pb::explain::explain_any_server::ExplainAnyServer;
use ironroot_api::unix_socket::SocketListener;
use ironroot_shell::logging::LevelControl;
use tonic::service::Routes;

use super::EndpointError;
use super::debug::DebugApi;
use super::delegated::{DelegatedApi, Delegates};
use super::door::{MAX_DELEGATED_MESSAGE_BYTES, MAX_MESSAGE_BYTES};
use super::explain::ExplainAnyApi;
use super::logger::LoggerApi;
use super::serving::Serving;
use super::status::StatusApi;
use crate::report::Reports;

/// Who may open the socket at all: us and our group. Source: SPIRE.
const ADMIN_SOCKET_MODE: u32 = 0o770;

/// What the admin socket is made of.
#[derive(Debug)]
pub struct AdminSocketConfig {
    /// Where to listen; the directory is made if it is missing.
    pub socket_path: PathBuf,
    /// Who may ask for identities of others.
    pub delegates: Delegates,
    /// How much the agent logs.
    pub log_level: LevelControl,
    /// What the servers' loops say of themselves.
    pub reports: Reports,
    /// How the chip is reached, if there is one.
    pub chip: Option<String>,
}

/// Binds the socket; not in the directory of the `workloads`' one or below it, by whatever name or link. Containers are given that
/// directory, with all that is in it.
pub(super) fn bind(config: &AdminSocketConfig, workloads: &Path) -> Result<SocketListener, EndpointError> {
    let listener = SocketListener::bind(&config.socket_path, ADMIN_SOCKET_MODE).map_err(EndpointError::AdminSocket)?;
    match is_apart(&config.socket_path, workloads) {
        true => Ok(listener),
        false => Err(EndpointError::AdminSocketPlace(config.socket_path.clone())),
    }
}

/// Whether a bound socket is neither in the directory of the `workloads`' one nor below it.
pub(super) fn is_apart(socket: &Path, workloads: &Path) -> bool {
    directory(socket).zip(directory(workloads)).is_some_and(|(ours, theirs)| !ours.starts_with(&theirs))
}

fn directory(socket: &Path) -> Option<PathBuf> {
    socket.parent()?.canonicalize().ok()
}

/// Its services.
pub(super) fn routes(config: AdminSocketConfig, serving: Serving) -> Routes {
    let AdminSocketConfig { delegates, log_level, reports, chip, .. } = config;
    let began = Instant::now();
    let status = StatusServer::new(StatusApi { serving: serving.clone(), reports: reports.clone(), chip, began });
    let explain = ExplainAnyServer::new(ExplainAnyApi { serving: serving.clone(), reports: reports.clone() });
    let debug = DebugServer::new(DebugApi { serving: serving.clone(), reports, began });
    let logger = LoggerServer::new(LoggerApi(log_level));
    let delegated = DelegatedIdentityServer::new(DelegatedApi { serving, delegates });
    Routes::new(debug.max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(explain.max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(status.max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(logger.max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(delegated.max_decoding_message_size(MAX_DELEGATED_MESSAGE_BYTES))
}
