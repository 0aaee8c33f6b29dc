//! Delegated Identity: identities of other workloads, for a process that the configuration trusts with them, such as a proxy of a
//! whole node.
//!
//! ```text
//!  caller ─► serving: who is it? ─► Delegates: one of its entries is authorized ─► Delegation ─► whom does it ask for? (subject)
//!                                          ▲ at each message                               └──► serving, by the subject's selectors
//! ```
//! A delegate that gives selectors is believed; of a process that it names by number the agent finds out. Identities that make
//! their holder an administrator or a server below ours are never handed on. Source: SPIRE, pkg/agent/api/delegatedidentity/v1.

mod delegates;
mod question;
mod subject;

use std::sync::Arc;

use ironroot_api::jwt::Audiences;
use ironroot_api::pb::delegated::delegated_identity_server::DelegatedIdentity;
use ironroot_api::pb::delegated::{
    FetchJwtsviDsRequest, FetchJwtsviDsResponse, SubscribeToJwtBundlesRequest, SubscribeToJwtBundlesResponse,
    SubscribeToX509BundlesRequest, SubscribeToX509BundlesResponse, SubscribeToX509sviDsRequest,
    SubscribeToX509sviDsResponse,
};
use ironroot_api::pb::types;
use tonic::{Request, Response, Status};

pub use delegates::Delegates;

use super::caller::Known;
use super::serving::{Attested, MessageStream, Serving, Subscription};
use crate::jwt_svids::Token;
use crate::server_answers::EntryTerms;
use delegates::Delegation;
pub(super) use question::may_be_handed_on;
use question::{JwtBundles, X509Bundles, X509Svids};
use subject::Subject;

const SUBSCRIBE_SVIDS: &str = "SubscribeToX509SVIDs";
const SUBSCRIBE_BUNDLES: &str = "SubscribeToX509Bundles";
const SUBSCRIBE_JWT_BUNDLES: &str = "SubscribeToJWTBundles";
const FETCH_JWT: &str = "FetchJWTSVIDs";

/// SPIRE's `spire.api.agent.delegatedidentity.v1.DelegatedIdentity`.
pub(super) struct DelegatedApi {
    pub serving: Serving,
    pub delegates: Delegates,
}

impl DelegatedApi {
    /// Finds out who asks, and whether it may.
    async fn delegate(
        &self,
        request: &Request<impl Sized>,
        method: &'static str,
    ) -> Result<(Known, Attested, Delegation), Status> {
        let caller = self.serving.caller(request)?;
        let attested = self.serving.attest(&caller).await?;
        let all = self.serving.started()?;
        let delegation = self.delegates.admit(&self.serving, &caller, &attested, &all, method)?;
        Ok((caller, attested, delegation))
    }
}

#[tonic::async_trait]
impl DelegatedIdentity for DelegatedApi {
    type SubscribeToX509SVIDsStream = MessageStream<SubscribeToX509sviDsResponse>;
    type SubscribeToX509BundlesStream = MessageStream<SubscribeToX509BundlesResponse>;
    type SubscribeToJWTBundlesStream = MessageStream<SubscribeToJwtBundlesResponse>;

    async fn subscribe_to_x509svi_ds(
        &self,
        request: Request<SubscribeToX509sviDsRequest>,
    ) -> Result<Response<Self::SubscribeToX509SVIDsStream>, Status> {
        let (caller, attested, delegation) = self.delegate(&request, SUBSCRIBE_SVIDS).await?;
        let SubscribeToX509sviDsRequest { selectors, pid } = request.into_inner();
        let subject = Subject::named(&delegation, &self.serving, &caller, &selectors, pid).await?;
        let question = X509Svids { delegates: self.delegates.clone(), subject };
        Subscription::begin(self.serving.clone(), caller, attested, question).await.map(Response::new)
    }

    async fn subscribe_to_x509_bundles(
        &self,
        request: Request<SubscribeToX509BundlesRequest>,
    ) -> Result<Response<Self::SubscribeToX509BundlesStream>, Status> {
        let (caller, attested, _) = self.delegate(&request, SUBSCRIBE_BUNDLES).await?;
        let question = X509Bundles { delegates: self.delegates.clone() };
        Subscription::begin(self.serving.clone(), caller, attested, question).await.map(Response::new)
    }

    async fn subscribe_to_jwt_bundles(
        &self,
        request: Request<SubscribeToJwtBundlesRequest>,
    ) -> Result<Response<Self::SubscribeToJWTBundlesStream>, Status> {
        let (caller, attested, _) = self.delegate(&request, SUBSCRIBE_JWT_BUNDLES).await?;
        let question = JwtBundles { delegates: self.delegates.clone() };
        Subscription::begin(self.serving.clone(), caller, attested, question).await.map(Response::new)
    }

    async fn fetch_jwtsvi_ds(
        &self,
        request: Request<FetchJwtsviDsRequest>,
    ) -> Result<Response<FetchJwtsviDsResponse>, Status> {
        let audiences = Audiences::try_new(request.get_ref().audience.clone());
        let audiences = audiences.map_err(|refusal| Status::invalid_argument(refusal.to_string()))?;
        let (caller, _, delegation) = self.delegate(&request, FETCH_JWT).await?;
        let FetchJwtsviDsRequest { selectors, pid, .. } = request.into_inner();
        let subject = Subject::named(&delegation, &self.serving, &caller, &selectors, pid).await?;
        let all = self.serving.started()?;
        let entries = all.all_entries_for(subject.selectors()).into_iter().filter(|terms| may_be_handed_on(terms));
        let entries: Vec<Arc<EntryTerms>> = entries.cloned().collect();
        if entries.is_empty() {
            return Err(self.serving.nothing_for(&caller.peer, subject.selectors(), FETCH_JWT, &all));
        }
        let tokens = self.serving.tokens(&caller, entries, &audiences, (FETCH_JWT, None)).await?;
        let svids = tokens.iter().map(|(terms, token)| svid(terms, token)).collect();
        Ok(Response::new(FetchJwtsviDsResponse { svids }))
    }
}

fn svid(terms: &EntryTerms, token: &Token) -> types::Jwtsvid {
    let span = token.lifetime().span();
    types::Jwtsvid {
        token: token.text().to_owned(),
        id: Some(terms.spiffe_id.to_pb()),
        expires_at: span.not_after,
        issued_at: span.not_before,
        hint: terms.hint.clone(),
    }
}
