//! The conversation with AttestAgent: proof in, agent certificate out.
//!
//! Nothing is believed here: the caller verifies the certificate against the trust bundle and the key that was asked for.

use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::agent::attest_agent_request::{Params, Step};
use ironroot_api::pb::agent::{AgentX509svidParams, AttestAgentRequest, attest_agent_response};
use ironroot_api::pb::types::X509svid;
use ironroot_attest::ima::MAX_PARTS;
use ironroot_attest::node::tpm2::CHALLENGE_SECONDS;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{AttestationError, Attestor, Proof};
use crate::agent_key::{AgentKey, KeyStore};
use crate::server_channel::{Channel, MAX_ANSWER_BYTES, within};

/// Longest attestation: as long as the server waits. Slow chips make their RSA keys within minutes, a rate limit on the server
/// takes a second for each device behind the same address.
const ATTESTATION_DEADLINE: Duration = Duration::from_secs(CHALLENGE_SECONDS.unsigned_abs());
/// Challenges answered at most; every type known needs one. Each may cost the chip seconds.
const MAX_CHALLENGES: usize = 8;
/// Parts of a list of measured files (IMA) shown at most: all of them from where it was thought to go on, and again from its start.
const MAX_PARTS_SHOWN: usize = 2 * MAX_PARTS;

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
        let mut proof = attestor.begin(keys, trust_domain).await?;
        let key = keys.prepare(attestor.keep()).await?;
        let mut result = converse(channel.clone(), &proof, &key).await;
        if result.as_ref().is_err_and(|error| proof.offers_less_after(error)) {
            result = converse(channel, &proof, &key).await;
        }
        proof.settle(result.as_ref().map(drop), keys).await;
        let (svid, reattestable) = result?;
        Ok(Attested { svid, reattestable, key })
    })
    .await
}

async fn converse(channel: Channel, proof: &Proof, key: &AgentKey) -> Result<(X509svid, bool), AttestationError> {
    let csr = key.certificate_request().await?.into();
    let params = Params { data: Some(proof.data()), params: Some(AgentX509svidParams { csr }) };
    // One message is under way at a time: each is the answer to a challenge.
    let (requests, stream) = mpsc::channel(1);
    send(&requests, Step::Params(params)).await?;
    let mut client = AgentClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let answers = client.attest_agent(ReceiverStream::new(stream)).await;
    let mut answers = answers.map_err(AttestationError::Server)?.into_inner();
    let mut left = Questions::default();
    loop {
        let answer = answers.message().await.map_err(AttestationError::Server)?;
        match answer.and_then(|answer| answer.step) {
            Some(attest_agent_response::Step::Result(result)) => {
                let svid = result.svid.ok_or(AttestationError::Protocol("a result without certificate"))?;
                return Ok((svid, result.reattestable));
            }
            Some(attest_agent_response::Step::Challenge(challenge)) => {
                left.take(proof.shows_files_for(&challenge))?;
                let response = proof.respond(&challenge, key).await?;
                send(&requests, Step::ChallengeResponse(response.into())).await?;
            }
            None => return Err(AttestationError::Protocol("it ended the conversation without a result")),
        }
    }
}

/// What a server may still ask.
struct Questions {
    challenges: usize,
    parts: usize,
}

impl Default for Questions {
    fn default() -> Self {
        Self { challenges: MAX_CHALLENGES, parts: MAX_PARTS_SHOWN }
    }
}

impl Questions {
    /// One of them. `is_for_files`: whether a part of a list answers it, and no chip.
    fn take(&mut self, is_for_files: bool) -> Result<(), AttestationError> {
        let left = if is_for_files { &mut self.parts } else { &mut self.challenges };
        *left = left.checked_sub(1).ok_or(AttestationError::Protocol("it never stops challenging"))?;
        Ok(())
    }
}

async fn send(requests: &mpsc::Sender<AttestAgentRequest>, step: Step) -> Result<(), AttestationError> {
    let sent = requests.send(AttestAgentRequest { step: Some(step) }).await;
    sent.map_err(|_| AttestationError::Protocol("it closed its ear"))
}

async fn within_deadline<T>(
    attestation: impl Future<Output = Result<T, AttestationError>>,
) -> Result<T, AttestationError> {
    let outcome = within(ATTESTATION_DEADLINE, async { Ok(attestation.await) }).await;
    outcome.map_err(AttestationError::Server)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_never_stops_asking_is_left_and_a_long_list_takes_no_challenge_away() {
        let mut left = Questions::default();
        assert!((0..MAX_PARTS_SHOWN).all(|_| left.take(true).is_ok()) && left.take(true).is_err());
        assert!((0..MAX_CHALLENGES).all(|_| left.take(false).is_ok()) && left.take(false).is_err());
    }
}
