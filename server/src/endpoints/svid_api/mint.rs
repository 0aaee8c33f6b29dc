//! MintX509SVID: an SVID for which there is no entry. Source of the texts: SPIRE, pkg/server/api/svid/v1/service.go.

use ironroot_api::csr::{Csr, CsrError};
use ironroot_api::pb::svid::{MintX509svidRequest, MintX509svidResponse};
use ironroot_shell::command_line::describe;
use tonic::Status;

use super::{SvidApi, svid_to_pb};
use crate::ca::SvidToMint;
use crate::endpoints::{ca_status, invalid};
use crate::rights::Administrator;

impl SvidApi {
    pub(super) async fn mint(
        &self,
        by: &Administrator,
        request: &MintX509svidRequest,
    ) -> Result<MintX509svidResponse, Status> {
        let server = &self.0;
        let asked = self.to_mint(by, request);
        let svid = asked.map_err(|status| server.audit.refused(by.caller(), "MintX509SVID", "", status))?;
        let id = svid.id().clone();
        let issued = server.ca.sign_minted_svid(svid, server.now_unix()).await.map_err(ca_status);
        let issued = issued.map_err(|status| server.audit.refused(by.caller(), "MintX509SVID", &id, status))?;
        server.audit.done(by.caller(), "MintX509SVID", format_args!("{id} serial {}", issued.serial));
        Ok(MintX509svidResponse { svid: Some(svid_to_pb(&issued, &id, "")) })
    }

    fn to_mint(&self, by: &Administrator, request: &MintX509svidRequest) -> Result<SvidToMint, Status> {
        if request.csr.is_empty() {
            return Err(Status::invalid_argument("missing CSR"));
        }
        let (csr, names) = Csr::parse_with_names(&request.csr).map_err(|error| {
            let what = if error == CsrError::Signature { "failed to verify CSR signature" } else { "malformed CSR" };
            Status::invalid_argument(format!("{what}: {}", describe(&error)))
        })?;
        SvidToMint::judge(by, &csr, names, request.ttl, &self.0.trust_domain).map_err(|refusal| invalid(&refusal))
    }
}
