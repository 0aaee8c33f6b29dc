//! JWT-SVIDs: for the agent that serves an entry, and for an administrator. The order of checks and the words are SPIRE's.

use ironroot_api::SpiffeId;
use ironroot_api::pb::svid::{MintJwtsvidRequest, NewJwtsvidRequest};
use ironroot_api::pb::types;
use ironroot_shell::logging::clipped;
use ironroot_shell::telemetry::otlp::SPANS;
use tonic::Status;

use super::SvidApi;
use crate::ca::{Audience, JwtSubject};
use crate::rights::{Administrator, AuthenticatedAgent, Caller};
use ironroot_shell::logging::in_moderation;

/// What the log says, in moderation.
const NOT_SIGNED: &str = "JWT-SVID not signed";

impl SvidApi {
    /// For an entry of the agent.
    pub(super) async fn new_jwt(
        &self,
        agent: &AuthenticatedAgent,
        request: NewJwtsvidRequest,
    ) -> Result<types::Jwtsvid, Status> {
        self.0.limits.signing(agent.caller().address(), 1).await?;
        let NewJwtsvidRequest { entry_id, audience } = request;
        let judged = self.judge_jwt(agent, &entry_id, audience);
        let (subject, audience) =
            judged.map_err(|status| self.0.audit.refused(agent.caller(), "NewJWTSVID", &entry_id, status))?;
        self.sign_jwt(agent.caller(), "NewJWTSVID", &subject, &audience).await
    }

    /// For an ID that an administrator names.
    pub(super) async fn mint_jwt(
        &self,
        administrator: &Administrator,
        request: MintJwtsvidRequest,
    ) -> Result<types::Jwtsvid, Status> {
        let judged = self.judge_mint(administrator, request);
        let (subject, audience) =
            judged.map_err(|status| self.0.audit.refused(administrator.caller(), "MintJWTSVID", "", status))?;
        self.sign_jwt(administrator.caller(), "MintJWTSVID", &subject, &audience).await
    }

    fn judge_jwt(
        &self,
        agent: &AuthenticatedAgent,
        entry_id: &str,
        audience: Vec<String>,
    ) -> Result<(JwtSubject, Audience), Status> {
        self.require_jwt()?;
        let entry = self.authorized(agent, entry_id, self.0.now_unix())?;
        Ok((JwtSubject::of_entry(&entry), parse_audience(audience)?))
    }

    fn judge_mint(
        &self,
        administrator: &Administrator,
        request: MintJwtsvidRequest,
    ) -> Result<(JwtSubject, Audience), Status> {
        self.require_jwt()?;
        let MintJwtsvidRequest { id, audience, ttl } = request;
        let invalid = |error: &dyn std::fmt::Display| Status::invalid_argument(format!("invalid SPIFFE ID: {error}"));
        let id = id.ok_or_else(|| invalid(&"request must specify SPIFFE ID"))?;
        let id = SpiffeId::from_pb(Some(&id)).map_err(|error| invalid(&error))?;
        // What is below zero means the default there too.
        let ttl_seconds = ttl.max(0).unsigned_abs();
        let subject = JwtSubject::minted(administrator, id, &self.0.trust_domain, ttl_seconds);
        Ok((subject.map_err(|error| invalid(&error))?, parse_audience(audience)?))
    }

    fn require_jwt(&self) -> Result<(), Status> {
        self.0.ca.offers_jwt_svids().map_err(|disabled| Status::unimplemented(disabled.to_string()))
    }

    async fn sign_jwt(
        &self,
        caller: &Caller,
        method: &str,
        subject: &JwtSubject,
        audience: &Audience,
    ) -> Result<types::Jwtsvid, Status> {
        let id = subject.id();
        match self.0.ca.sign_jwt_svid(subject, audience, self.0.now_unix()).await {
            Ok(svid) => {
                // A workload has chosen them: they take no more of the issuance log than of the audit.
                let recipients = audience.recipients().join(",").replace(char::is_control, "\u{fffd}");
                self.0.audit.done(caller, method, format_args!("{id} audience {}", clipped(&recipients)));
                tracing::info!(target: SPANS, spiffe_id = %id, "JWT-SVID signed");
                Ok(types::Jwtsvid {
                    token: svid.token,
                    id: Some(id.to_pb()),
                    expires_at: svid.expires_at_unix,
                    issued_at: svid.issued_at_unix,
                    hint: subject.hint().to_owned(),
                })
            }
            Err(error) => {
                if let Some(pass) = in_moderation(NOT_SIGNED) {
                    tracing::error!(spiffe_id = %id, error = &error as &dyn std::error::Error, suppressed = pass.suppressed, "{NOT_SIGNED}");
                }
                Err(self.0.audit.refused(caller, method, id, Status::internal("failed to sign JWT-SVID")))
            }
        }
    }
}

fn parse_audience(asked: Vec<String>) -> Result<Audience, Status> {
    Audience::parse(asked).map_err(|refusal| Status::invalid_argument(refusal.to_string()))
}
