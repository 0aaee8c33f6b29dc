//! PublishJWTAuthority: a server below puts a key into the bundle. Source of the texts: SPIRE, pkg/server/api/bundle/v1/service.go.

use ironroot_api::pb::bundle::PublishJwtAuthorityRequest;
use ironroot_api::pb::types;
use ironroot_shell::command_line::describe;
use tonic::Status;

use super::{BundleApi, jwt_key};
use crate::ca::{PublishError, PublishedKey};
use crate::endpoints::store_status;
use crate::rights::DownstreamServer;

impl BundleApi {
    pub(super) async fn publish(
        &self,
        by: &DownstreamServer,
        request: PublishJwtAuthorityRequest,
    ) -> Result<Vec<types::JwtKey>, Status> {
        let server = &self.0;
        server.limits.publishing(by.caller().address()).await?;
        let key_id = request.jwt_authority.as_ref().map(|key| key.key_id.clone()).unwrap_or_default();
        let refused = |status| server.audit.refused(by.caller(), "PublishJWTAuthority", &key_id, status);
        let key = request.jwt_authority.ok_or_else(|| refused(Status::invalid_argument("missing JWT authority")))?;
        let judged = PublishedKey::judge(by, &key, server.now_unix()).map_err(|error| refused(status(error)))?;
        let all = server.ca.publish_jwt_key(judged).await.map_err(|error| refused(status(error)))?;
        server.audit.done(by.caller(), "PublishJWTAuthority", &key_id);
        Ok(all.iter().map(jwt_key).collect())
    }
}

fn status(error: PublishError) -> Status {
    match error {
        PublishError::Store(cause) => store_status(cause),
        PublishError::TooManyOfThisServer | PublishError::TooMany => {
            Status::resource_exhausted(format!("failed to publish JWT key: {}", describe(&error)))
        }
        other => Status::invalid_argument(format!("invalid JWT authority: {}", describe(&other))),
    }
}
