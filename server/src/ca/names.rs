//! Distinguished names as SPIRE writes them.
//!
//! Source: Go's crypto/x509/pkix `Name.ToRDNSequence`: one RDN per attribute type, PrintableString where it suffices.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc4519::{CN, COUNTRY_NAME, ORGANIZATION_NAME, SERIAL_NUMBER};
use der::asn1::{Any, PrintableStringRef, SetOfVec, Utf8StringRef};
use der::{Encode, Error};
use x509_cert::attr::AttributeTypeAndValue;

use crate::config::CaSubject;

/// `C=US, O=SPIRE`, and the common name if there is one: the subject of every SVID.
pub(super) fn svid_subject(common_name: Option<&str>) -> Result<Vec<u8>, Error> {
    let mut name = vec![rdn(COUNTRY_NAME, &["US"])?, rdn(ORGANIZATION_NAME, &["SPIRE"])?];
    if let Some(common_name) = common_name {
        name.push(rdn(CN, &[common_name])?);
    }
    name.to_der()
}

/// The configured subject and the certificate's own serial number in decimal, which keeps CA names apart.
pub(super) fn ca_subject(subject: &CaSubject, serial: &str) -> Result<Vec<u8>, Error> {
    let mut name = Vec::with_capacity(4);
    for (kind, values) in [(COUNTRY_NAME, &subject.country), (ORGANIZATION_NAME, &subject.organization)] {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        if !values.is_empty() {
            name.push(rdn(kind, &values)?);
        }
    }
    if let Some(common_name) = &subject.common_name {
        name.push(rdn(CN, &[common_name])?);
    }
    name.push(rdn(SERIAL_NUMBER, &[serial])?);
    name.to_der()
}

fn rdn(kind: ObjectIdentifier, values: &[&str]) -> Result<SetOfVec<AttributeTypeAndValue>, Error> {
    let attribute = |text: &&str| Ok(AttributeTypeAndValue { oid: kind, value: directory_string(text)? });
    SetOfVec::try_from(values.iter().map(attribute).collect::<Result<Vec<_>, Error>>()?)
}

fn directory_string(text: &str) -> Result<Any, Error> {
    match PrintableStringRef::new(text) {
        Ok(printable) => Any::encode_from(&printable),
        Err(_) => Any::encode_from(&Utf8StringRef::new(text)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn svid_subjects_are_byte_for_byte_those_of_spire() {
        // asn1.Marshal(pkix.Name{Country: {"US"}, Organization: {"SPIRE"}}.ToRDNSequence()) in Go.
        let spire = "301d310b3009060355040613025553310e300c060355040a13055350495245";
        assert_eq!(hex(&svid_subject(None).unwrap()), spire);
        let named = hex(&svid_subject(Some("db.example")).unwrap());
        assert!(
            named.ends_with("3113301106035504030c0a64622e6578616d706c65".replace("0c0a", "130a").as_str()),
            "{named}"
        );
        let wildcard = hex(&svid_subject(Some("*.example")).unwrap());
        assert!(wildcard.ends_with("0c092a2e6578616d706c65"), "an asterisk needs a UTF8String: {wildcard}");
    }

    #[test]
    fn ca_subjects_end_with_the_serial_number() {
        let subject = CaSubject { country: vec!["US".into()], organization: vec!["SPIFFE".into()], common_name: None };
        let name = hex(&ca_subject(&subject, "123").unwrap());
        assert_eq!(
            name,
            "302d310b3009060355040613025553310f300d060355040a1306535049464645310d300b060355040513033132 33"
                .replace(' ', "")
        );
    }
}
