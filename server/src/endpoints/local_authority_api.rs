//! `spire.api.server.localauthority.v1`: the signing keys of this server, replaced by hand. The order of checks, the codes and the words
//! are SPIRE's.

mod words;

use std::sync::Arc;

use ironroot_api::pb::localauthority as pb;
use ironroot_api::pb::localauthority::local_authority_server::LocalAuthority;
use tonic::{Request, Response, Status};
use tracing::info;

use super::ServerState;
use super::caller::granted;
use crate::ca::{AuthorityState, LocalAuthorities, Order, OrderRefusal, Purpose};
use crate::rights::Administrator;
use words::{failure, object, status, success};

/// SPIRE's `spire.api.server.localauthority.v1.LocalAuthority`.
#[derive(Clone, Debug)]
pub struct LocalAuthorityApi(pub(super) Arc<ServerState>);

#[tonic::async_trait]
impl LocalAuthority for LocalAuthorityApi {
    async fn get_jwt_authority_state(
        &self,
        request: Request<pb::GetJwtAuthorityStateRequest>,
    ) -> Result<Response<pb::GetJwtAuthorityStateResponse>, Status> {
        let _: Administrator = granted(&request)?;
        self.require_jwt()?;
        let LocalAuthorities { active, prepared, old, .. } = self.state(Purpose::Jwt)?;
        let [active, prepared, old] = [active, prepared, old].map(|state| state.map(whole));
        Ok(Response::new(pb::GetJwtAuthorityStateResponse { active, prepared, old }))
    }

    async fn prepare_jwt_authority(
        &self,
        request: Request<pb::PrepareJwtAuthorityRequest>,
    ) -> Result<Response<pb::PrepareJwtAuthorityResponse>, Status> {
        let by: Administrator = granted(&request)?;
        self.require_jwt()?;
        let prepared_authority = self.obey(&by, "PrepareJWTAuthority", Order::Prepare(Purpose::Jwt)).await?;
        Ok(Response::new(pb::PrepareJwtAuthorityResponse { prepared_authority }))
    }

    async fn activate_jwt_authority(
        &self,
        request: Request<pb::ActivateJwtAuthorityRequest>,
    ) -> Result<Response<pb::ActivateJwtAuthorityResponse>, Status> {
        let by: Administrator = granted(&request)?;
        self.require_jwt()?;
        let activated_authority = self
            .obey(&by, "ActivateJWTAuthority", Order::Activate(Purpose::Jwt, request.into_inner().authority_id))
            .await?;
        Ok(Response::new(pb::ActivateJwtAuthorityResponse { activated_authority }))
    }

    async fn taint_jwt_authority(
        &self,
        request: Request<pb::TaintJwtAuthorityRequest>,
    ) -> Result<Response<pb::TaintJwtAuthorityResponse>, Status> {
        let by: Administrator = granted(&request)?;
        self.require_jwt()?;
        let tainted_authority =
            self.obey(&by, "TaintJWTAuthority", Order::Taint(Purpose::Jwt, request.into_inner().authority_id)).await?;
        Ok(Response::new(pb::TaintJwtAuthorityResponse { tainted_authority }))
    }

    async fn revoke_jwt_authority(
        &self,
        request: Request<pb::RevokeJwtAuthorityRequest>,
    ) -> Result<Response<pb::RevokeJwtAuthorityResponse>, Status> {
        let by: Administrator = granted(&request)?;
        self.require_jwt()?;
        let revoked_authority = self
            .obey(&by, "RevokeJWTAuthority", Order::Revoke(Purpose::Jwt, request.into_inner().authority_id))
            .await?;
        Ok(Response::new(pb::RevokeJwtAuthorityResponse { revoked_authority }))
    }

    async fn get_x509_authority_state(
        &self,
        request: Request<pb::GetX509AuthorityStateRequest>,
    ) -> Result<Response<pb::GetX509AuthorityStateResponse>, Status> {
        let _: Administrator = granted(&request)?;
        let LocalAuthorities { active, prepared, old, .. } = self.state(Purpose::X509Ca)?;
        let [active, prepared, old] = [active, prepared, old].map(|state| state.map(whole));
        Ok(Response::new(pb::GetX509AuthorityStateResponse { active, prepared, old }))
    }

