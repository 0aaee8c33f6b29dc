//! `spire.agent.debug.v1`: what the agent is at this moment, for whoever may open the admin socket.

use std::time::Instant;

use ironroot_api::certificate::Certificate;
use ironroot_api::pb::agent_debug::debug_server::Debug;
use ironroot_api::pb::agent_debug::get_info_response::Cert;
use ironroot_api::pb::agent_debug::{GetInfoRequest, GetInfoResponse};
use tonic::{Request, Response, Status};

use super::serving::Serving;
use crate::identities::Identities;
use crate::report::{Report, Reports};

/// SPIRE's `spire.agent.debug.v1.Debug`.
pub(super) struct DebugApi {
    pub serving: Serving,
    pub reports: Reports,
    /// When the agent began to answer.
    pub began: Instant,
}

#[tonic::async_trait]
impl Debug for DebugApi {
    async fn get_info(&self, _request: Request<GetInfoRequest>) -> Result<Response<GetInfoResponse>, Status> {
        let (all, report) = (self.serving.published(), self.reports.first());
        let x509_svids = count(all.iter().len());
        #[expect(deprecated, reason = "what older clients read")]
        let info = GetInfoResponse {
            svid_chain: chain(&report, &all),
            uptime: self.began.elapsed().as_secs().try_into().unwrap_or(i32::MAX),
            svids_count: x509_svids,
            last_sync_success: report.synced_unix,
            cached_x509_svids_count: x509_svids,
            cached_jwt_svids_count: count(self.serving.jwt().count()),
            // There is no SVID store.
            cached_svidstore_x509_svids_count: 0,
        };
        Ok(Response::new(info))
    }
}

/// The agent's own chain, and the authority of the bundle that answers for it.
fn chain(report: &Report, all: &Identities) -> Vec<Cert> {
    let (shown, bundle) = (report.chain.iter().flat_map(|chain| chain.iter()), all.bundle());
    let authorities = bundle.iter().flat_map(|bundle| bundle.authorities());
    Certificate::chain_for_people(shown, authorities).iter().map(to_pb).collect()
}

fn to_pb(certificate: &Certificate) -> Cert {
    Cert {
        id: certificate.spiffe_id().ok().map(|id| id.to_pb()),
        expires_at: certificate.not_after_unix(),
        subject: certificate.inner().tbs_certificate().subject().to_string(),
    }
}

fn count(number: usize) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}
