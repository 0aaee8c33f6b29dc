//! New SVIDs for workloads, in batches.

mod wits;

use std::time::{Duration, Instant};

use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_api::pb::svid::{BatchNewX509svidRequest, NewX509svidParams, batch_new_x509svid_response};
use ironroot_shell::describe;
use ironroot_shell::telemetry::otlp::{self, SPANS};
use tonic::Status;
use tracing::field::Empty;
use tracing::{Instrument, debug, info, info_span, warn};

use super::ledger::Wanted;
use super::outcome::BACKOFF_BASE;
use super::schedule::unit;
use super::{REFUSED_PAUSE, SyncError, Synchronizer};
use crate::agent_key::{KeyError, SoftwareKey, WorkloadKeyKind, certificate_request};
use crate::server_answers::{AnswerRefusal, TrustBundle, WorkloadSvid, workload_svid};
use crate::server_channel::{Channel, MAX_ANSWER_BYTES, RPC_DEADLINE, within};
use crate::trusted_time::{Moment, TrustedTime};

/// Requests in one call. Source: SPIRE's agent, and its server's limit per second.
const BATCH: usize = 500;
/// The same where each wants a key of RSA: they take a few seconds to make, and what is signed is published after each call.
const RSA_BATCH: usize = 20;

pub(super) use wits::MissingWits;

/// A signed answer to one [`Wanted`], or why there is none.
pub(super) type Signed = (Wanted, Result<WorkloadSvid, SigningRefusal>);

/// Why one item of a batch gave no SVID.
#[derive(Debug, thiserror::Error)]
pub(super) enum SigningRefusal {
    /// The server would not sign.
    #[error("the server refused: code {code}: {message}")]
    Server { code: i32, message: String },
    /// It signed something that is not used.
    #[error("the server's SVID is refused")]
    Answer(#[from] AnswerRefusal),
}

impl Synchronizer {
    /// Signs what is due, and nothing else: no entries, no bundle.
    pub(super) async fn sign_only(&mut self) -> Result<(), SyncError> {
        if self.ledger.wanted(Instant::now(), Duration::ZERO, &self.parts.time.moment()).is_empty() {
            return Ok(());
        }
        let channel = self.trusted_channel().await?;
        self.sign_due(channel, self.next_poll.saturating_duration_since(Instant::now())).await
    }

    /// Signs what is due, and with it what will be before something is signed the `next` time; publishes each batch.
    pub(super) async fn sign_due(&mut self, channel: Channel, next: Duration) -> Result<(), SyncError> {
        let wanted = self.ledger.wanted(Instant::now(), next, &self.parts.time.moment());
        let kind = self.parts.workload_keys;
        for batch in wanted.chunks(if kind == WorkloadKeyKind::Rsa2048 { RSA_BATCH } else { BATCH }) {
            let Some(bundle) = self.bundle.clone() else { return Err(SyncError::NoBundle) };
            let began = Instant::now();
            let span = info_span!(target: SPANS, "sign SVIDs", asked = batch.len(), error = Empty);
            let asked = sign(channel.clone(), (batch.to_vec(), kind), &bundle, &self.parts.time);
            let asked = asked.instrument(span.clone()).await;
            otlp::done(&span, &asked);
            self.parts.counted.svids.done(&asked, began.elapsed());
            let mut signed = asked?;
            let wants_wits = self.parts.wit_svids && !bundle.wit_authorities().is_empty();
            if wants_wits {
                let missing = wits::with_wits(channel.clone(), &mut signed, &bundle, &self.parts.time).await;
                self.missing_wits.replace(missing);
            }
            let (now, moment) = (Instant::now(), self.parts.time.moment());
            for (wanted, svid) in signed {
                match svid.and_then(|svid| self.take_svid(&wanted, svid, now, &moment)) {
                    Ok(()) => {
                        span.in_scope(|| info!(target: SPANS, spiffe_id = %wanted.spiffe_id, "SVID taken"));
                        self.changes.any = true;
                        self.replace_if_incomplete(&wanted.entry_id, wants_wits, now, &moment);
                        self.replace_if_untrusted(&wanted.entry_id, &bundle, now, &moment);
                    }
                    Err(refusal) => {
                        warn!(entry_id = wanted.entry_id, spiffe_id = %wanted.spiffe_id, error = %describe(&refusal), "the server gave no SVID for this entry; it is asked for again");
                        self.ledger.postpone(&wanted.entry_id, REFUSED_PAUSE, now, &moment);
                    }
                }
            }
            self.publish_anyway();
        }
        Ok(())
    }

