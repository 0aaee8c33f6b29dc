//! Envoy's Secret Discovery Service (v3), on the socket of the Workload API: the caller's identities and bundles as secrets.
//!
//! ```text
//!  door: each message condensed ─► Conversation (nonce, version, names) ─► serving: who is it? what is its own?
//!                                        ▲                                       │
//!                                        └──────── Resource: PEM, Any ◄──────────┘ again whenever what was named changes
//! ```
//! Names, defaults and texts are SPIRE's. Source: SPIRE, pkg/agent/endpoints/sdsv3/handler.go; Envoy, "xDS REST and gRPC protocol".
//! Other than SPIRE's, this agent pushes only what has changed of what was named, and answers a request that names several bundles.

mod conversation;
mod question;
mod resource;

use std::sync::Arc;

use futures_util::StreamExt;
use ironroot_api::pb::discovery::{DiscoveryRequest, DiscoveryResponse};
use ironroot_api::pb::secret::secret_discovery_service_server::SecretDiscoveryService;
use tonic::{Request, Response, Status, Streaming};

use super::BoundedCall;
use super::serving::{MessageStream, Serving, Subscription};
use question::{OneRequest, Stream};

/// The `sds` block of `agent.conf`. Source: SPIRE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SdsConfig {
    /// Names the caller's first identity.
    pub default_svid_name: String,
    /// Names the trust domain's own bundle.
    pub default_bundle_name: String,
    /// Names all bundles that the caller may have, in one secret.
    pub default_all_bundles_name: String,
    /// Bundles are plain lists of authorities, without the rules of SPIFFE, unless an Envoy says otherwise of itself.
    pub disable_spiffe_cert_validation: bool,
}

impl Default for SdsConfig {
    fn default() -> Self {
        Self {
            default_svid_name: "default".to_owned(),
            default_bundle_name: "ROOTCA".to_owned(),
            default_all_bundles_name: "ALL".to_owned(),
            disable_spiffe_cert_validation: false,
        }
    }
}

/// The service. Clones share everything.
#[derive(Clone)]
pub(super) struct SecretsApi {
    pub serving: Serving,
    pub config: Arc<SdsConfig>,
}

#[tonic::async_trait]
impl SecretDiscoveryService for SecretsApi {
    type StreamSecretsStream = MessageStream<DiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let caller = self.serving.caller(&request)?;
        let attested = self.serving.attest(&caller).await?;
        self.serving.expect_in_rate(BoundedCall::StreamSecrets, &caller.peer, &attested)?;
        let question = Stream::new(request.into_inner(), self, &caller);
        Ok(Response::new(Subscription::open(self.serving.clone(), caller, attested, question)))
    }

    async fn fetch_secrets(&self, request: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        let caller = self.serving.caller(&request)?;
        let question = OneRequest::new(request.into_inner(), &self.config)?;
        let attested = self.serving.attest(&caller).await?;
        self.serving.expect_in_rate(BoundedCall::FetchSecrets, &caller.peer, &attested)?;
        let mut answers = Subscription::begin(self.serving.clone(), caller, attested, question).await?;
        let answer = answers.next().await.ok_or_else(|| Status::internal("no answer to a request"))??;
        Ok(Response::new(answer))
    }
}
