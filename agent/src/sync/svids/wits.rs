//! WIT-SVIDs for the keys of X509-SVIDs that have just been signed. One key proves both: it is made and wiped with them, costs the
//! cache nothing, and a workload that loses the one has lost the other.

use std::collections::BTreeSet;
use std::time::Duration;

use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_api::pb::svid::{BatchNewWitsvidRequest, NewWitsvidParams, batch_new_witsvid_response};
use ironroot_shell::describe;
use tonic::{Code, Status};
use tracing::warn;

use super::super::schedule::backoff;
use super::{Signed, SigningRefusal, Wanted};
use crate::server_answers::{AnswerRefusal, TrustBundle, Wit, WorkloadSvid, holder_algorithm};
use crate::server_channel::{Channel, MAX_ANSWER_BYTES, RPC_DEADLINE, within};
use crate::trusted_time::TrustedTime;

/// An SVID that is to have a WIT-SVID: its place in the batch, and its key, a DER SubjectPublicKeyInfo, with what that signs by.
struct Candidate {
    place: usize,
    spki_der: Vec<u8>,
    algorithm: &'static str,
}

/// Pause before an entry is asked for again whose X509-SVID was signed, and whose WIT-SVID was not: by a server that signs none, or
/// none for it.
const REFUSED_WIT_PAUSE: Duration = Duration::from_secs(300);

/// Entries whose WIT-SVID was not to be had, and is asked for again soon: a moment later it may be. With the X509-SVID, since both are
/// for one key.
#[derive(Debug, Default)]
pub(in super::super) struct MissingWits {
    entry_ids: BTreeSet<String>,
    /// Batches in a row in which there were some.
    failures: u32,
}

impl MissingWits {
    /// What the newest batch left.
    pub(super) fn replace(&mut self, entry_ids: BTreeSet<String>) {
        self.failures = if entry_ids.is_empty() { 0 } else { self.failures.saturating_add(1) };
        self.entry_ids = entry_ids;
    }

    /// Until an entry without a WIT-SVID is asked for again: at least `base`, more after each failure, and never more than where the
    /// server has refused one. `unit`: the jitter, 0 to 1.
    pub(super) fn pause(&self, entry_id: &str, base: Duration, unit: f64) -> Duration {
        if !self.entry_ids.contains(entry_id) {
            return REFUSED_WIT_PAUSE;
        }
        (base + backoff(self.failures, base, REFUSED_WIT_PAUSE, unit)).min(REFUSED_WIT_PAUSE)
    }
}

/// Puts a WIT-SVID beside each SVID for which the server has signed one: one that lacks it is served all the same. The entries for
/// which it may sign one a moment later.
pub(super) async fn with_wits(
    channel: Channel,
    signed: &mut [Signed],
    bundle: &TrustBundle,
    time: &TrustedTime,
) -> BTreeSet<String> {
    let candidates = candidates(signed);
    if candidates.is_empty() {
        return BTreeSet::new();
    }
    let all = || candidates.iter().map(|one| signed[one.place].0.entry_id.clone()).collect();
    let results = match ask(channel, params(signed, &candidates)).await {
        Ok(results) if results.len() == candidates.len() => results,
        Ok(_) => {
            warn!("the server answered another number of requests for WIT-SVIDs than it was sent");
            return BTreeSet::new();
        }
        Err(status) => {
            warn!(error = %describe(&status), "WIT-SVIDs not signed; X509-SVIDs go on without");
            return if is_transient(status.code()) { all() } else { BTreeSet::new() };
        }
    };
    let mut missing = BTreeSet::new();
    for (Candidate { place, spki_der, .. }, result) in candidates.into_iter().zip(results) {
        let (wanted, svid) = &mut signed[place];
        match check(wanted, &spki_der, result, bundle, time) {
            Ok(wit) => take(svid, wit),
            Err(refusal) => {
                let (entry_id, spiffe_id) = (&wanted.entry_id, &wanted.spiffe_id);
                warn!(entry_id, %spiffe_id, error = %describe(&refusal), "the server gave no WIT-SVID for this entry");
                missing.extend(refusal.is_transient().then(|| entry_id.clone()));
            }
        }
    }
    missing
}

/// Whether the server, what it asks, or the way to it is ill, and nobody has decided anything.
fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Cancelled
            | Code::Internal
            | Code::Unknown
    )
}

impl SigningRefusal {
    fn is_transient(&self) -> bool {
        match self {
            Self::Server { code, .. } => is_transient(Code::from_i32(*code)),
            Self::Answer(_) => false,
        }
    }
}

fn candidates(signed: &[Signed]) -> Vec<Candidate> {
    let candidate = |(place, (_, svid)): (usize, &Signed)| {
        let spki_der = svid.as_ref().ok()?.key().spki_der()?;
        Some(Candidate { place, algorithm: holder_algorithm(&spki_der)?, spki_der })
    };
    signed.iter().enumerate().filter_map(candidate).collect()
}

fn params(signed: &[Signed], candidates: &[Candidate]) -> Vec<NewWitsvidParams> {
    let param = |Candidate { place, spki_der, algorithm }: &Candidate| NewWitsvidParams {
        entry_id: signed[*place].0.entry_id.clone(),
        public_key: spki_der.clone().into(),
        signing_algorithm: (*algorithm).to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(5);

    #[test]
    fn what_was_not_to_be_had_is_asked_for_again_soon_and_then_more_rarely_and_what_was_refused_after_long() {
        let mut missing = MissingWits::default();
        let failed = |missing: &mut MissingWits| missing.replace(["a".to_owned()].into());
        assert_eq!(missing.pause("a", BASE, 1.0), REFUSED_WIT_PAUSE, "refused");
        failed(&mut missing);
        assert_eq!((missing.pause("a", BASE, 0.0), missing.pause("a", BASE, 1.0)), (BASE, 3 * BASE));
        failed(&mut missing);
        assert_eq!(missing.pause("a", BASE, 1.0), 5 * BASE);
        assert_eq!(missing.pause("b", BASE, 1.0), REFUSED_WIT_PAUSE, "another entry was refused");
        (0..100).for_each(|_| failed(&mut missing));
        assert_eq!(missing.pause("a", BASE, 1.0), REFUSED_WIT_PAUSE, "never later than what was refused");
        missing.replace(BTreeSet::new());
        failed(&mut missing);
        assert_eq!(missing.pause("a", BASE, 1.0), 3 * BASE, "a batch that had all begins anew");
    }

    #[test]
    fn a_server_that_decided_is_told_from_one_that_is_ill() {
        let refused = |code: Code| SigningRefusal::Server { code: code.into(), message: String::new() }.is_transient();
        for code in [Code::Unimplemented, Code::PermissionDenied, Code::InvalidArgument, Code::NotFound, Code::Ok] {
            assert!(!refused(code), "{code:?}");
        }
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::ResourceExhausted, Code::Internal, Code::Unknown]
        {
            assert!(refused(code), "{code:?}");
        }
        assert!(!SigningRefusal::Answer(AnswerRefusal::Missing("WIT-SVID")).is_transient());
    }
}