    /// What a server signs with an authority that it calls tainted is served, and asked for again.
    fn replace_if_untrusted(&mut self, entry_id: &str, bundle: &TrustBundle, now: Instant, moment: &Moment) {
        if bundle.has_tainted() {
            let anchors = bundle.untainted_anchors();
            self.ledger.replace_if_untrusted(entry_id, anchors, REFUSED_PAUSE, now, moment);
        }
    }

    /// An SVID without the WIT-SVID that goes with it is served, and asked for again.
    fn replace_if_incomplete(&mut self, entry_id: &str, wants_wits: bool, now: Instant, moment: &Moment) {
        if wants_wits && self.ledger.lacks_wit(entry_id) {
            let pause = self.missing_wits.pause(entry_id, BACKOFF_BASE.min(self.parts.sync_interval), unit());
            self.ledger.postpone(entry_id, pause, now, moment);
        }
    }

    fn take_svid(
        &mut self,
        wanted: &Wanted,
        svid: WorkloadSvid,
        now: Instant,
        moment: &Moment,
    ) -> Result<(), SigningRefusal> {
        let span = svid.lifetime().span();
        debug!(spiffe_id = %svid.spiffe_id(), entry_id = wanted.entry_id, "SVID rotated");
        match self.ledger.put_svid(&wanted.entry_id, svid, now, moment, unit()) {
            true => Ok(()),
            false => Err(AnswerRefusal::Disputed { span, clock: moment.in_words() }.into()),
        }
    }
}

/// Asks for one batch, with a fresh key of that kind for each.
pub(super) async fn sign(
    channel: Channel,
    (batch, kind): (Vec<Wanted>, WorkloadKeyKind),
    bundle: &TrustBundle,
    time: &TrustedTime,
) -> Result<Vec<Signed>, SyncError> {
    // 500 keys on P-256 and their signatures take some 20 ms, one of RSA more: not on the thread that serves workloads.
    let prepared = tokio::task::spawn_blocking(move || prepare(batch, kind)).await;
    let prepared = prepared.map_err(|_| SyncError::Key(KeyError::Crypto("prepare certificate requests")))??;
    let params = prepared.iter().map(|p| NewX509svidParams { entry_id: p.wanted.entry_id.clone(), csr: p.csr.clone() });
    let request = BatchNewX509svidRequest { params: params.collect() };
    let mut client = SvidClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let results = within(RPC_DEADLINE, client.batch_new_x509svid(request)).await?.into_inner().results;
    if results.len() != prepared.len() {
        return Err(Status::internal("the server answered another number of requests than it was sent").into());
    }
    let checked = prepared.into_iter().zip(results).map(|(prepared, result)| prepared.check(result, bundle, time));
    Ok(checked.collect())
}

struct Prepared {
    wanted: Wanted,
    key: SoftwareKey,
    csr: prost::bytes::Bytes,
}

fn prepare(batch: Vec<Wanted>, kind: WorkloadKeyKind) -> Result<Vec<Prepared>, KeyError> {
    let prepare = |wanted| {
        let key = SoftwareKey::generate_of(kind)?;
        let csr = certificate_request(&key)?.into();
        Ok(Prepared { wanted, key, csr })
    };
    batch.into_iter().map(prepare).collect()
}

impl Prepared {
    fn check(self, result: batch_new_x509svid_response::Result, bundle: &TrustBundle, time: &TrustedTime) -> Signed {
        let svid = match (result.status.unwrap_or_default(), result.svid) {
            (status, _) if status.code != 0 => {
                Err(SigningRefusal::Server { code: status.code, message: status.message })
            }
            (_, None) => Err(AnswerRefusal::Missing("SVID").into()),
            (_, Some(svid)) => {
                let expected = &self.wanted.spiffe_id;
                workload_svid(&svid, expected, &self.key, bundle, time).map_err(Into::into)
            }
        };
        (self.wanted, svid)
    }
}
