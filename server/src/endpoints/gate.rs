//! The gate before every service: the policy's line for the method, the caller's right to it, its share of the server, and
//! then, only then, the body between its limits. A call that changes something goes on if its caller hangs up.
//!
//! ```text
//!  path ─► policy line ─► Caller ─► right ─► calls at once ─► grant into the extensions, BoundedBody ─► service
//!            └ Unimplemented          └ PermissionDenied └ ResourceExhausted
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use ironroot_api::arriving::{held, told_at_the_end};
use ironroot_api::tls::TlsPeer;
use ironroot_api::unix_socket::PeerCredentials;
use ironroot_shell::telemetry::otlp;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};
use tracing::Instrument;

use super::ServerState;
use super::accept::{CallMark, Watching};
use super::body::{BoundedBody, Charge};
use super::caller::{Listener, Source, caller_of};
use super::fair_share::Share;
use super::policy::{self, Method, Who};
use super::roles::Role;
use super::tally::Tally;
use super::traced::span_of;
use crate::rights::{AuthenticatedAgent, Caller, Insider, Visitor};

/// Puts the gate before services of one listener.
#[derive(Clone, Debug)]
pub struct Gate {
    server: Arc<ServerState>,
    listener: Listener,
}

impl Gate {
    /// For the services of `listener`.
    pub fn new(server: Arc<ServerState>, listener: Listener) -> Self {
        Self { server, listener }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

/// Services behind the gate.
#[derive(Clone, Debug)]
pub struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was polled ready does the work; a clone waits for the next call.
        let waiting = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, waiting);
        let gate = self.gate.clone();
        Box::pin(async move {
            let method = policy::find(request.uri().path());
            let span = span_of(&request, method, gate.listener);
            let answered = gate.answer(inner, request, method).instrument(span.clone()).await;
            answered.iter().for_each(|answer| otlp::answered(&span, otlp::code_of(answer.headers())));
            answered
        })
    }
}

/// What a call occupies until its answer has been taken; one that changes something, until it is done.
#[derive(Debug)]
struct UnderWay {
    method: &'static Method,
    role: Role,
    _calls: Share<Source>,
    _large_answers: Option<Share<Source>>,
    _mark: CallMark,
    charge: Charge,
}

impl Gate {
    /// What `inner` answers, if the request may come to it.
    async fn answer<S>(
        &self,
        mut inner: S,
        request: Request<Body>,
        method: Option<&'static Method>,
    ) -> Result<Response<Body>, Infallible>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
    {
        let began = Instant::now();
        let (request, under_way) = match self.admit(request, method).await {
            Ok(admitted) => admitted,
            Err(status) => {
                self.server.tally.refused(method, status.code(), began.elapsed());
                return Ok(status.into_http());
            }
        };
        let outlives = under_way.method.changes;
        let ended = Tally::under_way(&self.server.tally, under_way.method, under_way.role, began);
        let call = async move {
            let answer = inner.call(request).await?;
            Ok(told_at_the_end(under_way.until_the_end_of(answer), move |code| ended.with(code)))
        };
        match outlives {
            true => {
                let done = self.server.unbroken.run(call.in_current_span()).await;
                done.unwrap_or_else(|failed| Ok(failed.into_http()))
            }
            false => call.await,
        }
    }

    /// The request as the services may have it, or why not. `method`: the policy's line for it.
    async fn admit(
        &self,
        request: Request<Body>,
        method: Option<&'static Method>,
    ) -> Result<(Request<Body>, UnderWay), Status> {
        //= FLT-S15 server faults: "every method lets in exactly who may call it"
        let method = method
            .filter(|method| method.who != Who::AdminSocket || self.listener == Listener::Local)
            .ok_or_else(|| Status::unimplemented("this server has no such method"))?;
        let caller = caller_of(request.extensions(), self.listener)?;
        self.server
            .refuse_revoked(request.extensions(), &caller)
            .map_err(|status| self.server.audit.denied(&caller, method.path, status))?;
        let mark = self.mark(&request)?;
        let (mut parts, body) = request.into_parts();
        let role = self
            .grant(method, &caller, &mut parts.extensions)
            .await
            .map_err(|status| self.server.audit.denied(&caller, method.path, status))?;
        let under_way = self.occupy(method, role, &caller, mark)?;
        if let Some(silence) = self.server.audit.silence().filter(|_| leaves_a_line(method)) {
            return Err(silence);
        }
        let deadline = role.limits().body_deadline;
        let body = BoundedBody::new(body, method.request, under_way.charge.clone(), deadline);
        Ok((Request::from_parts(parts, Body::new(body)), under_way))
    }

