//! JSON manifests.

use std::collections::BTreeMap;

use ironroot_shell::command_line::json_mistake;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Lines, Mistake, Record};
use crate::devices::DeviceTexts;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with the list \"devices\"")]
struct Wrapped<'a> {
    #[serde(borrow)]
    devices: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a device: an object")]
struct Device {
    #[serde(default)]
    ek_sha256: String,
    #[serde(default)]
    ek_certificate: String,
    serial: Option<String>,
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
        Err(e) => return (Vec::new(), vec![Mistake { line: e.line().max(1), what: what(&e) }]),
    };
    let (mut records, mut mistakes) = (Vec::new(), Vec::new());
    let mut lines = Lines::new(text);
    for element in elements {
        let line = lines.line_at(element.get().as_ptr().addr() - text.as_ptr().addr());
        match device(element.get()) {
            Ok(texts) => records.push(Record { line, texts }),
            Err((behind, what)) => mistakes.push(Mistake { line: line + behind, what }),
        }
    }
    (records, mistakes)
}

/// One device, or how many lines behind its first something is wrong, and what. An element that is no object is not
/// repeated in the message: the file may be anything.
fn device(element: &str) -> Result<DeviceTexts, (usize, String)> {
    if !element.starts_with('{') {
        return Err((0, "a device must be an object".to_owned()));
    }
    let device: Device = serde_json::from_str(element).map_err(|e| (e.line().saturating_sub(1), what(&e)))?;
    let Device { ek_sha256, ek_certificate, serial, labels } = device;
    Ok(DeviceTexts { ek_sha256, ek_certificate, serial, labels })
}

/// The mistake without its line, which the manifest's own counts name.
fn what(error: &serde_json::Error) -> String {
    let told = json_mistake(error);
    let place = format!(" at line {} column {}", error.line(), error.column());
    told.replace(&format!(",{place}"), "").replace(&place, "")
}
