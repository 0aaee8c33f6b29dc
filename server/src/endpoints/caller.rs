//! Who calls, and what that lets them do. Each grant is a value that only its check makes.

use std::fmt;
use std::net::IpAddr;

use ironroot_api::SpiffeId;
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::permission_denied;
use ironroot_api::tls::{TlsPeer, VerifiedSvid};
use tonic::{Request, Status};

use super::Shared;
use crate::registry::AgentStanding;

/// Which socket a service instance answers on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The admin unix socket: its file mode is the gate.
    Local,
    /// TCP with TLS.
    Remote,
}

/// The other end of an RPC.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Someone with access to the admin socket.
    Local,
    /// A TLS client, with an X509-SVID or without.
    Remote(TlsPeer),
}

impl Caller {
    /// The caller of `request` on `listener`.
    pub fn of<T>(request: &Request<T>, listener: Listener) -> Result<Self, Status> {
        match listener {
            Listener::Local => Ok(Self::Local),
            Listener::Remote => {
                let peer = request.extensions().get::<TlsPeer>().cloned();
                peer.map(Self::Remote).ok_or_else(|| Status::internal("connection without a peer"))
            }
        }
    }

    /// The source address of a remote caller.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Local => None,
            Self::Remote(peer) => Some(peer.address.ip()),
        }
    }

    /// Whether it came over TCP and showed no certificate.
    pub fn is_stranger(&self) -> bool {
        matches!(self, Self::Remote(peer) if peer.svid.is_none())
    }

    fn svid(&self) -> Option<&VerifiedSvid> {
        match self {
            Self::Local => None,
            Self::Remote(peer) => peer.svid.as_ref(),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.svid()) {
            (Self::Local, _) => f.write_str("local"),
            (Self::Remote(peer), Some(svid)) => write!(f, "{} at {}", svid.spiffe_id(), peer.address),
            (Self::Remote(peer), None) => write!(f, "{}", peer.address),
        }
    }
}

/// The right to administer: the admin socket, an admin ID of the configuration, or an entry with `admin`.
#[derive(Debug)]
#[must_use]
pub struct Administrator(());

/// An attested agent whose current certificate has been shown on this connection.
#[derive(Clone, Debug)]
#[must_use]
pub struct AuthenticatedAgent {
    id: SpiffeId,
    serial: String,
}

impl AuthenticatedAgent {
    /// The agent's SPIFFE ID.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The decimal serial of the certificate it showed.
    pub fn serial(&self) -> &str {
        &self.serial
    }
}

impl Shared {
    /// Lets administrators pass.
    pub fn administrator(&self, caller: &Caller) -> Result<Administrator, Status> {
        self.judge_administrator(caller).map_err(|status| self.audit.denied(caller, status))
    }

    /// Lets attested agents pass; the first use of a renewed certificate makes it the agent's current one.
    pub async fn agent(&self, caller: &Caller) -> Result<AuthenticatedAgent, Status> {
        self.judge_agent(caller).await.map_err(|status| self.audit.denied(caller, status))
    }

    fn judge_administrator(&self, caller: &Caller) -> Result<Administrator, Status> {
        let denied = || Status::permission_denied("administration is for the admin socket and admin identities only");
        let svid = match caller {
            Caller::Local => return Ok(Administrator(())),
            Caller::Remote(_) => caller.svid().ok_or_else(denied)?,
        };
        if svid.not_after_unix() <= self.now_unix() {
            return Err(Status::permission_denied("the certificate of this connection has expired"));
        }
        let named = self.admin_ids.contains(svid.spiffe_id());
        if named || self.registry.is_admin(svid.spiffe_id(), self.now_unix()) {
            return Ok(Administrator(()));
        }
        Err(denied())
    }

    /// Whoever shows a certificate is told why it does not count, workloads too. Source: SPIRE's agent authorizer.
    async fn judge_agent(&self, caller: &Caller) -> Result<AuthenticatedAgent, Status> {
        let svid = caller.svid().ok_or_else(|| Status::permission_denied("this call is for attested agents"))?;
        if svid.not_after_unix() <= self.now_unix() {
            return Err(permission_denied(Reason::AgentExpired, "agent SVID is expired"));
        }
        let agent = AuthenticatedAgent { id: svid.spiffe_id().clone(), serial: svid.serial().to_owned() };
        if self.registry.agent_standing(&agent.id, &agent.serial) == AgentStanding::ActivatePending {
            self.registry.activate_agent(&agent.id, &agent.serial).await.map_err(super::registry_status)?;
        }
        self.agent_still_stands(&agent)?;
        Ok(agent)
    }

    /// Refuses an agent that was let pass and has been banned, deleted or replaced since: a call may last.
    pub fn agent_still_stands(&self, agent: &AuthenticatedAgent) -> Result<(), Status> {
        let denied = |reason, message| Err(permission_denied(reason, message));
        match self.registry.agent_standing(&agent.id, &agent.serial) {
            AgentStanding::Active => Ok(()),
            AgentStanding::NotAttested => denied(Reason::AgentNotAttested, "agent is not attested"),
            AgentStanding::Banned => denied(Reason::AgentBanned, "agent is banned"),
            AgentStanding::NotActive | AgentStanding::ActivatePending => {
                denied(Reason::AgentNotActive, "agent SVID is not active")
            }
        }
    }
}
