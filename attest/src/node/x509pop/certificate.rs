//! What a device's certificate says of the device.

use const_oid::db::rfc4519::COMMON_NAME;
use ironroot_text::hex::hex;
use x509_cert::ext::pkix::KeyUsage;
use x509_cert::ext::pkix::name::DirectoryString;
use x509_cert::name::Name;

use super::proof_key::ProofKey;
use super::refusal::X509PopRefusal;
use super::signed_sha256::{SignedSha256, of_signed};
use crate::authorities::{Fingerprint, fingerprint};
use crate::link::Link;

/// A device's certificate, parsed.
#[derive(Clone, Debug)]
pub(super) struct DeviceCertificate {
    pub(super) fingerprint: Fingerprint,
    pub(super) signed_sha256: SignedSha256,
    pub(super) key: ProofKey,
    pub(super) common_name: Option<String>,
    /// Lower-case hexadecimal, of an even number of digits. Source: SPIRE, `SerialNumberHex`.
    pub(super) serial_number: String,
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
            signed_sha256: of_signed(link.tbs),
            key: ProofKey::of(&link.certificate)?,
            common_name: common_name(tbs.subject()),
            serial_number: serial_number(tbs.serial_number().as_bytes()),
        })
    }
}

/// The last one, if there are several, as Go has it. None if it is empty or no text.
fn common_name(subject: &Name) -> Option<String> {
    let last = subject.iter().filter(|attribute| attribute.oid == COMMON_NAME).last()?;
    let name = DirectoryString::try_from(&last.value).ok()?.value().into_owned();
    Some(name).filter(|name| !name.is_empty())
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

    #[test]
    fn of_several_common_names_the_last_counts_as_in_go() {
        let named = |text: &str| common_name(&text.parse().expect("a name"));
        // The text of a name has its last attribute first.
        assert_eq!(named("CN=last,OU=unit,CN=first").as_deref(), Some("last"));
        assert_eq!(named("OU=unit,CN=only").as_deref(), Some("only"));
        assert_eq!(named("CN=,CN=first"), None, "as in Go, an empty one is none");
        assert_eq!(named("OU=unit"), None);
    }
}
