//! A device with a chip in software, of which there can be thousands; its key and its request are made beforehand.

use ironroot_api::pb::agent::AttestAgentRequest;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::agent::attest_agent_request::{Params, Step as Asked};
use ironroot_api::pb::agent::attest_agent_response::Step as Answered;
use ironroot_attest::node::tpm2::{ATTESTATION_TYPE, Claim};
use ironroot_software_tpm::SoftwareNode;
use ironroot_text::hex::hex;
use rcgen::{KeyPair, PublicKeyData};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Credentials, ServerClient, csr, key, params};
use crate::deployment::TRUST_DOMAIN;

/// A device with a chip in software.
pub struct SoftwareDevice {
    /// The TPM in software that answers the server's challenge.
    pub node: SoftwareNode,
    key: KeyPair,
    csr: Vec<u8>,
}

impl SoftwareDevice {
    /// A chip with fresh keys.
    #[allow(clippy::new_without_default, reason = "a chip is made, with fresh keys")]
    pub fn new() -> Self {
        let (node, key) = (SoftwareNode::new(), key());
        Self { csr: csr(&key, &[]), node, key }
    }

    /// SHA-256 of the endorsement key's SubjectPublicKeyInfo, hex: the device's name in the registry.
    pub fn ek_sha256(&self) -> String {
        hex(&Claim::parse(&self.node.evidence()).expect("honest evidence").ek_sha256())
    }

    /// Attests over a connection of its own.
    pub async fn attest(&self, server: &ServerClient) -> Result<Credentials, Status> {
        let first = params(ATTESTATION_TYPE, self.node.evidence(), self.csr.clone());
        let spki = self.key.subject_public_key_info();
        converse(server, first, &self.key, |challenge| self.node.answer(challenge, TRUST_DOMAIN, &spki)).await
    }
}

/// One attestation over a connection of its own, of a device that answers challenges at once; `key`: that of the request.
pub async fn converse(
    server: &ServerClient,
    first: Params,
    key: &KeyPair,
    answer: impl Fn(&[u8]) -> Vec<u8>,
) -> Result<Credentials, Status> {
    let (ask, asked) = mpsc::channel(2);
    ask.try_send(AttestAgentRequest { step: Some(Asked::Params(first)) }).expect("room for the first message");
    let channel = server.dial(None).await.map_err(|error| Status::unavailable(error.to_string()))?;
    let answers = AgentClient::new(channel).attest_agent(ReceiverStream::new(asked)).await?;
    let mut answers = answers.into_inner();
    while let Some(answered) = answers.message().await? {
        match answered.step {
            Some(Answered::Result(result)) => {
                return Ok(Credentials::new(&result.svid.expect("a result has an SVID"), key));
            }
            Some(Answered::Challenge(challenge)) => {
                let step = Some(Asked::ChallengeResponse(answer(&challenge).into()));
                let _ = ask.send(AttestAgentRequest { step }).await;
            }
            None => panic!("an empty answer"),
        }
    }
    Err(Status::unknown("the server ended the conversation without a result"))
}
