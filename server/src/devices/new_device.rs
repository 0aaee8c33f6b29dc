//! A device as an operator announces it.

mod ek_text;

use std::collections::BTreeMap;

use ironroot_attest::ek_certificate::{EkCertificate, EkCertificateError};
use ironroot_text::pem::PemError;
use thiserror::Error;

use ek_text::{MAX_CERTIFICATE_BYTES, certificate_der};
use ironroot_api::pb::device as pb;
use ironroot_text::hex::{hex, parse_hex};

/// Longest serial number, bytes.
pub const MAX_SERIAL_BYTES: usize = 255;
/// Most labels of a device.
pub const MAX_LABELS: usize = 64;
/// Longest label name, bytes.
pub const MAX_LABEL_NAME_BYTES: usize = 63;
/// Longest label value, bytes.
pub const MAX_LABEL_VALUE_BYTES: usize = 255;

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
    #[error(
        "ek_certificate must be one certificate of at most {MAX_CERTIFICATE_BYTES} bytes: PEM, or DER in base64 or in \
         hexadecimal digits"
    )]
    CertificateForm,
    /// PEM that is not in order.
    #[error("ek_certificate is not PEM in order: {0}")]
    CertificatePem(#[source] PemError),
    /// Something stands behind the certificate that is not the filling of a TPM's index.
    #[error("ek_certificate has {0} bytes behind the certificate that are not all 0xff or 0x00")]
    CertificateRest(usize),
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
    #[error("label {0:?} must have a value of at most {MAX_LABEL_VALUE_BYTES} bytes without control characters")]
    LabelValue(String),
    /// Too many labels.
    #[error("more than {MAX_LABELS} labels")]
    Labels,
}

/// A device to enrol, checked: which it is, and what to change of what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDevice {
    ek_sha256: [u8; 32],
    certificate: Option<EkCertificate>,
    serial: Option<String>,
    labels: BTreeMap<String, String>,
}

/// A device's texts as they stand in a manifest; what is `None` or not there is left as it is, what is empty is removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DeviceTexts {
    /// Hexadecimal digits; empty if the certificate is given.
    pub ek_sha256: String,
    /// In any form that tools hand out; empty if the hash is given.
    pub ek_certificate: String,
    /// Empty: the device is to have none any more.
    pub serial: Option<String>,
    /// By name; one with an empty value is removed.
    pub labels: BTreeMap<String, String>,
}

impl NewDevice {
    /// From the wire: every mistake, at least one if any.
    pub fn from_pb(device: &pb::NewDevice) -> Result<Self, Vec<NewDeviceError>> {
        let ek = match (device.ek_sha256.is_empty(), device.ek_certificate.is_empty()) {
            (false, true) => Ek::parse_hash(&device.ek_sha256),
            (true, false) => Ek::parse_certificate(&device.ek_certificate),
            _ => Err(NewDeviceError::Ek),
        };
        Self::check(ek, device.serial.as_deref(), device.labels.iter())
    }

    /// From a manifest's texts: every mistake, at least one if any.
    pub fn from_texts(texts: &DeviceTexts) -> Result<Self, Vec<NewDeviceError>> {
        let ek = match (texts.ek_sha256.trim(), texts.ek_certificate.trim()) {
            ("", "") => Err(NewDeviceError::Ek),
            (hash, "") => Ek::parse_hash(hash),
            ("", certificate) => certificate_der(certificate).and_then(|der| Ek::parse_certificate(&der)),
            _ => Err(NewDeviceError::Ek),
        };
        Self::check(ek, texts.serial.as_deref(), texts.labels.iter())
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

    /// The operator's name for the device; empty: it is to have none any more; `None`: it keeps what it has.
    pub fn serial(&self) -> Option<&str> {
        self.serial.as_deref()
    }

    /// The operator's words about the device; those with an empty value are to be removed, those not named stay.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// `known` with what this device says of labels. Refused if there would be too many.
    pub fn labels_over(&self, mut known: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, NewDeviceError> {
        known.extend(self.labels.clone());
        known.retain(|_, value| !value.is_empty());
        if known.len() > MAX_LABELS { Err(NewDeviceError::Labels) } else { Ok(known) }
    }

    /// Manufacturer of the TPM as its certificate claims, if one was given and says so.
    pub fn manufacturer(&self) -> Option<String> {
        self.certificate.as_ref()?.tpm_model().map(|model| model.manufacturer.to_string())
    }

    /// Blanks around serial, names and values are a spreadsheet's or a typist's: no selector has them.
    fn check<'a>(
        ek: Result<Ek, NewDeviceError>,
        serial: Option<&str>,
        labels: impl Iterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self, Vec<NewDeviceError>> {
        let serial = serial.map(|serial| serial.trim().to_owned());
        let labels = labels.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect();
        let others = mistakes(serial.as_deref().unwrap_or_default(), &labels);
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

/// A label as it may be given to a device, or what is wrong with it.
pub fn check_label(name: &str, value: &str) -> Result<(), NewDeviceError> {
    let label = BTreeMap::from([(name.trim().to_owned(), value.trim().to_owned())]);
    mistakes("", &label).into_iter().next().map_or(Ok(()), Err)
}

/// The same of a serial.
pub fn check_serial(serial: &str) -> Result<(), NewDeviceError> {
    mistakes(serial.trim(), &BTreeMap::new()).into_iter().next().map_or(Ok(()), Err)
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
        if value.len() > MAX_LABEL_VALUE_BYTES || value.contains(char::is_control) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn device(serial: Option<&str>, labels: &[(&str, &str)]) -> Result<NewDevice, Vec<NewDeviceError>> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let serial = serial.map(str::to_owned);
        NewDevice::from_texts(&DeviceTexts { ek_sha256: "a".repeat(64), ek_certificate: String::new(), serial, labels })
    }

    #[test]
    fn blanks_around_serial_and_labels_are_dropped() {
        let device = device(Some(" SN-12\t"), &[(" site ", "\u{a0}hall 2 ")]).expect("good");
        assert_eq!(device.serial(), Some("SN-12"));
        assert_eq!(device.labels().iter().next(), Some((&"site".to_owned(), &"hall 2".to_owned())));
        assert_eq!(NewDevice::from_pb(&device.to_pb()), Ok(device));
    }

    #[test]
    fn what_is_not_named_stays_and_what_is_empty_goes() {
        let known = || BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let change = device(None, &[("b", " "), ("c", "3")]).expect("good");
        let wanted = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("c".to_owned(), "3".to_owned())]);
        assert_eq!((change.serial(), change.labels_over(known())), (None, Ok(wanted)));
        assert_eq!(device(Some(""), &[]).expect("good").serial(), Some(""));
        let names: Vec<String> = (0..MAX_LABELS).map(|n| format!("n{n}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
        let many = device(None, &many).expect("as many as there may be");
        assert_eq!(many.labels_over(known()), Err(NewDeviceError::Labels));
    }
}
