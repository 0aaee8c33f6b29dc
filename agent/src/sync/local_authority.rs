//! The agent's own CA, in turns of the loop: it is had from the server, signs while that is away, and tells it afterwards.

use std::time::Instant;

use ironroot_api::SpiffeId;
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::issued::issued_client::IssuedClient;
use ironroot_api::pb::issued::{IssuedJwt, IssuedSvid, ReportIssuedRequest};
use ironroot_api::pb::svid::NewDownstreamX509caRequest;
use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_shell::describe;
use tonic::Code;
use tracing::{info, warn};

use super::ledger::{Held, Wanted};
use super::schedule::unit;
use super::svids::sign;
use super::{SyncError, Synchronizer};
use crate::agent_key::{AgentKey, SoftwareKey, WorkloadKeyKind};
use crate::agent_record::AgentRecord;
use crate::local_authority::{AuthorityError, Issued, LocalAuthority, Mandate, Minted, NoMandate, ToMint};
use crate::server_answers::{AnswerRefusal, WorkloadSvid, own_workload_svid};
use crate::server_channel::{Channel, Doubt, MAX_ANSWER_BYTES, RPC_DEADLINE, within};
use crate::trusted_time::{Moment, utc};

/// SVIDs that are signed before what is new is published: a slow chip takes 200 ms for each.
const MINTED_AT_ONCE: usize = 20;

impl Synchronizer {
    /// With a server at hand: reports what was signed, and has another CA if that is due. What fails is told, and tried again.
    pub(super) async fn tend_local_authority(&mut self, channel: Channel) {
        self.parts.local_tokens.send_replace(None);
        self.report_issued(channel.clone()).await;
        self.tend_ca(channel.clone()).await;
        self.tend_jwt_key(channel).await;
    }

    async fn tend_ca(&mut self, channel: Channel) {
        let moment = self.parts.time.moment();
        if !self.parts.local_authority.as_ref().is_some_and(|authority| authority.is_due(&moment)) {
            return;
        }
        let had = self.have_local_authority(channel).await;
        let Some(authority) = &mut self.parts.local_authority else { return };
        match had {
            Ok(()) => {
                self.changes.any = true;
                info!(
                    ends = authority.in_words(),
                    "this agent has a CA of its own for the time that its server is away"
                );
            }
            Err(error) => {
                authority.postpone(&self.parts.time.moment());
                let error = describe(&error);
                if authority.tell_of_ca(&error) {
                    warn!(error, "this agent has no new CA of its own");
                }
            }
        }
    }

    async fn have_local_authority(&mut self, channel: Channel) -> Result<(), AuthorityError> {
        let wanted = self.ledger.of_local_authority().ok_or(AuthorityError::NoEntry)?;
        let id = wanted.spiffe_id.clone();
        let (channel, _) = self.channel_as(wanted, channel).await?;
        if self.parts.local_authority.as_ref().is_some_and(LocalAuthority::must_be_kept_first) {
            self.keep_before_a_key_gives_way().await;
        }
        let (Some(bundle), Some(authority)) = (self.bundle.clone(), &mut self.parts.local_authority) else {
            return Err(AuthorityError::NoAuthority);
        };
        let asked = authority.ask().await?;
        let request =
            NewDownstreamX509caRequest { csr: asked.csr.clone().into(), preferred_ttl: authority.preferred_ttl() };
        let mut client = SvidClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = within(RPC_DEADLINE, client.new_downstream_x509ca(request)).await;
        let answer = answer.map_err(|status| AuthorityError::refused(status, id.as_str()))?.into_inner();
        authority.take(asked, &answer.ca_cert_chain, &id, &bundle, &self.parts.time).await
    }

    /// There are two places for keys: the next one takes that of the one before, and the record on the disk may name that one still.
    pub(super) async fn keep_before_a_key_gives_way(&mut self) {
        (self.changes.any, self.changes.key_at_stake) = (true, true);
        self.keep(false).await;
    }

