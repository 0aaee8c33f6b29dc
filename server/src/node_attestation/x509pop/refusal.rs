//! Why a certificate makes no agent here.

use std::net::IpAddr;

use ironroot_api::SpiffeId;
use ironroot_api::tls::SvidRefusal;
use ironroot_attest::node::x509pop::{AuthoritiesError, X509PopRefusal};
use ironroot_shell::describe;
use thiserror::Error;

use super::super::Fault;
use super::super::agent_path::NoName;

/// A reason to say no.
#[derive(Debug, Error)]
pub enum X509PopServerRefusal {
    /// The evidence does not prove it.
    #[error("{0}")]
    Evidence(#[from] X509PopRefusal),
    /// In mode `spiffe`: the trust domain has no authority that could have issued it.
    #[error("this trust domain's own authorities cannot be used: {0}")]
    OwnAuthorities(#[from] AuthoritiesError),
    /// In mode `spiffe`: such SVIDs are not exchanged.
    #[error(
        "the SPIFFE ID of the device's certificate, {id}, does not begin with {prefix}, which spiffe_prefix asks for"
    )]
    #[expect(missing_docs, reason = "the message names the fields")]
    Prefix { id: SpiffeId, prefix: String },
    /// In mode `spiffe`: it is none that workloads show.
    #[error("the device's certificate is no X509-SVID of this trust domain for clients: {}", describe(.0))]
    NoSvid(#[source] SvidRefusal),
    /// In mode `spiffe`: whoever has a CA below the same root could name any agent.
    #[error(
        "the device's SVID was signed by another CA of the trust domain, not by this server: exchange one that an agent of this \
         server fetched, or that its x509 mint made"
    )]
    SignedElsewhere,
    /// In mode `spiffe`: a ban is not undone with what the agent has left.
    #[error(
        "the device's SVID was fetched through an agent that is banned: exchange one of another agent, or, if the ban was a mistake, lift \
         it with agent evict"
    )]
    ThroughBannedAgent,
    /// The certificate is for another machine.
    #[error("the device comes from {0}, which its certificate does not name")]
    Address(IpAddr),
    /// There is no address to hold the certificate against.
    #[error("the device's address is not known, and verify_client_ip asks for it")]
    NoAddress,
    /// The certificate lacks what the agent is to be called by.
    #[error(transparent)]
    Name(#[from] NoName),
}

impl X509PopServerRefusal {
    /// Whose fault it is: what cannot be read is the message's, the rest the node's.
    pub(in super::super) fn fault(&self) -> Fault {
        match self {
            Self::Evidence(
                X509PopRefusal::Message(_)
                | X509PopRefusal::NoCertificate
                | X509PopRefusal::TooManyCertificates { .. }
                | X509PopRefusal::KeySize { .. }
                | X509PopRefusal::Malformed
                | X509PopRefusal::Intermediate(_)
                | X509PopRefusal::OtherFamily
                | X509PopRefusal::OtherChallenge,
            ) => Fault::Message,
            _ => Fault::Node,
        }
    }
}