    async fn prepare_x509_authority(
        &self,
        request: Request<pb::PrepareX509AuthorityRequest>,
    ) -> Result<Response<pb::PrepareX509AuthorityResponse>, Status> {
        let by: Administrator = granted(&request)?;
        let prepared_authority = self.obey(&by, "PrepareX509Authority", Order::Prepare(Purpose::X509Ca)).await?;
        Ok(Response::new(pb::PrepareX509AuthorityResponse { prepared_authority }))
    }

    async fn activate_x509_authority(
        &self,
        request: Request<pb::ActivateX509AuthorityRequest>,
    ) -> Result<Response<pb::ActivateX509AuthorityResponse>, Status> {
        let by: Administrator = granted(&request)?;
        let activated_authority = self
            .obey(&by, "ActivateX509Authority", Order::Activate(Purpose::X509Ca, request.into_inner().authority_id))
            .await?;
        Ok(Response::new(pb::ActivateX509AuthorityResponse { activated_authority }))
    }

    async fn taint_x509_authority(
        &self,
        request: Request<pb::TaintX509AuthorityRequest>,
    ) -> Result<Response<pb::TaintX509AuthorityResponse>, Status> {
        let by: Administrator = granted(&request)?;
        let tainted_authority = self
            .obey(&by, "TaintX509Authority", Order::Taint(Purpose::X509Ca, request.into_inner().authority_id))
            .await?;
        Ok(Response::new(pb::TaintX509AuthorityResponse { tainted_authority }))
    }

    async fn revoke_x509_authority(
        &self,
        request: Request<pb::RevokeX509AuthorityRequest>,
    ) -> Result<Response<pb::RevokeX509AuthorityResponse>, Status> {
        let by: Administrator = granted(&request)?;
        let revoked_authority = self
            .obey(&by, "RevokeX509Authority", Order::Revoke(Purpose::X509Ca, request.into_inner().authority_id))
            .await?;
        Ok(Response::new(pb::RevokeX509AuthorityResponse { revoked_authority }))
    }

    async fn taint_x509_upstream_authority(
        &self,
        request: Request<pb::TaintX509UpstreamAuthorityRequest>,
    ) -> Result<Response<pb::TaintX509UpstreamAuthorityResponse>, Status> {
        let by: Administrator = granted(&request)?;
        let order = Order::TaintUpstream(request.into_inner().subject_key_id);
        let tainted = self.obey(&by, "TaintX509UpstreamAuthority", order).await?;
        let upstream_authority_subject_key_id = tainted.unwrap_or_default().authority_id;
        Ok(Response::new(pb::TaintX509UpstreamAuthorityResponse { upstream_authority_subject_key_id }))
    }

    async fn revoke_x509_upstream_authority(
        &self,
        request: Request<pb::RevokeX509UpstreamAuthorityRequest>,
    ) -> Result<Response<pb::RevokeX509UpstreamAuthorityResponse>, Status> {
        let by: Administrator = granted(&request)?;
        let order = Order::RevokeUpstream(request.into_inner().subject_key_id);
        let revoked = self.obey(&by, "RevokeX509UpstreamAuthority", order).await?;
        let upstream_authority_subject_key_id = revoked.unwrap_or_default().authority_id;
        Ok(Response::new(pb::RevokeX509UpstreamAuthorityResponse { upstream_authority_subject_key_id }))
    }

    async fn get_wit_authority_state(
        &self,
        request: Request<pb::GetWitAuthorityStateRequest>,
    ) -> Result<Response<pb::GetWitAuthorityStateResponse>, Status> {
        let _: Administrator = granted(&request)?;
        self.require_wit()?;
        let LocalAuthorities { active, prepared, old, .. } = self.state(Purpose::Wit)?;
        let [active, prepared, old] = [active, prepared, old].map(|state| state.map(whole));
        Ok(Response::new(pb::GetWitAuthorityStateResponse { active, prepared, old }))
    }

    async fn prepare_wit_authority(
        &self,
        request: Request<pb::PrepareWitAuthorityRequest>,
    ) -> Result<Response<pb::PrepareWitAuthorityResponse>, Status> {
        let by: Administrator = granted(&request)?;
        self.require_wit()?;
        let prepared_authority = self.obey(&by, "PrepareWITAuthority", Order::Prepare(Purpose::Wit)).await?;
        Ok(Response::new(pb::PrepareWitAuthorityResponse { prepared_authority }))
    }

