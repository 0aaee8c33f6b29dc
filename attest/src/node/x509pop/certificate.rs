//! What a device's certificate says of the device.

use ironroot_text::hex::hex;
use x509_cert::Certificate;
use x509_cert::ext::pkix::{KeyUsage, SubjectAltName};

use super::alternative_names::AlternativeNames;
use super::names::Names;
use super::proof_key::ProofKey;
use super::refusal::X509PopRefusal;
use crate::authorities::{Fingerprint, fingerprint};
use crate::link::Link;
use crate::node::signed_sha256::{SignedSha256, of_signed};
use crate::other_forms;

/// A device's certificate, parsed. Whether the device has its key is another question.
#[derive(Clone, Debug)]
pub struct DeviceCertificate {
    pub(super) fingerprint: Fingerprint,
    other_fingerprints: Vec<Fingerprint>,
    pub(super) signed_sha256: SignedSha256,
    pub(super) key: ProofKey,
    subject: Names,
    issuer: Names,
    alternative_names: AlternativeNames,
    serial_number: String,
}

impl DeviceCertificate {
    /// Parses one certificate, whose key must be for digital signatures.
    pub(super) fn parse(der: &[u8]) -> Result<Self, X509PopRefusal> {
        let link = Link::parse(der).ok_or(X509PopRefusal::Malformed)?;
        let tbs = link.certificate.tbs_certificate();
        let usage = tbs.get_extension::<KeyUsage>().map_err(|_| X509PopRefusal::Malformed)?;
        if !usage.is_some_and(|(_, usage)| usage.digital_signature()) {
            return Err(X509PopRefusal::KeyUsage);
        }
        Ok(Self {
            fingerprint: fingerprint(der),
            other_fingerprints: other_forms::of_certificate(der).iter().map(|other| fingerprint(other)).collect(),
            signed_sha256: of_signed(link.tbs),
            key: ProofKey::of(&link.certificate)?,
            subject: Names::of(tbs.subject()),
            issuer: Names::of(tbs.issuer()),
            alternative_names: alternative_names(&link.certificate)?,
            serial_number: serial_number(tbs.serial_number().as_bytes()),
        })
    }

    /// SHA-1 of the certificate, lower-case hexadecimal, as SPIRE names it.
    pub fn fingerprint(&self) -> String {
        hex(&self.fingerprint)
    }

    /// The same of the certificate with its signature written in another way, which its holder can do.
    pub fn other_fingerprints(&self) -> Vec<String> {
        self.other_fingerprints.iter().map(hex).collect()
    }

    /// Lower-case hexadecimal, of an even number of digits. Source: SPIRE, `SerialNumberHex`.
    pub fn serial_number(&self) -> &str {
        &self.serial_number
    }

    /// Whom it is about.
    pub fn subject(&self) -> &Names {
        &self.subject
    }

    /// Who has issued it, by its own words.
    pub fn issuer(&self) -> &Names {
        &self.issuer
    }

    /// What subjectAltName says.
    pub fn alternative_names(&self) -> &AlternativeNames {
        &self.alternative_names
    }
}

fn alternative_names(certificate: &Certificate) -> Result<AlternativeNames, X509PopRefusal> {
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>();
    let names = names.map_err(|_| X509PopRefusal::Malformed)?;
    Ok(names.map(|(_critical, names)| AlternativeNames::of(names)).unwrap_or_default())
}

/// A big-endian number without what a sign takes.
fn serial_number(bytes: &[u8]) -> String {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len().saturating_sub(1));
    hex(&bytes[first..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: SPIRE, x509pop_test.go.
    #[test]
    fn a_serial_number_has_an_even_number_of_digits_and_no_sign() {
        for (bytes, text) in [
            (&[0x0a, 0x1b, 0x2c][..], "0a1b2c"),
            (&[0x00, 0xff], "ff"),
            (&[0x01], "01"),
            (&[0x00], "00"),
            (&[0x10, 0x00], "1000"),
        ] {
            assert_eq!(serial_number(bytes), text);
        }
    }
}
