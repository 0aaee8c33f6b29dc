//! A device as an operator announces it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ironroot_attest::ek_certificate::{EkCertificate, EkCertificateError};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;

use super::{hex, parse_hex};
use crate::pb::device as pb;

/// Longest serial number, bytes.
pub const MAX_SERIAL_BYTES: usize = 255;
/// Most labels of a device.
pub const MAX_LABELS: usize = 64;
/// Longest label name, bytes.
pub const MAX_LABEL_NAME_BYTES: usize = 63;
/// Longest label value, bytes.
pub const MAX_LABEL_VALUE_BYTES: usize = 255;
/// Longest EK certificate, bytes of DER.
const MAX_CERTIFICATE_BYTES: usize = 8 * 1024;

/// Why a device is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NewDeviceError {
    /// Neither hash nor certificate, or both.
    #[error("exactly one of ek_sha256 and ek_certificate must be given")]
    Ek,
    /// Not a SHA-256.
    #[error("ek_sha256 must be 64 hexadecimal digits")]
    EkSha256,
    /// Not a certificate in a known text form.
    #[error("ek_certificate must be one PEM certificate, or DER in base64, of at most {MAX_CERTIFICATE_BYTES} bytes")]
    CertificateForm,
    /// A certificate that cannot be read.
    #[error("ek_certificate is unreadable: {0}")]
    Certificate(#[from] EkCertificateError),
    /// Bad serial number.
    #[error("serial must have at most {MAX_SERIAL_BYTES} bytes and no control characters")]
    Serial,
    /// Bad label name.
    #[error("label name {0:?} must be 1 to {MAX_LABEL_NAME_BYTES} characters of a-z, A-Z, 0-9, '.', '-', '_' and '/'")]
    LabelName(String),
    /// Bad label value.
    #[error("label {0:?} must have a value of 1 to {MAX_LABEL_VALUE_BYTES} bytes without control characters")]
    LabelValue(String),
    /// Too many labels.
    #[error("more than {MAX_LABELS} labels")]
    Labels,
}

/// A device to enrol, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDevice {
    ek_sha256: [u8; 32],
    certificate: Option<EkCertificate>,
    serial: String,
    labels: BTreeMap<String, String>,
}

impl NewDevice {
    /// From the wire: every mistake, at least one if any.
    pub fn from_pb(device: &pb::NewDevice) -> Result<Self, Vec<NewDeviceError>> {
        let ek = match (device.ek_sha256.is_empty(), device.ek_certificate.is_empty()) {
            (false, true) => Ek::parse_hash(&device.ek_sha256),
            (true, false) => Ek::parse_certificate(&device.ek_certificate),
            _ => Err(NewDeviceError::Ek),
        };
        Self::check(ek, device.serial.clone(), device.labels.clone().into_iter().collect())
    }

    /// From a manifest's texts: every mistake, at least one if any.
    pub(super) fn from_texts(
        ek_sha256: &str,
        ek_certificate: &str,
        serial: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<Self, Vec<NewDeviceError>> {
        let ek = match (ek_sha256.trim(), ek_certificate.trim()) {
            ("", "") => Err(NewDeviceError::Ek),
            (hash, "") => Ek::parse_hash(hash),
            ("", certificate) => certificate_der(certificate).and_then(|der| Ek::parse_certificate(&der)),
            _ => Err(NewDeviceError::Ek),
        };
        Self::check(ek, serial.to_owned(), labels)
    }

    /// The wire form: the certificate if there is one, else the hash.
    pub fn to_pb(&self) -> pb::NewDevice {
        let (ek_sha256, ek_certificate) = match &self.certificate {
            Some(certificate) => (String::new(), certificate.der().to_vec()),
            None => (hex(&self.ek_sha256), Vec::new()),
        };
        pb::NewDevice {
            ek_sha256,
            ek_certificate: ek_certificate.into(),
            serial: self.serial.clone(),
            labels: self.labels.clone().into_iter().collect(),
        }
    }

    /// SHA-256 of the endorsement key's DER SubjectPublicKeyInfo.
    pub fn ek_sha256(&self) -> [u8; 32] {
        self.ek_sha256
    }

    /// The operator's name for the device; may be empty.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The operator's words about the device.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// Manufacturer of the TPM as its certificate claims, if one was given and says so.
    pub fn manufacturer(&self) -> Option<String> {
        self.certificate.as_ref()?.tpm_model().map(|model| model.manufacturer.to_string())
    }

    fn check(
        ek: Result<Ek, NewDeviceError>,
        serial: String,
        labels: BTreeMap<String, String>,
    ) -> Result<Self, Vec<NewDeviceError>> {
        let others = mistakes(&serial, &labels);
        match ek {
            Ok(ek) if others.is_empty() => {
                Ok(Self { ek_sha256: ek.sha256, certificate: ek.certificate, serial, labels })
            }
            ek => Err(ek.err().into_iter().chain(others).collect()),
        }
    }
}

struct Ek {
    sha256: [u8; 32],
    certificate: Option<EkCertificate>,
}

impl Ek {
    fn parse_hash(text: &str) -> Result<Self, NewDeviceError> {
        let sha256 = parse_hex(text).ok_or(NewDeviceError::EkSha256)?;
        Ok(Self { sha256, certificate: None })
    }

    fn parse_certificate(der: &[u8]) -> Result<Self, NewDeviceError> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(NewDeviceError::CertificateForm);
        }
        let certificate = EkCertificate::parse(der)?;
        Ok(Self { sha256: certificate.ek_sha256(), certificate: Some(certificate) })
    }
}

fn certificate_der(text: &str) -> Result<Vec<u8>, NewDeviceError> {
    // Base64 is a third longer than what it encodes; line breaks and PEM's frame fit in the same again.
    if text.len() > 2 * MAX_CERTIFICATE_BYTES {
        return Err(NewDeviceError::CertificateForm);
    }
    if text.starts_with("-----BEGIN") {
        let mut certificates = CertificateDer::pem_slice_iter(text.as_bytes());
        return match (certificates.next(), certificates.next()) {
            (Some(Ok(only)), None) => Ok(only.to_vec()),
            _ => Err(NewDeviceError::CertificateForm),
        };
    }
    let bare: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    BASE64_STANDARD.decode(bare).map_err(|_| NewDeviceError::CertificateForm)
}

fn mistakes(serial: &str, labels: &BTreeMap<String, String>) -> Vec<NewDeviceError> {
    let mut mistakes = Vec::new();
    if serial.len() > MAX_SERIAL_BYTES || serial.contains(char::is_control) {
        mistakes.push(NewDeviceError::Serial);
    }
    if labels.len() > MAX_LABELS {
        mistakes.push(NewDeviceError::Labels);
    }
    for (name, value) in labels {
        let shown = || name.chars().take(MAX_LABEL_NAME_BYTES).collect();
        if !is_label_name(name) {
            mistakes.push(NewDeviceError::LabelName(shown()));
        }
        if value.is_empty() || value.len() > MAX_LABEL_VALUE_BYTES || value.contains(char::is_control) {
            mistakes.push(NewDeviceError::LabelValue(shown()));
        }
    }
    mistakes
}

/// No colon: in a selector it ends the name.
fn is_label_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/');
    !name.is_empty() && name.len() <= MAX_LABEL_NAME_BYTES && name.bytes().all(legal)
}
