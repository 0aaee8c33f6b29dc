//! For which agent a certificate is signed: who has just proven itself, or who renews the certificate that it showed.

use ironroot_api::SpiffeId;
use ironroot_api::csr::{Csr, Spki};

use crate::node_attestation::AttestedNode;
use crate::rights::AuthenticatedAgent;

/// An agent whose certificate may be signed. Its name comes from the proof, its key from the request that was proven with it.
///
/// ```compile_fail
/// # async fn sign(ca: ironroot_server::ca::CertificateAuthority, id: ironroot_api::SpiffeId, csr: ironroot_api::csr::Csr) {
/// drop(ca.sign_agent_svid(&id, csr.spki(), 0).await);
/// # }
/// ```
///
/// ```compile_fail
/// # async fn sign(ca: ironroot_server::ca::CertificateAuthority, id: ironroot_api::SpiffeId, csr: ironroot_api::csr::Csr) {
/// drop(ca.sign_agent_svid(ironroot_server::ca::AgentToSign { id: &id, spki: csr.spki() }, 0).await);
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct AgentToSign<'a> {
    pub(super) id: &'a SpiffeId,
    pub(super) spki: &'a Spki,
}

impl<'a> AgentToSign<'a> {
    /// A node that has proven itself.
    pub fn attested(node: &'a AttestedNode) -> Self {
        Self { id: node.id(), spki: node.csr().spki() }
    }

    /// An agent that has shown its current certificate, and asks for another key's.
    pub fn renewing(agent: &'a AuthenticatedAgent, csr: &'a Csr) -> Self {
        Self { id: agent.id(), spki: csr.spki() }
    }
}
