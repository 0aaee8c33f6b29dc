//! `spire.api.server.svid.v1`: SVIDs for the workloads of the calling agent, those that an administrator mints, and CAs of servers below.

mod downstream;
mod jwt;
mod mint;
mod wit;

use std::sync::Arc;

use ironroot_api::csr::Csr;
use ironroot_api::pb::svid::svid_server::Svid;
use ironroot_api::pb::svid::{
    BatchNewWitsvidRequest, BatchNewWitsvidResponse, BatchNewX509svidRequest, BatchNewX509svidResponse,
    MintJwtsvidRequest, MintJwtsvidResponse, MintWitsvidRequest, MintWitsvidResponse, MintX509svidRequest,
    MintX509svidResponse, NewDownstreamX509caRequest, NewDownstreamX509caResponse, NewJwtsvidRequest,
    NewJwtsvidResponse, NewX509svidParams, batch_new_x509svid_response,
};
use ironroot_api::pb::types;
use ironroot_shell::telemetry::otlp::SPANS;
use tonic::{Code, Request, Response, Status};
use tracing::{Instrument, info, info_span};

use super::caller::granted;
use super::policy::MAX_CSRS;
use super::{ServerState, item_ok, item_status};
use crate::ca::{CaError, IssuedSvid};
use crate::registry::AuthorizedEntry;
use crate::rights::{Administrator, AuthenticatedAgent, DownstreamServer};
use ironroot_shell::logging::in_moderation;

/// What the log says, in moderation.
const NOT_SIGNED: &str = "X509-SVID not signed";

/// Longest entry ID, bytes: what creation takes.
const MAX_ENTRY_ID_BYTES: usize = 255;

/// SPIRE's `spire.api.server.svid.v1.SVID`.
#[derive(Clone, Debug)]
pub struct SvidApi(pub(super) Arc<ServerState>);

#[tonic::async_trait]
impl Svid for SvidApi {
    async fn mint_x509svid(
        &self,
        request: Request<MintX509svidRequest>,
    ) -> Result<Response<MintX509svidResponse>, Status> {
        let by: Administrator = granted(&request)?;
        self.mint(&by, &request.into_inner()).await.map(Response::new)
    }

    async fn batch_new_x509svid(
        &self,
        request: Request<BatchNewX509svidRequest>,
    ) -> Result<Response<BatchNewX509svidResponse>, Status> {
        let agent: AuthenticatedAgent = granted(&request)?;
        let params = request.into_inner().params;
        if params.is_empty() {
            return Err(Status::invalid_argument("missing parameters"));
        }
        if params.len() > MAX_CSRS {
            return Err(Status::invalid_argument(format!(
                "batch has {} requests, at most {MAX_CSRS} are accepted",
                params.len()
            )));
        }
        self.0.limits.signing(agent.caller().address(), params.len()).await?;
        let results = self.issue(&agent, params).await;
        Ok(Response::new(BatchNewX509svidResponse { results }))
    }

    async fn mint_jwtsvid(
        &self,
        request: Request<MintJwtsvidRequest>,
    ) -> Result<Response<MintJwtsvidResponse>, Status> {
        let administrator: Administrator = granted(&request)?;
        let svid = self.mint_jwt(&administrator, request.into_inner()).await?;
        Ok(Response::new(MintJwtsvidResponse { svid: Some(svid) }))
    }

    async fn new_jwtsvid(&self, request: Request<NewJwtsvidRequest>) -> Result<Response<NewJwtsvidResponse>, Status> {
        let agent: AuthenticatedAgent = granted(&request)?;
        let svid = self.new_jwt(&agent, request.into_inner()).await?;
        Ok(Response::new(NewJwtsvidResponse { svid: Some(svid) }))
    }

    async fn mint_witsvid(
        &self,
        request: Request<MintWitsvidRequest>,
    ) -> Result<Response<MintWitsvidResponse>, Status> {
        let administrator: Administrator = granted(&request)?;
        let svid = self.mint_wit(&administrator, request.into_inner()).await?;
        Ok(Response::new(MintWitsvidResponse { svid: Some(svid) }))
    }

    async fn batch_new_witsvid(
        &self,
        request: Request<BatchNewWitsvidRequest>,
    ) -> Result<Response<BatchNewWitsvidResponse>, Status> {
        let agent: AuthenticatedAgent = granted(&request)?;
        let results = self.new_wits(&agent, request.into_inner()).await?;
        Ok(Response::new(BatchNewWitsvidResponse { results }))
    }

