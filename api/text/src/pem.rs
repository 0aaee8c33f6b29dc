//! Certificates in PEM, strictly: each frame in the text is a certificate that is returned, or an error says where it is.
//!
//! A reader that passes over what it does not understand loses an anchor without a word. Source: RFC 7468 §2, §5.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;

/// Most certificates in one text: all TPM makers' together are a few hundred.
pub const MAX_CERTIFICATES: usize = 10_000;

/// Labels of a plain certificate. Source: RFC 7468 §5.1, appendix A of OpenSSL's PEM documentation for the older two.
const CERTIFICATE: [&str; 3] = ["CERTIFICATE", "X509 CERTIFICATE", "X.509 CERTIFICATE"];

/// Why a text is not taken. Lines are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum PemError {
    /// No line of it begins a certificate.
    #[error("there is no certificate: a PEM certificate begins with a line -----BEGIN CERTIFICATE-----")]
    None,
    /// A line that was meant to be a frame's first or last line.
    #[error("line {line} is nearly a PEM line: it must be -----BEGIN CERTIFICATE----- or -----END CERTIFICATE-----")]
    Frame { line: usize },
    /// Something other than a certificate.
    #[error("line {line} begins a {label:?}: only certificates are read here{}", advice(label))]
    Label { line: usize, label: String },
    /// A frame that is not closed, or not by its own label.
    #[error("the certificate of line {line} has no line -----END CERTIFICATE----- of its own")]
    Open { line: usize },
    #[error("the certificate of line {line} is not base64")]
    Base64 { line: usize },
    #[error("more than {MAX_CERTIFICATES} certificates")]
    TooMany,
}

/// One line of a frame.
enum Line<'a> {
    Begin(&'a str),
    End(&'a str),
    /// Looks like one and is none.
    Nearly,
    Other,
}

/// Every certificate of `text`, which went through [`decode`](crate::decode), in order; at least one. Text between frames,
/// such as `openssl x509 -text` writes, is passed over; blanks around lines are too.
pub fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let mut found = Vec::new();
    let mut open: Option<Frame> = None;
    for (index, line) in text.lines().enumerate() {
        let (line, number) = (line.trim(), index + 1);
        match (classify(line), open.take()) {
            (Line::Nearly, _) => return Err(PemError::Frame { line: number }),
            (Line::Begin(_), Some(frame)) => return Err(PemError::Open { line: frame.line }),
            (Line::Begin(label), None) => open = Some(Frame::begin(label, number)?),
            (Line::End(label), Some(frame)) if frame.label == label => found.push(frame.certificate()?),
            (Line::End(_), Some(frame)) => return Err(PemError::Open { line: frame.line }),
            (Line::End(_), None) => return Err(PemError::Frame { line: number }),
            (Line::Other, Some(mut frame)) => {
                frame.add(line);
                open = Some(frame);
            }
            (Line::Other, None) => {}
        }
        if found.len() > MAX_CERTIFICATES {
            return Err(PemError::TooMany);
        }
    }
    match open {
        Some(frame) => Err(PemError::Open { line: frame.line }),
        None if found.is_empty() => Err(PemError::None),
        None => Ok(found),
    }
}

/// Whether there is a frame in `text`, or something that was meant to be one.
pub fn has_frame(text: &str) -> bool {
    text.lines().any(|line| !matches!(classify(line.trim()), Line::Other))
}

struct Frame<'a> {
    line: usize,
    label: &'a str,
    text: String,
}

impl<'a> Frame<'a> {
    fn begin(label: &'a str, line: usize) -> Result<Self, PemError> {
        if !CERTIFICATE.contains(&label) {
            return Err(PemError::Label { line, label: label.chars().take(64).collect() });
        }
        Ok(Self { line, label, text: "-----BEGIN CERTIFICATE-----\n".to_owned() })
    }

    fn add(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn certificate(mut self) -> Result<CertificateDer<'static>, PemError> {
        self.add("-----END CERTIFICATE-----");
        let der = CertificateDer::from_pem_slice(self.text.as_bytes());
        let der = der.map_err(|_| PemError::Base64 { line: self.line })?;
        if der.is_empty() { Err(PemError::Base64 { line: self.line }) } else { Ok(der) }
    }
}

fn classify(line: &str) -> Line<'_> {
    let framed = line.strip_prefix("-----").and_then(|rest| rest.strip_suffix("-----"));
    match framed.map(|inside| (inside.strip_prefix("BEGIN "), inside.strip_prefix("END "))) {
        Some((Some(label), _)) if is_label(label) => Line::Begin(label),
        Some((_, Some(label))) if is_label(label) => Line::End(label),
        _ if looks_like_a_frame(line) => Line::Nearly,
        _ => Line::Other,
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b". -".contains(&b))
        && !label.contains("--")
}

/// BEGIN or END and dashes, typed or as word processors make them; or a PEM line behind something else.
fn looks_like_a_frame(line: &str) -> bool {
    if line.contains("--BEGIN ") || line.contains("--END ") {
        return true;
    }
    let letters: String = line.chars().filter(|c| c.is_alphabetic()).flat_map(char::to_uppercase).take(64).collect();
    let words = (letters.starts_with("BEGIN") || letters.starts_with("END")) && letters.contains("CERTIFICATE");
    let dashes = line.chars().filter(|c| matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}')).count();
    words && dashes >= 2
}

fn advice(label: &str) -> &'static str {
    match label {
        "TRUSTED CERTIFICATE" => "; rewrite it with: openssl x509 -in FILE -out FILE.pem",
        label if label.ends_with("PRIVATE KEY") => "; a private key does not belong into this file",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
