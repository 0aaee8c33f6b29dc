//! JWT-SVIDs: fetched for the caller, and validated for it.

use std::sync::Arc;
use std::time::Instant;

use ironroot_api::jwt::{Audiences, JwtRefusal, JwtSvid, MAX_AUDIENCE_BYTES, UnverifiedJwtSvid};
use ironroot_api::pb::workload::{
    Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest, ValidateJwtsvidResponse,
};
use ironroot_shell::telemetry::otlp::SPANS;
use tonic::{Request, Status};
use tracing::info;

use super::{WorkloadApi, claims, wanted};
use crate::endpoints::BoundedCall;
use crate::endpoints::admission::About;
use crate::endpoints::caller::Known;
use crate::server_answers::{EntryTerms, ForeignBundle, TrustBundle};
use crate::trusted_time::Moment;

const FETCH: &str = "FetchJWTSVID";

impl WorkloadApi {
    /// A token for each identity of the caller, or for the one that it names.
    pub(super) async fn jwt_svids(&self, request: Request<JwtsvidRequest>) -> Result<JwtsvidResponse, Status> {
        let Self(serving) = self;
        let caller = serving.caller(&request)?;
        let JwtsvidRequest { audience, spiffe_id } = request.into_inner();
        //= WLA-05 SPIFFE Workload API 4.5: "SHOULD respond with the "InvalidArgument" gRPC status code"
        let audiences =
            Audiences::try_new(audience).map_err(|refusal| Status::invalid_argument(refusal.to_string()))?;
        let wanted = wanted(&spiffe_id)?;
        let attested = serving.attest(&caller).await?;
        serving.expect_in_rate(BoundedCall::FetchJwtSvid, &caller.peer, &attested)?;
        let all = serving.started()?;
        serving.hides(&caller.peer, &attested.selectors, FETCH, &all);
        let mut entries = all.entries_for(&attested.selectors);
        //= WLA-09 SPIFFE Workload API 6.2.1: "the server MUST return JWT-SVIDs for all identities authorized for the client."
        entries.retain(|terms| wanted.as_ref().is_none_or(|wanted| terms.spiffe_id == *wanted));
        if entries.is_empty() {
            let named = wanted.as_ref().filter(|_| !all.entries_for(&attested.selectors).is_empty());
            return Err(match named {
                Some(named) => serving.not_this_identity(&caller.peer, &attested, FETCH, (named, &all)),
                None => serving.no_identity(&caller.peer, &attested, FETCH, &all),
            });
        }
        let entries: Vec<Arc<EntryTerms>> = entries.into_iter().cloned().collect();
        let tokens = serving.tokens(&caller, entries, &audiences, (FETCH, wanted.as_ref())).await?;
        let svids = tokens.into_iter().map(|(terms, token)| {
            let (spiffe_id, svid) = (terms.spiffe_id.to_string(), token.text().to_owned());
            info!(target: SPANS, spiffe_id, what = "JWT-SVID", "served");
            Jwtsvid { spiffe_id, svid, hint: terms.hint.clone() }
        });
        Ok(JwtsvidResponse { svids: svids.collect() })
    }

    /// Whether a token that the caller was sent is good and for `audience`. Whoever can be attested may ask, as of SPIRE's agent:
    /// the answer is nobody's secret.
    pub(super) async fn validated(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<ValidateJwtsvidResponse, Status> {
        let Self(serving) = self;
        let caller = serving.caller(&request)?;
        let ValidateJwtsvidRequest { audience, svid: token } = request.into_inner();
        if audience.is_empty() {
            return Err(Status::invalid_argument("audience must be specified"));
        }
        if token.is_empty() {
            return Err(Status::invalid_argument("svid must be specified"));
        }
        if audience.len() > MAX_AUDIENCE_BYTES {
            return Err(Status::invalid_argument(format!("audience is longer than {MAX_AUDIENCE_BYTES} bytes")));
        }
        let attested = serving.attest(&caller).await?;
        let all = serving.started()?;
        let (bundle, moment) = (all.bundle().cloned(), serving.jwt().moment());
        let bundle = bundle.ok_or_else(|| Status::unavailable("the agent is still starting"))?;
        let federated = all.federated_for(&attested.selectors);
        // Signatures are verified when it is the user's turn, and not on the threads that serve the others.
        let judge = move || validate(&token, &audience, (&bundle, &federated), &moment);
        let judged = serving.in_turn(&caller.peer, move |_, _| Ok(judge())).await?;
        let svid = judged.map_err(|refusal| self.not_valid(&caller, &refusal))?;
        let is_own = svid.subject().is_member_of(all.trust_domain());
        let claims = claims::of(&svid, |claim| is_own || serving.verifiers().tells_foreign(claim));
        Ok(ValidateJwtsvidResponse { spiffe_id: svid.subject().to_string(), claims: Some(claims) })
    }

    fn not_valid(&self, caller: &Known, refusal: &JwtRefusal) -> Status {
        let (uid, pid) = (caller.peer.uid(), caller.peer.pid());
        if let Some(pass) = self.0.admission().should_log(uid, About::Token, Instant::now()) {
            info!(uid, pid, error = %refusal, suppressed = pass.suppressed, "Failed to validate JWT");
        }
        Status::invalid_argument(refusal.to_string())
    }
}

/// Judges a token as everybody in the trust domain would, at the time as far as this device knows it; one of another trust domain by
/// its bundle, if the caller has it.
fn validate(
    token: &str,
    audience: &str,
    (own, federated): (&TrustBundle, &[Arc<ForeignBundle>]),
    moment: &Moment,
) -> Result<JwtSvid, JwtRefusal> {
    //= WLA-11 SPIFFE Workload API 6.2.3: "the server MUST parse and validate the JWT-SVID according to the rules"
    let svid = UnverifiedJwtSvid::parse(token)?;
    let theirs = federated.iter().find(|bundle| svid.subject().is_member_of(bundle.trust_domain()));
    let svid = svid.verify(theirs.map_or_else(|| own.jwt_authorities(), |bundle| bundle.jwt_authorities()))?;
    svid.expect_audience(audience)?;
    svid.expect_not_ended(moment.estimate())?;
    // A clock that nothing speaks for is as likely to be behind: what is signed now is no sign of the contrary.
    if moment.is_placed() {
        svid.expect_begun(moment.estimate())?;
    }
    Ok(svid)
}
