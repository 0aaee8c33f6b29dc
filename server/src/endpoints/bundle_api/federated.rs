//! Bundles of other trust domains: each item of a batch is judged and answered by itself, in order.

use ironroot_api::bundle::{Bundle, BundleError};
use ironroot_api::pb::bundle::{
    BatchCreateFederatedBundleRequest, BatchCreateFederatedBundleResponse, BatchDeleteFederatedBundleRequest,
    BatchDeleteFederatedBundleResponse, BatchSetFederatedBundleRequest, BatchSetFederatedBundleResponse,
    BatchUpdateFederatedBundleRequest, BatchUpdateFederatedBundleResponse, GetFederatedBundleRequest,
    ListFederatedBundlesRequest, ListFederatedBundlesResponse, batch_create_federated_bundle_response,
    batch_delete_federated_bundle_response, batch_set_federated_bundle_response,
    batch_update_federated_bundle_response,
};
use ironroot_api::pb::types;
use ironroot_api::{SpiffeIdError, TrustDomain};
use ironroot_shell::command_line::describe;
use tonic::{Request, Status};

use super::{BundleApi, masked};
use crate::endpoints::caller::granted;
use crate::endpoints::federation_status::federation_status;
use crate::endpoints::{item_ok, item_status};
use crate::federation::{DeleteMode, FederationError};
use crate::rights::{Administrator, Insider};

/// Another trust domain's name in words of a refusal.
struct Verb {
    method: &'static str,
    /// As in "creating a federated bundle for ... is not allowed".
    doing: &'static str,
}

const CREATE: Verb = Verb { method: "BatchCreateFederatedBundle", doing: "creating" };
const UPDATE: Verb = Verb { method: "BatchUpdateFederatedBundle", doing: "updating" };
const SET: Verb = Verb { method: "BatchSetFederatedBundle", doing: "setting" };
const DELETE: &str = "BatchDeleteFederatedBundle";

impl BundleApi {
    pub(super) fn list_federated(
        &self,
        request: Request<ListFederatedBundlesRequest>,
    ) -> Result<ListFederatedBundlesResponse, Status> {
        let _: Administrator = granted(&request)?;
        let request = request.into_inner();
        let page = self.0.federation.list_bundles(request.page_size, &request.page_token).map_err(federation_status)?;
        let mask = request.output_mask.as_ref();
        let bundles = page.items.iter().map(|bundle| masked(bundle.to_pb().clone(), mask)).collect();
        Ok(ListFederatedBundlesResponse { bundles, next_page_token: page.next_page_token })
    }

    pub(super) fn get_federated(&self, request: Request<GetFederatedBundleRequest>) -> Result<types::Bundle, Status> {
        let _: Insider = granted(&request)?;
        let request = request.into_inner();
        let trust_domain = self.other_trust_domain(&request.trust_domain, "getting")?;
        let bundle = self.0.federation.bundle(&trust_domain).ok_or(FederationError::BundleNotFound);
        let bundle = bundle.map_err(federation_status)?;
        Ok(masked(bundle.to_pb().clone(), request.output_mask.as_ref()))
    }

    pub(super) async fn create_federated(
        &self,
        request: Request<BatchCreateFederatedBundleRequest>,
    ) -> Result<BatchCreateFederatedBundleResponse, Status> {
        let by: Administrator = granted(&request)?;
        let request = request.into_inner();
        let mut results = Vec::new();
        for asked in &request.bundle {
            let outcome = match self.other_bundle(asked, &CREATE) {
                Ok(bundle) => self.0.federation.create_bundle(&by, bundle).await.map_err(federation_status),
                Err(status) => Err(status),
            };
            let (status, bundle) = self.answered(&by, &CREATE, asked, outcome, request.output_mask.as_ref());
            results.push(batch_create_federated_bundle_response::Result { status: Some(status), bundle });
        }
        Ok(BatchCreateFederatedBundleResponse { results })
    }

    pub(super) async fn update_federated(
        &self,
        request: Request<BatchUpdateFederatedBundleRequest>,
    ) -> Result<BatchUpdateFederatedBundleResponse, Status> {
        let by: Administrator = granted(&request)?;
        let request = request.into_inner();
        let mut results = Vec::new();
        for asked in &request.bundle {
            let outcome = match self.other_bundle(asked, &UPDATE) {
                Ok(bundle) => {
                    let updated = self.0.federation.update_bundle(&by, bundle, request.input_mask.as_ref());
                    updated.await.map_err(federation_status)
                }
                Err(status) => Err(status),
            };
            let (status, bundle) = self.answered(&by, &UPDATE, asked, outcome, request.output_mask.as_ref());
            results.push(batch_update_federated_bundle_response::Result { status: Some(status), bundle });
        }
        Ok(BatchUpdateFederatedBundleResponse { results })
    }

