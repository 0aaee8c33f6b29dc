//! The SPIFFE Workload API: each caller's whole state, again whenever it changes.
//!
//! Source: SPIFFE_Workload_API.md §5, §6, §7. What is switched off (WIT) is answered `Unimplemented` at the door.

mod claims;
mod jwt;
mod message;
mod wit;

use ironroot_api::SpiffeId;
use ironroot_api::pb::workload::spiffe_workload_api_server::SpiffeWorkloadApi;
use ironroot_api::pb::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, WitsvidRequest, WitsvidResponse,
    X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
};
use tonic::{Request, Response, Status};

use super::serving::{MessageStream, Serving};
use message::{JwtBundles, X509Bundles, X509Svids};
use wit::{WitBundles, WitSvids};

/// The service. Clones share everything.
#[derive(Clone)]
pub(super) struct WorkloadApi(pub Serving);

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = MessageStream<X509svidResponse>;
    type FetchX509BundlesStream = MessageStream<X509BundlesResponse>;
    type FetchJWTBundlesStream = MessageStream<JwtBundlesResponse>;
    type FetchWITSVIDStream = MessageStream<WitsvidResponse>;
    type FetchWITBundlesStream = MessageStream<WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.0.subscribe(&request, X509Svids).await.map(Response::new)
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.0.subscribe(&request, X509Bundles).await.map(Response::new)
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        self.0.subscribe(&request, JwtBundles).await.map(Response::new)
    }

    async fn fetch_jwtsvid(&self, request: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        self.jwt_svids(request).await.map(Response::new)
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        self.validated(request).await.map(Response::new)
    }

    async fn fetch_witsvid(
        &self,
        request: Request<WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        let wanted = wanted(&request.get_ref().spiffe_id)?;
        self.0.subscribe(&request, WitSvids { wanted }).await.map(Response::new)
    }

    async fn fetch_wit_bundles(
        &self,
        request: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        self.0.subscribe(&request, WitBundles).await.map(Response::new)
    }
}

/// The one identity that is asked for, if one is named.
pub(super) fn wanted(spiffe_id: &str) -> Result<Option<SpiffeId>, Status> {
    if spiffe_id.is_empty() {
        return Ok(None);
    }
    let wrong = |error| Status::invalid_argument(format!("invalid requested SPIFFE ID: {error}"));
    SpiffeId::parse(spiffe_id).map(Some).map_err(wrong)
}
