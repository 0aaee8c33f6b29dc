//! New SVIDs for workloads, in batches.

use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_api::pb::svid::{BatchNewX509svidRequest, NewX509svidParams, batch_new_x509svid_response};
use tonic::Status;

use super::SyncError;
use super::ledger::Wanted;
use crate::agent_key::{KeyError, SoftwareKey, certificate_request};
use crate::server_answers::{AnswerRefusal, TrustBundle, WorkloadSvid, workload_svid};
use crate::server_channel::{Channel, MAX_ANSWER_BYTES, RPC_DEADLINE, within};
use crate::trusted_time::TrustedTime;

/// Requests in one call. Source: SPIRE's agent, and its server's limit per second.
pub const BATCH: usize = 500;

/// A signed answer to one [`Wanted`], or why there is none.
pub type Signed = (Wanted, Result<WorkloadSvid, SigningRefusal>);

/// Why one item of a batch gave no SVID.
#[derive(Debug, thiserror::Error)]
pub enum SigningRefusal {
    /// The server would not sign.
    #[error("the server refused: code {code}: {message}")]
    Server {
        /// gRPC status code.
        code: i32,
        /// The server's words.
        message: String,
    },
    /// It signed something that is not used.
    #[error("the server's SVID is refused")]
    Answer(#[from] AnswerRefusal),
}

/// Asks for one batch, with a fresh key for each.
pub async fn sign(
    channel: Channel,
    batch: Vec<Wanted>,
    bundle: &TrustBundle,
    time: &TrustedTime,
) -> Result<Vec<Signed>, SyncError> {
    // 500 keys and signatures take some 20 ms: not on the thread that serves workloads.
    let prepared = tokio::task::spawn_blocking(move || prepare(batch)).await;
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

fn prepare(batch: Vec<Wanted>) -> Result<Vec<Prepared>, KeyError> {
    let prepare = |wanted| {
        let key = SoftwareKey::generate()?;
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
                workload_svid(&svid, expected, self.key.spki_der(), self.key.pkcs8(), bundle, time).map_err(Into::into)
            }
        };
        (self.wanted, svid)
    }
}
