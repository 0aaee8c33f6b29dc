//! JSON manifests.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Mistake, Record};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped<'a> {
    #[serde(borrow)]
    devices: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    #[serde(default)]
    ek_sha256: String,
    #[serde(default)]
    ek_certificate: String,
    #[serde(default)]
    serial: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// The records, and what is wrong with the file as JSON. Elements are read one by one, so that one bad device does not
/// hide the next.
pub(super) fn records(text: &str) -> (Vec<Record>, Vec<Mistake>) {
    let elements = if text.trim_start().starts_with('{') {
        serde_json::from_str::<Wrapped<'_>>(text).map(|wrapped| wrapped.devices)
    } else {
        serde_json::from_str::<Vec<&RawValue>>(text)
    };
    let elements = match elements {
        Ok(elements) => elements,
        Err(e) => return (Vec::new(), vec![Mistake { line: e.line().max(1), what: e.to_string() }]),
    };
    let (mut records, mut mistakes) = (Vec::new(), Vec::new());
    let mut lines = Lines { text, place: 0, line: 1 };
    for element in elements {
        let line = lines.line_of(element.get());
        match serde_json::from_str::<Device>(element.get()) {
            Ok(Device { ek_sha256, ek_certificate, serial, labels }) => {
                records.push(Record { line, ek_sha256, ek_certificate, serial, labels });
            }
            Err(e) => mistakes.push(Mistake { line: line + e.line().saturating_sub(1), what: e.to_string() }),
        }
    }
    (records, mistakes)
}

/// Counts lines up to parts of one text, which are asked for in order.
struct Lines<'a> {
    text: &'a str,
    place: usize,
    line: usize,
}

impl Lines<'_> {
    fn line_of(&mut self, part: &str) -> usize {
        let place = part.as_ptr().addr() - self.text.as_ptr().addr();
        self.line += self.text[self.place..place].matches('\n').count();
        self.place = place;
        self.line
    }
}
