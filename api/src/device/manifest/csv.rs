//! CSV manifests. Source: RFC 4180, with LF as well as CRLF.

use super::{Mistake, Record};

const LABEL_PREFIX: &str = "label:";

/// A line of the file, or several where a quoted field spans them.
struct Row {
    line: usize,
    fields: Vec<String>,
}

/// The records, and what is wrong with the file as CSV.
pub(super) fn records(text: &str) -> (Vec<Record>, Vec<Mistake>) {
    let (rows, mut mistakes) = rows(text);
    let mut rows = rows.into_iter();
    let Some(header) = rows.next() else { return (Vec::new(), mistakes) };
    mistakes.extend(header_mistakes(&header));
    if !mistakes.is_empty() {
        return (Vec::new(), mistakes);
    }
    let mut records = Vec::new();
    for row in rows {
        if row.fields.len() == header.fields.len() {
            records.push(record(&header.fields, row));
        } else {
            let what = format!("{} fields, the header has {}", row.fields.len(), header.fields.len());
            mistakes.push(Mistake { line: row.line, what });
        }
    }
    (records, mistakes)
}

fn header_mistakes(header: &Row) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (place, name) in header.fields.iter().enumerate() {
        let known = matches!(name.as_str(), "ek_sha256" | "ek_certificate" | "serial")
            || name.strip_prefix(LABEL_PREFIX).is_some_and(|label| !label.is_empty());
        let what = if !known {
            format!("unknown column {name:?}: must be ek_sha256, ek_certificate, serial or label:<name>")
        } else if header.fields[..place].contains(name) {
            format!("column {name:?} stands twice")
        } else {
            continue;
        };
        mistakes.push(Mistake { line: header.line, what });
    }
    mistakes
}

/// An empty label field means that the device has no such label.
fn record(columns: &[String], row: Row) -> Record {
    let mut record = Record { line: row.line, ..Record::default() };
    for (column, value) in columns.iter().zip(row.fields) {
        match (column.as_str(), column.strip_prefix(LABEL_PREFIX)) {
            ("ek_sha256", _) => record.ek_sha256 = value,
            ("ek_certificate", _) => record.ek_certificate = value,
            (_, Some(label)) if !value.is_empty() => drop(record.labels.insert(label.to_owned(), value)),
            (_, Some(_)) => {}
            _ => record.serial = value,
        }
    }
    record
}

/// Splits the text; blank lines are left out.
fn rows(text: &str) -> (Vec<Row>, Vec<Mistake>) {
    let (mut rows, mut mistakes) = (Vec::new(), Vec::new());
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        let mut row = Row { line, fields: Vec::new() };
        let blank = rest.starts_with('\n') || rest.starts_with("\r\n");
        loop {
            let (field, after, closed) = field(rest);
            line += rest[..rest.len() - after.len()].matches('\n').count();
            if !closed {
                mistakes.push(Mistake {
                    line: row.line,
                    what: "quotation mark is not closed, or not where it may be".into(),
                });
                return (rows, mistakes);
            }
            row.fields.push(field);
            rest = after;
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => break,
            }
        }
        rest = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n')).unwrap_or(rest);
        line += 1;
        if !blank {
            rows.push(row);
        }
    }
    (rows, mistakes)
}

/// One field, what follows it (a comma, a line end, or nothing), and whether its quotation marks are in order.
fn field(text: &str) -> (String, &str, bool) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', '\n']).unwrap_or(text.len());
        let end = if text[..end].ends_with('\r') && !text[end..].starts_with(',') { end - 1 } else { end };
        return (text[..end].to_owned(), &text[end..], !text[..end].contains('"'));
    };
    let mut value = String::new();
    let mut rest = quoted;
    loop {
        let Some((before, after)) = rest.split_once('"') else { return (value, "", false) };
        value.push_str(before);
        match after.strip_prefix('"') {
            Some(next) => {
                value.push('"');
                rest = next;
            }
            None => {
                let ended = after.is_empty() || after.starts_with([',', '\n']) || after.starts_with("\r\n");
                return (value, after, ended);
            }
        }
    }
}
