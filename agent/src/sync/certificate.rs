//! The agent's own certificate: attested, renewed, lost.

use std::sync::Arc;
use std::time::Instant;

use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::agent::{AgentX509svidParams, RenewAgentRequest};
use ironroot_api::pb::types::X509svid;
use ironroot_shell::describe;
use ironroot_shell::telemetry::otlp::{self, SPANS};
use tracing::field::Empty;
use tracing::{Instrument, Span, info, info_span, warn};

use super::introduction::Introduction;
use super::standing::{Agent, Standing};
use super::{Denial, REFUSED_PAUSE, SyncError, Synchronizer};
use crate::agent_key::{AgentKey, Keep};
use crate::agent_record::AgentRecord;
use crate::node_attestation::{AttestationError, attest};
use crate::server_answers::{AgentSvid, AnswerRefusal, TrustBundle, agent_svid};
use crate::server_channel::{Channel, Doubt, MAX_ANSWER_BYTES, RPC_DEADLINE, within};
use crate::trusted_time::{Moment, TimeRecord, boot_id};

impl Synchronizer {
    /// Attests if there is no valid certificate; replaces one that is due. A replacement that fails is only an error when
    /// the server says that the current certificate is worth nothing: otherwise the turn goes on with it.
    pub(super) async fn ensure_certificate(&mut self) -> Result<(), SyncError> {
        let moment = self.parts.time.moment();
        let valid = self.standing.agent().filter(|agent| moment.remaining(&agent.svid.lifetime) > 0);
        let Some(agent) = valid else { return self.attest().await };
        if !agent.is_due(Instant::now(), &moment) {
            return Ok(());
        }
        let is_refused = matches!(self.standing, Standing::Refused(_));
        let attests = agent.reattestable || is_refused || self.is_ended_in_all_likelihood(&agent.svid, &moment);
        let replaced = if attests { self.attest().await } else { self.renew().await };
        match replaced {
            // This one is the turn's to decide: it may be an eviction. An attestation that is refused is none while the server takes the
            // certificate.
            Err(error) if error.denial() == Some(Denial::NotAttested) && !error.is_of_an_attestation() => Err(error),
            Err(error) if error.denial() == Some(Denial::Reattest) && !error.is_of_an_attestation() => {
                warn!(error = %describe(&error), server = self.parts.server.address(), "the server wants this agent to attest again");
                self.attest().await
            }
            Err(error) if error.denial() == Some(Denial::NotAttested) || error.denial().is_none() => {
                warn!(error = %describe(&error), server = self.parts.server.address(), "the agent's certificate could not be replaced yet");
                let pause = self.pause_after(&error);
                self.standing.agent_mut().into_iter().for_each(|agent| agent.postpone(pause, Instant::now()));
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// An agent that can only renew tries that first, and every other time whether it was given a new token meanwhile.
    fn is_ended_in_all_likelihood(&self, svid: &AgentSvid, moment: &Moment) -> bool {
        svid.lifetime.span().not_after <= moment.estimate() && !self.failures.is_multiple_of(2)
    }

    /// After the bundle changed: another certificate is due at once if this one's authority is tainted or gone.
    pub(super) fn replace_certificate_if_untrusted(&mut self, bundle: &TrustBundle) {
        let moment = self.parts.time.moment();
        let untrusted = |agent: &&mut Agent| !agent.svid.is_signed_by(bundle.untainted_anchors(), &moment);
        let untrusted = self.standing.agent_mut().filter(untrusted);
        untrusted.into_iter().for_each(|agent| {
            info!("the agent's certificate is signed by an authority that is tainted or gone: it is replaced now");
            agent.replace_now(Instant::now());
        });
    }

    /// The channel over which the agent is known. A server whose certificate has ended by this device's time first proves
    /// that its CA is alive. At one that the bundle does not prove the agent attests anew, if the operator has placed a newer bundle
    /// that does: its root was lost, and there is another.
    pub(super) async fn trusted_channel(&mut self) -> Result<Channel, SyncError> {
        match self.mutual_channel().await {
            Err(error) if error.is_doubt() => {
                warn!(error = %describe(&error), server = self.parts.server.address(), "asking the server for a fresh signature");
                // One that can only renew tries every other time whether it was given a new token meanwhile.
                if self.standing.is_reattestable() || !self.failures.is_multiple_of(2) {
                    self.attest().await?;
                } else {
                    let channel = self.dial(Doubt::Heard).await?;
                    self.renew_over(channel).await?;
                }
                self.mutual_channel().await
            }
            Err(error) if error.is_disbelief() => {
                self.disbelieve();
                let Some(placed) = self.placed_bundle().await else { return Err(error) };
                warn!(error = %describe(&error), server = self.parts.server.address(), "another trust bundle is in place: attesting at the server that it proves");
                self.attest_by(Some(Introduction::Placed(placed))).await?;
                self.mutual_channel().await
            }
            channel => channel,
        }
    }

    async fn mutual_channel(&mut self) -> Result<Channel, SyncError> {
        let open = self.parts.link.borrow().clone();
        if let Some(channel) = open {
            return Ok(channel);
        }
        let channel = self.dial(Doubt::Refused).await?;
        self.believe();
        self.parts.link.send_replace(Some(channel.clone()));
        Ok(channel)
    }

    async fn dial(&self, doubt: Doubt) -> Result<Channel, SyncError> {
        let (Some(agent), Some(key)) = (self.standing.agent(), self.parts.keys.current()) else {
            return Err(SyncError::NoCertificate);
        };
        Ok(self.parts.server.mutual(self.anchors.clone(), doubt, &agent.svid.chain, key).await?)
    }

    pub(super) async fn attest(&mut self) -> Result<(), SyncError> {
        self.attest_by(None).await
    }

    /// The same at a server that `introduction` proves, or what proves it by itself.
    async fn attest_by(&mut self, introduction: Option<Introduction>) -> Result<(), SyncError> {
        let began = Instant::now();
        let (attestor, server) = (self.parts.attestor.name(), self.parts.server.address());
        let span = info_span!(target: SPANS, "attest", attestor, server, spiffe_id = Empty, error = Empty);
        let attested = self.try_to_attest(introduction).instrument(span.clone()).await;
        otlp::done(&span, &attested);
        self.parts.counted.attested.done(&attested, began.elapsed());
        // The server takes a connection of before a refusal of the chip for another device's: what follows dials anew. Where the device itself
        // has failed the server was shown nothing, and that connection may be the last that there is.
        if let Err(SyncError::Attestation(AttestationError::Server(_)) | SyncError::NotLetIn(_)) = attested {
            self.hang_up();
        }
        attested
    }

    async fn try_to_attest(&mut self, introduction: Option<Introduction>) -> Result<(), SyncError> {
        let introduction = match introduction {
            Some(introduction) => introduction,
            None => self.introduction().await?,
        };
        let is_placed = matches!(introduction, Introduction::Placed(_));
        let introduced = self.introduced(introduction).await;
        if !is_placed && introduced.as_ref().is_err_and(SyncError::is_disbelief) {
            self.disbelieve();
        }
        let (channel, successor) = introduced?;
        let parts = &mut self.parts;
        let attested = attest(channel, &parts.attestor, &mut parts.keys, &parts.trust_domain).await;
        let attested = attested.map_err(|error| match is_placed {
            true => SyncError::of_a_placed_server(error),
            false => SyncError::from(error),
        })?;
        let bundle = successor.clone().or_else(|| self.bundle.clone()).ok_or(SyncError::NoBundle)?;
        let svid = agent_svid(&attested.svid, attested.key.spki_der(), &bundle, &self.parts.time)?;
        successor.into_iter().for_each(|bundle| self.adopt_bundle(bundle));
        Span::current().record("spiffe_id", svid.spiffe_id.as_str());
        info!(spiffe_id = %svid.spiffe_id, reattestable = attested.reattestable, server = self.parts.server.address(), "agent attested");
        self.attested_boot = boot_id();
        self.believe();
        self.distrust.tell_if_in_vain(attested.reattestable);
        self.take_up(svid, attested.reattestable).await
    }

    async fn renew(&mut self) -> Result<(), SyncError> {
        let channel = self.mutual_channel().await?;
        self.renew_over(channel).await
    }

    async fn renew_over(&mut self, channel: Channel) -> Result<(), SyncError> {
        let began = Instant::now();
        let span = info_span!(target: SPANS, "renew", spiffe_id = Empty, error = Empty);
        let renewed = self.try_to_renew(channel).instrument(span.clone()).await;
        otlp::done(&span, &renewed);
        self.parts.counted.renewed.done(&renewed, began.elapsed());
        renewed
    }

    async fn try_to_renew(&mut self, channel: Channel) -> Result<(), SyncError> {
        let key = self.parts.keys.prepare(Keep::Surely).await?;
        let csr = key.certificate_request().await?.into();
        let request = RenewAgentRequest { params: Some(AgentX509svidParams { csr }) };
        let mut client = AgentClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = within(RPC_DEADLINE, client.renew_agent(request)).await?.into_inner();
        let svid = self.checked(&answer.svid.ok_or(AnswerRefusal::Missing("certificate"))?, &key)?;
        if let Some(agent) = self.standing.agent().filter(|agent| agent.svid.spiffe_id != svid.spiffe_id) {
            let (found, expected) = (svid.spiffe_id.to_string(), agent.svid.spiffe_id.to_string());
            return Err(AnswerRefusal::OtherId { found, expected }.into());
        }
        Span::current().record("spiffe_id", svid.spiffe_id.as_str());
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
        self.show_certificate(&svid);
        let moment = self.parts.time.moment();
        let remaining = moment.remaining(&svid.lifetime);
        let now = Instant::now();
        let agent =
            Agent::new(svid, reattestable, remaining, now, &moment).in_place_of(self.standing.agent(), now, &moment);
        self.standing = Standing::Attested(agent);
        self.postpone_if_untrusted(&moment);
        self.hang_up();
        self.changes.any = true;
        if !reattestable {
            self.changes.must_not_be_lost = true;
            self.keep(false).await;
        }
        Ok(())
    }

    /// From now on `svid`, whose key is the current one, is what brokers see of the agent.
    pub(super) fn show_certificate(&self, svid: &AgentSvid) {
        if let Some(key) = self.parts.keys.current() {
            self.parts.shown.show(svid, key);
        }
    }

    /// A server that signs with an authority that it calls tainted is asked again, and not at once.
    fn postpone_if_untrusted(&mut self, moment: &Moment) {
        let Some(bundle) = self.bundle.clone().filter(|bundle| bundle.has_tainted()) else { return };
        let untrusted = |agent: &&mut Agent| !agent.svid.is_signed_by(bundle.untainted_anchors(), moment);
        let untrusted = self.standing.agent_mut().filter(untrusted);
        untrusted.into_iter().for_each(|agent| agent.postpone(REFUSED_PAUSE, Instant::now()));
    }

    /// What is kept of the agent itself.
    pub(super) fn record(&self, bundle: Arc<TrustBundle>, time: TimeRecord, moment: &Moment) -> AgentRecord {
        let agent = self.standing.agent();
        AgentRecord {
            chain: agent.map(|agent| agent.svid.chain.iter().map(|der| der.to_vec()).collect()).unwrap_or_default(),
            reattestable: agent.is_some_and(|agent| agent.reattestable),
            bundle: Some(bundle),
            left: agent.map(|agent| moment.left(&agent.svid.lifetime)),
            time: Some(time),
            attested_boot: self.attested_boot.clone(),
            newest_authority: Some(self.newest_authority),
            disbelieved_since: self.distrust.to_keep(),
            local_authority: self.parts.local_authority.as_ref().and_then(|authority| authority.to_keep(moment)),
            local_jwt_key: self.parts.local_authority.as_ref().and_then(|own| own.jwt_key_to_keep(moment)),
        }
    }
}
