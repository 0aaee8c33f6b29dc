//! The agent's own certificate: attested, renewed, lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::agent::{AgentX509svidParams, RenewAgentRequest};
use ironroot_api::pb::types::X509svid;
use ironroot_shell::describe;
use tracing::{info, warn};
use webpki::KeyUsage;

use super::schedule::{overdue, renewal_in, unit};
use super::{Agent, Denial, REFUSED_PAUSE, Standing, SyncError, Synchronizer, read_bundle};
use crate::agent_key::AgentKey;
use crate::agent_record::AgentRecord;
use crate::config::Bootstrap;
use crate::node_attestation::attest;
use crate::server_answers::{AgentSvid, AnswerRefusal, TrustBundle, agent_svid};
use crate::server_channel::{Channel, Doubt, MAX_ANSWER_BYTES, RPC_DEADLINE, within};
use crate::trusted_time::{Moment, TimeRecord};

impl Synchronizer {
    /// Attests if there is no valid certificate; replaces one that is due. A replacement that fails is only an error when
    /// the server says that the current certificate is worth nothing: otherwise the turn goes on with it.
    pub(super) async fn ensure_certificate(&mut self) -> Result<(), SyncError> {
        let moment = self.parts.time.moment();
        let Some(agent) = self.agent.as_ref().filter(|agent| moment.remaining(&agent.svid.lifetime) > 0) else {
            return self.attest().await;
        };
        if !agent.is_due(Instant::now(), &moment) {
            return Ok(());
        }
        let attests = agent.reattestable || agent.refused || self.is_ended_in_all_likelihood(&agent.svid, &moment);
        let replaced = if attests { self.attest().await } else { self.renew().await };
        match replaced {
            // This one is the turn's to decide: it may be an eviction.
            Err(error) if error.denial() == Some(Denial::NotAttested) => Err(error),
            Err(error) if error.denial() == Some(Denial::Reattest) && !matches!(error, SyncError::Attestation(_)) => {
                warn!(error = %describe(&error), server = self.parts.server.address(), "the server wants this agent to attest again");
                self.attest().await
            }
            Err(error) if error.denial().is_none() => {
                warn!(error = %describe(&error), server = self.parts.server.address(), "the agent's certificate could not be replaced yet");
                let pause = self.pause_after(&error);
                self.agent.iter_mut().for_each(|agent| agent.postpone(pause));
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// An agent that can only renew tries that first, and every other time whether it was given a new token meanwhile.
    fn is_ended_in_all_likelihood(&self, svid: &AgentSvid, moment: &Moment) -> bool {
        svid.lifetime.span().not_after <= moment.estimate() && !self.failures.is_multiple_of(2)
    }

    /// The server no longer takes the certificate. It is kept all the same: an agent that cannot attest again has no other,
    /// and what a server forgot it may remember, such as after a restored database.
    pub(super) fn certificate_refused(&mut self) {
        self.agent.iter_mut().for_each(|agent| (agent.due, agent.refused) = (Instant::now(), true));
    }

    pub(super) fn is_reattestable(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.reattestable)
    }

    /// The certificate's authority is tainted or gone.
    pub(super) fn rotate_certificate_now(&mut self) {
        self.agent.iter_mut().for_each(|agent| agent.due = Instant::now());
    }

    pub(super) fn agent_is_untrusted(&self, bundle: &TrustBundle) -> bool {
        let moment = self.parts.time.moment();
        let usage = KeyUsage::client_auth();
        // Its time is judged elsewhere; here only who signed it counts.
        let is_trusted = |svid: &AgentSvid| {
            let at = svid.lifetime.span().nearest(moment.estimate());
            at.is_some_and(|at| bundle.untainted_anchors().verify(&svid.chain[0], &svid.chain[1..], usage, at).is_ok())
        };
        self.agent.as_ref().is_some_and(|agent| !is_trusted(&agent.svid))
    }

    /// The channel over which the agent is known. A server whose certificate has ended by this device's time first proves
    /// that its CA is alive.
    pub(super) async fn trusted_channel(&mut self) -> Result<Channel, SyncError> {
        match self.mutual_channel().await {
            Err(error) if error.is_doubt() => {
                warn!(error = %describe(&error), server = self.parts.server.address(), "asking the server for a fresh signature");
                // One that can only renew tries every other time whether it was given a new token meanwhile.
                if self.is_reattestable() || !self.failures.is_multiple_of(2) {
                    self.attest().await?;
                } else {
                    let channel = self.dial(Doubt::Heard).await?;
                    self.renew_over(channel).await?;
                }
                self.mutual_channel().await
            }
            channel => channel,
        }
    }

    async fn mutual_channel(&mut self) -> Result<Channel, SyncError> {
        if let Some(channel) = &self.channel {
            return Ok(channel.clone());
        }
        let channel = self.dial(Doubt::Refused).await?;
        Ok(self.channel.insert(channel).clone())
    }

    async fn dial(&self, doubt: Doubt) -> Result<Channel, SyncError> {
        let (Some(agent), Some(key)) = (&self.agent, self.parts.keys.current()) else {
            return Err(SyncError::NoCertificate);
        };
        Ok(self.parts.server.mutual(self.anchors.clone(), doubt, &agent.svid, key).await?)
    }

    pub(super) async fn attest(&mut self) -> Result<(), SyncError> {
        let known = self.known_bundle()?;
        let channel = match self.bootstrap_channel(known.as_ref(), Doubt::Refused).await {
            Ok(channel) => {
                self.adopt_bundle(self.fetch_bundle(channel.clone()).await?)?;
                channel
            }
            // Nothing it says counts, its bundle neither, before what we know has verified a fresh signature of it.
            Err(error) if error.is_doubt() => {
                warn!(error = %describe(&error), server = self.parts.server.address(), "asking the server for a fresh signature");
                let channel = self.bootstrap_channel(known.as_ref(), Doubt::Heard).await?;
                if let Some(known) = known.filter(|_| self.bundle.is_none()) {
                    self.adopt_bundle(known)?;
                }
                channel
            }
            Err(error) => return Err(error),
        };
        let parts = &mut self.parts;
        let attested = attest(channel, &parts.attestor, &mut parts.keys, &parts.trust_domain).await?;
        let svid = self.checked(&attested.svid, &attested.key)?;
        info!(spiffe_id = %svid.spiffe_id, reattestable = attested.reattestable, "agent attested");
        (self.standing, self.wipe_owed) = (Standing::Good, false);
        self.take_up(svid, attested.reattestable).await
    }

    async fn renew(&mut self) -> Result<(), SyncError> {
        let channel = self.mutual_channel().await?;
        self.renew_over(channel).await
    }

    async fn renew_over(&mut self, channel: Channel) -> Result<(), SyncError> {
        let key = self.parts.keys.prepare().await?;
        let csr = key.certificate_request().await?.into();
        let request = RenewAgentRequest { params: Some(AgentX509svidParams { csr }) };
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
        let moment = self.parts.time.moment();
        let remaining = moment.remaining(&svid.lifetime);
        self.agent = Some(Agent::new(svid, reattestable, remaining, &moment));
        self.channel = None;
        self.changes.any = true;
        if !reattestable {
            self.changes.must_not_be_lost = true;
            self.keep(false).await;
        }
        Ok(())
    }

    /// What proves the server at a first contact: the last good bundle. After a long absence every authority may have been
    /// replaced since, and the operator may have placed the new ones: then the last good and the configured bundle in turns,
    /// if that is the newer one. An older one would bring back authorities that were revoked. `None` for an agent that knows
    /// no bundle at all, and was told to believe whoever answers.
    fn known_bundle(&self) -> Result<Option<TrustBundle>, SyncError> {
        let (path, format) = match &self.parts.bootstrap {
            Bootstrap::TrustBundle { path, format } => (path, *format),
            Bootstrap::Insecure => return Ok(self.bundle.clone()),
        };
        let read = || {
            let bundle = read_bundle(path, format, &self.parts.trust_domain);
            bundle.map_err(|source| SyncError::Bootstrap { path: path.clone(), source })
        };
        let Some(held) = &self.bundle else { return read().map(Some) };
        if self.failures.is_multiple_of(2) {
            return Ok(Some(held.clone()));
        }
        Ok(Some(read().ok().filter(|configured| configured.is_newer_than(held)).unwrap_or_else(|| held.clone())))
    }

    /// A channel without a certificate of our own.
    async fn bootstrap_channel(&self, known: Option<&TrustBundle>, doubt: Doubt) -> Result<Channel, SyncError> {
        match known {
            Some(bundle) => Ok(self.parts.server.bootstrap(Arc::clone(bundle.anchors()), doubt).await?),
            None => Ok(self.parts.server.insecure_bootstrap().await?),
        }
    }

    /// What is kept of the agent itself.
    pub(super) fn record(&self, bundle: &TrustBundle, time: TimeRecord, moment: &Moment) -> AgentRecord {
        let agent = self.agent.as_ref();
        AgentRecord {
            chain: agent.map(|agent| agent.svid.chain.iter().map(|der| der.to_vec()).collect()).unwrap_or_default(),
            reattestable: agent.is_some_and(|agent| agent.reattestable),
            authorities: bundle.tainted_authorities().map(|(der, tainted)| (der.to_vec(), tainted)).collect(),
            left: agent.map(|agent| moment.left(&agent.svid.lifetime)),
            time: Some(time),
        }
    }
}

impl Agent {
    /// With a certificate of which `remaining` seconds count for the schedule.
    pub(super) fn new(svid: AgentSvid, reattestable: bool, remaining: i64, moment: &Moment) -> Self {
        let now = Instant::now();
        let due = now + renewal_in(moment.remaining(&svid.lifetime), remaining, unit());
        let overdue = overdue(moment.end(&svid.lifetime), remaining);
        Self { svid, reattestable, due, overdue, asked: None, refused: false }
    }

    /// Whether it is to be replaced: by the schedule, or because now lies outside of its validity, as far as this device
    /// knows, and that was not tried a moment ago.
    fn is_due(&self, now: Instant, moment: &Moment) -> bool {
        let asked_lately = self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < REFUSED_PAUSE);
        let is_out_of_time = !asked_lately && moment.is_out_of_time(self.svid.lifetime.span());
        self.due <= now || self.overdue <= moment.own() || is_out_of_time
    }

    pub(super) fn postpone(&mut self, pause: Duration) {
        let now = Instant::now();
        (self.due, self.overdue, self.asked) = (now + pause, i64::MAX, Some(now));
    }
}
