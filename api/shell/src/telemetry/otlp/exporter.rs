//! Sends what waits to the collector, in batches; whatever the collector does, no room waits for it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::pb::trace::any_value::Value;
use ironroot_api::pb::trace::{AnyValue, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span};
use ironroot_api::pb::trace_service::trace_service_client::TraceServiceClient;
use ironroot_api::pb::trace_service::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use nix::unistd::gethostname;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tracing::{info, warn};

use super::dial::{DialError, dial};
use super::{MAX_QUEUED_SPANS, Otlp, SpanCounts};
use crate::describe;

/// Most spans in one call. Source: the SDKs' default.
const MAX_BATCH: usize = 512;
/// The first span of a batch waits this long for others: a small device's radio wakes once for a sync, not for each span of it.
const GATHERING: Duration = Duration::from_secs(1);
/// Longest that a call may take, the connection included. Source: OTEL_EXPORTER_OTLP_TIMEOUT's default.
const DEADLINE: Duration = Duration::from_secs(10);
/// Pauses after calls that failed: doubled from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long a process that ends goes on sending.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Longest answer that is read, bytes.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// A collector that comes and goes is told of once in this time.
const LINE_INTERVAL: Duration = Duration::from_secs(60);

/// Why a batch is not with the collector.
#[derive(Debug, Error)]
enum ExportError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("it has not answered for {} s", DEADLINE.as_secs())]
    Late,
    #[error("it refused: {:?}: {}", .0.code(), crate::logging::clipped(.0.message()))]
    Refused(Status),
}

