//! `spire.api.server.agent.v1`: attestation and renewal for agents, oversight for administrators.

mod attest;
mod oversight;

use std::sync::Arc;

use futures_util::stream::BoxStream;
use ironroot_api::csr::Csr;
use ironroot_api::pb::agent::agent_server::Agent;
use ironroot_api::pb::agent::{
    AttestAgentRequest, AttestAgentResponse, BanAgentRequest, CountAgentsRequest, CountAgentsResponse,
    CreateJoinTokenRequest, DeleteAgentRequest, GetAgentRequest, ListAgentsRequest, ListAgentsResponse,
    PostStatusRequest, PostStatusResponse, RenewAgentRequest, RenewAgentResponse,
};
use ironroot_api::pb::types;
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::permission_denied;
use ironroot_shell::printable::is_printable;
use tonic::{Request, Response, Status, Streaming};

use super::caller::granted;
use super::svid_api::svid_to_pb;
use super::{ServerState, ca_status, registry_status, store_status};
use crate::ca::AgentToSign;
use crate::rights::{Administrator, AuthenticatedAgent, Visitor};

#[derive(Clone, Debug)]
pub struct AgentApi(pub(super) Arc<ServerState>);

#[tonic::async_trait]
impl Agent for AgentApi {
    type AttestAgentStream = BoxStream<'static, Result<AttestAgentResponse, Status>>;

    async fn count_agents(
        &self,
        request: Request<CountAgentsRequest>,
    ) -> Result<Response<CountAgentsResponse>, Status> {
        let by: Administrator = granted(&request)?;
        self.count(&by, &request.into_inner()).map(Response::new)
    }

    async fn list_agents(&self, request: Request<ListAgentsRequest>) -> Result<Response<ListAgentsResponse>, Status> {
        let by: Administrator = granted(&request)?;
        self.list(&by, &request.into_inner()).map(Response::new)
    }

    async fn get_agent(&self, request: Request<GetAgentRequest>) -> Result<Response<types::Agent>, Status> {
        let by: Administrator = granted(&request)?;
        self.get(&by, &request.into_inner()).map(Response::new)
    }

    async fn delete_agent(&self, request: Request<DeleteAgentRequest>) -> Result<Response<()>, Status> {
        let by: Administrator = granted(&request)?;
        self.delete(&by, &request.into_inner()).await.map(Response::new)
    }

    async fn ban_agent(&self, request: Request<BanAgentRequest>) -> Result<Response<()>, Status> {
        let by: Administrator = granted(&request)?;
        self.ban(&by, &request.into_inner()).await.map(Response::new)
    }

    async fn attest_agent(
        &self,
        request: Request<Streaming<AttestAgentRequest>>,
    ) -> Result<Response<Self::AttestAgentStream>, Status> {
        let node: Visitor = granted(&request)?;
        Ok(Response::new(attest::converse(self.0.clone(), node, request.into_inner())))
    }

    async fn renew_agent(&self, request: Request<RenewAgentRequest>) -> Result<Response<RenewAgentResponse>, Status> {
        let agent: AuthenticatedAgent = granted(&request)?;
        self.0.limits.signing(agent.caller().address(), 1).await?;
        // It may have waited for that; the change that stores the certificate looks once more.
        self.0.agent_still_stands(&agent)?;
        let record =
            self.0.registry.agent(agent.id()).ok_or_else(|| Status::internal("agent vanished while it called"))?;
        if record.can_reattest {
            return Err(permission_denied(Reason::AgentMustReattest, "agent must reattest instead of renew"));
        }
        let params = request.into_inner().params.ok_or_else(|| Status::invalid_argument("params cannot be nil"))?;
        let csr = Csr::parse(&params.csr).map_err(|e| Status::invalid_argument(format!("failed to parse CSR: {e}")))?;
        let renewing = AgentToSign::renewing(&agent, &csr);
        let svid = self.0.ca.sign_agent_svid(renewing, self.0.now_unix()).await.map_err(ca_status)?;
        let renewed = self.0.registry.renew_agent(&agent, &svid.serial, svid.not_after_unix).await;
        renewed.map_err(registry_status)?;
        self.0.audit.done(agent.caller(), "RenewAgent", format_args!("{} serial {}", agent.id(), svid.serial));
        Ok(Response::new(RenewAgentResponse { svid: Some(svid_to_pb(&svid, agent.id(), "")) }))
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<types::JoinToken>, Status> {
        let by: Administrator = granted(&request)?;
        self.join_token(&by, request.into_inner()).await.map(Response::new)
    }

    async fn post_status(&self, request: Request<PostStatusRequest>) -> Result<Response<PostStatusResponse>, Status> {
        let agent: AuthenticatedAgent = granted(&request)?;
        self.0.limits.status(agent.caller().address()).await?;
        let version = request.into_inner().agent_version;
        if version.len() > crate::facts::agent::MAX_AGENT_VERSION_BYTES {
            return Err(Status::invalid_argument("agent version is longer than 255 characters"));
        }
        // Shown to people, in lines of their own.
        if !version.chars().all(is_printable) {
            return Err(Status::invalid_argument("agent version has characters that are not printable"));
        }
        // Source: SPIRE, which takes no version for no news.
        if !version.is_empty() {
            self.0.registry.set_agent_version(&agent, &version).await.map_err(store_status)?;
        }
        Ok(Response::new(PostStatusResponse {}))
    }
}
