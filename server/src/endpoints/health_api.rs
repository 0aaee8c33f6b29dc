//! `grpc.health.v1` on the admin socket: the same truth as the HTTP listener's. Source: SPIRE answers `Check` alone.

use futures_util::stream::Empty;
use ironroot_shell::health::Ready;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Metadata of an answer that is not "serving": why, for a person. Values of names in -bin carry any text.
pub const REASON_METADATA: &str = "ironroot-reason-bin";

/// gRPC's `grpc.health.v1.Health`.
pub struct HealthApi(pub(super) Ready);

#[tonic::async_trait]
impl Health for HealthApi {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !request.get_ref().service.is_empty() {
            return Err(Status::invalid_argument("per-service health is not supported"));
        }
        let reason = (self.0)();
        let status = if reason.is_none() { ServingStatus::Serving } else { ServingStatus::NotServing };
        let mut response = Response::new(HealthCheckResponse { status: status.into() });
        if let Some(reason) = reason {
            response.metadata_mut().insert_bin(REASON_METADATA, MetadataValue::from_bytes(reason.as_bytes()));
        }
        Ok(response)
    }

    type WatchStream = Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("only Check is answered"))
    }
}
