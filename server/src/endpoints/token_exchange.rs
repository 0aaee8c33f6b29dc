//! Token exchange over HTTPS: a token of another issuer in, a JWT-SVID or an X.509-SVID out.
//!
//! ```text
//!  POST /token ─► address's share ─► form (bounded) ─► what is wanted ─► token proves itself ─► issuer's share ─► its entry ─► one use ─► signed
//! ```
//! Every outcome has its line in the audit, but for those of callers who are over their share. Source: RFC 8693, RFC 6749 §5.

mod answers;
mod request;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use ironroot_api::SpiffeId;
use ironroot_api::tls::TlsPeer;
use prost::bytes::Bytes;
use tonic::codegen::http::{Method, Request, StatusCode, header};
use tonic::{Code, Status};

use super::ServerState;
use super::web::{Answer, Answering, Respond, answer};
use crate::ca::{CaError, JwtError, JwtSubject};
use crate::registry::AuthorizedEntry;
use crate::rights::Caller;
use crate::token_exchange::{Issuers, OneUse, ProvenToken};
use answers::{Issued, Refused, issued_jwt, issued_x509};
use ironroot_shell::logging::in_moderation;
use request::{ExchangeRequest, FormRefusal, VerifiedWanted, Wanted};

/// What the log says, in moderation.
const NOT_SIGNED: &str = "SVID for a token not signed";

/// Where tokens are shown.
const PATH: &str = "/token";
/// Longest form read, bytes: a token and a certificate request of the longest kinds, each byte of the latter in three.
const MAX_FORM_BYTES: usize = 64 * 1024;
const FORM: &str = "application/x-www-form-urlencoded";
/// What lines of the audit call it.
const METHOD: &str = "ExchangeToken";

/// Answers of the listener.
#[derive(Debug)]
pub struct TokenExchange {
    server: Arc<ServerState>,
    issuers: Issuers,
    /// Where it listens.
    address: SocketAddr,
}

impl TokenExchange {
    /// Exchanges tokens of `issuers`; `address` is the listener's.
    pub fn new(server: Arc<ServerState>, issuers: Issuers, address: SocketAddr) -> Arc<Self> {
        Arc::new(Self { server, issuers, address })
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>, from: Option<SocketAddr>) -> Answer {
        if let Some(refusal) = not_ours(&request) {
            return refusal;
        }
        let began = Instant::now();
        if self.server.limits.exchange(from.map(|from| from.ip())).await.is_err() {
            self.server.tally.exchanged(Code::ResourceExhausted, began.elapsed());
            return Refused::too_many().answer();
        }
        let address = from.unwrap_or(self.address);
        let caller = Caller::Remote(TlsPeer { address, dialled: self.address, svid: None });
        let exchanged = match self.server.audit.silence() {
            Some(status) => Err(Refused::later(status.message().to_owned())),
            None => self.exchange(&caller, request.into_body()).await,
        };
        let code = exchanged.as_ref().err().map_or(Code::Ok, |refused| refused.code);
        self.server.tally.exchanged(code, began.elapsed());
        exchanged.unwrap_or_else(|refused| self.refuse(&caller, refused))
    }

    async fn exchange(self: &Arc<Self>, caller: &Caller, body: Incoming) -> Result<Answer, Refused> {
        let form = read(body).await?;
        let ExchangeRequest { token, wanted, identity } = ExchangeRequest::parse(&form)?;
        let token = self.issuers.prove(&token, self.server.now).await?;
        if self.server.limits.exchange_of(token.issuer()).await.is_err() {
            return Err(Refused::too_many().about(&token));
        }
        // A caller that hangs up leaves no token used up without a line in the audit.
        let (this, caller) = (self.clone(), caller.clone());
        let granted = async move {
            this.grant(&caller, &token, wanted, identity.as_ref()).await.map_err(|why| why.about(&token))
        };
        let granted = self.server.unbroken.run(granted).await;
        granted.unwrap_or_else(|failed| Err(Refused::later(failed.message().to_owned())))
    }

