use tracing::field::Empty;
use tracing::{info, info_span};
use tracing_subscriber::layer::SubscriberExt;

use super::super::traceparent;
use super::*;

/// What is sent of `work` with a queue of `room`, and what is lost.
fn sent(room: usize, work: impl FnOnce()) -> (Vec<Span>, u64) {
    let (queue, mut waiting) = mpsc::channel(room);
    let counts = Arc::<SpanCounts>::default();
    let layer = SpanLayer::new(1, queue, Arc::clone(&counts)).with_filter(SpanLayer::filter());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
    (std::iter::from_fn(|| waiting.try_recv().ok()).collect(), counts.lost())
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let value = attributes.iter().find(|it| it.key == key)?.value.as_ref()?.value.as_ref()?;
    if let Value::StringValue(text) = value { Some(text) } else { None }
}

#[test]
fn a_span_within_another_is_of_its_trace_and_what_is_said_of_it_is_told() {
    let (spans, lost) = sent(10, || {
        let outer = info_span!(target: SPANS, "outer", otel.kind = "server", spiffe_id = Empty, error = Empty);
        outer.in_scope(|| {
            info_span!(target: SPANS, "inner").in_scope(|| info!(target: SPANS, spiffe_id = "spiffe://td/w", "signed"));
            info_span!("of another target").in_scope(|| info!("no event of a trace"));
        });
        outer.record("spiffe_id", "spiffe://td/a");
        outer.record("error", "disk is on fire");
    });
    let [inner, outer] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((inner.name.as_str(), outer.name.as_str(), lost), ("inner", "outer", 0));
    assert_eq!((&inner.trace_id, &inner.parent_span_id), (&outer.trace_id, &outer.span_id));
    assert!(outer.parent_span_id.is_empty() && outer.kind() == SpanKind::Server);
    assert!(outer.start_time_unix_nano <= inner.start_time_unix_nano && inner.end_time_unix_nano > 0);
    assert_eq!(text(&outer.attributes, "spiffe_id"), Some("spiffe://td/a"));
    assert_eq!(
        outer.status.as_ref().map(|it| (it.code(), it.message.as_str())),
        Some((StatusCode::Error, "disk is on fire"))
    );
    let [event] = inner.events.as_slice() else { panic!("{inner:?}") };
    assert_eq!((event.name.as_str(), text(&event.attributes, "spiffe_id")), ("signed", Some("spiffe://td/w")));
}

#[test]
fn the_span_of_a_caller_is_above_and_its_own_is_told_to_whoever_is_called() {
    let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut told = None;
    let (spans, _) = sent(10, || {
        assert_eq!(traceparent(), None);
        info_span!(target: SPANS, "called", traceparent = header).in_scope(|| told = traceparent());
        let unsampled = header.replace("-01", "-00");
        info_span!(target: SPANS, "not sampled", traceparent = unsampled).in_scope(|| info!(target: SPANS, "unheard"));
    });
    let [called] = spans.as_slice() else { panic!("{spans:?}") };
    let (above, place) = (Place::parse(header).expect("legal"), Place::parse(&told.expect("within")).expect("legal"));
    assert_eq!((called.trace_id.to_vec(), called.parent_span_id.to_vec()), (above.trace.to_vec(), above.span.to_vec()));
    assert_eq!((place.trace, called.span_id.to_vec()), (above.trace, place.span.to_vec()));
    assert_eq!(text(&called.attributes, "traceparent"), None);
}

#[test]
fn what_finds_no_room_is_dropped_and_counted() {
    let (spans, lost) = sent(3, || (0..10).for_each(|_| drop(info_span!(target: SPANS, "one of many"))));
    assert_eq!((spans.len(), lost), (3, 7));
}

#[test]
fn a_spans_size_is_bounded_whatever_is_said_of_it() {
    let (spans, _) = sent(1, || {
        info_span!(target: SPANS, "long", name = "ä".repeat(MAX_TEXT_BYTES)).in_scope(|| {
            (0..1000).for_each(|_| info!(target: SPANS, "again"));
        });
    });
    let [span] = spans.as_slice() else { panic!("{}", spans.len()) };
    assert_eq!(text(&span.attributes, "name").map(str::len), Some(MAX_TEXT_BYTES));
    assert_eq!((span.events.len(), span.dropped_events_count), (MAX_EVENTS, 1000 - MAX_EVENTS as u32));
}
