//! Manifests: many devices in a file, CSV or JSON. Every mistake is reported at once, with its line.

mod csv;
mod json;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::{NewDevice, hex};

/// Most devices in one manifest.
pub const MAX_DEVICES: usize = 100_000;

/// One thing wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where, counted from 1. Of a record that spans lines, the first.
    pub line: usize,
    /// What.
    pub what: String,
}

/// What is wrong with a manifest: at least one thing, in order of lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// All of it.
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

/// Reads a manifest; JSON if it begins with a bracket or brace, else CSV.
///
/// CSV (RFC 4180) has a header line with some of `ek_sha256`, `ek_certificate`, `serial` and any number of `label:<name>`.
/// JSON is an array of objects, or an object whose member `devices` is one, with the members `ek_sha256`,
/// `ek_certificate`, `serial` and `labels`, an object of strings. Each device has exactly one of `ek_sha256` (64
/// hexadecimal digits) and `ek_certificate` (PEM, or DER in base64).
pub fn parse_manifest(text: &str) -> Result<Vec<NewDevice>, ManifestError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (records, mut mistakes) =
        if text.trim_start().starts_with(['[', '{']) { json::records(text) } else { csv::records(text) };
    let mut devices = Vec::new();
    let mut lines: HashMap<[u8; 32], usize> = HashMap::new();
    for record in records {
        let line = record.line;
        match NewDevice::from_texts(&record.ek_sha256, &record.ek_certificate, &record.serial, record.labels) {
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
    if devices.len() > MAX_DEVICES {
        mistakes.push(Mistake { line: 1, what: format!("more than {MAX_DEVICES} devices; split the manifest") });
    }
    if mistakes.is_empty() {
        return Ok(devices);
    }
    mistakes.sort_by_key(|mistake| mistake.line);
    Err(ManifestError { mistakes })
}

/// A device's texts as they stand in the file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Record {
    line: usize,
    ek_sha256: String,
    ek_certificate: String,
    serial: String,
    labels: BTreeMap<String, String>,
}

fn repeated(device: &NewDevice, first: usize) -> String {
    format!("device {} was already named in line {first}", hex(&device.ek_sha256()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

    fn lines(text: &str) -> Vec<usize> {
        parse_manifest(text).expect_err("mistakes").mistakes.into_iter().map(|m| m.line).collect()
    }

    fn certificate_pem() -> String {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
        rcgen::CertificateParams::default().self_signed(&key).expect("certificate").pem()
    }

    #[test]
    fn csv_and_json_say_the_same() {
        let csv = format!("ek_sha256,serial,label:site\r\n{A},S-1,berlin\r\n\r\n{B},\"S, \"\"2\"\"\",\r\n");
        let json = format!(
            r#"[{{"ek_sha256": "{A}", "serial": "S-1", "labels": {{"site": "berlin"}}}},
                {{"ek_sha256": "{B}", "serial": "S, \"2\""}}]"#
        );
        let devices = parse_manifest(&csv).expect("good CSV");
        assert_eq!(devices, parse_manifest(&json).expect("good JSON"));
        assert_eq!(devices, parse_manifest(&format!("\u{feff} {{\"devices\": {json}}}")).expect("good JSON object"));
        assert_eq!(devices[0].ek_sha256(), [0xaa; 32]);
        assert_eq!(devices[0].labels().get("site").map(String::as_str), Some("berlin"));
        assert_eq!((devices[1].serial(), devices[1].labels().len()), ("S, \"2\"", 0));
    }

    #[test]
    fn certificates_are_pem_or_base64_and_name_the_same_device() {
        let pem = certificate_pem();
        let base64: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
        let from_pem = parse_manifest(&format!("serial,ek_certificate\nx,\"{pem}\"\n")).expect("PEM in CSV");
        let from_base64 = parse_manifest(&format!("[{{\"ek_certificate\": \"{base64}\", \"serial\": \"x\"}}]"));
        assert_eq!(from_pem, from_base64.expect("base64 in JSON"));
        let hash = hex(&from_pem[0].ek_sha256());
        assert_eq!(lines(&format!("ek_sha256,ek_certificate\n{hash},\n,{base64}\n")), [3]);
        assert_eq!(NewDevice::from_pb(&from_pem[0].to_pb()).as_ref(), Ok(&from_pem[0]));
    }

    #[test]
    fn reports_every_mistake_with_its_line() {
        let csv = format!(
            "ek_sha256,ek_certificate,serial,label:a\n{A},,1,x\n{A},,2,x\nnot hex,,3,x\n,,4,x\n{B},AAAA,5,x\n,!,6\n"
        );
        assert_eq!(lines(&csv), [3, 4, 5, 6, 7]);
        let json = format!(
            "[\n{{\"ek_sha256\": \"{A}\", \"color\": 1}},\n{{\"ek_sha256\": 7}},\n{{\"ek_sha256\": \"{B}\", \"labels\": {{\n\"a:b\": \"\"}}}}\n]"
        );
        assert_eq!(lines(&json), [2, 3, 4, 4]);
    }

    #[test]
    fn refuses_what_has_no_sense_as_a_whole() {
        for (text, line) in [
            ("", 1),
            ("\n\n", 1),
            ("ek_sha256\n", 1),
            ("[]", 1),
            ("[\n{]", 2),
            ("{\"devices\": 1}", 1),
            ("serial\nx\n", 2),
            ("ek_sha256,ek_sha256\n", 1),
            ("ek_sha256,colour\n", 1),
            ("ek_sha256,label:\n", 1),
            ("ek_sha256\n\"open\n", 2),
        ] {
            assert_eq!(lines(text), [line], "{text:?}");
        }
    }
}
