//! `spire.api.server.trustdomain.v1`: where other trust domains show their bundles, for administrators.

use std::sync::Arc;

use ironroot_api::TrustDomain as Name;
use ironroot_api::pb::trustdomain::trust_domain_server::TrustDomain;
use ironroot_api::pb::trustdomain::{
    BatchCreateFederationRelationshipRequest, BatchCreateFederationRelationshipResponse,
    BatchDeleteFederationRelationshipRequest, BatchDeleteFederationRelationshipResponse,
    BatchUpdateFederationRelationshipRequest, BatchUpdateFederationRelationshipResponse,
    GetFederationRelationshipRequest, ListFederationRelationshipsRequest, ListFederationRelationshipsResponse,
    RefreshBundleRequest, batch_create_federation_relationship_response, batch_delete_federation_relationship_response,
    batch_update_federation_relationship_response,
};
use ironroot_api::pb::types;
use ironroot_shell::command_line::describe;
use tonic::{Request, Response, Status};

use super::caller::granted;
use super::federation_status::federation_status;
use super::{ServerState, item_ok, item_status};
use crate::bundle_client::RefreshError;
use crate::facts::federation::{EndpointProfile, FederationRelationship};
use crate::federation::{FederationError, Held};
use crate::rights::Administrator;

const CREATE: &str = "BatchCreateFederationRelationship";
const UPDATE: &str = "BatchUpdateFederationRelationship";
const DELETE: &str = "BatchDeleteFederationRelationship";
const REFRESH: &str = "RefreshBundle";

/// SPIRE's `spire.api.server.trustdomain.v1.TrustDomain`.
#[derive(Clone, Debug)]
pub struct TrustDomainApi(pub(super) Arc<ServerState>);

#[tonic::async_trait]
impl TrustDomain for TrustDomainApi {
    async fn list_federation_relationships(
        &self,
        request: Request<ListFederationRelationshipsRequest>,
    ) -> Result<Response<ListFederationRelationshipsResponse>, Status> {
        let _: Administrator = granted(&request)?;
        let request = request.into_inner();
        let page = self.0.federation.list_relationships(request.page_size, &request.page_token);
        let page = page.map_err(federation_status)?;
        let mask = request.output_mask.as_ref();
        let relationships = page.items.iter().map(|(held, bundle)| held.to_pb(bundle.as_deref(), mask));
        Ok(Response::new(ListFederationRelationshipsResponse {
            federation_relationships: relationships.collect(),
            next_page_token: page.next_page_token,
        }))
    }

    async fn get_federation_relationship(
        &self,
        request: Request<GetFederationRelationshipRequest>,
    ) -> Result<Response<types::FederationRelationship>, Status> {
        let _: Administrator = granted(&request)?;
        let request = request.into_inner();
        let name = name(&request.trust_domain)?;
        let held = self.0.federation.relationship(&name);
        let held = held.ok_or_else(|| Status::not_found("federation relationship does not exist"))?;
        let bundle = self.0.federation.bundle(&name);
        Ok(Response::new(held.to_pb(bundle.as_deref(), request.output_mask.as_ref())))
    }

    async fn batch_create_federation_relationship(
        &self,
        request: Request<BatchCreateFederationRelationshipRequest>,
    ) -> Result<Response<BatchCreateFederationRelationshipResponse>, Status> {
        let by: Administrator = granted(&request)?;
        let request = request.into_inner();
        let mut results = Vec::new();
        for asked in &request.federation_relationships {
            let outcome = self.0.federation.create_relationship(&by, asked).await;
            let (status, held) = self.answered(&by, CREATE, asked, outcome, request.output_mask.as_ref());
            results.push(batch_create_federation_relationship_response::Result {
                status: Some(status),
                federation_relationship: held,
            });
        }
        Ok(Response::new(BatchCreateFederationRelationshipResponse { results }))
    }

