//! Manifests: many devices in a file, CSV or JSON. Every mistake is reported at once, with its line.

mod csv;
mod json;

use std::collections::HashMap;
use std::fmt;

use crate::devices::{DeviceTexts, MAX_IMPORT, NewDevice};
use ironroot_text::hex::hex;

/// One thing wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where, counted from 1. Of a record that spans lines, the first.
    pub line: usize,
    /// In the words an operator needs to mend the line.
    pub what: String,
}

/// What is wrong with a manifest: at least one thing, in order of lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// In the order of the lines, all at once.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, mistake) in self.mistakes.iter().enumerate() {
            let separator = if number == 0 { "" } else { "\n" };
            write!(f, "{separator}line {}: {}", mistake.line, mistake.what)?;
        }
        Ok(())
    }
}

/// Reads a manifest, which came through [`HumanFile`](ironroot_text::HumanFile); JSON if it begins with a bracket or brace,
/// else CSV.
///
/// CSV (RFC 4180; also with semicolons or tabs, as spreadsheets save it) has a header line with some of `ek_sha256`,
/// `ek_certificate`, `serial` and any number of `label:<name>`. A column or member that is missing leaves what is known of
/// a device as it is; an empty one removes it.
/// JSON is an array of objects, or an object whose member `devices` is one, with the members `ek_sha256`,
/// `ek_certificate`, `serial` and `labels`, an object of strings. Each device has exactly one of `ek_sha256` (64
/// hexadecimal digits) and `ek_certificate` (PEM, or DER in base64 or in hexadecimal digits).
pub fn parse_manifest(text: &str) -> Result<Vec<NewDevice>, ManifestError> {
    let (records, mut mistakes) =
        if text.trim_start().starts_with(['[', '{']) { json::records(text) } else { csv::records(text) };
    let mut devices = Vec::new();
    let mut lines: HashMap<[u8; 32], usize> = HashMap::new();
    for record in records {
        let line = record.line;
        match NewDevice::from_texts(&record.texts) {
            Err(found) => mistakes.extend(found.into_iter().map(|what| Mistake { line, what: what.to_string() })),
            Ok(device) => match lines.insert(device.ek_sha256(), line) {
                Some(first) => mistakes.push(Mistake { line, what: repeated(&device, first) }),
                None => devices.push(device),
            },
        }
    }
    if devices.is_empty() && mistakes.is_empty() {
        mistakes.push(Mistake { line: 1, what: "manifest names no device".into() });
    }
    if devices.len() > MAX_IMPORT {
        mistakes.push(Mistake { line: 1, what: format!("more than {MAX_IMPORT} devices; split the manifest") });
    }
    if mistakes.is_empty() {
        return Ok(devices);
    }
    mistakes.sort_by_key(|mistake| mistake.line);
    Err(ManifestError { mistakes })
}

/// A device's texts, and where they stand in the file.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    line: usize,
    texts: DeviceTexts,
}

/// Counts lines up to places of one text, which are asked for in order.
struct Lines<'a> {
    text: &'a str,
    place: usize,
    line: usize,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, place: 0, line: 1 }
    }

    fn line_at(&mut self, place: usize) -> usize {
        let between = self.text.as_bytes().get(self.place..place).unwrap_or_default();
        self.line += between.iter().filter(|byte| **byte == b'\n').count();
        self.place = place;
        self.line
    }
}

fn repeated(device: &NewDevice, first: usize) -> String {
    format!("device {} was already named in line {first}", hex(&device.ek_sha256()))
}

#[cfg(test)]
mod tests;
