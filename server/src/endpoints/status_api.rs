//! `ironroot.api.server.status.v1`: how the server is, for whoever may open the admin socket.

use std::sync::Arc;

use ironroot_api::pb::server_status::status_server::Status as StatusService;
use ironroot_api::pb::server_status::{GetStatusRequest, GetStatusResponse};
use tonic::{Request, Response, Status};

use super::caller::granted;
use crate::rights::Administrator;

/// Says how the server is, whenever it is asked.
pub type StatusReport = Arc<dyn Fn() -> GetStatusResponse + Send + Sync>;

/// Ours: `ironroot.api.server.status.v1.Status`.
pub(super) struct StatusApi(pub StatusReport);

#[tonic::async_trait]
impl StatusService for StatusApi {
    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let _: Administrator = granted(&request)?;
        Ok(Response::new((self.0)()))
    }
}
