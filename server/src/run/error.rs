//! Why a server does not start, or ends.

use std::io;
use std::net::SocketAddr;

use ironroot_api::directory::DirectoryError;
use ironroot_api::unix_socket::UnixSocketError;
use ironroot_hsm::{HsmError, PinError};
use ironroot_shell::logging::LoggingError;
use ironroot_shell::serving_certificate::ServingCertificateError;
use ironroot_shell::telemetry::MetricsError;
use thiserror::Error;

use crate::acme::FolderError;
use crate::ca::{CaError, KeptNameError};
use crate::config::AttestorFileError;
use crate::devices::DeviceError;
use crate::facts::older_state::OlderState;
use crate::issuance_log::LogError;
use crate::keys::KeyError;
use crate::older_state::MarkError;
use crate::registry::RegistryError;
use crate::store::StoreError;

/// Why a server does not start, or ends.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each message names what could not be used")]
pub enum RunError {
    /// The data directory cannot be made or used, or is not ours alone.
    #[error("cannot use the data directory; let this user write there, or name another in data_dir")]
    DataDirectory(#[from] DirectoryError),
    #[error("cannot open the data store")]
    Store(#[from] StoreError),
    /// What the database holds.
    #[error("cannot load the registry")]
    Registry(#[from] RegistryError),
    /// What the database holds of devices.
    #[error("cannot load the device registry")]
    Devices(#[from] DeviceError),
    /// What the files hold that say who may attest.
    #[error(transparent)]
    Attestors(#[from] AttestorFileError),
    #[error("cannot read the token's user PIN")]
    Pin(#[from] PinError),
    #[error("cannot open the PKCS#11 token")]
    Token(#[from] HsmError),
    #[error("cannot open the key manager")]
    Keys(#[from] KeyError),
    #[error("cannot start the certificate authority")]
    Ca(#[from] CaError),
    #[error("cannot listen on {0}; if another server runs there, bind_address and bind_port name another place")]
    Listen(SocketAddr, #[source] io::Error),
    #[error("cannot open the admin socket")]
    AdminSocket(#[from] UnixSocketError),
    #[error("cannot open audit_log_file")]
    Audit(#[from] LoggingError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error("cannot open the health listener; health_checks {{ bind_address, bind_port }} names another place")]
    Health(#[source] io::Error),
    #[error(
        "cannot listen on {0} for the bundle endpoint; federation.bundle_endpoint {{ address, port }} names another place"
    )]
    BundleEndpoint(SocketAddr, #[source] io::Error),
    #[error("cannot listen on {0} for OIDC discovery; oidc_discovery {{ address, port }} names another place")]
    Discovery(SocketAddr, #[source] io::Error),
    #[error("cannot listen on {0} for token exchange; token_exchange {{ address, port }} names another place")]
    TokenExchange(SocketAddr, #[source] io::Error),
    #[error("cannot open the socket of OIDC discovery")]
    DiscoverySocket(#[source] UnixSocketError),
    #[error("cannot use the certificate of the web in serving_cert_file")]
    ServingCertificate(#[from] ServingCertificateError),
    #[error("cannot use what is kept of certificates by ACME")]
    Acme(#[from] FolderError),
    /// Another name than the one that the server had.
    #[error(transparent)]
    Name(#[from] KeptNameError),
    /// Whether the database is older than what was here before cannot be told.
    #[error(transparent)]
    Mark(#[from] MarkError),
    #[error("cannot use the issuance log")]
    IssuanceLog(#[from] LogError),
    /// It was noticed while the server ran; the next start waits for the operator's word.
    #[error("the server ends: {0}")]
    OlderState(OlderState),
    #[error("cannot watch for signals")]
    Signals(#[source] io::Error),
    /// A part that must not end has ended.
    #[error("{0} has stopped")]
    Stopped(&'static str),
}

impl RunError {
    /// Whether a start has failed in which a token refused its PIN, or would be locked by one more that is wrong: starting again makes it
    /// worse. That may be the token that keys are made in, the one of before, or the root's: whatever is told in the end, the next start
    /// sends the same PIN.
    pub fn is_pin_refused(&self) -> bool {
        let had_started = matches!(self, Self::Stopped(_) | Self::OlderState(_));
        !had_started && ironroot_hsm::pin_was_refused()
    }
}
