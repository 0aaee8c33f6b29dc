//! `spire.api.server.bundle.v1`: the trust bundle, readable by anyone.

mod publish;

use std::sync::Arc;

use ironroot_api::pb::bundle::bundle_server::Bundle;
use ironroot_api::pb::bundle::{GetBundleRequest, PublishJwtAuthorityRequest, PublishJwtAuthorityResponse};
use ironroot_api::pb::types;
use tonic::{Request, Response, Status};

use super::ServerState;
use super::caller::granted;
use crate::ca::{JwtAuthority, TrustBundle};
use crate::rights::{DownstreamServer, Visitor};

/// SPIRE's `spire.api.server.bundle.v1.Bundle`.
#[derive(Clone, Debug)]
pub struct BundleApi(pub(super) Arc<ServerState>);

#[tonic::async_trait]
impl Bundle for BundleApi {
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
}

fn to_pb(bundle: &TrustBundle) -> types::Bundle {
    let is_tainted = |der: &Vec<u8>| bundle.tainted_authorities.contains(der);
    let authority = |der| types::X509Certificate { asn1: Vec::clone(der).into(), tainted: is_tainted(der) };
    types::Bundle {
        trust_domain: bundle.trust_domain.as_str().to_owned(),
        x509_authorities: bundle.authorities.iter().map(authority).collect(),
        jwt_authorities: bundle.jwt_authorities.iter().map(jwt_key).collect(),
        refresh_hint: bundle.refresh_hint_seconds,
        sequence_number: bundle.sequence_number,
    }
}

fn jwt_key(authority: &JwtAuthority) -> types::JwtKey {
    types::JwtKey {
        public_key: authority.spki_der.clone().into(),
        key_id: authority.key_id.clone(),
        expires_at: authority.not_after_unix,
        tainted: authority.tainted,
    }
}

fn masked(mut bundle: types::Bundle, mask: Option<&types::BundleMask>) -> types::Bundle {
    let Some(mask) = mask else { return bundle };
    if !mask.x509_authorities {
        bundle.x509_authorities.clear();
    }
    if !mask.jwt_authorities {
        bundle.jwt_authorities.clear();
    }
    if !mask.refresh_hint {
        bundle.refresh_hint = 0;
    }
    if !mask.sequence_number {
        bundle.sequence_number = 0;
    }
    bundle
}
