//! Where an agent finds by what to know a server that it has never spoken to, or has lost: a file, a web server, a program on this
//! machine, another agent. Asked anew each time: the operator may have replaced what is there.
//!
//! ```text
//!  trust_bundle_path ─────────────────────► the file ──────────────────┐
//!  trust_bundle_url ──────────────────────► https, by the web's trust ─┼─► document (pem, spiffe) ─► TrustBundle
//!    with trust_bundle_unix_socket ───────► http over the socket ──────┘
//!  trust_bundle_spiffe_workload_api ──────► FetchX509Bundles ─────────────────────────────────────► TrustBundle
//! ```

mod document;
mod web;
mod workload_api;

use std::fmt;
use std::path::{Path, PathBuf};

use ironroot_api::TrustDomain;
use ironroot_api::tls::KeyExchanges;
use ironroot_shell::web::EndpointUrl;

pub use document::{BundleSourceError, TrustBundleFormat, read_bundle};
pub use web::{SocketUrl, WebError};
pub use workload_api::WorkloadApiError;

use crate::server_answers::TrustBundle;
use crate::trusted_time::TrustedTime;

/// Where the bundle is. Source: SPIRE, `trust_bundle_*` of its agent's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleSource {
    /// In a file.
    File {
        /// It may be replaced while the agent runs.
        path: PathBuf,
        /// What the file must be; never guessed.
        format: TrustBundleFormat,
    },
    /// At a web server that proves its name by an authority that this machine knows.
    Web {
        /// What is asked for.
        url: EndpointUrl,
        /// What the answer must be.
        format: TrustBundleFormat,
    },
    /// Behind a unix socket, of a program of the operator's.
    Socket {
        /// What is asked for.
        url: SocketUrl,
        /// Where the program listens.
        socket: PathBuf,
        /// What the answer must be.
        format: TrustBundleFormat,
    },
    /// At the Workload API of another agent of the trust domain.
    WorkloadApi {
        /// That agent's socket.
        socket: PathBuf,
    },
}

/// For what a bundle is sought. Whoever is asked over a socket is told all of it. Source: SPIRE doc/spire_agent.md, Rebootstrapping.
#[derive(Clone, Debug)]
pub struct Occasion<'a> {
    /// The trust domain whose bundle is sought.
    pub trust_domain: &'a TrustDomain,
    /// Host and port of the server that is to be known by it.
    pub server: (&'a str, u16),
    /// Whether the agent has known its server before.
    pub is_rebootstrap: bool,
    /// How often a bundle was sought since then, this time included.
    pub attempts: u32,
    /// When it was sought first, UNIX seconds.
    pub began_unix: i64,
    /// By what certificates of the web are judged.
    pub time: &'a TrustedTime,
    /// Which key exchanges a web server may agree on.
    pub exchanges: KeyExchanges,
}

impl BundleSource {
    /// The bundle that is there now.
    pub async fn bundle(&self, occasion: &Occasion<'_>) -> Result<TrustBundle, BundleSourceError> {
        match self {
            Self::File { path, format } => read_apart(path, *format, occasion.trust_domain).await,
            Self::Web { url, format } => {
                let document = web::fetch(url, occasion).await?;
                document::parse_bytes(&document, *format, occasion.trust_domain)
            }
            Self::Socket { url, socket, format } => {
                let document = web::fetch_over(socket, url, occasion).await?;
                document::parse_bytes(&document, *format, occasion.trust_domain)
            }
            Self::WorkloadApi { socket } => Ok(workload_api::fetch(socket, occasion.trust_domain).await?),
        }
    }

    /// Whether asking costs nothing but a file's reading.
    pub fn is_a_file(&self) -> bool {
        matches!(self, Self::File { .. })
    }
}

/// Not on the thread that serves.
async fn read_apart(
    path: &Path,
    format: TrustBundleFormat,
    trust_domain: &TrustDomain,
) -> Result<TrustBundle, BundleSourceError> {
    let (path, trust_domain) = (path.to_owned(), trust_domain.clone());
    let read = tokio::task::spawn_blocking(move || read_bundle(&path, format, &trust_domain)).await;
    read.unwrap_or(Err(BundleSourceError::Unread))
}

impl fmt::Display for BundleSource {
    /// The key of the configuration, and what it says.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "trust_bundle_path {}", path.display()),
            Self::Web { url, .. } => write!(f, "trust_bundle_url {url}"),
            Self::Socket { url, socket, .. } => write!(f, "trust_bundle_url {url} at {}", socket.display()),
            Self::WorkloadApi { socket } => write!(f, "trust_bundle_spiffe_workload_api {}", socket.display()),
        }
    }
}
