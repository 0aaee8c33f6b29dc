//! The conversation with AttestAgent: proof in, agent certificate out.
//!
//! Nothing is believed here: the caller verifies the certificate against the trust bundle and the key that was asked for.

mod endorsement_record;
mod tpm2;

use std::path::PathBuf;
use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::agent::attest_agent_request::{Params, Step};
use ironroot_api::pb::agent::{AgentX509svidParams, AttestAgentRequest, attest_agent_response};
use ironroot_api::pb::types::{AttestationData, X509svid};
use ironroot_attest::node::tpm2::{ATTESTATION_TYPE, CHALLENGE_SECONDS};
use ironroot_attest::tpm::{Tpm, TpmError};
use ironroot_shell::command_line::code_name;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::agent_key::{AgentKey, KeyError, KeyStore};
use crate::config::JoinToken;
use crate::server_channel::{Channel, MAX_ANSWER_BYTES, within};
pub use endorsement_record::remembered;
use tpm2::Prover;

/// Longest attestation: as long as the server waits. Slow chips make their RSA keys within minutes, a rate limit on the server
/// takes a second for each device behind the same address.
const ATTESTATION_DEADLINE: Duration = Duration::from_secs(CHALLENGE_SECONDS.unsigned_abs());
/// Challenges answered at most; every type known needs one.
const MAX_CHALLENGES: usize = 8;
const JOIN_TOKEN: &str = "join_token";

/// Why attestation failed.
#[derive(Debug, Error)]
pub enum AttestationError {
    /// No way to attest is left: the token is used up or was never given.
    #[error("there is no join token to attest with; create one on the server and configure it")]
    NoToken,
    /// The server refused, or the connection broke.
    #[error("the server refused attestation: {}: {}", code_name(.0.code()), .0.message())]
    Server(#[source] Status),
    /// The chip did not do its part.
    #[error("the TPM could not {0}")]
    Tpm(&'static str, #[source] TpmError),
    /// The agent's key could not be made or kept.
    #[error("the agent's key could not be used")]
    Key(#[from] KeyError),
    /// The server's challenge does not parse.
    #[error("the server's challenge is unusable")]
    Challenge(#[source] ironroot_attest::node::Refusal),
    /// The server does not follow the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
}

/// How this device proves who it is.
#[derive(Clone)]
pub enum Attestor {
    /// With a single-use token, if there is one.
    JoinToken(Option<JoinToken>),
    /// By its TPM: the endorsement key says which device it is, a quote what was started on it.
    Tpm2 {
        /// The thread that owns the chip, shared with the sealed cache and the agent's key.
        tpm: Tpm,
        /// Where it is noted which endorsement key the device is known by.
        directory: PathBuf,
    },
}

/// What the server gave, not verified yet.
#[derive(Debug)]
pub struct Attested {
    /// The agent's certificate.
    pub svid: X509svid,
    /// Whether the agent may attest again; if so it never renews.
    pub reattestable: bool,
    /// The key the certificate was asked for.
    pub key: AgentKey,
}

/// Attests over `channel` with a fresh key.
pub async fn attest(
    channel: Channel,
    attestor: &Attestor,
    keys: &mut KeyStore,
    trust_domain: &TrustDomain,
) -> Result<Attested, AttestationError> {
    within_deadline(async {
        let (proof, data) = match attestor {
            Attestor::JoinToken(None) => return Err(AttestationError::NoToken),
            Attestor::JoinToken(Some(token)) => (None, data(JOIN_TOKEN, token.expose().as_bytes())),
            Attestor::Tpm2 { tpm, .. } => {
                let prover = Prover::new(tpm.clone(), keys, trust_domain.as_str()).await?;
                let evidence = data(ATTESTATION_TYPE, &prover.evidence());
                (Some(prover), evidence)
            }
        };
        let key = keys.prepare().await?;
        let result = converse(channel, data, proof.as_ref(), &key).await;
        if matches!(&result, Err(AttestationError::Tpm(_, TpmError::ForeignKey(_) | TpmError::ForeignParent))) {
            keys.forget_attestation_key();
        }
        let (svid, reattestable) = result?;
        if let (Attestor::Tpm2 { tpm, directory }, Some(prover)) = (attestor, &proof) {
            endorsement_record::remember(tpm, directory, prover.identity()).await;
        }
        Ok(Attested { svid, reattestable, key })
    })
    .await
}

async fn converse(
    channel: Channel,
    data: AttestationData,
    prover: Option<&Prover>,
    key: &AgentKey,
) -> Result<(X509svid, bool), AttestationError> {
    let csr = key.certificate_request().await?.into();
    let params = Params { data: Some(data), params: Some(AgentX509svidParams { csr }) };
    // One message is under way at a time: each is the answer to a challenge.
    let (requests, stream) = mpsc::channel(1);
    send(&requests, Step::Params(params)).await?;
    let mut client = AgentClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let answers = client.attest_agent(ReceiverStream::new(stream)).await;
    let mut answers = answers.map_err(AttestationError::Server)?.into_inner();
    for _ in 0..=MAX_CHALLENGES {
        let answer = answers.message().await.map_err(AttestationError::Server)?;
        match answer.and_then(|answer| answer.step) {
            Some(attest_agent_response::Step::Result(result)) => {
                let svid = result.svid.ok_or(AttestationError::Protocol("a result without certificate"))?;
                return Ok((svid, result.reattestable));
            }
            Some(attest_agent_response::Step::Challenge(challenge)) => {
                let prover = prover.ok_or(AttestationError::Protocol("a challenge to a join token"))?;
                let response = prover.respond(&challenge, key).await?;
                send(&requests, Step::ChallengeResponse(response.into())).await?;
            }
            None => return Err(AttestationError::Protocol("it ended the conversation without a result")),
        }
    }
    Err(AttestationError::Protocol("it never stops challenging"))
}

async fn send(requests: &mpsc::Sender<AttestAgentRequest>, step: Step) -> Result<(), AttestationError> {
    let sent = requests.send(AttestAgentRequest { step: Some(step) }).await;
    sent.map_err(|_| AttestationError::Protocol("it closed its ear"))
}

fn data(kind: &str, payload: &[u8]) -> AttestationData {
    AttestationData { r#type: kind.to_owned(), payload: payload.to_vec().into() }
}

async fn within_deadline<T>(
    attestation: impl Future<Output = Result<T, AttestationError>>,
) -> Result<T, AttestationError> {
    let outcome = within(ATTESTATION_DEADLINE, async { Ok(attestation.await) }).await;
    outcome.map_err(AttestationError::Server)?
}
