//! Distinguished names as SPIRE writes them.
//!
//! Source: Go's crypto/x509/pkix `Name.ToRDNSequence`: one RDN per attribute type, PrintableString where it suffices.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc4519::{CN, COUNTRY_NAME, ORGANIZATION_NAME};
use der::asn1::{Any, PrintableStringRef, SetOfVec, Utf8StringRef};
use der::{Encode, Error};
use x509_cert::attr::AttributeTypeAndValue;

/// `C=US, O=SPIRE`, and the common name if there is one: the subject of every SVID, DER.
pub fn svid_subject(common_name: Option<&str>) -> Result<Vec<u8>, Error> {
    let mut name = vec![rdn(COUNTRY_NAME, &["US"])?, rdn(ORGANIZATION_NAME, &["SPIRE"])?];
    if let Some(common_name) = common_name {
        name.push(rdn(CN, &[common_name])?);
    }
    name.to_der()
}

/// The part of a name that has these values of one kind.
pub fn rdn(kind: ObjectIdentifier, values: &[&str]) -> Result<SetOfVec<AttributeTypeAndValue>, Error> {
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
    use ironroot_text::hex::hex;

    // Vectors: encoding/asn1.Marshal of the same crypto/x509/pkix.Name's ToRDNSequence, Go 1.
    //= X509-05
    #[test]
    fn svid_subjects_are_byte_for_byte_those_of_spire() {
        for (common_name, go) in [
            (None, "301d310b3009060355040613025553310e300c060355040a13055350495245"),
            (
                Some("db.example"),
                "3032310b3009060355040613025553310e300c060355040a13055350495245311330110603550403130a64622e6578616d706c65",
            ),
            // An asterisk needs a UTF8String.
            (
                Some("*.example"),
                "3031310b3009060355040613025553310e300c060355040a130553504952453112301006035504030c092a2e6578616d706c65",
            ),
        ] {
            assert_eq!(hex(&svid_subject(common_name).unwrap()), go);
        }
    }
}