    async fn batch_update_federation_relationship(
        &self,
        request: Request<BatchUpdateFederationRelationshipRequest>,
    ) -> Result<Response<BatchUpdateFederationRelationshipResponse>, Status> {
        let by: Administrator = granted(&request)?;
        let request = request.into_inner();
        let mut results = Vec::new();
        for asked in &request.federation_relationships {
            let outcome = self.0.federation.update_relationship(&by, asked, request.input_mask.as_ref()).await;
            let (status, held) = self.answered(&by, UPDATE, asked, outcome, request.output_mask.as_ref());
            results.push(batch_update_federation_relationship_response::Result {
                status: Some(status),
                federation_relationship: held,
            });
        }
        Ok(Response::new(BatchUpdateFederationRelationshipResponse { results }))
    }

    async fn batch_delete_federation_relationship(
        &self,
        request: Request<BatchDeleteFederationRelationshipRequest>,
    ) -> Result<Response<BatchDeleteFederationRelationshipResponse>, Status> {
        let by: Administrator = granted(&request)?;
        let mut results = Vec::new();
        for asked in request.into_inner().trust_domains {
            let (trust_domain, outcome) = self.delete(&by, asked).await;
            let status = match outcome {
                Ok(()) => {
                    self.0.audit.done(by.caller(), DELETE, &trust_domain);
                    item_ok()
                }
                Err(error) => item_status(&self.0.audit.refused(by.caller(), DELETE, &trust_domain, error)),
            };
            let status = Some(status);
            results.push(batch_delete_federation_relationship_response::Result { status, trust_domain });
        }
        Ok(Response::new(BatchDeleteFederationRelationshipResponse { results }))
    }

    async fn refresh_bundle(&self, request: Request<RefreshBundleRequest>) -> Result<Response<()>, Status> {
        let by: Administrator = granted(&request)?;
        let asked = &request.get_ref().trust_domain;
        let refreshed = self.0.refresher.refresh(name(asked)?).await.map_err(|error| match &error {
            RefreshError::NoRelationship(_) => Status::not_found(describe(&error)),
            RefreshError::Failed(_) => Status::internal(describe(&error)),
        });
        refreshed.map_err(|status| self.0.audit.refused(by.caller(), REFRESH, asked, status))?;
        self.0.audit.done(by.caller(), REFRESH, asked);
        Ok(Response::new(()))
    }
}

impl TrustDomainApi {
    /// With the bare name of the trust domain, if it is one.
    async fn delete(&self, by: &Administrator, asked: String) -> (String, Result<(), Status>) {
        if asked.is_empty() {
            return (asked, Err(Status::invalid_argument("missing trust domain")));
        }
        match name(&asked) {
            Ok(name) => {
                let outcome = self.0.federation.delete_relationship(by, &name).await;
                (name.as_str().to_owned(), outcome.map_err(federation_status))
            }
            Err(error) => (asked, Err(error)),
        }
    }

    /// Source: SPIRE, which takes it all the same: the bundle may come later.
    fn warn_of_an_unproven_endpoint(&self, held: &FederationRelationship) {
        let EndpointProfile::HttpsSpiffe(endpoint_id) = &held.profile else { return };
        let of = endpoint_id.trust_domain();
        if of != self.0.trust_domain && self.0.federation.bundle(&of).is_none() {
            let trust_domain = &held.trust_domain;
            tracing::warn!(%trust_domain, %endpoint_id, "bundle not found for the endpoint SPIFFE ID trust domain");
        }
    }

    /// What became of one relationship of a batch, as it is answered and written into the audit trail.
    fn answered(
        &self,
        by: &Administrator,
        method: &'static str,
        asked: &types::FederationRelationship,
        outcome: Result<Held, FederationError>,
        mask: Option<&types::FederationRelationshipMask>,
    ) -> (types::Status, Option<types::FederationRelationship>) {
        match outcome {
            Ok((held, bundle)) => {
                self.0.audit.done(by.caller(), method, &held.trust_domain);
                self.warn_of_an_unproven_endpoint(&held);
                (item_ok(), Some(held.to_pb(bundle.as_ref(), mask)))
            }
            Err(error) => {
                let status = federation_status(error);
                (item_status(&self.0.audit.refused(by.caller(), method, &asked.trust_domain, status)), None)
            }
        }
    }
}

fn name(text: &str) -> Result<Name, Status> {
    Name::new(text)
        .map_err(|error| Status::invalid_argument(format!("failed to parse trust domain: {}", describe(&error))))
}
