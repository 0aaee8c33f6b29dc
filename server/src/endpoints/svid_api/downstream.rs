//! NewDownstreamX509CA: the CA of a server below. Source of the texts: SPIRE, pkg/server/api/svid/v1/service.go.

use ironroot_api::csr::{Csr, CsrError};
use ironroot_api::pb::svid::{NewDownstreamX509caRequest, NewDownstreamX509caResponse};
use ironroot_shell::command_line::describe;
use tonic::Status;

use super::SvidApi;
use crate::ca::{CaError, CaToSign};
use crate::rights::DownstreamServer;
use ironroot_shell::logging::in_moderation;

/// What the log says, in moderation.
const NOT_SIGNED: &str = "the CA of a downstream server is not signed";

impl SvidApi {
    pub(super) async fn new_downstream_ca(
        &self,
        by: &DownstreamServer,
        request: &NewDownstreamX509caRequest,
    ) -> Result<NewDownstreamX509caResponse, Status> {
        let server = &self.0;
        server.limits.signing(by.caller().address(), 1).await?;
        let refused = |status| server.audit.refused(by.caller(), "NewDownstreamX509CA", by.id(), status);
        let by = &server.downstream_again(by).map_err(refused)?;
        let csr = Csr::parse(&request.csr).map_err(|error| refused(bad_request(&error)))?;
        let ca = CaToSign::of(by, &csr, request.preferred_ttl);
        let issued = server.ca.sign_downstream_ca(ca, server.now_unix()).await;
        let issued = issued.map_err(|error| refused(not_signed(&error)))?;
        let object = format!("{} serial {}", server.trust_domain.id(), issued.serial);
        server.audit.done(by.caller(), "NewDownstreamX509CA", object);
        let authorities = server.ca.bundle().borrow().authorities.clone();
        Ok(NewDownstreamX509caResponse {
            ca_cert_chain: issued.chain.into_iter().map(Into::into).collect(),
            x509_authorities: authorities.into_iter().map(Into::into).collect(),
        })
    }
}

fn bad_request(error: &CsrError) -> Status {
    let what = if *error == CsrError::Signature { "invalid CSR signature" } else { "malformed CSR" };
    Status::invalid_argument(format!("{what}: {}", describe(error)))
}

fn not_signed(error: &CaError) -> Status {
    if let Some(pass) = in_moderation(NOT_SIGNED) {
        tracing::error!(error = error as &dyn std::error::Error, suppressed = pass.suppressed, "{NOT_SIGNED}");
    }
    let what = "failed to sign downstream X.509 CA";
    match error {
        CaError::TooManyTiers => Status::failed_precondition(format!("{what}: {error}")),
        _ => Status::internal(what),
    }
}
