//! PublishJWTAuthority and PublishWITAuthority: a server below puts a key into the bundle. Source of the texts: SPIRE, pkg/server/api/bundle/v1/service.go.

use ironroot_api::pb::bundle::{PublishJwtAuthorityRequest, PublishWitAuthorityRequest};
use ironroot_api::pb::types;
use ironroot_shell::command_line::describe;
use tonic::Status;

use super::{BundleApi, jwt_key, wit_key};
use crate::ca::{PublishError, PublishedKey, TokenKey, TokenKind};
use crate::endpoints::store_status;
use crate::rights::DownstreamServer;

impl BundleApi {
    pub(super) async fn publish(
        &self,
        by: &DownstreamServer,
        request: PublishJwtAuthorityRequest,
    ) -> Result<Vec<types::JwtKey>, Status> {
        let all = self.publish_key(by, TokenKind::Jwt, request.jwt_authority).await?;
        Ok(all.iter().map(jwt_key).collect())
    }

    /// SPIRE's server does not offer it yet.
    pub(super) async fn publish_wit(
        &self,
        by: &DownstreamServer,
        request: PublishWitAuthorityRequest,
    ) -> Result<Vec<types::WitKey>, Status> {
        self.0.ca.offers_wit_svids().map_err(|disabled| Status::unimplemented(disabled.to_string()))?;
        let key = request.wit_authority.map(|key| {
            let types::WitKey { public_key, key_id, expires_at, tainted } = key;
            types::JwtKey { public_key, key_id, expires_at, tainted }
        });
        let all = self.publish_key(by, TokenKind::Wit, key).await?;
        Ok(all.iter().map(wit_key).collect())
    }

    async fn publish_key(
        &self,
        by: &DownstreamServer,
        kind: TokenKind,
        key: Option<types::JwtKey>,
    ) -> Result<Vec<TokenKey>, Status> {
        let (server, noun) = (&self.0, noun(kind));
        let method = format!("Publish{noun}Authority");
        server.limits.publishing(by.caller().address()).await?;
        let key_id = key.as_ref().map(|key| key.key_id.clone()).unwrap_or_default();
        let refused = |status| server.audit.refused(by.caller(), &method, &key_id, status);
        let missing = || Status::invalid_argument(format!("missing {noun} authority"));
        let by = &server.downstream_again(by).map_err(refused)?;
        let key = key.ok_or_else(|| refused(missing()))?;
        let judged = PublishedKey::judge(by, kind, &key, server.now_unix(), server.ca.longest_published_life());
        let judged = judged.map_err(|error| refused(status(error, noun)))?;
        let all = server.ca.publish_key(judged).await.map_err(|error| refused(status(error, noun)))?;
        server.audit.done(by.caller(), &method, &key_id);
        Ok(all)
    }
}

fn noun(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::Jwt => "JWT",
        TokenKind::Wit => "WIT",
    }
}

fn status(error: PublishError, noun: &str) -> Status {
    match error {
        PublishError::Store(cause) => store_status(cause),
        PublishError::TooManyOfThisServer | PublishError::TooMany => {
            Status::resource_exhausted(format!("failed to publish {noun} key: {}", describe(&error)))
        }
        other => Status::invalid_argument(format!("invalid {noun} authority: {}", describe(&other))),
    }
}
