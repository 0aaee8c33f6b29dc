//! What a device's certificate says of the device.

use der::Decode;
use ironroot_text::hex::hex;
use x509_cert::Certificate;
use x509_cert::ext::pkix::KeyUsage;

use super::authorities::{Fingerprint, fingerprint};
use super::proof_key::ProofKey;
use super::refusal::X509PopRefusal;

/// A device's certificate, parsed.
#[derive(Clone, Debug)]
pub(super) struct DeviceCertificate {
    pub(super) fingerprint: Fingerprint,
    pub(super) key: ProofKey,
    pub(super) common_name: Option<String>,
    /// Lower-case hexadecimal, of an even number of digits. Source: SPIRE, `SerialNumberHex`.
    pub(super) serial_number: String,
}

impl DeviceCertificate {
    /// Parses one certificate, whose key must be for digital signatures.
    pub(super) fn parse(der: &[u8]) -> Result<Self, X509PopRefusal> {
        let certificate = Certificate::from_der(der).map_err(|_| X509PopRefusal::Malformed)?;
        let tbs = certificate.tbs_certificate();
        let usage = tbs.get_extension::<KeyUsage>().map_err(|_| X509PopRefusal::Malformed)?;
        if !usage.is_some_and(|(_, usage)| usage.digital_signature()) {
            return Err(X509PopRefusal::KeyUsage);
        }
        let common_name = tbs.subject().common_name().ok().flatten();
        Ok(Self {
            fingerprint: fingerprint(der),
            key: ProofKey::of(&certificate)?,
            common_name: common_name.map(|name| name.value().into_owned()).filter(|name| !name.is_empty()),
            serial_number: serial_number(tbs.serial_number().as_bytes()),
        })
    }
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