    /// A channel with an SVID of the entry, whose key lives as long as the channel; and that SVID's serial number in decimal.
    pub(super) async fn channel_as(
        &self,
        wanted: Wanted,
        channel: Channel,
    ) -> Result<(Channel, String), AuthorityError> {
        let (svid, key) = self.svid_of(wanted, channel).await?;
        let leaf = svid.chain().iter().next().ok_or(AnswerRefusal::Missing("certificate"))?;
        let serial = Certificate::parse(&leaf).map_err(AnswerRefusal::from)?.serial_decimal();
        let dialled =
            self.parts.server.mutual(self.anchors.clone(), Doubt::Refused, svid.chain(), &AgentKey::from(key)).await;
        let channel = dialled.map_err(|error| AuthorityError::NoSvid(describe(&error)))?;
        Ok((channel, serial))
    }

    async fn svid_of(&self, wanted: Wanted, channel: Channel) -> Result<(WorkloadSvid, SoftwareKey), AuthorityError> {
        let no_svid = |error: &(dyn std::error::Error + 'static)| AuthorityError::NoSvid(describe(error));
        let bundle = self.bundle.clone().ok_or_else(|| no_svid(&SyncError::NoBundle))?;
        let asked = (vec![wanted], WorkloadKeyKind::EcP256);
        let signed = sign(channel, asked, &bundle, &self.parts.time).await.map_err(|error| no_svid(&error))?;
        let (_, svid) = signed.into_iter().next().ok_or(AuthorityError::NoAuthority)?;
        let svid = svid.map_err(|refusal| no_svid(&refusal))?;
        let key = SoftwareKey::parse_pkcs8(svid.key().pkcs8_der());
        Ok((svid, key.ok_or_else(|| no_svid(&AnswerRefusal::Key))?))
    }

    /// While the server is away: signs for entries whose SVIDs run out, as long as time and bounds allow it, and publishes them.
    pub(super) async fn mint_while_away(&mut self) {
        if !self.is_server_away || !self.standing.is_good() {
            return;
        }
        let Some(authority) = &self.parts.local_authority else { return };
        let (moment, default_ttl) = (self.parts.time.moment(), authority.default_ttl());
        let running_out = self.ledger.to_mint(Instant::now(), &moment);
        let wanted: Vec<_> = running_out.into_iter().map(|held| to_mint(held, default_ttl, &moment)).collect();
        for batch in wanted.chunks(MINTED_AT_ONCE) {
            match self.mint(batch).await {
                Ok(0) => {}
                Ok(_) => {
                    self.changes.any = true;
                    self.publish_anyway();
                }
                Err(why) => return self.tell_unsigned(&why),
            }
        }
    }

    /// How many of these were signed: those that outlast what is held.
    async fn mint(&mut self, batch: &[(ToMint, i64)]) -> Result<usize, Unsigned> {
        let (Some(bundle), Some(authority)) = (self.bundle.clone(), &mut self.parts.local_authority) else {
            return Ok(0);
        };
        let mandate = authority.mandate(&self.parts.time.moment(), self.synced_unix)?;
        let outlasts = |(wanted, left): &&(ToMint, i64)| outlasts(&mandate, wanted, *left);
        let wanted: Vec<ToMint> = batch.iter().filter(outlasts).map(|(wanted, _)| wanted.clone()).collect();
        let ids: Vec<SpiffeId> = wanted.iter().map(|wanted| wanted.spiffe_id.clone()).collect();
        if wanted.is_empty() {
            return Ok(0);
        }
        let minted = authority.mint(mandate, (wanted, self.parts.workload_keys)).await?;
        authority.tell_anew();
        let count = minted.len();
        for (minted, id) in minted.into_iter().zip(ids) {
            let chain = minted.chain.iter().map(Vec::as_slice);
            let svid = own_workload_svid(chain, &id, &minted.key, &bundle, &self.parts.time, mandate.now());
            self.take_own_svid(&minted, svid.map_err(AuthorityError::from)?);
        }
        Ok(count)
    }

    fn take_own_svid(&mut self, minted: &Minted, svid: WorkloadSvid) {
        let Issued { entry_id, spiffe_id, serial, expires_at, .. } = &minted.issued;
        let until = utc(*expires_at);
        info!(spiffe_id, entry_id, serial, until, "the server is away: this agent's own CA has signed an SVID");
        self.ledger.put_svid(entry_id, svid, Instant::now(), &self.parts.time.moment(), unit());
    }

    fn tell_unsigned(&mut self, why: &Unsigned) {
        let Some(authority) = &mut self.parts.local_authority else { return };
        let error = describe(why);
        if authority.tell(&error) {
            warn!(
                error,
                "the server is away, and this agent signs no SVIDs itself; what is held is served until it ends"
            );
        }
    }

    async fn report_issued(&mut self, channel: Channel) {
        let Some(authority) = &mut self.parts.local_authority else { return };
        // The server is there: nothing need be signed, and why nothing could be is no news of now.
        authority.tell_anew();
        let mut client = IssuedClient::new(channel);
        loop {
            let issued = authority.to_report().await;
            if issued.is_empty() {
                return;
            }
            let count = issued.len();
            let request = ReportIssuedRequest { svids: issued.iter().map(on_the_wire).collect() };
            let done = match within(RPC_DEADLINE, client.report_issued(request)).await {
                Ok(_) => {
                    info!(count, "the server knows what this agent has signed while it was away");
                    authority.reported(issued).await
                }
                Err(status) if status.code() == Code::Unimplemented => {
                    authority.set_aside().await.map(|path| {
                        let path = path.display();
                        warn!(%path, "this server takes no report of what this agent has signed while it was away: it stands in this log and in the file alone");
                    })
                }
                Err(status) => {
                    let (code, error) = (status.code(), status.message());
                    warn!(count, ?code, error, "what this agent has signed is not reported yet; it is tried again");
                    return;
                }
            };
            if let Err(error) = done {
                warn!(error = %describe(&error), "what was reported is reported again");
                return;
            }
        }
    }

    /// The server does not know this agent any more, be it that it may attest anew: what it was let have is not its any more.
    pub(super) async fn give_up_local_authority(&mut self) {
        let Some(authority) = &mut self.parts.local_authority else { return };
        authority.forget();
        // The record names a CA whose key is gone.
        (self.changes.any, self.changes.must_not_be_lost) = (true, true);
        self.wipe_local_authority().await;
    }

    pub(super) async fn wipe_local_authority(&mut self) {
        let Some(authority) = &mut self.parts.local_authority else { return };
        if let Err(error) = authority.wipe_if_owed().await {
            tracing::error!(error = %describe(&error), "cannot destroy the keys of this agent's own CA; it is tried again");
        }
    }

    pub(super) fn restore_local_authority(&mut self, record: &AgentRecord) {
        let Some(kept) = &record.local_authority else { return };
        let (Some(bundle), Some(authority)) = (&self.bundle, &mut self.parts.local_authority) else { return };
        match authority.restore(kept, bundle, &self.parts.time.moment()) {
            Ok(()) => info!(ends = authority.in_words(), "this agent's own CA is taken up again"),
            Err(error) => warn!(error = %describe(&error), "this agent's own CA is not usable any more"),
        }
    }
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
enum Unsigned {
    #[error(transparent)]
    NoMandate(#[from] NoMandate),
    #[error(transparent)]
    Failed(#[from] AuthorityError),
}

/// What an entry says, and how many seconds are left of what is held for it.
fn to_mint(held: &Held, default_ttl: i64, moment: &Moment) -> (ToMint, i64) {
    let terms = held.terms();
    let certificate = terms.certificate.clone().unwrap_or_default();
    let ttl_seconds = if certificate.ttl_seconds > 0 { i64::from(certificate.ttl_seconds) } else { default_ttl };
    let (entry_id, spiffe_id) = (terms.id.clone(), terms.spiffe_id.clone());
    let left = held.svid().map_or(0, |svid| moment.remaining(svid.lifetime()));
    (ToMint { entry_id, spiffe_id, dns_names: certificate.dns_names, ttl_seconds }, left)
}

fn outlasts(mandate: &Mandate, wanted: &ToMint, left: i64) -> bool {
    let (_, not_after) = mandate.span(wanted.ttl_seconds);
    not_after.saturating_sub(mandate.now()) > left.max(0)
}

/// Servers that know nothing of JWT-SVIDs want a serial number in decimal, and get the ID of the key for it, which is one.
fn on_the_wire(issued: &Issued) -> IssuedSvid {
    let Issued { entry_id, spiffe_id, serial, issued_at, expires_at, jwt } = issued.clone();
    let is_decimal = serial.bytes().all(|byte| byte.is_ascii_digit());
    let serial_number = if is_decimal { serial.clone() } else { "0".to_owned() };
    let jwt = jwt.map(|jwt| IssuedJwt { key_id: serial, audience: jwt.audience, count: jwt.count });
    IssuedSvid { entry_id, spiffe_id, serial_number, issued_at, expires_at, jwt }
}
