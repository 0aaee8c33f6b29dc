//! AttestAgent: the conversation, from the node's first message to its certificate.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use ironroot_api::csr::Csr;
use ironroot_api::pb::agent::attest_agent_request::{Params, Step as Asked};
use ironroot_api::pb::agent::attest_agent_response::{Result as Outcome, Step as Answered};
use ironroot_api::pb::agent::{AttestAgentRequest, AttestAgentResponse};
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::permission_denied;
use ironroot_attest::node::tpm2::CHALLENGE_SECONDS;
use ironroot_shell::logging::clipped;
use ironroot_shell::telemetry::otlp::{self, SPANS};
use tokio::time::Instant;
use tonic::{Status, Streaming};
use tracing::{Instrument, Span, info, info_span};

use super::super::roles::{Role, RoleLimits};
use super::super::svid_api::svid_to_pb;
use super::super::{ServerState, ca_status, device_status, registry_status, store_status};
use crate::ca::AgentToSign;
use crate::facts::device::DeviceState;
use crate::node_attestation::{
    AttestationError, AttestedNode, Challenge, Circumstances, Evidence, Fault, Progress, Tpm2Refusal,
};
use crate::registry::{RegistryError, is_former_name};
use crate::rights::{Provenance, Visitor};

/// Longest a whole conversation may take: as long as an agent works on it.
const DEADLINE: Duration = Duration::from_secs(CHALLENGE_SECONDS.unsigned_abs());

/// The connection of whoever attests lasts as long as the conversation may.
const _: () = assert!(outlasts_a_conversation(Role::Stranger) && outlasts_a_conversation(Role::Holder));

/// Answers in the call itself: what is asked for is read when the answer before has been taken. Ends with the certificate or the
/// reason there is none.
pub(super) fn converse(
    server: Arc<ServerState>,
    visitor: Visitor,
    asked: Streaming<AttestAgentRequest>,
) -> BoxStream<'static, Result<AttestAgentResponse, Status>> {
    let (stage, deadline) = (Stage::Begin, Instant::now() + DEADLINE);
    let conversation = Conversation { server, visitor, device: None, asked, stage, deadline, span: Span::current() };
    let next = |conversation: Conversation| {
        let span = conversation.span.clone();
        conversation.next().instrument(span)
    };
    stream::unfold(conversation, next).boxed()
}

struct Conversation {
    server: Arc<ServerState>,
    visitor: Visitor,
    /// What it claims to be: SHA-256 of its endorsement key.
    device: Option<[u8; 32]>,
    asked: Streaming<AttestAgentRequest>,
    stage: Stage,
    deadline: Instant,
    /// Of the call, which the conversation outlasts.
    span: Span,
}

/// What comes next.
enum Stage {
    Begin,
    Challenged(Challenge),
    Over,
}

impl Conversation {
    /// The next answer; what follows it, if anything does.
    async fn next(mut self) -> Option<(Result<AttestAgentResponse, Status>, Self)> {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let deadline = self.deadline;
        let step = async {
            match stage {
                Stage::Begin => Some(self.begin().await),
                Stage::Challenged(challenge) => Some(self.complete(challenge).await),
                Stage::Over => None,
            }
        };
        let answer = tokio::time::timeout_at(deadline, step).await;
        let answer = answer.unwrap_or_else(|_| Some(Err(Status::deadline_exceeded("attestation took too long"))))?;
        let refused = |status: Status| {
            otlp::answered(&self.span, status.code());
            info!(target: SPANS, why = %clipped(status.message()), "agent refused");
            self.server.audit.attestation_refused(self.visitor.caller(), self.device.as_ref(), status)
        };
        Some((answer.map_err(refused), self))
    }

    async fn begin(&mut self) -> Result<AttestAgentResponse, Status> {
        let params = self.params().await?;
        let data = params.data.ok_or_else(|| Status::invalid_argument("missing attestation data"))?;
        let csr = params.params.ok_or_else(|| Status::invalid_argument("missing X509-SVID parameters"))?.csr;
        if data.r#type.is_empty() {
            return Err(Status::invalid_argument("missing attestation data type"));
        }
        let attestation = &self.server.node_attestation;
        let evidence = attestation.read(&data.r#type, &data.payload).map_err(attestation_status);
        self.device = evidence.as_ref().ok().and_then(Evidence::device);
        let known = evidence.as_ref().ok().and_then(|evidence| self.server.known(evidence));
        // What cannot be read counts against its address too. A CSR's signature is verified only for who has the right to a try.
        //= TPM-39 TPM 2.0 Part 1, Credential Protection: "attestations are limited by their source before any is made"
        self.server.limits.attestation(self.visitor.caller().address(), known).await?;
        let evidence = evidence?;
        self.look_for_device().await?;
        let csr = Csr::parse(&csr).map_err(|e| Status::invalid_argument(format!("failed to parse CSR: {e}")))?;
        let own_authorities = self.server.ca.bundle().borrow().untainted_authorities();
        let (now_unix, address) = (self.server.now_unix(), self.visitor.caller().address());
        let is_through_banned_agent = |serial: &str| self.server.registry.is_through_banned_agent(serial);
        let provenance = Provenance { own: &self.server.own, is_through_banned_agent: &is_through_banned_agent };
        let at = Circumstances { now_unix, address, own_authorities: &own_authorities, provenance };
        let begun = attestation.begin(evidence, csr, &at).await;
        self.go_on(begun.map_err(attestation_status)?).await
    }

