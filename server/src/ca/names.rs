//! Distinguished names as SPIRE writes them.
//!
//! Source: Go's crypto/x509/pkix `Name.ToRDNSequence`: one RDN per attribute type, PrintableString where it suffices.

use const_oid::db::rfc4519::{CN, COUNTRY_NAME, ORGANIZATION_NAME, ORGANIZATIONAL_UNIT_NAME, SERIAL_NUMBER};
use der::{Encode, Error};
use ironroot_api::issuing::rdn;

use crate::ca::CaSubject;

/// The configured subject, the unit of a CA of a server below, and the certificate's own serial number in decimal, which keeps CA names
/// apart.
pub(super) fn ca_subject(subject: &CaSubject, unit: Option<&str>, serial: &str) -> Result<Vec<u8>, Error> {
    let mut name = Vec::with_capacity(5);
    for (kind, values) in [(COUNTRY_NAME, &subject.country), (ORGANIZATION_NAME, &subject.organization)] {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        if !values.is_empty() {
            name.push(rdn(kind, &values)?);
        }
    }
    if let Some(unit) = unit {
        name.push(rdn(ORGANIZATIONAL_UNIT_NAME, &[unit])?);
    }
    if let Some(common_name) = &subject.common_name {
        name.push(rdn(CN, &[common_name])?);
    }
    name.push(rdn(SERIAL_NUMBER, &[serial])?);
    name.to_der()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    // Vectors: encoding/asn1.Marshal of the same crypto/x509/pkix.Name's ToRDNSequence, Go 1.
    #[test]
    fn ca_subjects_are_byte_for_byte_those_of_spire() {
        let list = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect();
        let subject = CaSubject { country: list(&["US"]), organization: list(&["SPIFFE"]), common_name: None };
        assert_eq!(
            hex(&ca_subject(&subject, None, "123").unwrap()),
            "302c310b3009060355040613025553310f300d060355040a1306535049464645310c300a06035504051303313233"
        );
        assert_eq!(
            hex(&ca_subject(&subject, Some("DOWNSTREAM-1"), "123").unwrap()),
            "3043310b3009060355040613025553310f300d060355040a130653504946464531153013060355040b130c444f574e53545245414d2d31310c300a06035504051303313233"
        );
        // Several values of one kind are one RDN, sorted by their encoding.
        let (country, organization) = (list(&["US", "DE"]), list(&["Zeta", "Äcme"]));
        let subject = CaSubject { country, organization, common_name: Some("a_b".to_owned()) };
        assert_eq!(
            hex(&ca_subject(&subject, None, "1").unwrap()),
            "304f311630090603550406130244453009060355040613025553311b300b060355040a13045a657461300c060355040a0c05c384636d65310c300a06035504030c03615f62310a30080603550405130131"
        );
    }
}
