//! The span of a call: who asked for what, and how it ended. See [`ironroot_shell::telemetry::otlp`].

use ironroot_shell::telemetry::otlp::{SPANS, TRACEPARENT};
use tonic::body::Body;
use tonic::codegen::http::Request;
use tracing::field::Empty;
use tracing::{Level, Span, info_span, span_enabled};

use super::caller::{Listener, caller_of};
use super::policy::Method;

/// What a method is called that is none.
const NO_METHOD: &str = "/no such method";

/// The span of `request`, within the caller's if it says so. Of those without a certificate no word is taken: they would write into
/// traces of others.
pub(super) fn span_of(request: &Request<Body>, method: Option<&'static Method>, listener: Listener) -> Span {
    if !span_enabled!(target: SPANS, Level::INFO) {
        return Span::none();
    }
    let caller = caller_of(request.extensions(), listener).ok();
    let spiffe_id = caller.as_ref().and_then(|caller| caller.svid()).map(|svid| svid.spiffe_id().as_str());
    let is_known = spiffe_id.is_some() || listener == Listener::Local;
    let above = request.headers().get(TRACEPARENT).filter(|_| is_known).and_then(|header| header.to_str().ok());
    let path = method.map_or(NO_METHOD, |method| method.path).trim_start_matches('/');
    let (service, name) = path.split_once('/').unwrap_or((path, ""));
    info_span!(
        target: SPANS, "call", otel.name = path, otel.kind = "server", rpc.system = "grpc", rpc.service = service,
        rpc.method = name, caller = caller.as_ref().map(tracing::field::display), spiffe_id, traceparent = above,
        rpc.grpc.status_code = Empty, error = Empty,
    )
}
