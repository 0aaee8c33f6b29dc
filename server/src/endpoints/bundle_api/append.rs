//! AppendBundle: an administrator puts authorities into the trust domain's own bundle. Source of the texts: SPIRE,
//! pkg/server/api/bundle/v1/service.go.

use ironroot_api::pb::bundle::AppendBundleRequest;
use ironroot_api::pb::types;
use ironroot_shell::command_line::describe;
use tonic::Status;

use super::{BundleApi, masked, to_pb};
use crate::ca::{AppendError, AppendedAuthorities};
use crate::endpoints::store_status;
use crate::rights::Administrator;

impl BundleApi {
    pub(super) async fn append(
        &self,
        by: &Administrator,
        request: AppendBundleRequest,
    ) -> Result<types::Bundle, Status> {
        const METHOD: &str = "AppendBundle";
        let server = &self.0;
        let refused = |error| server.audit.refused(by.caller(), METHOD, &server.trust_domain, status(error));
        // SPIRE passes keys of WIT-SVIDs over.
        let AppendBundleRequest { x509_authorities, jwt_authorities, output_mask, wit_authorities: _ } = request;
        let judged = AppendedAuthorities::judge(by, &x509_authorities, &jwt_authorities, server.now_unix());
        let appended = judged.map_err(refused)?;
        let named = appended.to_string();
        let bundle = server.ca.append_authorities(appended).await.map_err(refused)?;
        server.audit.done(by.caller(), METHOD, named);
        Ok(masked(to_pb(&bundle), output_mask.as_ref()))
    }
}

fn status(error: AppendError) -> Status {
    let words = describe(&error);
    match error {
        AppendError::Nothing => Status::invalid_argument(words),
        AppendError::JwtKey(_) => Status::invalid_argument(format!("failed to convert JWT authority: {words}")),
        AppendError::NotACertificate(_) | AppendError::NotAnAuthority(_) | AppendError::Ended => {
            Status::invalid_argument(format!("failed to convert X.509 authority: {words}"))
        }
        AppendError::TooMany => Status::resource_exhausted(format!("failed to append bundle: {words}")),
        AppendError::Store(cause) => store_status(cause),
        AppendError::NotShownYet => Status::unavailable(words),
    }
}
