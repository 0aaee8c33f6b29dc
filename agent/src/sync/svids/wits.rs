//! WIT-SVIDs for the keys of X509-SVIDs that have just been signed. One key proves both: it is made and wiped with them, costs the
//! cache nothing, and a workload that loses the one has lost the other.

use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_api::pb::svid::{BatchNewWitsvidRequest, NewWitsvidParams, batch_new_witsvid_response};
use ironroot_shell::describe;
use tonic::Status;
use tracing::warn;

use super::{Signed, SigningRefusal, Wanted};
use crate::server_answers::{AnswerRefusal, HOLDER_ALGORITHM, TrustBundle, Wit, WorkloadSvid};
use crate::server_channel::{Channel, MAX_ANSWER_BYTES, RPC_DEADLINE, within};
use crate::trusted_time::TrustedTime;

/// An SVID that is to have a WIT-SVID, its place in the batch, and its key's DER SubjectPublicKeyInfo.
type Candidate = (usize, Vec<u8>);

/// The same SVIDs, each with a WIT-SVID if the server has signed one: one that lacks it is served all the same, and asked for again
/// with the next.
pub(super) async fn with_wits(
    channel: Channel,
    mut signed: Vec<Signed>,
    bundle: &TrustBundle,
    time: &TrustedTime,
) -> Vec<Signed> {
    let candidates = candidates(&signed);
    if candidates.is_empty() {
        return signed;
    }
    let results = match ask(channel, params(&signed, &candidates)).await {
        Ok(results) if results.len() == candidates.len() => results,
        Ok(_) => {
            warn!("the server answered another number of requests for WIT-SVIDs than it was sent");
            return signed;
        }
        Err(status) => {
            warn!(error = %describe(&status), "WIT-SVIDs not signed; X509-SVIDs go on without");
            return signed;
        }
    };
    for ((place, spki_der), result) in candidates.into_iter().zip(results) {
        let (wanted, svid) = &mut signed[place];
        match check(wanted, &spki_der, result, bundle, time) {
            Ok(wit) => take(svid, wit),
            Err(refusal) => {
                let (entry_id, spiffe_id) = (&wanted.entry_id, &wanted.spiffe_id);
                warn!(entry_id, %spiffe_id, error = %describe(&refusal), "the server gave no WIT-SVID for this entry");
            }
        }
    }
    signed
}

fn candidates(signed: &[Signed]) -> Vec<Candidate> {
    let spki = |(_, svid): &Signed| svid.as_ref().ok()?.key().spki_der();
    signed.iter().enumerate().filter_map(|(place, one)| Some((place, spki(one)?))).collect()
}

fn params(signed: &[Signed], candidates: &[Candidate]) -> Vec<NewWitsvidParams> {
    let param = |(place, spki_der): &Candidate| NewWitsvidParams {
        entry_id: signed[*place].0.entry_id.clone(),
        public_key: spki_der.clone().into(),
        signing_algorithm: HOLDER_ALGORITHM.to_owned(),
    };
    candidates.iter().map(param).collect()
}

async fn ask(
    channel: Channel,
    params: Vec<NewWitsvidParams>,
) -> Result<Vec<batch_new_witsvid_response::Result>, Status> {
    let mut client = SvidClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let answer = within(RPC_DEADLINE, client.batch_new_witsvid(BatchNewWitsvidRequest { params })).await?;
    Ok(answer.into_inner().results)
}

/// SPIRE's server leaves the status of what worked unset.
fn check(
    wanted: &Wanted,
    spki_der: &[u8],
    result: batch_new_witsvid_response::Result,
    bundle: &TrustBundle,
    time: &TrustedTime,
) -> Result<Wit, SigningRefusal> {
    match (result.status.unwrap_or_default(), result.svid) {
        (status, _) if status.code != 0 => Err(SigningRefusal::Server { code: status.code, message: status.message }),
        (_, None) => Err(AnswerRefusal::Missing("WIT-SVID").into()),
        (_, Some(svid)) => {
            let holder = (&wanted.spiffe_id, spki_der);
            Ok(Wit::from_answer(&svid.token, holder, bundle.wit_authorities(), time)?)
        }
    }
}

fn take(svid: &mut Result<WorkloadSvid, SigningRefusal>, wit: Wit) {
    if let Ok(held) = svid {
        *held = held.clone().with_wit(Some(wit));
    }
}
