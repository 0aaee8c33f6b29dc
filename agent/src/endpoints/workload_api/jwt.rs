//! JWT-SVIDs: fetched for the caller, and validated for it.

use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt};
use ironroot_api::SpiffeId;
use ironroot_api::jwt::{Audiences, JwtRefusal, JwtSvid, MAX_AUDIENCE_BYTES, UnverifiedJwtSvid};
use ironroot_api::pb::workload::{
    Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest, ValidateJwtsvidResponse,
};
use tonic::{Request, Status};
use tracing::{info, warn};

use super::{WorkloadApi, claims};
use crate::endpoints::admission::About;
use crate::endpoints::caller::Known;
use crate::identities::Identities;
use crate::jwt_svids::FetchError;
use crate::server_answers::{EntryTerms, TrustBundle};
use crate::trusted_time::Moment;

const FETCH: &str = "FetchJWTSVID";
/// Most identities for which one request gets tokens. Who has more names the one it wants.
pub(super) const MAX_TOKENS_AT_ONCE: usize = 100;
/// Tokens of one request that are made at the same time; its user's turns bound them besides.
const AT_ONCE: usize = 4;

impl WorkloadApi {
    /// A token for each identity of the caller, or for the one that it names.
    pub(super) async fn jwt_svids(&self, request: Request<JwtsvidRequest>) -> Result<JwtsvidResponse, Status> {
        let caller = self.caller(&request)?;
        let JwtsvidRequest { audience, spiffe_id } = request.into_inner();
        //= WLA-05 SPIFFE Workload API 4.5: "SHOULD respond with the "InvalidArgument" gRPC status code"
        let audiences =
            Audiences::try_new(audience).map_err(|refusal| Status::invalid_argument(refusal.to_string()))?;
        let wanted = wanted(&spiffe_id)?;
        let attested = self.attest(&caller).await?;
        let all = self.started()?;
        let mut entries = all.entries_for(&attested.selectors);
        //= WLA-09 SPIFFE Workload API 6.2.1: "the server MUST return JWT-SVIDs for all identities authorized for the client."
        entries.retain(|terms| wanted.as_ref().is_none_or(|wanted| terms.spiffe_id == *wanted));
        if entries.is_empty() {
            return Err(self.no_identity(&caller.peer, &attested.selectors, FETCH, &all));
        }
        if entries.len() > MAX_TOKENS_AT_ONCE {
            let text = format!("this workload has more than {MAX_TOKENS_AT_ONCE} identities: name one in spiffe_id");
            return Err(Status::resource_exhausted(text));
        }
        let entries: Vec<Arc<EntryTerms>> = entries.into_iter().cloned().collect();
        // Made as they come, no more than a few at a time.
        let fetches = entries.into_iter().map(|terms| self.jwt_svid(caller.clone(), terms, audiences.clone()));
        let svids: Vec<Jwtsvid> = futures_util::stream::iter(fetches).buffered(AT_ONCE).try_collect().await?;
        Ok(JwtsvidResponse { svids })
    }

    async fn jwt_svid(&self, caller: Known, terms: Arc<EntryTerms>, audiences: Audiences) -> Result<Jwtsvid, Status> {
        let turns = self.0.admission.signatures(caller.peer.uid(), Instant::now());
        let token = self.0.jwt_svids.fetch(&terms, &audiences, turns).await;
        let token = token.map_err(|error| self.not_fetched(&caller, &terms, &error))?;
        let (spiffe_id, svid) = (terms.spiffe_id.to_string(), token.text().to_owned());
        Ok(Jwtsvid { spiffe_id, svid, hint: terms.hint.clone() })
    }

    fn not_fetched(&self, caller: &Known, terms: &EntryTerms, error: &FetchError) -> Status {
        let (uid, pid) = (caller.peer.uid(), caller.peer.pid());
        if let Some(pass) = self.0.admission.should_log(uid, About::Signature, Instant::now()) {
            let (spiffe_id, suppressed) = (&terms.spiffe_id, pass.suppressed);
            warn!(uid, pid, method = FETCH, %spiffe_id, %error, suppressed, "Could not fetch JWT-SVID");
        }
        Status::unavailable(format!("could not fetch JWT-SVID: {error}"))
    }

    /// Whether a token that the caller was sent is good and for `audience`. Whoever can be attested may ask, as of SPIRE's agent:
    /// the answer is nobody's secret.
    pub(super) async fn validated(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<ValidateJwtsvidResponse, Status> {
        let caller = self.caller(&request)?;
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
        self.attest(&caller).await?;
        let all = self.started()?;
        let (bundle, moment) = (all.bundle().cloned(), self.0.jwt_svids.moment());
        let bundle = bundle.ok_or_else(starting)?;
        // Signatures are verified when it is the user's turn, and not on the threads that serve the others.
        let judge = move || validate(&token, &audience, &bundle, &moment);
        let judged = self.in_turn(&caller.peer, move |_, _| Ok(judge())).await?;
        let svid = judged.map_err(|refusal| self.not_valid(&caller, &refusal))?;
        Ok(ValidateJwtsvidResponse { spiffe_id: svid.subject().to_string(), claims: Some(claims::of(&svid)) })
    }

    fn not_valid(&self, caller: &Known, refusal: &JwtRefusal) -> Status {
        let (uid, pid) = (caller.peer.uid(), caller.peer.pid());
        if let Some(pass) = self.0.admission.should_log(uid, About::Token, Instant::now()) {
            info!(uid, pid, error = %refusal, suppressed = pass.suppressed, "Failed to validate JWT");
        }
        Status::invalid_argument(refusal.to_string())
    }

    fn started(&self) -> Result<Arc<Identities>, Status> {
        let all = self.0.identities.borrow().clone();
        if all.bundle().is_some() { Ok(all) } else { Err(starting()) }
    }
}

fn starting() -> Status {
    Status::unavailable("the agent is still starting")
}

/// The one identity that is asked for, if one is named.
fn wanted(spiffe_id: &str) -> Result<Option<SpiffeId>, Status> {
    if spiffe_id.is_empty() {
        return Ok(None);
    }
    let wrong = |error| Status::invalid_argument(format!("invalid requested SPIFFE ID: {error}"));
    SpiffeId::parse(spiffe_id).map(Some).map_err(wrong)
}

/// Judges a token as everybody in the trust domain would, at the time as far as this device knows it.
fn validate(token: &str, audience: &str, bundle: &TrustBundle, moment: &Moment) -> Result<JwtSvid, JwtRefusal> {
    //= WLA-11 SPIFFE Workload API 6.2.3: "the server MUST parse and validate the JWT-SVID according to the rules"
    let svid = UnverifiedJwtSvid::parse(token)?.verify(bundle.jwt_authorities())?;
    svid.expect_audience(audience)?;
    svid.expect_not_ended(moment.estimate())?;
    // A clock that nothing speaks for is as likely to be behind: what is signed now is no sign of the contrary.
    if moment.is_placed() {
        svid.expect_begun(moment.estimate())?;
    }
    Ok(svid)
}
