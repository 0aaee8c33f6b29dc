//! Who calls, and what that lets them do. Each grant is a value that only its check makes, here; the gate leaves it in the
//! request, and a service cannot work without it.

use std::fmt;
use std::net::IpAddr;

use ironroot_api::SpiffeId;
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::permission_denied;
use ironroot_api::tls::{TlsPeer, VerifiedSvid};
use ironroot_api::unix_socket::PeerCredentials;
use tokio::time::Instant;
use tonic::codegen::http::Extensions;
use tonic::{Request, Status};

use super::ServerState;
use super::accept::Watching;
use super::address::AddressBlock;
use super::roles::Role;
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
    Local(PeerCredentials),
    /// A TLS client, with an X509-SVID or without.
    Remote(TlsPeer),
}

/// Whom limits count: one of these may hold only so much.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Whoever is at that address.
    Address(AddressBlock),
    /// Whoever shows that ID's certificate.
    Id(SpiffeId),
    /// That local user.
    Uid(u32),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(block) => block.fmt(f),
            Self::Id(id) => id.fmt(f),
            Self::Uid(uid) => write!(f, "uid {uid}"),
        }
    }
}

impl Caller {
    /// The caller on the connection whose facts these are.
    pub fn of(connection: &Extensions, listener: Listener) -> Result<Self, Status> {
        let caller = match listener {
            Listener::Local => connection.get::<Watching<PeerCredentials>>().map(|c| Self::Local(c.peer)),
            Listener::Remote => connection.get::<Watching<TlsPeer>>().map(|c| Self::Remote(c.peer.clone())),
        };
        caller.ok_or_else(|| Status::internal("connection without a peer"))
    }

    /// The source address of a remote caller.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Local(_) => None,
            Self::Remote(peer) => Some(peer.address.ip()),
        }
    }

    /// Whom its limits count.
    pub fn source(&self) -> Source {
        match self {
            Self::Local(peer) => Source::Uid(peer.uid),
            Self::Remote(peer) => source_of(peer),
        }
    }

    fn svid(&self) -> Option<&VerifiedSvid> {
        match self {
            Self::Local(_) => None,
            Self::Remote(peer) => peer.svid.as_ref(),
        }
    }
}

/// Whom the limits of a TLS client count: its ID if it has shown one, or its address.
pub fn source_of(peer: &TlsPeer) -> Source {
    match &peer.svid {
        Some(svid) => Source::Id(svid.spiffe_id().clone()),
        None => Source::Address(peer.address.ip().into()),
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.svid()) {
            (Self::Local(_), _) => f.write_str("local"),
            (Self::Remote(peer), Some(svid)) => write!(f, "{} at {}", svid.spiffe_id(), peer.address),
            (Self::Remote(peer), None) => write!(f, "{}", peer.address),
        }
    }
}

/// The right to what anyone may do.
#[derive(Clone, Debug)]
#[must_use]
pub struct Visitor(Caller);

/// The right to administer: the admin socket, an admin ID of the configuration, or an entry with `admin`.
#[derive(Clone, Debug)]
#[must_use]
pub struct Administrator(Caller);

/// An attested agent whose current certificate has been shown on this connection.
#[derive(Clone, Debug)]
#[must_use]
pub struct AuthenticatedAgent {
    caller: Caller,
    id: SpiffeId,
    serial: String,
    not_after_unix: i64,
}

impl Visitor {
    /// Whoever that is.
    pub fn caller(&self) -> &Caller {
        &self.0
    }
}

impl Administrator {
    /// Who administers.
    pub fn caller(&self) -> &Caller {
        &self.0
    }
}

impl AuthenticatedAgent {
    /// The agent and its connection.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The agent's SPIFFE ID.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The decimal serial of the certificate it showed.
    pub fn serial(&self) -> &str {
        &self.serial
    }
}

/// A right, as the gate leaves it in a request's extensions.
pub trait Grant: Clone + Send + Sync + 'static {}
impl Grant for Visitor {}
impl Grant for Administrator {}
impl Grant for AuthenticatedAgent {}

/// The right that the gate has granted to `request`.
pub fn granted<G: Grant>(request: &Request<impl Sized>) -> Result<G, Status> {
    let grant = request.extensions().get::<G>().cloned();
    grant.ok_or_else(|| Status::internal("this method is served under another right than the policy grants"))
}

impl ServerState {
    /// Lets everybody pass.
    pub(super) fn visitor(caller: Caller) -> Visitor {
        Visitor(caller)
    }

    /// Lets administrators pass.
    pub(super) fn administrator(&self, caller: Caller) -> Result<Administrator, Status> {
        let denied = || Status::permission_denied("administration is for the admin socket and admin identities only");
        if let Caller::Remote(peer) = &caller {
            let svid = peer.svid.as_ref().ok_or_else(denied)?;
            if svid.not_after_unix() <= self.now_unix() {
                return Err(Status::permission_denied("the certificate of this connection has expired"));
            }
            if !self.is_administrator(svid) {
                return Err(denied());
            }
        }
        Ok(Administrator(caller))
    }

    fn is_administrator(&self, svid: &VerifiedSvid) -> bool {
        self.admin_ids.contains(svid.spiffe_id()) || self.registry.is_admin(svid.spiffe_id(), self.now_unix())
    }

    /// Lets attested agents pass; the first use of a renewed certificate makes it the agent's current one. Whoever shows a
    /// certificate is told why it does not count, workloads too. Source: SPIRE's agent authorizer.
    pub(super) async fn agent(&self, caller: Caller, opened: Option<Instant>) -> Result<AuthenticatedAgent, Status> {
        let svid = caller.svid().ok_or_else(|| Status::permission_denied("this call is for attested agents"))?;
        let agent = AuthenticatedAgent {
            id: svid.spiffe_id().clone(),
            serial: svid.serial().to_owned(),
            not_after_unix: svid.not_after_unix(),
            caller,
        };
        self.refuse_expired(&agent)?;
        match (self.registry.agent_standing(&agent.id, &agent.serial), opened) {
            (AgentStanding::ActivatePending, _) => {
                self.registry.activate_agent(&agent.id, &agent.serial).await.map_err(super::registry_status)?;
            }
            (AgentStanding::NotActive, Some(opened)) => self.tell_turns(&agent, opened, false),
            _ => {}
        }
        self.agent_still_stands(&agent)?;
        Ok(agent)
    }

    /// Refuses an agent that was let pass and has been banned, deleted or replaced since, or whose certificate has ended: a
    /// call may last.
    pub fn agent_still_stands(&self, agent: &AuthenticatedAgent) -> Result<(), Status> {
        self.refuse_expired(agent)?;
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

    fn refuse_expired(&self, agent: &AuthenticatedAgent) -> Result<(), Status> {
        if agent.not_after_unix <= self.now_unix() {
            return Err(permission_denied(Reason::AgentExpired, "agent SVID is expired"));
        }
        Ok(())
    }

    /// Which limits the connection of `peer` gets; each call is judged by itself all the same.
    pub(super) fn role_of(&self, peer: &TlsPeer) -> Role {
        let Some(svid) = &peer.svid else { return Role::Stranger };
        if self.is_administrator(svid) {
            return Role::RemoteAdministrator;
        }
        match self.registry.agent_standing(svid.spiffe_id(), svid.serial()) {
            AgentStanding::Active | AgentStanding::ActivatePending => Role::Agent,
            AgentStanding::NotAttested | AgentStanding::Banned | AgentStanding::NotActive => Role::Holder,
        }
    }
}
