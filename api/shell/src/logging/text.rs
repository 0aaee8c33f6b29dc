//! Log lines as text: time, level, message, fields as `name=value`.
//!
//! A value stands bare unless it could be taken for more than one: then it is quoted, so that what a stranger calls itself adds no field
//! to the line that speaks of it.

use std::error::Error;
use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{DefaultVisitor, Format, FormatEvent, FormatFields, Writer, format};
use tracing_subscriber::registry::LookupSpan;

use super::library_limit::LibraryLimit;
use crate::describe;

/// One event a line, and behind a library's what was left out of it before.
pub(super) struct Lines {
    format: Format,
    libraries: LibraryLimit,
}

impl Lines {
    pub(super) fn new(libraries: LibraryLimit) -> Self {
        Self { format: format().with_target(false).with_ansi(false), libraries }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(suppressed) = self.libraries.suppressed(event.metadata()) else {
            return self.format.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{} suppressed={suppressed}", line.trim_end())
    }
}

/// Fields of a line.
pub(super) struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Guarded(DefaultVisitor::new(writer, true));
        fields.record(&mut visitor);
        visitor.0.finish()
    }
}

struct Guarded<'w>(DefaultVisitor<'w>);

impl Visit for Guarded<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            return self.0.record_debug(field, value);
        }
        let text = format!("{value:?}");
        match is_one_value(&text) {
            true => self.0.record_debug(field, &format_args!("{text}")),
            false => self.0.record_debug(field, &text),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.record_str(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        match std::iter::successors(Some(value), |&error| error.source()).all(|error| is_one_value(&error.to_string()))
        {
            true => self.0.record_error(field, value),
            false => self.0.record_str(field, &describe(value)),
        }
    }
}

/// Whether whoever reads a line sees one value in `text`: nothing in it looks like another field (` name=`), and every quotation mark
/// has its second. A text that was quoted already is one.
fn is_one_value(text: &str) -> bool {
    is_quoted(text) || (quotation_marks(text).is_multiple_of(2) && !has_a_field(text))
}

/// Whether `text` begins and ends with a quotation mark and has none between that is not escaped.
fn is_quoted(text: &str) -> bool {
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.is_some_and(|inner| quotation_marks(inner) == 0 && !ends_within_an_escape(inner))
}

fn quotation_marks(text: &str) -> usize {
    let mut is_escaped = false;
    let count = |c: char| {
        let counts = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        counts
    };
    text.chars().map(count).filter(|counts| *counts).count()
}

fn ends_within_an_escape(text: &str) -> bool {
    text.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1
}

fn has_a_field(text: &str) -> bool {
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '#' | '-');
    let mut before_equals = text.match_indices('=').map(|(at, _)| &text[..at]);
    before_equals.any(|before| {
        let rest = before.trim_end_matches(is_of_a_name);
        rest.len() < before.len() && rest.ends_with(char::is_whitespace)
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::logging::written::Written;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    fn lines(speak: impl Fn(), guarded: bool) -> Vec<String> {
        let written = Written::default();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).without_time().with_writer(written.clone());
        let base = tracing_subscriber::registry();
        match guarded {
            true => tracing::subscriber::with_default(base.with(layer.fmt_fields(Fields)), speak),
            false => tracing::subscriber::with_default(base.with(layer), speak),
        }
        written.text().lines().map(str::to_owned).collect()
    }

    #[test]
    fn values_that_hold_nothing_odd_stay_as_they_are() {
        let speak = || {
            let error = Outer(io::Error::other("no such \"file\" (a=b)"));
            let (list, none) = (["a b", "c=d \"e\""], None::<u64>);
            tracing::warn!(error = &error as &dyn Error, plain = %"spiffe://td/a b", r#type = "x y=z", ?list, none, "it \"happened\"");
            tracing::info!(selectors = %"unix:uid:0 docker:label:a=b", suppressed = Some(3_u64), quoted = ?"a \" b=c", "said a=b");
            tracing::info!("message");
        };
        assert_eq!(lines(speak, true), lines(speak, false));
    }

    //= FLT-S21
    #[test]
    fn a_foreign_value_adds_no_field_to_the_line_that_speaks_of_it() {
        let forged = r#"y caller="local" caller_uid=0 x=""#;
        let speak = || {
            tracing::info!(object = %forged, caller = "spiffe://td/a", "API accessed");
            tracing::info!(object = %"open\"", caller = "spiffe://td/a", "API accessed");
            tracing::info!(object = %r#"" caller="local""#, caller = "spiffe://td/a", "API accessed");
            tracing::info!(error = &Outer(io::Error::other(forged)) as &dyn Error, "failed");
        };
        let said = lines(speak, true);
        assert!(
            said[0].ends_with(r#"object="y caller=\"local\" caller_uid=0 x=\"" caller="spiffe://td/a""#),
            "{said:?}"
        );
        assert!(said[1].ends_with(r#"object="open\"" caller="spiffe://td/a""#), "{said:?}");
        assert!(said[2].ends_with(r#"object="\" caller=\"local\"" caller="spiffe://td/a""#), "{said:?}");
        assert!(said[3].ends_with(r#"error="outer: y caller=\"local\" caller_uid=0 x=\"""#), "{said:?}");
    }
}
