//! The SPIFFE Workload API: each caller's whole state, again whenever it changes.
//!
//! Source: SPIFFE_Workload_API.md §5, §6. What is not built here (WIT) is answered `Unimplemented` at the door.

mod claims;
mod jwt;
mod message;

use ironroot_api::pb::workload::spiffe_workload_api_server::SpiffeWorkloadApi;
use ironroot_api::pb::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
};
use tonic::{Request, Response, Status};

use super::serving::{MessageStream, Serving};
use message::{JwtBundles, X509Bundles, X509Svids};

/// The service. Clones share everything.
#[derive(Clone)]
pub(super) struct WorkloadApi(pub Serving);

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = MessageStream<X509svidResponse>;
    type FetchX509BundlesStream = MessageStream<X509BundlesResponse>;
    type FetchJWTBundlesStream = MessageStream<JwtBundlesResponse>;

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
}
