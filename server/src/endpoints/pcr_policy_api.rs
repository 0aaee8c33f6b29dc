//! `ironroot.api.server.pcrpolicy.v1`: what devices may have booted, for administrators.

use std::sync::Arc;

use ironroot_api::pb::pcr_policy as pb;
use ironroot_api::pb::pcr_policy::pcr_policy_server::PcrPolicy;
use ironroot_text::hex::parse_hex;
use tonic::{Request, Response, Status};

use super::caller::granted;
use super::{ServerState, store_status};
use crate::devices::{NewPolicy, PolicyError};
use crate::rights::Administrator;

/// Ours: `ironroot.api.server.pcrpolicy.v1.PcrPolicy`.
#[derive(Clone, Debug)]
pub struct PcrPolicyApi(pub(super) Arc<ServerState>);

#[tonic::async_trait]
impl PcrPolicy for PcrPolicyApi {
    async fn list_policies(
        &self,
        request: Request<pb::ListPoliciesRequest>,
    ) -> Result<Response<pb::ListPoliciesResponse>, Status> {
        let _: Administrator = granted(&request)?;
        let policies = self.0.devices.policies().iter().map(|policy| policy.to_pb()).collect();
        Ok(Response::new(pb::ListPoliciesResponse { policies }))
    }

    async fn get_policy(&self, request: Request<pb::PolicyRequest>) -> Result<Response<pb::Policy>, Status> {
        let _: Administrator = granted(&request)?;
        let found = self.0.devices.policy(&request.get_ref().name);
        let policy = found.ok_or_else(|| policy_status(PolicyError::NotFound))?;
        Ok(Response::new(policy.to_pb()))
    }

    async fn set_policy(&self, request: Request<pb::Policy>) -> Result<Response<pb::Policy>, Status> {
        let by: Administrator = granted(&request)?;
        let refused =
            |error| self.0.audit.refused(by.caller(), "SetPolicy", &request.get_ref().name, policy_status(error));
        let policy = NewPolicy::from_pb(request.get_ref()).map_err(|found| refused(PolicyError::Policy(found)))?;
        let set = self.0.devices.set_policy(&by, policy).await.map_err(refused)?;
        self.0.audit.done(by.caller(), "SetPolicy", &set.name);
        Ok(Response::new(set.to_pb()))
    }

    async fn delete_policy(&self, request: Request<pb::PolicyRequest>) -> Result<Response<()>, Status> {
        let by: Administrator = granted(&request)?;
        let name = &request.get_ref().name;
        let refused = |error| self.0.audit.refused(by.caller(), "DeletePolicy", name, policy_status(error));
        self.0.devices.delete_policy(&by, name).await.map_err(refused)?;
        self.0.audit.done(by.caller(), "DeletePolicy", name);
        Ok(Response::new(()))
    }

    async fn learn_policy(&self, request: Request<pb::LearnPolicyRequest>) -> Result<Response<pb::Policy>, Status> {
        let by: Administrator = granted(&request)?;
        let request = request.into_inner();
        let (name, device) = (request.name.clone(), request.ek_sha256.clone());
        let refused = |status| self.0.audit.refused(by.caller(), "LearnPolicy", &name, status);
        let no_key = || Status::invalid_argument("ek_sha256 must be 64 hexadecimal digits");
        let ek_sha256 = parse_hex(&device).ok_or_else(no_key).map_err(refused)?;
        let learnt = self.0.devices.learn_policy(&by, &ek_sha256, request).await;
        let learnt = learnt.map_err(|error| refused(policy_status(error)))?;
        self.0.audit.done(by.caller(), "LearnPolicy", format_args!("{name} from {device}"));
        Ok(Response::new(learnt.to_pb()))
    }
}

/// Whose fault decides the code.
fn policy_status(error: PolicyError) -> Status {
    match error {
        PolicyError::NotFound | PolicyError::DeviceNotFound => Status::not_found(error.to_string()),
        PolicyError::Policy(_) => Status::invalid_argument(format!("invalid policy: {error}")),
        PolicyError::TooMany => Status::resource_exhausted(error.to_string()),
        PolicyError::NoBoot | PolicyError::NotQuoted(_) => Status::failed_precondition(error.to_string()),
        PolicyError::Store(cause) => store_status(cause),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::devices::PcrPolicyError;
    use crate::store::StoreError;

    #[test]
    fn each_refusal_has_its_code() {
        for (error, code) in [
            (PolicyError::NotFound, Code::NotFound),
            (PolicyError::DeviceNotFound, Code::NotFound),
            (PolicyError::Policy(vec![PcrPolicyError::Name]), Code::InvalidArgument),
            (PolicyError::TooMany, Code::ResourceExhausted),
            (PolicyError::NoBoot, Code::FailedPrecondition),
            (PolicyError::NotQuoted(9), Code::FailedPrecondition),
            (PolicyError::Store(StoreError::Closed), Code::Unavailable),
        ] {
            assert_eq!(policy_status(error).code(), code);
        }
    }
}
