//! AttestAgent: the conversation, from the node's first message to its certificate.

use std::sync::Arc;
use std::time::Duration;

use crate::facts::agent::AgentRecord;
use ironroot_api::csr::Csr;
use ironroot_api::pb::agent::attest_agent_request::{Params, Step as Asked};
use ironroot_api::pb::agent::attest_agent_response::{Result as Outcome, Step as Answered};
use ironroot_api::pb::agent::{AttestAgentRequest, AttestAgentResponse};
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::permission_denied;
use ironroot_attest::node::tpm2::CHALLENGE_SECONDS;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::super::caller::Visitor;
use super::super::svid_api::svid_to_pb;
use super::super::{ServerState, ca_status, device_status, registry_status, store_status};
use crate::node_attestation::{AttestationError, AttestedNode, Progress};

/// Longest a whole conversation may take: as long as an agent works on it.
const DEADLINE: Duration = Duration::from_secs(CHALLENGE_SECONDS.unsigned_abs());

type Answers = mpsc::Sender<Result<AttestAgentResponse, Status>>;

/// Talks in a task of its own; the stream ends with the certificate or the reason there is none.
pub(super) fn converse(
    server: Arc<ServerState>,
    visitor: Visitor,
    asked: Streaming<AttestAgentRequest>,
) -> ReceiverStream<Result<AttestAgentResponse, Status>> {
    // One challenge and one result at the most are under way.
    let (answers, stream) = mpsc::channel(2);
    tokio::spawn(async move {
        let mut conversation =
            Conversation { server: &server, visitor: &visitor, device: None, asked, answers: answers.clone() };
        let outcome = tokio::time::timeout(DEADLINE, conversation.attest()).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Status::deadline_exceeded("attestation took too long")));
        let device = conversation.device;
        let refused = |status| server.audit.attestation_refused(visitor.caller(), device.as_ref(), status);
        let last = outcome.map_err(refused);
        // A node that has hung up learns nothing more.
        let _ = answers.send(last).await;
    });
    ReceiverStream::new(stream)
}

struct Conversation<'a> {
    server: &'a ServerState,
    visitor: &'a Visitor,
    /// What it claims to be: SHA-256 of its endorsement key.
    device: Option<[u8; 32]>,
    asked: Streaming<AttestAgentRequest>,
    answers: Answers,
}

impl Conversation<'_> {
    async fn attest(&mut self) -> Result<AttestAgentResponse, Status> {
        let params = self.params().await?;
        let data = params.data.ok_or_else(|| Status::invalid_argument("missing attestation data"))?;
        let csr = params.params.ok_or_else(|| Status::invalid_argument("missing X509-SVID parameters"))?.csr;
        let csr = Csr::parse(&csr).map_err(|e| Status::invalid_argument(format!("failed to parse CSR: {e}")))?;
        let attestation = &self.server.node_attestation;
        let evidence = attestation.read(&data.r#type, &data.payload).map_err(attestation_status)?;
        self.device = evidence.device();
        let known_device = self.device.filter(|ek| self.server.devices.device(ek).is_some());
        self.server.limits.attestation(self.visitor.caller().address(), known_device).await?;
        let begun = attestation.begin(evidence, csr, self.server.now_unix()).await;
        let node = match begun.map_err(attestation_status)? {
            Progress::Attested(node) => *node,
            Progress::Challenge(challenge, bytes) => {
                let response = self.challenge(bytes).await?;
                match attestation.answer(*challenge, &response, self.server.now_unix()).await {
                    Ok(node) => node,
                    Err(error) => {
                        self.server.note_contradiction(self.device, self.visitor.caller(), &error).await;
                        return Err(attestation_status(error));
                    }
                }
            }
        };
        self.admit(node).await
    }

    async fn params(&mut self) -> Result<Params, Status> {
        match self.next().await? {
            Asked::Params(params) => Ok(params),
            Asked::ChallengeResponse(_) => Err(Status::invalid_argument("missing params")),
        }
    }

    async fn challenge(&mut self, challenge: Vec<u8>) -> Result<prost::bytes::Bytes, Status> {
        let message = AttestAgentResponse { step: Some(Answered::Challenge(challenge.into())) };
        self.answers.send(Ok(message)).await.map_err(|_| Status::cancelled("node hung up"))?;
        match self.next().await? {
            Asked::ChallengeResponse(response) => Ok(response),
            Asked::Params(_) => Err(Status::invalid_argument("expected a challenge response")),
        }
    }

    async fn next(&mut self) -> Result<Asked, Status> {
        let message = self.asked.message().await?.and_then(|m| m.step);
        message.ok_or_else(|| Status::invalid_argument("node ended the conversation"))
    }

    /// Certificate, then rows, then answer: a ban or a later attestation that came in between refuses the rows, and a node
    /// that was cut off attests again and replaces them.
    async fn admit(&self, node: AttestedNode) -> Result<AttestAgentResponse, Status> {
        let server = self.server;
        server.refuse_forked_clock(&node, self.visitor.caller()).await?;
        let now_unix = server.now_unix();
        let svid = server.ca.sign_agent_svid(node.id(), node.csr().spki(), now_unix).await.map_err(ca_status)?;
        let record = AgentRecord {
            spiffe_id: node.id().clone(),
            attestation_type: node.attestation_type().to_owned(),
            serial: svid.serial.clone(),
            not_after: svid.not_after_unix,
            new_serial: String::new(),
            new_not_after: 0,
            can_reattest: node.can_reattest(),
            banned: false,
            selectors: node.selectors().clone(),
            agent_version: server.registry.agent(node.id()).map(|a| a.agent_version.clone()).unwrap_or_default(),
            ek_sha256: node.device().map(|device| device.ek_sha256),
        };
        if let Some(device) = node.device() {
            server.devices.attested(device, node.id(), now_unix).await.map_err(device_status)?;
        }
        server.registry.attest_agent(record).await.map_err(registry_status)?;
        server.audit.done(self.visitor.caller(), "AttestAgent", format_args!("{} serial {}", node.id(), svid.serial));
        tracing::info!(spiffe_id = %node.id(), serial = svid.serial, attestation_type = node.attestation_type(), "agent attested");
        let result = Outcome { svid: Some(svid_to_pb(&svid, node.id(), "")), reattestable: node.can_reattest() };
        Ok(AttestAgentResponse { step: Some(Answered::Result(result)) })
    }
}

/// Whose fault decides the code: the node's evidence, an operator's decision, or ours.
fn attestation_status(error: AttestationError) -> Status {
    use AttestationError::{
        AgentId, ApprovalPending, Banned, Devices, JoinTokenExpired, JoinTokenUnknown, NotEnrolled, Refused, Store,
        Type,
    };
    let message = format!("failed to attest: {error}");
    match error {
        Type(_) => Status::failed_precondition(message),
        JoinTokenUnknown | JoinTokenExpired | AgentId(_) => Status::invalid_argument(message),
        Refused(_) | NotEnrolled { .. } | ApprovalPending { .. } => Status::permission_denied(message),
        Banned(_) => permission_denied(Reason::AgentBanned, &message),
        Devices(cause) => device_status(cause),
        Store(cause) => store_status(cause),
    }
}
