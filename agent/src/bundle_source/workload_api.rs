//! A bundle of another agent's, over the Workload API: for agents one below the other.

use std::path::Path;
use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::workload::X509BundlesRequest;
use ironroot_api::pb::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use ironroot_api::unix_socket::{self, UnixSocketError};
use thiserror::Error;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use crate::server_answers::{AnswerRefusal, TrustBundle};

/// Longest wait for the agent. Source: SPIRE waits a minute.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longest answer accepted, bytes: bundles of other trust domains may be in it.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Why an agent has given no bundle.
#[derive(Debug, Error)]
pub enum WorkloadApiError {
    /// Nobody there.
    #[error("the Workload API cannot be reached")]
    Connect(#[from] UnixSocketError),
    /// It said no, or nothing that can be read.
    #[error("the Workload API gives no bundle: {}", .0.message())]
    Refused(#[from] Status),
    /// The stream ended.
    #[error("the Workload API ended the stream without an answer")]
    Ended,
    /// It takes too long.
    #[error("no answer within {} seconds", DEADLINE.as_secs())]
    Late,
    /// It serves another trust domain's workloads.
    #[error("the Workload API has no bundle of trust domain {:?}", .0.as_str())]
    OtherTrustDomain(TrustDomain),
    /// No authority, too many, or a certificate that may not sign.
    #[error("its bundle cannot be used")]
    Content(#[from] AnswerRefusal),
}

/// The bundle of `trust_domain` that the agent at `socket` gives to this process.
pub(super) async fn fetch(socket: &Path, trust_domain: &TrustDomain) -> Result<TrustBundle, WorkloadApiError> {
    tokio::time::timeout(DEADLINE, ask(socket, trust_domain)).await.unwrap_or(Err(WorkloadApiError::Late))
}

async fn ask(socket: &Path, trust_domain: &TrustDomain) -> Result<TrustBundle, WorkloadApiError> {
    let channel = unix_socket::connect(socket).await?;
    let mut client = SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let mut request = Request::new(X509BundlesRequest {});
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    let answer = client.fetch_x509_bundles(request).await?.into_inner().message().await?;
    let answer = answer.ok_or(WorkloadApiError::Ended)?;
    let der = answer.bundles.get(trust_domain.id().as_str());
    let der = der.ok_or_else(|| WorkloadApiError::OtherTrustDomain(trust_domain.clone()))?;
    let authorities = Certificate::parse_concatenated(der).map_err(AnswerRefusal::Authority)?;
    Ok(TrustBundle::new(trust_domain, authorities.iter().map(|authority| (&authority.der()[..], false)))?)
}
