//! Who calls, and what that lets them do: the checks of [`crate::rights`] with the server's facts. The gate leaves the grant in
//! the request, and a service cannot work without it.

use std::fmt;

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
use crate::rights::{
    Administrator, AgentStanding, AuthenticatedAgent, Caller, DownstreamServer, Insider, NoRight, OwnSvid, Provenance,
    ShownCertificate, Visitor,
};

/// Which socket a service instance answers on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The admin unix socket: its file mode is the gate.
    Local,
    /// TCP with TLS.
    Remote,
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

impl Source {
    /// Whom the limits of that caller count.
    pub fn of(caller: &Caller) -> Self {
        match caller {
            Caller::Local(peer) => Self::Uid(peer.uid),
            Caller::Remote(peer) => Self::of_peer(peer),
        }
    }

    /// Whom the limits of a TLS client count: its ID if it has shown one, or its address.
    pub fn of_peer(peer: &TlsPeer) -> Self {
        match &peer.svid {
            Some(svid) => Self::Id(svid.spiffe_id().clone()),
            None => Self::Address(peer.address.ip().into()),
        }
    }
}

/// The caller on the connection whose facts these are.
pub fn caller_of(connection: &Extensions, listener: Listener) -> Result<Caller, Status> {
    let caller = match listener {
        Listener::Local => connection.get::<Watching<PeerCredentials>>().map(|c| Caller::Local(c.peer)),
        Listener::Remote => connection.get::<Watching<TlsPeer>>().map(|c| Caller::Remote(c.peer.clone())),
    };
    caller.ok_or_else(|| Status::internal("connection without a peer"))
}

/// A right, as the gate leaves it in a request's extensions.
pub trait Grant: Clone + Send + Sync + 'static {}
impl Grant for Visitor {}
impl Grant for Administrator {}
impl Grant for AuthenticatedAgent {}
impl Grant for DownstreamServer {}
impl Grant for Insider {}

/// The right that the gate has granted to `request`.
pub fn granted<G: Grant>(request: &Request<impl Sized>) -> Result<G, Status> {
    let grant = request.extensions().get::<G>().cloned();
    grant.ok_or_else(|| Status::internal("this method is served under another right than the policy grants"))
}

/// The answer to a caller without the right, with SPIRE's reason where it has one.
pub fn no_right(refusal: NoRight) -> Status {
    let message = refusal.to_string();
    match refusal {
        NoRight::NotAdministrator
        | NoRight::AdministratorExpired
        | NoRight::NotDownstream
        | NoRight::DownstreamExpired
        | NoRight::SignedElsewhere
        | NoRight::ThroughBannedAgent
        | NoRight::NoCertificate => Status::permission_denied(message),
        NoRight::AgentExpired => permission_denied(Reason::AgentExpired, &message),
        NoRight::AgentNotAttested => permission_denied(Reason::AgentNotAttested, &message),
        NoRight::AgentBanned => permission_denied(Reason::AgentBanned, &message),
        // Agents attest anew for this reason: one whose CA this server has forgotten is an agent again.
        NoRight::AgentNotActive | NoRight::AgentSignedElsewhere => permission_denied(Reason::AgentNotActive, &message),
    }
}

fn shows_an_agents_id(caller: &Caller) -> bool {
    caller.svid().is_some_and(|svid| svid.spiffe_id().names_an_agent())
}

impl ServerState {
    /// Lets administrators pass.
    pub(super) fn administrator(&self, caller: Caller) -> Result<Administrator, Status> {
        let is_through_banned_agent = |serial: &str| self.registry.is_through_banned_agent(serial);
        let provenance = Provenance { own: &self.own, is_through_banned_agent: &is_through_banned_agent };
        Administrator::judge(caller, provenance, |id| self.is_admin_id(id), self.now_unix()).map_err(no_right)
    }

    /// Lets servers below this one pass.
    pub(super) fn downstream(&self, caller: Caller) -> Result<DownstreamServer, Status> {
        let now_unix = self.now_unix();
        let entry = |id: &SpiffeId| self.registry.downstream(id, now_unix);
        let is_through_banned_agent = |serial: &str| self.registry.is_through_banned_agent(serial);
        let provenance = Provenance { own: &self.own, is_through_banned_agent: &is_through_banned_agent };
        DownstreamServer::judge(caller, provenance, entry, now_unix).map_err(no_right)
    }

    /// The right of a server below that was let pass and has waited for its turn: its entry may be another meanwhile, or gone, and the agent
    /// banned that fetched its SVID.
    pub(super) fn downstream_again(&self, server: &DownstreamServer) -> Result<DownstreamServer, Status> {
        self.refuse_disbelieved(server.caller())?;
        self.downstream(server.caller().clone())
    }

    /// Whether whoever has an SVID of that ID is an administrator here, or a server below: by any entry, or by the configuration.
    pub(super) fn has_rights(&self, id: &SpiffeId) -> bool {
        self.is_admin_id(id) || self.registry.downstream(id, self.now_unix()).is_some()
    }