    async fn grant(
        &self,
        caller: &Caller,
        token: &ProvenToken,
        wanted: Wanted,
        identity: Option<&SpiffeId>,
    ) -> Result<Answer, Refused> {
        let now_unix = self.server.now_unix();
        let entry = self.server.registry.exchange(token, identity, |id| self.server.has_rights(id), now_unix)?;
        let wanted = wanted.verified()?;
        let one_use = OneUse::take(&self.server.store, token, now_unix).await?;
        let issued = match self.issue(token, &one_use, &entry, wanted, now_unix).await {
            Ok(issued) => issued,
            Err(refused) => {
                one_use.give_back(&self.server.store).await;
                return Err(refused);
            }
        };
        let (id, issuer, said) = (entry.spiffe_id(), token.issuer(), token.subject());
        self.server.audit.done(caller, METHOD, format_args!("{id} {} for {issuer} {said}", issued.object));
        Ok(issued.answer)
    }

    async fn issue(
        &self,
        token: &ProvenToken,
        _: &OneUse,
        entry: &AuthorizedEntry,
        wanted: VerifiedWanted,
        now_unix: i64,
    ) -> Result<Issued, Refused> {
        let (ca, ends_by, id) = (&self.server.ca, token.expires_at(), entry.spiffe_id());
        match wanted {
            VerifiedWanted::Jwt(audience) => {
                let subject = JwtSubject::of_entry(entry).ending_by(ends_by);
                let signed = ca.sign_jwt_svid(&subject, &audience, now_unix).await;
                Ok(issued_jwt(&id, &audience, signed.map_err(|error| not_signed(&id, &error))?))
            }
            VerifiedWanted::X509(csr) => {
                let signed = ca.sign_svid_until(entry, csr.spki().clone(), ends_by, now_unix).await;
                let signed = signed.map_err(|error| not_signed(&id, &error))?;
                let bundle = ca.bundle().borrow().clone();
                Ok(issued_x509(&id, &signed, &bundle.authorities, now_unix))
            }
        }
    }

    fn refuse(&self, caller: &Caller, refused: Refused) -> Answer {
        let status = Status::new(refused.code, refused.reason.clone());
        self.server.audit.refused(caller, METHOD, &refused.object, status);
        refused.answer()
    }
}

impl Respond for TokenExchange {
    fn respond(self: Arc<Self>, request: Request<Incoming>, from: Option<SocketAddr>) -> Answering {
        Box::pin(async move { self.answer(request, from).await })
    }
}

/// Why a request is none for an exchange, as an answer.
fn not_ours(request: &Request<Incoming>) -> Option<Answer> {
    let text = |status, words: &'static str| {
        Some(answer(status, "text/plain; charset=utf-8", Bytes::from_static(words.as_bytes())))
    };
    if request.uri().path() != PATH {
        return text(StatusCode::NOT_FOUND, "404 page not found: tokens are exchanged at /token\n");
    }
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed: use POST\n");
    }
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_form = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(FORM));
    match is_form {
        true => None,
        false => text(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "415 unsupported media type: send a form (x-www-form-urlencoded)\n",
        ),
    }
}

async fn read(body: Incoming) -> Result<Bytes, FormRefusal> {
    let read = Limited::new(body, MAX_FORM_BYTES).collect().await;
    read.map(|read| read.to_bytes()).map_err(|why| match why.is::<LengthLimitError>() {
        true => FormRefusal::TooLong,
        false => FormRefusal::BrokenOff,
    })
}

/// What the caller learns is whether it may try again; the log has the reason.
fn not_signed(id: &SpiffeId, error: &CaError) -> Refused {
    if let CaError::Jwt(JwtError::Disabled) = error {
        return FormRefusal::JwtDisabled.into();
    }
    if let Some(pass) = in_moderation(NOT_SIGNED) {
        tracing::error!(spiffe_id = %id, error = error as &dyn std::error::Error, suppressed = pass.suppressed, "{NOT_SIGNED}");
    }
    Refused::later("the certificate authority cannot sign now; try again".to_owned())
}