impl ExportError {
    /// Whether the same batch may be taken another time. Source: OTLP specification, "Failures", of gRPC.
    fn may_pass(&self) -> bool {
        match self {
            Self::Dial(_) | Self::Late => true,
            Self::Refused(status) => matches!(
                status.code(),
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Aborted
                    | Code::OutOfRange
                    | Code::Unavailable
                    | Code::DataLoss
            ),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Exporter {
    otlp: Otlp,
    service: &'static str,
    waiting: mpsc::Receiver<Span>,
    counts: Arc<SpanCounts>,
    channel: Option<Channel>,
    /// What is under way.
    batch: Vec<Span>,
    failing: Failing,
}

/// An exporter at work. One that is dropped ends by itself.
#[derive(Debug)]
pub struct Sending {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    counts: Arc<SpanCounts>,
}

impl Sending {
    /// What became of spans.
    pub fn counts(&self) -> Arc<SpanCounts> {
        Arc::clone(&self.counts)
    }

    /// Sends what waits, for a second at most.
    pub async fn end(self) {
        let Self { stop, task, .. } = self;
        drop(stop);
        drop(task.await);
    }
}

/// Whether calls fail, and what was said of it.
#[derive(Debug, Default)]
struct Failing {
    since: Option<Instant>,
    told: Option<Instant>,
}

impl Exporter {
    pub(super) fn new(
        otlp: Otlp,
        service: &'static str,
        waiting: mpsc::Receiver<Span>,
        counts: Arc<SpanCounts>,
    ) -> Self {
        let (channel, batch, failing) = (None, Vec::new(), Failing::default());
        Self { otlp, service, waiting, counts, channel, batch, failing }
    }

    /// Begins to send.
    pub fn begin(self) -> Sending {
        let (stop, stopped) = oneshot::channel::<()>();
        let counts = Arc::clone(&self.counts);
        let task = tokio::spawn(self.run(async move { drop(stopped.await) }));
        Sending { stop, task, counts }
    }

    /// Sends until `stop`, and what waits then for a second more.
    async fn run(mut self, stop: impl Future<Output = ()>) {
        info!(collector = %self.otlp.collector, sample_one_in = self.otlp.sample_one_in, "traces are sent");
        tokio::select! {
            () = stop => {}
            () = self.send_all() => return,
        }
        self.waiting.close();
        drop(timeout(LAST_WORDS, self.send_all()).await);
        let left = self.batch.len() + self.waiting.len();
        self.counts.lost.add(left.try_into().unwrap_or(u64::MAX));
    }

    /// Until there can be no more.
    async fn send_all(&mut self) {
        let mut pause = PAUSES.0;
        while self.gather().await {
            match self.send().await {
                Ok(()) => pause = PAUSES.0,
                Err(error) => {
                    self.note_failure(&error);
                    sleep(pause).await;
                    pause = PAUSES.1.min(pause * 2);
                }
            }
        }
    }

    /// A batch, if there will be another: the one from before as long as it was not taken.
    async fn gather(&mut self) -> bool {
        if self.batch.is_empty() && self.waiting.recv_many(&mut self.batch, MAX_BATCH).await == 0 {
            return false;
        }
        let more = async {
            while let room @ 1.. = MAX_BATCH.saturating_sub(self.batch.len()) {
                if self.waiting.recv_many(&mut self.batch, room).await == 0 {
                    break;
                }
            }
        };
        drop(timeout(GATHERING, more).await);
        true
    }

    async fn send(&mut self) -> Result<(), ExportError> {
        let sent = timeout(DEADLINE, self.call()).await.unwrap_or(Err(ExportError::Late));
        match sent {
            Ok(answer) => {
                self.note_success(&answer);
                Ok(())
            }
            Err(error) => {
                self.channel = None;
                if !error.may_pass() {
                    self.counts.lost.add(self.batch.len().try_into().unwrap_or(u64::MAX));
                    self.batch.clear();
                }
                Err(error)
            }
        }
    }

    async fn call(&mut self) -> Result<ExportTraceServiceResponse, ExportError> {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => self.channel.insert(dial(&self.otlp).await?).clone(),
        };
        let mut client = TraceServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = client.export(self.request()).await.map_err(ExportError::Refused)?;
        Ok(answer.into_inner())
    }

    fn request(&self) -> ExportTraceServiceRequest {
        let scope =
            InstrumentationScope { name: self.service.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: self.batch.clone() }];
        let resource_spans = vec![ResourceSpans { resource: Some(resource(self.service)), scope_spans }];
        ExportTraceServiceRequest { resource_spans }
    }

    /// The collector may say that it has not kept all of them.
    fn note_success(&mut self, answer: &ExportTraceServiceResponse) {
        let sent = u64::try_from(self.batch.len()).unwrap_or(u64::MAX);
        self.batch.clear();
        let rejected = answer.partial_success.as_ref().map_or(0, |partial| partial.rejected_spans);
        let rejected = sent.min(rejected.try_into().unwrap_or(0));
        self.counts.sent.add(sent - rejected);
        self.counts.lost.add(rejected);
        if self.failing.since.take().is_some() && self.failing.may_tell() {
            info!(collector = %self.otlp.collector, lost = self.counts.lost(), "the collector takes traces again");
        }
    }

    fn note_failure(&mut self, error: &ExportError) {
        if self.failing.since.replace(Instant::now()).is_none() && self.failing.may_tell() {
            warn!(
                collector = %self.otlp.collector, error = describe(error), lost = self.counts.lost(),
                "traces do not reach the collector: {MAX_QUEUED_SPANS} spans wait for it, further ones are lost; nothing else is affected"
            );
        }
    }
}

impl Failing {
    fn may_tell(&mut self) -> bool {
        let may = self.told.is_none_or(|told| told.elapsed() >= LINE_INTERVAL);
        if may {
            self.told = Some(Instant::now());
        }
        may
    }
}

/// What sends. Source: OpenTelemetry, "Resource semantic conventions".
fn resource(service: &str) -> Resource {
    let host = gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let attributes = [("service.name", service), ("service.version", env!("CARGO_PKG_VERSION")), ("host.name", &host)];
    let attribute = |(key, value): (&str, &str)| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
    };
    Resource { attributes: attributes.map(attribute).into() }
}