    async fn new_downstream_x509ca(
        &self,
        request: Request<NewDownstreamX509caRequest>,
    ) -> Result<Response<NewDownstreamX509caResponse>, Status> {
        let by: DownstreamServer = granted(&request)?;
        self.new_downstream_ca(&by, &request.into_inner()).await.map(Response::new)
    }
}

impl SvidApi {
    /// One result per request, in order. Requests that may be signed are signed together, over all sessions.
    async fn issue(
        &self,
        agent: &AuthenticatedAgent,
        params: Vec<NewX509svidParams>,
    ) -> Vec<batch_new_x509svid_response::Result> {
        let now_unix = self.0.now_unix();
        let judged: Vec<_> = params.iter().map(|p| self.judge(agent, p, now_unix)).collect();
        let accepted =
            judged.iter().filter_map(|j| j.as_ref().ok()).map(|(entry, csr)| (entry.clone(), csr.spki().clone()));
        let signing = info_span!(target: SPANS, "sign X509-SVIDs", asked = params.len());
        let signed = self.0.ca.sign_workload_svids(agent.id(), accepted.collect(), now_unix).instrument(signing).await;
        let mut issued = signed.into_iter();
        let mut results = Vec::with_capacity(params.len());
        for (judgement, param) in judged.into_iter().zip(&params) {
            results.push(match judgement {
                Ok((entry, _)) => self.answer(agent, &entry, issued.next()),
                Err(status) => {
                    refused(self.0.audit.refused(agent.caller(), "BatchNewX509SVID", &param.entry_id, status))
                }
            });
        }
        results
    }

    /// Names come from the entry, the key from the request that proved it.
    fn judge(
        &self,
        agent: &AuthenticatedAgent,
        param: &NewX509svidParams,
        now_unix: i64,
    ) -> Result<(AuthorizedEntry, Csr), Status> {
        let entry = self.authorized(agent, &param.entry_id, now_unix)?;
        let csr = Csr::parse(&param.csr).map_err(|e| Status::invalid_argument(format!("malformed CSR: {e}")))?;
        Ok((entry, csr))
    }

    /// The entry of this ID, if the agent may serve it.
    fn authorized(&self, agent: &AuthenticatedAgent, entry_id: &str, now_unix: i64) -> Result<AuthorizedEntry, Status> {
        if entry_id.len() > MAX_ENTRY_ID_BYTES {
            let length = entry_id.len();
            return Err(Status::invalid_argument(format!("entry ID has {length} bytes, at most {MAX_ENTRY_ID_BYTES}")));
        }
        let entry = self.0.registry.authorize_entry(agent.id(), entry_id, now_unix);
        entry.ok_or_else(|| Status::not_found("entry not found or not authorized"))
    }

    fn answer(
        &self,
        agent: &AuthenticatedAgent,
        entry: &AuthorizedEntry,
        issued: Option<Result<IssuedSvid, CaError>>,
    ) -> batch_new_x509svid_response::Result {
        let (id, hint) = (&entry.spiffe_id(), entry.entry().hint().to_owned());
        match issued {
            Some(Ok(svid)) => {
                self.0.audit.done(agent.caller(), "BatchNewX509SVID", format_args!("{id} serial {}", svid.serial));
                info!(target: SPANS, spiffe_id = %id, serial = svid.serial, "X509-SVID signed");
                let svid = svid_to_pb(&svid, id, &hint);
                batch_new_x509svid_response::Result { status: Some(item_ok()), svid: Some(svid) }
            }
            Some(Err(error)) => {
                if let Some(pass) = in_moderation(NOT_SIGNED) {
                    tracing::error!(spiffe_id = %id, error = &error as &dyn std::error::Error, suppressed = pass.suppressed, "{NOT_SIGNED}");
                }
                let status = Status::internal("failed to sign X509-SVID");
                refused(self.0.audit.refused(agent.caller(), "BatchNewX509SVID", id, status))
            }
            None => refused(Status::new(Code::Internal, "failed to sign X509-SVID")),
        }
    }
}

fn refused(status: Status) -> batch_new_x509svid_response::Result {
    batch_new_x509svid_response::Result { status: Some(item_status(&status)), svid: None }
}

pub(super) fn svid_to_pb(svid: &IssuedSvid, id: &ironroot_api::SpiffeId, hint: &str) -> types::X509svid {
    types::X509svid {
        cert_chain: svid.chain.iter().map(|der| der.clone().into()).collect(),
        id: Some(id.to_pb()),
        expires_at: svid.not_after_unix,
        hint: hint.to_owned(),
    }
}
