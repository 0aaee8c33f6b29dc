//! `spire.api.server.bundle.v1`: the trust bundle, readable by anyone, and those of other trust domains.

mod append;
mod federated;
mod publish;

use std::sync::Arc;

use ironroot_api::pb::bundle::bundle_server::Bundle;
use ironroot_api::pb::bundle::{
    AppendBundleRequest, BatchCreateFederatedBundleRequest, BatchCreateFederatedBundleResponse,
    BatchDeleteFederatedBundleRequest, BatchDeleteFederatedBundleResponse, BatchSetFederatedBundleRequest,
    BatchSetFederatedBundleResponse, BatchUpdateFederatedBundleRequest, BatchUpdateFederatedBundleResponse,
    CountBundlesRequest, CountBundlesResponse, GetBundleRequest, GetFederatedBundleRequest,
    ListFederatedBundlesRequest, ListFederatedBundlesResponse, PublishJwtAuthorityRequest, PublishJwtAuthorityResponse,
    PublishWitAuthorityRequest, PublishWitAuthorityResponse,
};
use ironroot_api::pb::types;
use tonic::{Request, Response, Status};

use super::caller::granted;
use super::{ServerState, count};
use crate::ca::{TokenKey, TrustBundle};
use crate::rights::{Administrator, DownstreamServer, Visitor};

/// SPIRE's `spire.api.server.bundle.v1.Bundle`.
#[derive(Clone, Debug)]
pub struct BundleApi(pub(super) Arc<ServerState>);

#[tonic::async_trait]
impl Bundle for BundleApi {
    async fn count_bundles(
        &self,
        request: Request<CountBundlesRequest>,
    ) -> Result<Response<CountBundlesResponse>, Status> {
        let _: Administrator = granted(&request)?;
        Ok(Response::new(CountBundlesResponse { count: count(self.0.federation.count_bundles() + 1) }))
    }

    async fn get_bundle(&self, request: Request<GetBundleRequest>) -> Result<Response<types::Bundle>, Status> {
        let _: Visitor = granted(&request)?;
        let bundle = self.0.ca.bundle().borrow().clone();
        Ok(Response::new(masked(to_pb(&bundle), request.into_inner().output_mask.as_ref())))
    }

    async fn publish_jwt_authority(
        &self,
        request: Request<PublishJwtAuthorityRequest>,
    ) -> Result<Response<PublishJwtAuthorityResponse>, Status> {
        let by: DownstreamServer = granted(&request)?;
        let jwt_authorities = self.publish(&by, request.into_inner()).await?;
        Ok(Response::new(PublishJwtAuthorityResponse { jwt_authorities }))
    }

    async fn publish_wit_authority(
        &self,
        request: Request<PublishWitAuthorityRequest>,
    ) -> Result<Response<PublishWitAuthorityResponse>, Status> {
        let by: DownstreamServer = granted(&request)?;
        let wit_authorities = self.publish_wit(&by, request.into_inner()).await?;
        Ok(Response::new(PublishWitAuthorityResponse { wit_authorities }))
    }

    async fn append_bundle(&self, request: Request<AppendBundleRequest>) -> Result<Response<types::Bundle>, Status> {
        let by: Administrator = granted(&request)?;
        self.append(&by, request.into_inner()).await.map(Response::new)
    }

    async fn list_federated_bundles(
        &self,
        request: Request<ListFederatedBundlesRequest>,
    ) -> Result<Response<ListFederatedBundlesResponse>, Status> {
        self.list_federated(request).map(Response::new)
    }

    async fn get_federated_bundle(
        &self,
        request: Request<GetFederatedBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        self.get_federated(request).map(Response::new)
    }

    async fn batch_create_federated_bundle(
        &self,
        request: Request<BatchCreateFederatedBundleRequest>,
    ) -> Result<Response<BatchCreateFederatedBundleResponse>, Status> {
        self.create_federated(request).await.map(Response::new)
    }

    async fn batch_update_federated_bundle(
        &self,
        request: Request<BatchUpdateFederatedBundleRequest>,
    ) -> Result<Response<BatchUpdateFederatedBundleResponse>, Status> {
        self.update_federated(request).await.map(Response::new)
    }

    async fn batch_set_federated_bundle(
        &self,
        request: Request<BatchSetFederatedBundleRequest>,
    ) -> Result<Response<BatchSetFederatedBundleResponse>, Status> {
        self.set_federated(request).await.map(Response::new)
    }

    async fn batch_delete_federated_bundle(
        &self,
        request: Request<BatchDeleteFederatedBundleRequest>,
    ) -> Result<Response<BatchDeleteFederatedBundleResponse>, Status> {
        self.delete_federated(request).await.map(Response::new)
    }
}

/// The wire form of the server's own bundle.
pub(super) fn to_pb(bundle: &TrustBundle) -> types::Bundle {
    let is_tainted = |der: &Vec<u8>| bundle.tainted_authorities.contains(der);
    let authority = |der| types::X509Certificate { asn1: Vec::clone(der).into(), tainted: is_tainted(der) };
    types::Bundle {
        trust_domain: bundle.trust_domain.as_str().to_owned(),
        x509_authorities: bundle.authorities.iter().map(authority).collect(),
        jwt_authorities: bundle.jwt_authorities.iter().map(jwt_key).collect(),
        wit_authorities: bundle.wit_authorities.iter().map(wit_key).collect(),
        refresh_hint: bundle.refresh_hint_seconds,
        sequence_number: bundle.sequence_number,
    }
}

fn jwt_key(authority: &TokenKey) -> types::JwtKey {
    types::JwtKey {
        public_key: authority.spki_der.clone().into(),
        key_id: authority.key_id.clone(),
        expires_at: authority.not_after_unix,
        tainted: authority.tainted,
    }
}

fn wit_key(authority: &TokenKey) -> types::WitKey {
    let types::JwtKey { public_key, key_id, expires_at, tainted } = jwt_key(authority);
    types::WitKey { public_key, key_id, expires_at, tainted }
}

/// `bundle` with whose it is and what `mask` names (no mask: everything).
pub(super) fn masked(mut bundle: types::Bundle, mask: Option<&types::BundleMask>) -> types::Bundle {
    let Some(mask) = mask else { return bundle };
    if !mask.x509_authorities {
        bundle.x509_authorities.clear();
    }
    if !mask.jwt_authorities {
        bundle.jwt_authorities.clear();
    }
    if !mask.wit_authorities {
        bundle.wit_authorities.clear();
    }
    if !mask.refresh_hint {
        bundle.refresh_hint = 0;
    }
    if !mask.sequence_number {
        bundle.sequence_number = 0;
    }
    bundle
}