    fn is_admin_id(&self, id: &SpiffeId) -> bool {
        self.admin_ids.contains(id) || self.registry.is_admin(id, self.now_unix())
    }

    /// Lets attested agents pass; the first use of a renewed certificate makes it the agent's current one. `opened`: when the
    /// connection was.
    pub(super) async fn agent(&self, caller: Caller, opened: Option<Instant>) -> Result<AuthenticatedAgent, Status> {
        let shown = self.shown(caller).await?;
        match (self.standing_of(&shown).await?, opened) {
            (AgentStanding::ActivatePending, _) => {
                self.registry.activate_agent(&shown).await.map_err(super::registry_status)?;
            }
            (AgentStanding::NotActive, Some(opened)) => self.tell_turns(&shown, opened, false),
            _ => {}
        }
        let standing = self.registry.standing_of(&shown);
        let agent = shown.authenticate(standing).map_err(no_right)?;
        self.registry.agent_is_heard_of(agent.id(), self.now_unix());
        Ok(agent)
    }

    /// The certificate of an agent, if a server of this data store has signed it: another one's CA may be newer than what memory has, and
    /// newer than what the rotation has made of it.
    async fn shown(&self, caller: Caller) -> Result<ShownCertificate, Status> {
        let judge = |caller| ShownCertificate::judge(caller, &self.own, self.now_unix());
        match judge(caller.clone()) {
            Err(NoRight::AgentSignedElsewhere) if shows_an_agents_id(&caller) => {
                self.looks.until(&self.store, self.ca.shows_own_authorities(), Source::of(&caller)).await?;
                judge(caller).map_err(no_right)
            }
            judged => judged.map_err(no_right),
        }
    }

    /// What the certificate is worth. A workload's, of which there are many, is no agent's wherever one looks.
    async fn standing_of(&self, shown: &ShownCertificate) -> Result<AgentStanding, Status> {
        match self.registry.standing_of(shown) {
            AgentStanding::NotAttested | AgentStanding::NotActive if shown.id().names_an_agent() => {
                self.look(shown.caller()).await?;
                Ok(self.registry.standing_of(shown))
            }
            AgentStanding::Banned => {
                // Another server may have lifted it. A data store that is away softens no ban.
                self.look(shown.caller()).await.ok();
                Ok(self.registry.standing_of(shown))
            }
            standing => Ok(standing),
        }
    }

    /// Has memory take in what other servers have written. Agents that are told for certain that their certificates are worth nothing forget
    /// what they have: that is said of none that the data store may know.
    pub(super) async fn look(&self, caller: &Caller) -> Result<(), Status> {
        self.looks.at(&self.store, Source::of(caller)).await
    }

    /// Refuses a call on the connection whose facts these are if its client has shown a certificate whose authority was revoked since:
    /// connections outlive bundles. The connection ends then, and the handshake of one with such a certificate fails.
    pub(super) fn refuse_revoked(&self, connection: &Extensions, caller: &Caller) -> Result<(), Status> {
        self.refuse_disbelieved(caller).inspect_err(|_| {
            if let Some(watching) = connection.get::<Watching<TlsPeer>>() {
                watching.is_useless();
            }
        })
    }

    fn refuse_disbelieved(&self, caller: &Caller) -> Result<(), Status> {
        match caller.svid().is_none_or(|svid| self.anchors.still_believe(svid)) {
            true => Ok(()),
            false => Err(Status::unauthenticated(
                "the authority of this connection's certificate was revoked: connect with a newer one",
            )),
        }
    }

    /// Refuses an agent that was let pass and may not go on: a call may last.
    pub fn agent_still_stands(&self, agent: &AuthenticatedAgent) -> Result<(), Status> {
        self.refuse_disbelieved(agent.caller())?;
        let standing = self.registry.agent_standing(agent.id(), agent.serial());
        agent.check_again(standing, self.now_unix()).map_err(no_right)
    }

    /// Which limits the connection of `peer` gets; each call is judged by itself all the same.
    pub(super) fn role_of(&self, peer: &TlsPeer) -> Role {
        let Some(svid) = &peer.svid else { return Role::Stranger };
        let Some(svid) = self.own.judge(svid).map(OwnSvid::svid) else { return Role::Holder };
        if self.is_admin_id(svid.spiffe_id()) {
            return Role::RemoteAdministrator;
        }
        match self.registry.downstream(svid.spiffe_id(), self.now_unix()) {
            Some(_) => Role::Downstream,
            None => self.role_of_agent(svid),
        }
    }

    fn role_of_agent(&self, svid: &VerifiedSvid) -> Role {
        match self.registry.agent_standing(svid.spiffe_id(), svid.serial()) {
            AgentStanding::Active | AgentStanding::ActivatePending => Role::Agent,
            AgentStanding::NotAttested | AgentStanding::Banned | AgentStanding::NotActive => Role::Holder,
        }
    }
}
