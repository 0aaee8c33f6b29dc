//! The agent's own certificate: attested, renewed, lost.

use std::sync::Arc;
use std::time::Instant;

use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::agent::{AgentX509svidParams, RenewAgentRequest};
use ironroot_api::pb::types::X509svid;
use tonic::transport::Channel;
use tracing::{info, warn};
use webpki::KeyUsage;

use super::schedule::{overdue_unix, renewal_in, unit};
use super::{Agent, Denial, SyncError, Synchronizer, chain, read_bundle};
use crate::agent_key::AgentKey;
use crate::agent_record::AgentRecord;
use crate::config::Bootstrap;
use crate::node_attestation::attest;
use crate::server_answers::{AgentSvid, AnswerRefusal, TrustBundle, agent_svid};
use crate::server_channel::{MAX_ANSWER_BYTES, RPC_DEADLINE, within};
use crate::trusted_time::TimeRecord;

impl Synchronizer {
    /// Attests if there is no valid certificate; replaces one that is due. A replacement that fails is only an error when
    /// the server says that the current certificate is worth nothing: otherwise the turn goes on with it.
    pub(super) async fn ensure_certificate(&mut self) -> Result<(), SyncError> {
        let now = self.parts.time.now_unix();
        let Some(agent) = self.agent.as_ref().filter(|agent| agent.svid.not_after_unix > now) else {
            return self.attest().await;
        };
        if agent.due > Instant::now() && agent.overdue_unix > now {
            return Ok(());
        }
        let replaced = if agent.reattestable || agent.refused { self.attest().await } else { self.renew().await };
        match replaced {
            Err(error) if error.denial() == Some(Denial::Reattest) && !matches!(error, SyncError::Attestation(_)) => {
                warn!(error = %chain(&error), "the server wants this agent to attest again");
                self.attest().await
            }
            Err(error) if error.denial().is_none() => {
                warn!(error = %chain(&error), "the agent's certificate could not be replaced yet");
                let pause = self.pause_after_failure();
                let later = |agent: &mut Agent| (agent.due, agent.overdue_unix) = (Instant::now() + pause, i64::MAX);
                self.agent.iter_mut().for_each(later);
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// The server no longer takes the certificate. It is kept all the same: an agent that cannot attest again has no other,
    /// and what a server forgot it may remember, such as after a restored database.
    pub(super) fn certificate_refused(&mut self) {
        self.agent.iter_mut().for_each(|agent| (agent.due, agent.refused) = (Instant::now(), true));
    }

    /// The certificate's authority is tainted or gone.
    pub(super) fn rotate_certificate_now(&mut self) {
        self.agent.iter_mut().for_each(|agent| agent.due = Instant::now());
    }

    pub(super) fn agent_is_untrusted(&self, bundle: &TrustBundle) -> bool {
        let now = self.parts.time.now_unix();
        let verify = |svid: &AgentSvid| {
            bundle.untainted_anchors().verify(&svid.chain[0], &svid.chain[1..], KeyUsage::client_auth(), now)
        };
        self.agent.as_ref().is_some_and(|agent| verify(&agent.svid).is_err())
    }

    /// The channel over which the agent is known.
    pub(super) async fn mutual_channel(&mut self) -> Result<Channel, SyncError> {
        if let Some(channel) = &self.channel {
            return Ok(channel.clone());
        }
        let (Some(agent), Some(key)) = (&self.agent, self.parts.keys.current()) else {
            return Err(SyncError::NoCertificate);
        };
        let channel = self.parts.server.mutual(self.anchors.clone(), &agent.svid, key).await?;
        Ok(self.channel.insert(channel).clone())
    }

    async fn attest(&mut self) -> Result<(), SyncError> {
        let channel = self.bootstrap_channel().await?;
        self.adopt_bundle(self.fetch_bundle(channel.clone()).await?)?;
        let parts = &mut self.parts;
        let attested = attest(channel, &parts.attestor, &mut parts.keys, &parts.trust_domain).await?;
        let svid = self.checked(&attested.svid, &attested.key)?;
        info!(spiffe_id = %svid.spiffe_id, reattestable = attested.reattestable, "agent attested");
        (self.banned, self.wipe_owed) = (false, false);
        self.take_up(svid, attested.reattestable).await
    }

    async fn renew(&mut self) -> Result<(), SyncError> {
        let key = self.parts.keys.prepare().await?;
        let csr = key.certificate_request().await?.into();
        let request = RenewAgentRequest { params: Some(AgentX509svidParams { csr }) };
        let channel = self.mutual_channel().await?;
        let mut client = AgentClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = within(RPC_DEADLINE, client.renew_agent(request)).await?.into_inner();
        let svid = self.checked(&answer.svid.ok_or(AnswerRefusal::Missing("certificate"))?, &key)?;
        if let Some(agent) = self.agent.as_ref().filter(|agent| agent.svid.spiffe_id != svid.spiffe_id) {
            let (found, expected) = (svid.spiffe_id.to_string(), agent.svid.spiffe_id.to_string());
            return Err(AnswerRefusal::OtherId { found, expected }.into());
        }
        info!(spiffe_id = %svid.spiffe_id, "agent certificate renewed");
        self.take_up(svid, false).await
    }

    fn checked(&self, svid: &X509svid, key: &AgentKey) -> Result<AgentSvid, SyncError> {
        let bundle = self.bundle.as_ref().ok_or(SyncError::NoBundle)?;
        Ok(agent_svid(svid, key.spki_der(), bundle, &self.parts.time)?)
    }

    /// From now on this is the agent's certificate. One that cannot be had again by attesting is kept before its first use:
    /// from then on the server takes no other, and the agent would be lost with it.
    async fn take_up(&mut self, svid: AgentSvid, reattestable: bool) -> Result<(), SyncError> {
        if !self.parts.keys.adopt(&svid.spki_der) {
            return Err(AnswerRefusal::OtherKey.into());
        }
        let remaining = svid.not_after_unix - self.parts.time.now_unix();
        let due = Instant::now() + renewal_in(remaining, remaining, unit());
        let overdue_unix = overdue_unix(svid.not_after_unix, remaining);
        self.agent = Some(Agent { svid, reattestable, due, overdue_unix, refused: false });
        self.channel = None;
        self.changes.any = true;
        if !reattestable {
            self.changes.must_not_be_lost = true;
            self.keep(false).await;
        }
        Ok(())
    }

    /// A channel without a certificate of our own. The server is proven by the last good bundle. After a long absence every
    /// authority may have been replaced since, and the operator may have placed the new ones: then by the last good and the
    /// configured bundle in turns, if that is the newer one. An older one would bring back authorities that were revoked.
    /// Only an agent that knows no bundle at all, and was told so, believes whoever answers.
    async fn bootstrap_channel(&self) -> Result<Channel, SyncError> {
        let server = &self.parts.server;
        let (path, format) = match &self.parts.bootstrap {
            Bootstrap::TrustBundle { path, format } => (path, *format),
            Bootstrap::Insecure if self.bundle.is_none() => return Ok(server.insecure_bootstrap().await?),
            Bootstrap::Insecure => return Ok(server.bootstrap(self.anchors.clone()).await?),
        };
        let configured = match &self.bundle {
            None => Some(read_bundle(path, format, &self.parts.trust_domain)?),
            Some(_) if self.failures.is_multiple_of(2) => None,
            Some(held) => {
                let configured = read_bundle(path, format, &self.parts.trust_domain).ok();
                configured.filter(|configured| configured.is_newer_than(held))
            }
        };
        let anchors = configured.map_or_else(|| self.anchors.clone(), |bundle| Arc::clone(bundle.anchors()));
        Ok(server.bootstrap(anchors).await?)
    }

    /// What is kept of the agent itself.
    pub(super) fn record(&self, bundle: &TrustBundle, time: TimeRecord) -> AgentRecord {
        let agent = self.agent.as_ref();
        AgentRecord {
            chain: agent.map(|agent| agent.svid.chain.iter().map(|der| der.to_vec()).collect()).unwrap_or_default(),
            reattestable: agent.is_some_and(|agent| agent.reattestable),
            authorities: bundle.tainted_authorities().map(|(der, tainted)| (der.to_vec(), tainted)).collect(),
            time: Some(time),
        }
    }
}
