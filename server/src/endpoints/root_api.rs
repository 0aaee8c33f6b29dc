//! `ironroot.api.server.root.v1`: the root above the CAs, replaced by hand as CAs are.

use ironroot_api::pb::root as pb;
use ironroot_api::pb::root::root_server::Root;
use tonic::{Request, Response, Status};

use super::caller::granted;
use super::local_authority_api::{LocalAuthorityApi, whole};
use crate::ca::{LocalAuthorities, Order, Purpose};
use crate::rights::Administrator;

/// The root service. A server without a root says that it has none.
#[derive(Clone, Debug)]
pub struct RootApi(pub(super) LocalAuthorityApi);

#[tonic::async_trait]
impl Root for RootApi {
    async fn get_root_state(
        &self,
        request: Request<pb::GetRootStateRequest>,
    ) -> Result<Response<pb::GetRootStateResponse>, Status> {
        let _: Administrator = granted(&request)?;
        self.0.require_any_root()?;
        let LocalAuthorities { active, prepared, old, published } = self.0.state(Purpose::Root)?;
        let [active, prepared, old] = [active, prepared, old].map(|state| state.map(whole));
        let published = published.into_iter().map(whole).collect();
        Ok(Response::new(pb::GetRootStateResponse { active, prepared, old, published }))
    }

    async fn prepare_root(
        &self,
        request: Request<pb::PrepareRootRequest>,
    ) -> Result<Response<pb::PrepareRootResponse>, Status> {
        let by: Administrator = granted(&request)?;
        self.0.require_root()?;
        let prepared_authority = self.0.obey(&by, "PrepareRoot", Order::Prepare(Purpose::Root)).await?;
        Ok(Response::new(pb::PrepareRootResponse { prepared_authority }))
    }

    async fn activate_root(
        &self,
        request: Request<pb::ActivateRootRequest>,
    ) -> Result<Response<pb::ActivateRootResponse>, Status> {
        let by: Administrator = granted(&request)?;
        self.0.require_root()?;
        let order = Order::Activate(Purpose::Root, request.into_inner().authority_id.to_ascii_lowercase());
        let activated_authority = self.0.obey(&by, "ActivateRoot", order).await?;
        Ok(Response::new(pb::ActivateRootResponse { activated_authority }))
    }
}
