//! `spire.api.server.debug.v1`: what the server is at this moment.

use std::sync::Arc;
use std::time::Instant;

use ironroot_api::certificate::Certificate;
use ironroot_api::pb::debug::debug_server::Debug;
use ironroot_api::pb::debug::get_info_response::Cert;
use ironroot_api::pb::debug::{GetInfoRequest, GetInfoResponse};
use rustls_pki_types::CertificateDer;
use tonic::{Request, Response, Status};

use super::caller::granted;
use super::{ServerState, count};
use crate::ca::TrustBundle;
use crate::registry::{AgentFilter, EntryFilter};
use crate::rights::Administrator;

/// SPIRE's `spire.api.server.debug.v1.Debug`.
#[derive(Clone, Debug)]
pub struct DebugApi {
    pub(super) server: Arc<ServerState>,
    /// When the server began to answer.
    pub(super) began: Instant,
}

#[tonic::async_trait]
impl Debug for DebugApi {
    async fn get_info(&self, request: Request<GetInfoRequest>) -> Result<Response<GetInfoResponse>, Status> {
        let _: Administrator = granted(&request)?;
        let registry = &self.server.registry;
        Ok(Response::new(GetInfoResponse {
            svid_chain: chain(&self.server.svid.chain(), &self.server.ca.bundle().borrow()),
            uptime: self.began.elapsed().as_secs().try_into().unwrap_or(i32::MAX),
            agents_count: count(registry.count_agents(&AgentFilter::default())),
            // With the server's own, as in SPIRE.
            federated_bundles_count: count(self.server.federation.count_bundles() + 1),
            entries_count: count(registry.count_entries(&EntryFilter::default())),
        }))
    }
}

/// What the server shows, and the authority of the bundle that answers for it.
fn chain(shown: &[CertificateDer<'_>], bundle: &TrustBundle) -> Vec<Cert> {
    Certificate::chain_for_people(shown, &bundle.authorities).iter().map(to_pb).collect()
}

fn to_pb(certificate: &Certificate) -> Cert {
    Cert {
        id: certificate.spiffe_id().ok().map(|id| id.to_pb()),
        expires_at: certificate.not_after_unix(),
        subject: certificate.inner().tbs_certificate().subject().to_string(),
    }
}
