//! WIT-SVIDs: for the agent that serves an entry, and for an administrator. The order of checks and the words are SPIRE's, but that an
//! agent too is told at once if they are switched off.

use futures_util::stream::{self, StreamExt};
use ironroot_api::SpiffeId;
use ironroot_api::jwt::{HolderKey, HolderKeyError};
use ironroot_api::pb::svid::{
    BatchNewWitsvidRequest, MintWitsvidRequest, NewWitsvidParams, batch_new_witsvid_response,
};
use ironroot_api::pb::types;
use ironroot_shell::command_line::describe;
use tonic::Status;

use super::SvidApi;
use crate::ca::WitSubject;
use crate::endpoints::policy::MAX_CSRS;
use crate::endpoints::{item_ok, item_status};
use crate::rights::{Administrator, AuthenticatedAgent, Caller};
use ironroot_shell::logging::in_moderation;

/// What the log says, in moderation.
const NOT_SIGNED: &str = "WIT-SVID not signed";

/// WIT-SVIDs of one request that are signed at the same time.
const AT_ONCE: usize = 32;

impl SvidApi {
    /// For entries of the agent; one result for each, in order.
    pub(super) async fn new_wits(
        &self,
        agent: &AuthenticatedAgent,
        request: BatchNewWitsvidRequest,
    ) -> Result<Vec<batch_new_witsvid_response::Result>, Status> {
        self.require_wit()?;
        let count = request.params.len();
        match count {
            0 => return Err(Status::invalid_argument("missing parameters")),
            many if many > MAX_CSRS => {
                return Err(Status::invalid_argument(format!(
                    "batch has {many} requests, at most {MAX_CSRS} are accepted"
                )));
            }
            _ => {}
        }
        self.0.limits.signing(agent.caller().address(), count).await?;
        // Over all sessions of a token at once, as X509-SVIDs.
        let calls: Vec<_> = request.params.iter().map(|param| self.new_wit_result(agent, param)).collect();
        let results = stream::iter(calls).buffered(AT_ONCE).collect().await;
        Ok(results)
    }

    async fn new_wit_result(
        &self,
        agent: &AuthenticatedAgent,
        param: &NewWitsvidParams,
    ) -> batch_new_witsvid_response::Result {
        match self.new_wit(agent, param).await {
            Ok(svid) => batch_new_witsvid_response::Result { status: Some(item_ok()), svid: Some(svid) },
            Err(status) => batch_new_witsvid_response::Result { status: Some(item_status(&status)), svid: None },
        }
    }

    async fn new_wit(&self, agent: &AuthenticatedAgent, param: &NewWitsvidParams) -> Result<types::Witsvid, Status> {
        const METHOD: &str = "BatchNewWITSVID";
        let judged = self.judge_new_wit(agent, param);
        let (subject, holder, hint) =
            judged.map_err(|status| self.0.audit.refused(agent.caller(), METHOD, &param.entry_id, status))?;
        let svid = self.sign_wit(agent.caller(), METHOD, &subject, &holder).await?;
        Ok(types::Witsvid { hint, ..svid })
    }

    /// For an ID that an administrator names.
    pub(super) async fn mint_wit(
        &self,
        administrator: &Administrator,
        request: MintWitsvidRequest,
    ) -> Result<types::Witsvid, Status> {
        const METHOD: &str = "MintWITSVID";
        self.require_wit()?;
        let judged = self.judge_mint_wit(administrator, &request);
        let (subject, holder) =
            judged.map_err(|status| self.0.audit.refused(administrator.caller(), METHOD, "", status))?;
        self.sign_wit(administrator.caller(), METHOD, &subject, &holder).await
    }

    fn judge_new_wit(
        &self,
        agent: &AuthenticatedAgent,
        param: &NewWitsvidParams,
    ) -> Result<(WitSubject, HolderKey, String), Status> {
        if param.entry_id.is_empty() {
            return Err(Status::invalid_argument("missing entry ID"));
        }
        if param.public_key.is_empty() {
            return Err(Status::invalid_argument("missing public key"));
        }
        let entry = self.authorized(agent, &param.entry_id, self.0.now_unix())?;
        let holder = holder("malformed public key", &param.public_key, &param.signing_algorithm)?;
        Ok((WitSubject::of_entry(&entry), holder, entry.entry().hint().to_owned()))
    }

    fn judge_mint_wit(
        &self,
        administrator: &Administrator,
        request: &MintWitsvidRequest,
    ) -> Result<(WitSubject, HolderKey), Status> {
        let invalid = |error: &dyn std::fmt::Display| Status::invalid_argument(format!("invalid SPIFFE ID: {error}"));
        let id = request.id.as_ref().ok_or_else(|| invalid(&"request must specify SPIFFE ID"))?;
        let id = SpiffeId::from_pb(Some(id)).map_err(|error| invalid(&error))?;
        // What is below zero means the default there too.
        let ttl_seconds = request.ttl.max(0).unsigned_abs();
        let subject = WitSubject::minted(administrator, id, &self.0.trust_domain, ttl_seconds);
        let subject = subject.map_err(|error| invalid(&error))?;
        Ok((subject, holder("invalid public key", &request.public_key, &request.signing_algorithm)?))
    }

    fn require_wit(&self) -> Result<(), Status> {
        self.0.ca.offers_wit_svids().map_err(|disabled| Status::unimplemented(disabled.to_string()))
    }

    async fn sign_wit(
        &self,
        caller: &Caller,
        method: &str,
        subject: &WitSubject,
        holder: &HolderKey,
    ) -> Result<types::Witsvid, Status> {
        let id = subject.id();
        match self.0.ca.sign_wit_svid(subject, holder, self.0.now_unix()).await {
            Ok(svid) => {
                self.0.audit.done(caller, method, id);
                Ok(types::Witsvid {
                    token: svid.token,
                    id: Some(id.to_pb()),
                    expires_at: svid.expires_at_unix,
                    issued_at: svid.issued_at_unix,
                    hint: String::new(),
                })
            }
            Err(error) => {
                if let Some(pass) = in_moderation(NOT_SIGNED) {
                    tracing::error!(spiffe_id = %id, error = &error as &dyn std::error::Error, suppressed = pass.suppressed, "{NOT_SIGNED}");
                }
                Err(self.0.audit.refused(caller, method, id, Status::internal("failed to sign WIT-SVID")))
            }
        }
    }
}

fn holder(malformed: &str, spki: &[u8], algorithm: &str) -> Result<HolderKey, Status> {
    HolderKey::new(spki, algorithm).map_err(|error| {
        let what = if error == HolderKeyError::Key { malformed } else { "invalid signing algorithm or key type" };
        Status::invalid_argument(format!("{what}: {}", describe(&error)))
    })
}