    /// Has memory take in what other servers have written, if it does not have the device for enrolled: one may have enrolled it, or let it
    /// in again. An agent that is told for certain that its device is unknown forgets what it has.
    async fn look_for_device(&self) -> Result<(), Status> {
        let Some(ek_sha256) = self.device else { return Ok(()) };
        let look = self.server.look(self.visitor.caller());
        match self.server.devices.device(&ek_sha256).map(|known| known.state) {
            Some(DeviceState::Enrolled) => Ok(()),
            Some(DeviceState::Pending) | None => look.await,
            // A data store that is away softens no ban.
            Some(DeviceState::Banned) => {
                look.await.ok();
                Ok(())
            }
        }
    }

    async fn go_on(&mut self, progress: Progress) -> Result<AttestAgentResponse, Status> {
        match progress {
            Progress::Attested(node) => self.admit(*node).await,
            Progress::Challenge(challenge, bytes) => {
                self.stage = Stage::Challenged(challenge);
                Ok(AttestAgentResponse { step: Some(Answered::Challenge(bytes.into())) })
            }
        }
    }

    async fn complete(&mut self, challenge: Challenge) -> Result<AttestAgentResponse, Status> {
        let response = match self.message().await? {
            Asked::ChallengeResponse(response) => response,
            Asked::Params(_) => return Err(Status::invalid_argument("expected a challenge response")),
        };
        match self.server.node_attestation.answer(challenge, &response, self.server.now_unix()).await {
            Ok(progress) => self.go_on(progress).await,
            Err(AttestationError::Tpm2(refusal)) => Err(self.refuse(refusal).await),
            Err(error) => Err(attestation_status(error)),
        }
    }

    async fn params(&mut self) -> Result<Params, Status> {
        match self.message().await? {
            Asked::Params(params) => Ok(params),
            Asked::ChallengeResponse(_) => Err(Status::invalid_argument("missing params")),
        }
    }

    async fn message(&mut self) -> Result<Asked, Status> {
        let message = self.asked.message().await?.and_then(|m| m.step);
        message.ok_or_else(|| Status::invalid_argument("node ended the conversation"))
    }

    /// Why the chip is refused, once what that leaves behind is kept, with its audit line.
    async fn refuse(&self, refusal: Tpm2Refusal) -> Status {
        let (server, visitor) = (self.server.clone(), self.visitor.clone());
        let keep = async move {
            let kept = server.keep_trace(&visitor, &refusal).await;
            kept.err().unwrap_or_else(|| attestation_status(refusal.into()))
        };
        self.server.unbroken.run(keep).await.unwrap_or_else(|failed| failed)
    }

    /// Certificate, then rows, then answer: a ban or a later attestation that came in between refuses the rows, and a node
    /// that was cut off attests again and replaces them.
    async fn admit(&self, node: AttestedNode) -> Result<AttestAgentResponse, Status> {
        if self.server.refuse_banned(&node).is_err() {
            // What it is refused by may be gone; where that cannot be seen, it stands.
            self.server.look(self.visitor.caller()).await.ok();
            self.server.refuse_banned(&node)?;
        }
        self.server.refuse_forked_clock(&node, self.visitor.caller()).await?;
        let (server, visitor) = (self.server.clone(), self.visitor.clone());
        self.span.record("spiffe_id", node.id().as_str());
        let admitted = async move { server.admit(&node, &visitor).await }.in_current_span();
        let result = self.server.unbroken.run(admitted).await??;
        Ok(AttestAgentResponse { step: Some(Answered::Result(result)) })
    }
}

