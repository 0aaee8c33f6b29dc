//! What administrators see and decide of agents.

use crate::registry::AgentFilter;
use ironroot_api::pb::agent::{
    BanAgentRequest, CountAgentsRequest, CountAgentsResponse, CreateJoinTokenRequest, DeleteAgentRequest,
    GetAgentRequest, ListAgentsRequest, ListAgentsResponse,
};
use ironroot_api::pb::types;
use ironroot_api::utc;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_shell::command_line::describe;
use tonic::Status;

use super::super::{count, invalid, registry_status, store_status};
use super::AgentApi;
use crate::rights::Administrator;

/// The answer of a server that lets nobody in by a token: at SPIRE's they are always taken, here an operator who lists `tpm2` alone means it.
const NO_TOKENS: &str = "this server takes no join tokens: its configuration lists node attestors, and join_token is not among them; add NodeAttestor \"join_token\" { } \
     to its plugins (or together_with = [\"join_token\"] to another attestor), and restart it";

impl AgentApi {
    pub(super) fn count(&self, _: &Administrator, request: &CountAgentsRequest) -> Result<CountAgentsResponse, Status> {
        let filter = AgentFilter::from_count_pb(request.filter.as_ref()).map_err(|e| invalid(&e))?;
        Ok(CountAgentsResponse { count: count(self.0.registry.count_agents(&filter)) })
    }

    pub(super) fn list(&self, _: &Administrator, request: &ListAgentsRequest) -> Result<ListAgentsResponse, Status> {
        let filter = AgentFilter::from_pb(request.filter.as_ref()).map_err(|e| invalid(&e))?;
        let page =
            self.0.registry.list_agents(&filter, request.page_size, &request.page_token).map_err(registry_status)?;
        let mask = request.output_mask.as_ref();
        Ok(ListAgentsResponse {
            agents: page.items.iter().map(|agent| agent.to_pb(mask)).collect(),
            next_page_token: page.next_page_token,
        })
    }

    pub(super) fn get(&self, _: &Administrator, request: &GetAgentRequest) -> Result<types::Agent, Status> {
        let id = agent_id(request.id.as_ref(), &self.0.trust_domain)?;
        let agent = self.0.registry.agent(&id).ok_or_else(|| Status::not_found("agent not found"))?;
        Ok(agent.to_pb(request.output_mask.as_ref()))
    }

    pub(super) async fn delete(&self, by: &Administrator, request: &DeleteAgentRequest) -> Result<(), Status> {
        let id = agent_id(request.id.as_ref(), &self.0.trust_domain)?;
        if !self.0.registry.delete_agent(by, &id).await.map_err(store_status)? {
            return Err(self.0.audit.refused(by.caller(), "DeleteAgent", &id, Status::not_found("agent not found")));
        }
        self.0.audit.done(by.caller(), "DeleteAgent", &id);
        Ok(())
    }

    pub(super) async fn ban(&self, by: &Administrator, request: &BanAgentRequest) -> Result<(), Status> {
        let id = agent_id(request.id.as_ref(), &self.0.trust_domain)?;
        let Some(banned) = self.0.registry.ban_agent(by, &id).await.map_err(store_status)? else {
            return Err(self.0.audit.refused(by.caller(), "BanAgent", &id, Status::not_found("agent not found")));
        };
        self.0.audit.banned_agent(by.caller(), &id, banned.certificate_sha256);
        Ok(())
    }

    /// With `agent_id`, also an entry that gives the token's agent that ID as an alias.
    pub(super) async fn join_token(
        &self,
        by: &Administrator,
        request: CreateJoinTokenRequest,
    ) -> Result<types::JoinToken, Status> {
        if !self.0.node_attestation.takes_join_tokens() {
            return Err(Status::failed_precondition(NO_TOKENS));
        }
        if request.ttl < 1 {
            return Err(Status::invalid_argument("ttl is required, you must provide one"));
        }
        let value = if request.token.is_empty() { uuid::Uuid::new_v4().to_string() } else { request.token };
        let alias = request.agent_id.map(|id| SpiffeId::from_pb(Some(&id))).transpose().map_err(|e| invalid(&e))?;
        if let Some(alarm) = self.0.ca.clock().alarm() {
            let status =
                Status::unavailable(format!("no join token is made that would be good for a wrong time: {alarm}"));
            return Err(self.0.audit.refused(by.caller(), "CreateJoinToken", "", status));
        }
        let now_unix = self.0.now_unix();
        let expires_at = now_unix + i64::from(request.ttl);
        let created = self.0.registry.create_join_token(by, &value, expires_at, alias.as_ref(), now_unix).await;
        created.map_err(registry_status)?;
        // The token itself is a secret until it is used.
        self.0.audit.done(by.caller(), "CreateJoinToken", format_args!("expires_at {}", utc(expires_at)));
        Ok(types::JoinToken { value, expires_at })
    }
}

/// An ID that can be an agent's; a workload's is a mistake, not an agent that is not there.
fn agent_id(id: Option<&types::Spiffeid>, of: &TrustDomain) -> Result<SpiffeId, Status> {
    let id =
        SpiffeId::from_pb(id).map_err(|e| Status::invalid_argument(format!("invalid agent ID: {}", describe(&e))))?;
    if id.trust_domain() != *of {
        return Err(Status::invalid_argument(format!(
            "invalid agent ID: \"{id}\" is not a member of trust domain \"{of}\""
        )));
    }
    if !id.names_an_agent() {
        return Err(Status::invalid_argument(format!(
            "invalid agent ID: {id} is not an agent: its path does not begin with /spire/agent/"
        )));
    }
    Ok(id)
}
