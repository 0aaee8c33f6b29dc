//! Log lines as JSON, with the keys and levels of SPIRE's: `time`, `level`, `msg`, and the fields beside them.

use std::error::Error;
use std::fmt;
use std::time::SystemTime;

use ironroot_api::utc_with_fraction;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use super::library_limit::LibraryLimit;
use crate::command_line::describe;
use crate::printable::is_printable;

/// One object a line, without characters that are not printable but as JSON's escapes. A field that has the name of one of the three keys gets `fields.` in front. Source: logrus, which SPIRE
/// logs with.
pub(super) struct Lines(LibraryLimit);

impl Lines {
    pub(super) fn new(libraries: LibraryLimit) -> Self {
        Self(libraries)
    }
}

/// Keys that a line has whatever was logged.
const KEYS: [&str; 3] = ["time", "level", "msg"];

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        line.0.insert("time".into(), utc_with_fraction(SystemTime::now()).into());
        line.0.insert("level".into(), level(*event.metadata().level()).into());
        line.0.insert("target".into(), event.metadata().target().into());
        if let Some(suppressed) = self.0.suppressed(event.metadata()) {
            line.0.insert("suppressed".into(), suppressed.into());
        }
        writeln!(writer, "{}", json_line(&Value::Object(line.0)))
    }
}

/// `value` as JSON on one line that a terminal shows as it is. Source of the escapes: RFC 8259, 7.
pub fn json_line(value: &Value) -> String {
    let mut line = String::new();
    for c in value.to_string().chars() {
        match is_printable(c) {
            true => line.push(c),
            // All of these are in the first plane, and in texts alone: JSON's own lines have none.
            false => line.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    line
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

#[derive(Default)]
struct Line(Map<String, Value>);

impl Line {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let name = match field.name() {
            "message" => "msg".to_owned(),
            name if KEYS.contains(&name) => format!("fields.{name}"),
            name => name.to_owned(),
        };
        self.0.insert(name, value.into());
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field, describe(value));
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::logging::written::Written;

    #[test]
    fn a_line_has_the_keys_and_levels_of_spires() {
        let written = Written::default();
        let lines = Lines::new(LibraryLimit::new());
        let layer = tracing_subscriber::fmt::layer().event_format(lines).with_writer(written.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let error = io::Error::other("disk is on fire");
            tracing::warn!(error = &error as &dyn Error, count = 3_u64, level = "own", name = %"x", "it \"happened\"");
        });
        let line: Value = serde_json::from_str(&written.text()).expect("one JSON object");
        assert_eq!((&line["level"], &line["msg"]), (&"warning".into(), &"it \"happened\"".into()));
        assert!(line["time"].as_str().is_some_and(|time| OffsetDateTime::parse(time, &Rfc3339).is_ok()), "{line}");
        assert_eq!((&line["count"], &line["error"]), (&3.into(), &"disk is on fire".into()));
        assert_eq!((&line["fields.level"], &line["name"]), (&"own".into(), &"x".into()));
    }

    #[test]
    fn what_is_not_printable_is_an_escape_of_json_and_comes_back_as_it_was() {
        let value = Value::from("a\n\u{7f}\u{85}\u{9b}\u{2028}\u{202e}ü");
        let line = json_line(&value);
        assert_eq!(line, r#""a\n\u007f\u0085\u009b\u2028\u202eü""#);
        assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON"), value);
    }
}
