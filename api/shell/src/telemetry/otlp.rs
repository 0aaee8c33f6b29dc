//! Traces over OTLP/gRPC, off unless `telemetry { otlp { } }` names a collector.
//!
//! ```text
//!  a room opens a span of the target SPANS ─► SpanLayer ─► queue of MAX_QUEUED_SPANS ─► Exporter ─► collector
//!                                                             └ full: the span is dropped and counted
//! ```
//! A room never waits: whether there is a collector, and how it fares, changes nothing but the log. Spans carry SPIFFE IDs, so a
//! collector learns who talks to whom: that is what it is for. The log does not show them, and none of the log's lines goes there.
//!
//! OpenTelemetry's own SDK is not linked: its second `rand` and its environment variables would come along, for one RPC.

mod dial;
mod exporter;
mod layer;
mod place;
mod settings;

use std::sync::Arc;

use http::HeaderMap;
use tokio::sync::mpsc;
use tonic::{Code, Status};
use tracing::Span;

pub use exporter::{Exporter, Sending};
pub use layer::{MAX_EVENTS, SpanLayer};
pub use place::{TRACEPARENT, traceparent};
pub(super) use settings::read;
pub use settings::{Collector, Otlp};

use super::{Counter, Kind, Page};

/// The target of spans that are sent: `info_span!(target: SPANS, "attest", ...)`. The log leaves it out.
pub const SPANS: &str = "ironroot::spans";
/// Most spans that wait for the collector, some 1 kB each.
pub const MAX_QUEUED_SPANS: usize = 1024;

/// What became of spans since the start.
#[derive(Debug, Default)]
pub struct SpanCounts {
    sent: Counter,
    lost: Counter,
}

impl SpanCounts {
    /// That the collector did not get: there was no room, or it would not have them.
    pub fn lost(&self) -> u64 {
        self.lost.count()
    }
}

impl Page {
    /// What became of spans.
    pub fn spans(&mut self, counts: &SpanCounts) {
        let mut spans = self.own("spans_total", Kind::Counter, "Spans of traces, by whether the collector has them");
        spans.sample(&[("outcome", "sent")], counts.sent.count() as f64);
        spans.sample(&[("outcome", "lost")], counts.lost.count() as f64);
    }
}

/// Where spans go in, and who sends them to the collector of `otlp`. `service`: what it calls them, `ironroot-server`.
pub fn spans(otlp: Otlp, service: &'static str) -> (SpanLayer, Exporter) {
    let (queue, waiting) = mpsc::channel(MAX_QUEUED_SPANS);
    let counts = Arc::<SpanCounts>::default();
    let layer = SpanLayer::new(otlp.sample_one_in, queue, Arc::clone(&counts));
    (layer, Exporter::new(otlp, service, waiting, counts))
}

/// The call that `span` is about ended with `code`. Source: OpenTelemetry, "Semantic conventions for gRPC": what is the caller's fault
/// alone is no error of a server.
pub fn answered(span: &Span, code: Code) {
    span.record("rpc.grpc.status_code", code as i32);
    let is_ours = matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    );
    if is_ours {
        span.record("error", tracing::field::debug(code));
    }
}

/// How the call ended that was answered with `headers`: in them if there is no more of the answer, otherwise it is under way, and well.
pub fn code_of(headers: &HeaderMap) -> Code {
    Status::from_header_map(headers).map_or(Code::Ok, |status| status.code())
}

/// What `span` is about failed, if it did.
pub fn done<T, E: std::error::Error + 'static>(span: &Span, result: &Result<T, E>) {
    if let Err(error) = result {
        span.record("error", crate::describe(error));
    }
}