impl ServerState {
    async fn admit(&self, node: &AttestedNode, visitor: &Visitor) -> Result<Outcome, Status> {
        let now_unix = self.now_unix();
        let signing = info_span!(target: SPANS, "sign agent's X509-SVID");
        let signed = self.ca.sign_agent_svid(AgentToSign::attested(node), now_unix).instrument(signing).await;
        let svid = signed.map_err(ca_status)?;
        let stored = self.registry.attest_agent(node, (&svid.serial, svid.not_after_unix), now_unix).await;
        let former = stored.map_err(registry_status)?;
        self.audit.done(visitor.caller(), "AttestAgent", format_args!("{} serial {}", node.id(), svid.serial));
        if let Some(former) = former {
            let told = format_args!("{} was {former}, which is gone: agent_path_template is another one", node.id());
            self.audit.done(visitor.caller(), "AttestAgent", told);
        }
        let (spiffe_id, attestation_type) = (node.id(), node.attestation_type());
        info!(target: SPANS, %spiffe_id, serial = svid.serial, attestation_type, "agent attested");
        info!(%spiffe_id, serial = svid.serial, attestation_type, "agent attested");
        Ok(Outcome { svid: Some(svid_to_pb(&svid, node.id(), "")), reattestable: node.can_reattest() })
    }

    /// What a refused chip leaves in the data store: that it waits for approval, what it has booted, or that it contradicted itself.
    async fn keep_trace(&self, visitor: &Visitor, refusal: &Tpm2Refusal) -> Result<(), Status> {
        let caller = visitor.caller();
        match refusal {
            Tpm2Refusal::ApprovalPending { ek_sha256, chip } => {
                if self.devices.record_pending(chip, self.now_unix()).await.map_err(device_status)? {
                    self.audit.done(caller, "AttestAgent", format_args!("device {ek_sha256} waits for approval"));
                }
            }
            Tpm2Refusal::BootPolicy { ek_sha256, device } => {
                let evicted = self.devices.note_refused_boot(device, self.now_unix()).await.map_err(device_status)?;
                if let Some(agent) = evicted {
                    let told = format_args!("device {ek_sha256} has booted what no policy allows: {agent} evicted");
                    self.audit.done(caller, "AttestAgent", told);
                }
            }
            Tpm2Refusal::WeakChip { ek_sha256, faults, device } => {
                let evicted = self.devices.note_refused_boot(device, self.now_unix()).await.map_err(device_status)?;
                if let Some(agent) = evicted {
                    let told =
                        format_args!("device {ek_sha256} has a chip with a known fault ({faults}): {agent} evicted");
                    self.audit.done(caller, "AttestAgent", told);
                }
            }
            Tpm2Refusal::Contradiction { chip, .. } => self.note_contradiction(caller, chip).await,
            Tpm2Refusal::Evidence(_) | Tpm2Refusal::NotAdmitted(_) => {}
        }
        Ok(())
    }

    /// Before anything is signed. The change that stores the agent looks once more.
    fn refuse_banned(&self, node: &AttestedNode) -> Result<(), Status> {
        let of_its_certificate =
            node.certificate_sha256().and_then(|sha256| self.registry.agent_with_certificate(&sha256));
        if node.is_first_use() && self.registry.agent(node.id()).is_some_and(|known| !known.banned) {
            return Err(registry_status(RegistryError::AlreadyAttested));
        }
        let renamed = node.other_ids().into_iter().filter_map(|id| self.registry.agent(id));
        for known in self.registry.agent(node.id()).into_iter().chain(of_its_certificate).chain(renamed) {
            if known.banned {
                let message = format!("failed to attest: agent {} is banned", known.spiffe_id);
                return Err(permission_denied(Reason::AgentBanned, &message));
            }
            if known.spiffe_id != *node.id() && !is_former_name(&known, node) {
                return Err(registry_status(RegistryError::CertificateTaken { agent: known.spiffe_id.clone() }));
            }
        }
        Ok(())
    }

    /// The device that the evidence claims to be of, if it was here before: it has a rate of its own, whatever address it shares.
    /// Its endorsement key's hash, or its certificate's.
    fn known(&self, evidence: &Evidence<'_>) -> Option<[u8; 32]> {
        let device = evidence.device().filter(|ek| self.devices.device(ek).is_some());
        let attested = |certificate: &[u8; 32]| self.registry.knows_certificate(certificate);
        device.or_else(|| evidence.certificate_sha256().filter(attested))
    }
}

const fn outlasts_a_conversation(role: Role) -> bool {
    match role.limits().connection_age {
        Some(age) => age.as_secs() + RoleLimits::GRACE.as_secs() >= DEADLINE.as_secs(),
        None => true,
    }
}

/// Whose fault decides the code: the node's evidence, an operator's decision, or ours.
fn attestation_status(error: AttestationError) -> Status {
    let message = format!("failed to attest: {error}");
    match error.fault() {
        Fault::Type => Status::failed_precondition(message),
        Fault::Message => Status::invalid_argument(message),
        Fault::Node => Status::permission_denied(message),
        Fault::Unknown => permission_denied(Reason::AgentNotAttested, &message),
        Fault::Banned => permission_denied(Reason::AgentBanned, &message),
        Fault::Server => Status::unavailable(message),
        Fault::Store(cause) => store_status(cause),
    }
}
