//! Agents that lose the right to go on, each in another way.

use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::agent::{AgentX509svidParams, BanAgentRequest, DeleteAgentRequest, RenewAgentRequest};
use ironroot_api::pb::entry::GetAuthorizedEntriesRequest;
use ironroot_api::pb::types::permission_denied_details::Reason;

use super::{Agent, Credentials, ServerClient, csr, key};

/// An agent, and what it is told once it may not go on.
pub struct Outcast {
    /// An agent like others, until [`Outcast::cast_out`].
    pub agent: Agent,
    /// Why it may not go on then.
    pub reason: Reason,
}

impl Outcast {
    /// One that will be banned, one that will be evicted, one whose certificate will be replaced.
    pub async fn of_each_kind(client: &ServerClient) -> [Self; 3] {
        let outcast = async |reason| Self { agent: client.agent().await, reason };
        [
            outcast(Reason::AgentBanned).await,
            outcast(Reason::AgentNotAttested).await,
            outcast(Reason::AgentNotActive).await,
        ]
    }

    /// Takes the right from it.
    pub async fn cast_out(&self, client: &ServerClient) {
        let (mut admin, id) = (AgentClient::new(client.admin().await), Some(self.agent.id().to_pb()));
        match self.reason {
            Reason::AgentBanned => admin.ban_agent(BanAgentRequest { id }).await.map(drop).expect("banned"),
            Reason::AgentNotAttested => admin.delete_agent(DeleteAgentRequest { id }).await.map(drop).expect("evicted"),
            Reason::AgentNotActive => self.replace(client).await,
            other => unreachable!("no outcast is told {other:?}"),
        }
    }

    /// Its renewed certificate is used: only the new one counts from then on.
    async fn replace(&self, client: &ServerClient) {
        let key = key();
        let params = Some(AgentX509svidParams { csr: csr(&key, &[]).into() });
        let renewed =
            self.agent.agents().renew_agent(RenewAgentRequest { params }).await.expect("renewed").into_inner();
        let newer = client.agent_of(Credentials::new(&renewed.svid.expect("an SVID"), &key)).await;
        newer.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await.expect("first use");
    }
}
