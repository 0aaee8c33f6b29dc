//! What a request must show before a byte of its body is read: a method that is offered, the header that its service wants,
//! and room within its user's share. The share is held from then on, until answer and request are over.

mod bodies;
mod discovery;
mod offer;
mod room;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::Either;
use http::{HeaderMap, Request, Response};
use ironroot_api::arriving::{held, told_at_the_end};
use ironroot_shell::logging::clipped;
use ironroot_shell::telemetry::otlp::{self, SPANS};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span, warn};

use super::admission::{About, Admission, StreamSlot};
use super::caller::Caller;
use super::tally::Tally;
use bodies::RequestBody;
use discovery::CondensedBody;
use offer::{Bounds, NotOffered, Offer};
use room::Reader;

pub(super) use discovery::{MAX_CONDENSED_BYTES, VALIDATION_KEY};
pub use offer::Api;
pub(super) use offer::{
    MAX_DELEGATED_MESSAGE_BYTES, MAX_JWT_MESSAGE_BYTES, MAX_MESSAGE_BYTES, Socket, api_of, methods,
};

/// Puts a [`Door`] before every service of the socket.
#[derive(Clone, Debug)]
pub(super) struct DoorLayer {
    admission: Admission,
    socket: Socket,
    tally: Arc<Tally>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Door<S> {
    services: S,
    admission: Admission,
    socket: Socket,
    tally: Arc<Tally>,
}

/// That a request has passed the door. Only the door makes one; the Workload API wants it.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    caller: Caller,
    offer: Offer,
    slot: Arc<StreamSlot>,
}

impl DoorLayer {
    pub fn new(admission: Admission, socket: Socket, tally: Arc<Tally>) -> Self {
        Self { admission, socket, tally }
    }
}

impl<S> Layer<S> for DoorLayer {
    type Service = Door<S>;

    fn layer(&self, services: S) -> Door<S> {
        Door { services, admission: self.admission.clone(), socket: self.socket, tally: self.tally.clone() }
    }
}

impl Admitted {
    /// The process behind the connection, by the kernel's word, as it was when the request passed.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

impl<S> Door<S> {
    fn judge<B>(&self, request: &Request<B>) -> Result<Admitted, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Status::internal("connection without a caller"))?;
        let (uid, now) = (caller.connection().uid(), Instant::now());
        if !self.admission.is_in_rate(uid, now) {
            return Err(Status::unavailable("too many requests of this user; try again later"));
        }
        let path = request.uri().path();
        let offer = Offer::of(path, self.socket).map_err(|refusal| self.not_offered(&caller, path, refusal))?;
        if let Some(header) = offer.security_header() {
            check_security_header(request.headers(), header)?;
        }
        let slot = caller.connection().open_stream(now).map(Arc::new);
        let slot = slot.ok_or_else(|| Status::resource_exhausted("too many open streams of this user"))?;
        Ok(Admitted { caller, offer, slot })
    }

    /// Clients wait and ask again until their own time is up, and say nothing: so the agent says it.
    fn not_offered(&self, caller: &Caller, path: &str, refusal: NotOffered) -> Status {
        let uid = caller.connection().uid();
        if let Some(pass) = self.admission.should_log(uid, About::Request, Instant::now()) {
            warn!(uid, pid = caller.pid(), method = %clipped(path), suppressed = pass.suppressed, "{refusal}");
        }
        Status::unimplemented(refusal.to_string())
    }
}

fn check_security_header(headers: &HeaderMap, header: &'static str) -> Result<(), Status> {
    //= WLE-03 SPIFFE Workload Endpoint 3: "Requests not including this metadata key/value MUST be rejected"
    let mut values = headers.get_all(header).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value == "true" => Ok(()),
        //= FLT-A11 agent faults: "InvalidArgument"
        _ => Err(Status::invalid_argument(format!("security header \"{header}: true\" missing from request"))),
    }
}

impl<S> Service<Request<Body>> for Door<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<Body>, Infallible>>, Answering>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.services.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let admitted = match self.judge(&request) {
            Ok(admitted) => admitted,
            Err(status) => {
                let caller = request.extensions().get::<Caller>();
                caller.into_iter().for_each(|caller| caller.connection().turned_away());
                self.tally.turned_away.ended(status.code(), Duration::ZERO);
                return Either::Left(ready(Ok(status.into_http())));
            }
        };
        let (offer, slot) = (admitted.offer, admitted.slot.clone());
        let reader = Reader { admission: self.admission.clone(), uid: admitted.caller.connection().uid() };
        let connection = admitted.caller.connection().clone();
        let counting = Tally::begin(&self.tally, request.uri().path());
        let span = span_of(request.uri().path(), &admitted.caller);
        request.extensions_mut().insert(admitted);
        // Both ways hold the stream's slot.
        let bounded = |body| match offer.bounds() {
            Bounds::Message { bytes, time } => Body::new(RequestBody::message(body, reader, bytes, time)),
            Bounds::Conversation { bytes, time } => Body::new(RequestBody::conversation(body, reader, bytes, time)),
            Bounds::EachMessage => Body::new(CondensedBody::new(body, reader)),
        };
        let answer = self.services.call(request.map(|body| held(bounded(body), slot.clone())));
        Either::Right(Box::pin(async move {
            let answer = answer.instrument(span.clone()).await.map(|it| it.map(|body| held(body, slot)));
            let code = answer.as_ref().map_or(Code::Ok, |it| otlp::code_of(it.headers()));
            otlp::answered(&span, code);
            // Nobody's, which took an attestation to find out.
            if code == Code::PermissionDenied || offer == Offer::Secrets && code == Code::InvalidArgument {
                connection.turned_away();
            }
            answer.map(|it| told_at_the_end(it, move |code| counting.with(code)))
        }))
    }
}

/// The span of a call until its first answer: streams last for as long as their workload. A workload's own word for the trace is not
/// taken.
fn span_of(path: &str, caller: &Caller) -> Span {
    let path = path.trim_start_matches('/');
    let (service, method) = path.split_once('/').unwrap_or((path, ""));
    info_span!(
        target: SPANS, "call", otel.name = path, otel.kind = "server", rpc.system = "grpc", rpc.service = service,
        rpc.method = method, uid = caller.connection().uid(), pid = caller.pid(), rpc.grpc.status_code = Empty, error = Empty,
    )
}

/// A request that is being answered.
type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;
