//! Who may do what: grants that only their checks make. What changes something demands the grant for it, so that a check that
//! was left out does not compile.
//!
//! ```text
//!  Caller ─► Visitor
//!         ─► OwnSvid ─► Administrator
//!                    ─► DownstreamServer
//!                    ─► ShownCertificate ── its standing in the registry ──► AuthenticatedAgent
//!  an administrator or an agent ─► Insider
//! ```
//!
//! They are made of facts alone: who is at the other end, what the registry says, what time it is.
//!
//! ```
//! use ironroot_api::unix_socket::PeerCredentials;
//! use ironroot_server::rights::Administrator;
//! let operator = Administrator::local(PeerCredentials { pid: 1, uid: 0, gid: 0 });
//! # fn ban(registry: &ironroot_server::registry::Registry, operator: &Administrator, id: &ironroot_api::SpiffeId) {
//! drop(registry.ban_agent(operator, id));
//! # }
//! ```
//!
//! Nobody else makes one, and nothing is changed without:
//!
//! ```compile_fail
//! use ironroot_api::unix_socket::PeerCredentials;
//! use ironroot_server::rights::{Administrator, Caller};
//! let local = Caller::Local(PeerCredentials { pid: 1, uid: 0, gid: 0 });
//! let operator = Administrator(local);
//! ```
//!
//! ```compile_fail
//! # fn ban(registry: &ironroot_server::registry::Registry, id: &ironroot_api::SpiffeId) {
//! drop(registry.ban_agent(id));
//! # }
//! ```

mod administrator;
mod agent;
mod caller;
mod downstream;
mod insider;
mod own_authorities;

use thiserror::Error;

pub use administrator::Administrator;
pub use agent::{AgentStanding, AuthenticatedAgent, ShownCertificate};
pub use caller::{Caller, Visitor};
pub use downstream::{CaScope, DownstreamServer};
pub use insider::Insider;
pub use own_authorities::{OwnAuthorities, OwnSvid, Provenance};

/// Why a caller has no right to what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoRight {
    /// Neither at the admin socket nor one of the IDs that may administer.
    #[error("administration is for the admin socket and admin identities only")]
    NotAdministrator,
    /// It was an administrator's, and has ended.
    #[error("the certificate of this connection has expired")]
    AdministratorExpired,
    /// It shows no SVID of an entry that is `downstream`.
    #[error("this call is for downstream servers: those whose entry is created with -downstream")]
    NotDownstream,
    /// It was a downstream server's, and has ended.
    #[error("the downstream server's certificate of this connection has expired")]
    DownstreamExpired,
    /// An agent shows a certificate.
    #[error("this call is for attested agents")]
    NoCertificate,
    /// The agent's certificate has ended.
    #[error("agent SVID is expired")]
    AgentExpired,
    /// Never attested, or deleted.
    #[error("agent is not attested")]
    AgentNotAttested,
    /// An operator or a copied chip shut it out.
    #[error("agent is banned")]
    AgentBanned,
    /// The certificate was replaced, or is a copy's.
    #[error("agent SVID is not active")]
    AgentNotActive,
    /// It would be an administrator's or a downstream server's, and a CA has signed it that is not one of this data store's servers.
    #[error(
        "the certificate of this connection was signed by another CA of the trust domain, not by this server: \
         use an SVID that an agent of this server fetched, or that its x509 mint made"
    )]
    SignedElsewhere,
    /// It would be an administrator's or a downstream server's, and the agent that fetched it is banned.
    #[error(
        "the SVID of this connection was fetched through an agent that is banned: use one of another agent, or, if the ban was a \
         mistake, lift it with agent evict"
    )]
    ThroughBannedAgent,
    /// Another CA of the trust domain has signed an agent's.
    #[error("agent SVID was signed by another CA of the trust domain, not by this server: attest here")]
    AgentSignedElsewhere,
}