    /// Leaves the caller's right to `method` in `extensions`; the role it calls in.
    async fn grant(
        &self,
        method: &Method,
        caller: &Caller,
        extensions: &mut tonic::codegen::http::Extensions,
    ) -> Result<Role, Status> {
        let is_local = self.listener == Listener::Local;
        match method.who {
            Who::Anyone => {
                extensions.insert(Visitor::judge(caller.clone()));
                Ok(match caller {
                    Caller::Local(_) => Role::LocalAdministrator,
                    Caller::Remote(TlsPeer { svid: None, .. }) => Role::Stranger,
                    Caller::Remote(_) => Role::Holder,
                })
            }
            Who::Agents => {
                let agent = self.agent(caller, extensions).await?;
                extensions.insert(agent);
                Ok(Role::Agent)
            }
            Who::Downstream => {
                extensions.insert(self.server.downstream(caller.clone())?);
                Ok(Role::Downstream)
            }
            Who::Insiders => match self.server.administrator(caller.clone()) {
                Ok(administrator) => {
                    extensions.insert(Insider::from(&administrator));
                    Ok(administrators_role(is_local))
                }
                Err(_) => {
                    let agent = self.agent(caller, extensions).await?;
                    extensions.insert(Insider::from(&agent));
                    Ok(Role::Agent)
                }
            },
            // Whoever may open the admin socket administers.
            Who::Administrators | Who::AdminSocket => {
                extensions.insert(self.server.administrator(caller.clone())?);
                Ok(administrators_role(is_local))
            }
        }
    }

    /// The agent on the connection whose facts these are.
    async fn agent(
        &self,
        caller: &Caller,
        connection: &tonic::codegen::http::Extensions,
    ) -> Result<AuthenticatedAgent, Status> {
        let opened = connection.get::<Watching<TlsPeer>>().map(|connection| connection.opened);
        let agent = self.server.agent(caller.clone(), opened).await?;
        if let Some(opened) = opened {
            self.server.refuse_fork(&agent, opened).await?;
        }
        Ok(agent)
    }

    fn occupy(&self, method: &'static Method, role: Role, caller: &Caller, mark: CallMark) -> Result<UnderWay, Status> {
        let (occupancy, source) = (&self.server.occupancy, Source::of(caller));
        let too_many = || Status::resource_exhausted("too many calls of this caller are under way; try again");
        let calls = occupancy.calls(role).take(source.clone(), 1).ok_or_else(too_many)?;
        let large_answers = match method.has_large_answer {
            true => Some(occupancy.large_answers(role).take(source.clone(), 1).ok_or_else(too_many)?),
            false => None,
        };
        let charge = occupancy.body_bytes(role).take(source, 0).ok_or_else(too_many)?;
        let charge = Arc::new(Mutex::new(charge));
        Ok(UnderWay { method, role, _calls: calls, _large_answers: large_answers, _mark: mark, charge })
    }

    /// Tells the connection that a call is under way on it.
    fn mark(&self, request: &Request<Body>) -> Result<CallMark, Status> {
        let connection = request.extensions();
        let mark = match self.listener {
            Listener::Local => connection.get::<Watching<PeerCredentials>>().map(Watching::begin_call),
            Listener::Remote => connection.get::<Watching<TlsPeer>>().map(Watching::begin_call),
        };
        mark.ok_or_else(|| Status::internal("connection without a watch"))
    }
}

/// What is changed or signed has its line in the audit.
fn leaves_a_line(method: &Method) -> bool {
    method.changes || method.path.starts_with("/spire.api.server.svid.")
}

fn administrators_role(is_local: bool) -> Role {
    if is_local { Role::LocalAdministrator } else { Role::RemoteAdministrator }
}

impl UnderWay {
    /// The answer, which gives everything back once it has been taken or broken off.
    fn until_the_end_of(self, response: Response<Body>) -> Response<Body> {
        response.map(|body| held(body, self))
    }
}
