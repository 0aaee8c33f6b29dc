//! Spans of the target [`SPANS`](super::SPANS) on their way from a room to the queue.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ironroot_api::pb::trace::any_value::Value;
use ironroot_api::pb::trace::span::{Event, SpanKind};
use ironroot_api::pb::trace::status::StatusCode;
use ironroot_api::pb::trace::{AnyValue, KeyValue, Span, Status};
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::place::{Place, TRACEPARENT};
use super::{SPANS, SpanCounts};

/// Most attributes of a span or an event. Ours have ten at most.
const MAX_ATTRIBUTES: usize = 32;
/// Longest text of an attribute, bytes: a SPIFFE ID fits.
const MAX_TEXT_BYTES: usize = 2048;
/// Most events of a span, as the SDKs have it: what is signed in a call that asks for more is counted there.
pub const MAX_EVENTS: usize = 128;
/// A span's name where it is not one of the program's, its kind, and why what it is about failed. Source of the first two: the crate
/// tracing-opentelemetry.
const NAME: &str = "otel.name";
const KIND: &str = "otel.kind";
const ERROR: &str = "error";

/// See the module. Put it on a registry with [`filter`](Self::filter).
#[derive(Debug)]
pub struct SpanLayer {
    one_in: u64,
    queue: mpsc::Sender<Span>,
    counts: Arc<SpanCounts>,
}

/// A span between its beginning and its end; what is told of it only if its trace is sent.
pub(super) struct Open {
    place: Place,
    told: Option<Box<Span>>,
}

impl Open {
    pub(super) fn place(&self) -> Place {
        self.place
    }
}

impl SpanLayer {
    pub(super) fn new(one_in: u64, queue: mpsc::Sender<Span>, counts: Arc<SpanCounts>) -> Self {
        Self { one_in, queue, counts }
    }

    /// What is looked at: our own spans.
    pub fn filter() -> Targets {
        Targets::new().with_target(SPANS, LevelFilter::INFO)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let mut said = Said::default();
        attributes.record(&mut said);
        let above = span.parent().and_then(|parent| parent.extensions().get::<Open>().map(Open::place));
        let above = above.or(said.remote);
        let place = above.map_or_else(|| Place::new_trace(self.one_in), Place::below);
        let told = place.is_sampled.then(|| Box::new(begun(attributes.metadata().name(), place, above, said)));
        span.extensions_mut().insert(Open { place, told });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let mut extensions = span.extensions_mut();
        let Some(told) = extensions.get_mut::<Open>().and_then(|open| open.told.as_mut()) else { return };
        let mut said = Said::default();
        values.record(&mut said);
        said.put_into(told);
    }

    fn on_event(&self, event: &tracing::Event<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.event_span(event) else { return };
        let mut extensions = span.extensions_mut();
        let Some(told) = extensions.get_mut::<Open>().and_then(|open| open.told.as_mut()) else { return };
        if told.events.len() >= MAX_EVENTS {
            told.dropped_events_count = told.dropped_events_count.saturating_add(1);
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        told.events.push(Event {
            time_unix_nano: now(),
            name: said.message,
            attributes: said.attributes,
            dropped_attributes_count: said.dropped,
        });
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        let open = ctx.span(&id).and_then(|span| span.extensions_mut().remove::<Open>());
        let Some(mut told) = open.and_then(|open| open.told) else { return };
        told.end_time_unix_nano = now();
        if self.queue.try_send(*told).is_err() {
            self.counts.lost.one_more();
        }
    }
}

fn begun(name: &str, place: Place, above: Option<Place>, said: Said) -> Span {
    let mut span = Span {
        trace_id: place.trace.to_vec().into(),
        span_id: place.span.to_vec().into(),
        parent_span_id: above.map(|above| above.span.to_vec().into()).unwrap_or_default(),
        name: name.to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: now(),
        ..Span::default()
    };
    said.put_into(&mut span);
    span
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// What fields say.
#[derive(Default)]
struct Said {
    attributes: Vec<KeyValue>,
    dropped: u32,
    message: String,
    name: Option<String>,
    kind: Option<SpanKind>,
    error: Option<String>,
    remote: Option<Place>,
}

impl Said {
    fn put_into(self, span: &mut Span) {
        if let Some(name) = self.name {
            span.name = name;
        }
        if let Some(kind) = self.kind {
            span.kind = kind.into();
        }
        if let Some(message) = self.error {
            span.status = Some(Status { message, code: StatusCode::Error.into() });
        }
        span.dropped_attributes_count = span.dropped_attributes_count.saturating_add(self.dropped);
        for attribute in self.attributes {
            match span.attributes.iter().position(|known| known.key == attribute.key) {
                Some(place) => span.attributes[place] = attribute,
                None if span.attributes.len() < MAX_ATTRIBUTES => span.attributes.push(attribute),
                None => span.dropped_attributes_count = span.dropped_attributes_count.saturating_add(1),
            }
        }
    }

    fn put(&mut self, field: &Field, value: Value) {
        if self.attributes.len() >= MAX_ATTRIBUTES {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let value = Some(AnyValue { value: Some(value) });
        self.attributes.push(KeyValue { key: field.name().to_owned(), value });
    }

    fn text(&mut self, field: &Field, text: &str) {
        let end = (0..=text.len().min(MAX_TEXT_BYTES)).rev().find(|end| text.is_char_boundary(*end));
        let text = &text[..end.unwrap_or_default()];
        match field.name() {
            "message" => self.message = text.to_owned(),
            NAME => self.name = Some(text.to_owned()),
            KIND => self.kind = kind(text),
            ERROR => self.error = Some(text.to_owned()),
            TRACEPARENT => self.remote = Place::parse(text),
            _ => self.put(field, Value::StringValue(text.to_owned())),
        }
    }
}

fn kind(text: &str) -> Option<SpanKind> {
    match text {
        "server" => Some(SpanKind::Server),
        "client" => Some(SpanKind::Client),
        _ => None,
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::BoolValue(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::IntValue(value.try_into().unwrap_or(i64::MAX)));
    }
}

#[cfg(test)]
mod tests;