    pub(super) async fn set_federated(
        &self,
        request: Request<BatchSetFederatedBundleRequest>,
    ) -> Result<BatchSetFederatedBundleResponse, Status> {
        let by: Administrator = granted(&request)?;
        let request = request.into_inner();
        let mut results = Vec::new();
        for asked in &request.bundle {
            let outcome = match self.other_bundle(asked, &SET) {
                Ok(bundle) => self.0.federation.set_bundle(&by, bundle).await.map_err(federation_status),
                Err(status) => Err(status),
            };
            let (status, bundle) = self.answered(&by, &SET, asked, outcome, request.output_mask.as_ref());
            results.push(batch_set_federated_bundle_response::Result { status: Some(status), bundle });
        }
        Ok(BatchSetFederatedBundleResponse { results })
    }

    pub(super) async fn delete_federated(
        &self,
        request: Request<BatchDeleteFederatedBundleRequest>,
    ) -> Result<BatchDeleteFederatedBundleResponse, Status> {
        let by: Administrator = granted(&request)?;
        let request = request.into_inner();
        let mode = DeleteMode::from_pb(request.mode).ok_or_else(|| {
            Status::invalid_argument(format!(
                "failed to parse deletion mode: unhandled delete mode \"{}\"",
                request.mode
            ))
        })?;
        let mut results = Vec::new();
        for name in request.trust_domains {
            let status = match self.delete_one(&by, &name, mode).await {
                Ok(()) => {
                    self.0.audit.done(by.caller(), DELETE, &name);
                    item_ok()
                }
                Err(error) => item_status(&self.0.audit.refused(by.caller(), DELETE, &name, error)),
            };
            results.push(batch_delete_federated_bundle_response::Result { status: Some(status), trust_domain: name });
        }
        Ok(BatchDeleteFederatedBundleResponse { results })
    }

    async fn delete_one(&self, by: &Administrator, name: &str, mode: DeleteMode) -> Result<(), Status> {
        let trust_domain = trust_domain(name)?;
        if trust_domain == self.0.trust_domain {
            return Err(Status::invalid_argument("removing the bundle for the server trust domain is not allowed"));
        }
        self.0.federation.delete_bundle(by, &trust_domain, mode).await.map_err(federation_status)
    }

    /// What became of one bundle of a batch, as it is answered and written into the audit trail.
    fn answered(
        &self,
        by: &Administrator,
        verb: &Verb,
        asked: &types::Bundle,
        outcome: Result<Bundle, Status>,
        mask: Option<&types::BundleMask>,
    ) -> (types::Status, Option<types::Bundle>) {
        match outcome {
            Ok(bundle) => {
                self.0.audit.done(by.caller(), verb.method, bundle.trust_domain());
                (item_ok(), Some(masked(bundle.to_pb().clone(), mask)))
            }
            Err(error) => {
                (item_status(&self.0.audit.refused(by.caller(), verb.method, &asked.trust_domain, error)), None)
            }
        }
    }

    fn other_bundle(&self, asked: &types::Bundle, verb: &Verb) -> Result<Bundle, Status> {
        self.other_trust_domain(&asked.trust_domain, verb.doing)?;
        Bundle::from_pb(asked).map_err(|error: BundleError| federation_status(error.into()))
    }

    /// The trust domain of that name, which is not the server's own.
    fn other_trust_domain(&self, name: &str, doing: &str) -> Result<TrustDomain, Status> {
        let trust_domain = trust_domain(name)?;
        if trust_domain == self.0.trust_domain {
            let words = format!("{doing} a federated bundle for the server's own trust domain is not allowed");
            return Err(Status::invalid_argument(words));
        }
        Ok(trust_domain)
    }
}

fn trust_domain(name: &str) -> Result<TrustDomain, Status> {
    let not_valid = |error: SpiffeIdError| {
        Status::invalid_argument(format!("trust domain argument is not valid: {}", describe(&error)))
    };
    TrustDomain::new(name).map_err(not_valid)
}