    async fn activate_wit_authority(
        &self,
        request: Request<pb::ActivateWitAuthorityRequest>,
    ) -> Result<Response<pb::ActivateWitAuthorityResponse>, Status> {
        let by: Administrator = granted(&request)?;
        self.require_wit()?;
        let activated_authority = self
            .obey(&by, "ActivateWITAuthority", Order::Activate(Purpose::Wit, request.into_inner().authority_id))
            .await?;
        Ok(Response::new(pb::ActivateWitAuthorityResponse { activated_authority }))
    }

    async fn taint_wit_authority(
        &self,
        request: Request<pb::TaintWitAuthorityRequest>,
    ) -> Result<Response<pb::TaintWitAuthorityResponse>, Status> {
        let by: Administrator = granted(&request)?;
        self.require_wit()?;
        let tainted_authority =
            self.obey(&by, "TaintWITAuthority", Order::Taint(Purpose::Wit, request.into_inner().authority_id)).await?;
        Ok(Response::new(pb::TaintWitAuthorityResponse { tainted_authority }))
    }

    async fn revoke_wit_authority(
        &self,
        request: Request<pb::RevokeWitAuthorityRequest>,
    ) -> Result<Response<pb::RevokeWitAuthorityResponse>, Status> {
        let by: Administrator = granted(&request)?;
        self.require_wit()?;
        let revoked_authority = self
            .obey(&by, "RevokeWITAuthority", Order::Revoke(Purpose::Wit, request.into_inner().authority_id))
            .await?;
        Ok(Response::new(pb::RevokeWitAuthorityResponse { revoked_authority }))
    }
}

impl LocalAuthorityApi {
    /// Whether there is a root above the CAs, of this server or of the authority above.
    pub(super) fn require_any_root(&self) -> Result<(), Status> {
        if self.0.ca.renewed_above().is_some() { Ok(()) } else { self.require_root() }
    }

    /// Whether there is a root of this server's own above the CAs.
    pub(super) fn require_root(&self) -> Result<(), Status> {
        if let Some(how) = self.0.ca.renewed_above() {
            let words = format!("the root is not this server's: {how}");
            return Err(Status::failed_precondition(words));
        }
        let no_root = || status(OrderRefusal::NoRoot.into(), "");
        if self.0.ca.has_root() { Ok(()) } else { Err(no_root()) }
    }

    fn require_jwt(&self) -> Result<(), Status> {
        self.0.ca.offers_jwt_svids().map_err(|disabled| Status::unimplemented(disabled.to_string()))
    }

    fn require_wit(&self) -> Result<(), Status> {
        self.0.ca.offers_wit_svids().map_err(|disabled| Status::unimplemented(disabled.to_string()))
    }

    /// Source: SPIRE, GetX509AuthorityState.
    pub(super) fn state(&self, purpose: Purpose) -> Result<LocalAuthorities, Status> {
        let state = self.0.ca.local_authorities(purpose);
        match state.active {
            Some(_) => Ok(state),
            None => Err(status(OrderRefusal::Initializing.into(), "")),
        }
    }

    /// Has an order carried out, with its lines in the log and the audit's.
    pub(super) async fn obey(
        &self,
        by: &Administrator,
        method: &'static str,
        order: Order,
    ) -> Result<Option<pb::AuthorityState>, Status> {
        let (object, failure, success) = (object(&order), failure(&order), success(&order));
        match self.0.ca.obey(by, order).await {
            Ok(state) => {
                self.0.audit.done(by.caller(), method, &state.id);
                if let Some(success) = success {
                    info!(local_authority_id = state.id, "{success}");
                }
                Ok(Some(whole(state)))
            }
            Err(error) => Err(self.0.audit.refused(by.caller(), method, object, status(error, failure))),
        }
    }
}

pub(super) fn whole(state: AuthorityState) -> pb::AuthorityState {
    let AuthorityState { id, expires_at_unix, upstream_id, .. } = state;
    pb::AuthorityState { authority_id: id, expires_at: expires_at_unix, upstream_authority_subject_key_id: upstream_id }
}
