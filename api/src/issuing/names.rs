//! Distinguished names as SPIRE writes them.
//!
//! Source: Go's crypto/x509/pkix `Name.ToRDNSequence`: one RDN per attribute type, PrintableString where it suffices.

use aws_lc_rs::digest::{SHA256, digest};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc4519::{CN, COUNTRY_NAME, ORGANIZATION_NAME};
use der::asn1::{Any, PrintableStringRef, SetOfVec, Utf8StringRef};
use der::{Encode, Error};
use ironroot_text::hex::hex;
use x509_cert::attr::AttributeTypeAndValue;

use crate::SpiffeId;

/// id-at-uniqueIdentifier. Source: X.520 §6.2.11.
const UNIQUE_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.45");

/// What an SVID says of whom it is for.
#[derive(Clone, Copy, Debug)]
pub struct SvidNames<'a> {
    /// Its SPIFFE ID.
    pub id: &'a SpiffeId,
    /// DNS names; the first is the subject's common name as well.
    pub dns_names: &'a [String],
    /// Whether the subject has a unique identifier made of the ID. Source: SPIRE, the plugin `CredentialComposer "uniqueid"`.
    pub has_unique_id: bool,
}

/// `C=US, O=SPIRE`, and the common name and unique identifier if there is one: the subject of every SVID, DER.
pub fn svid_subject(names: SvidNames<'_>) -> Result<Vec<u8>, Error> {
    let common_name = names.dns_names.first();
    let mut name = vec![rdn(COUNTRY_NAME, &["US"])?, rdn(ORGANIZATION_NAME, &["SPIRE"])?];
    if let Some(common_name) = common_name {
        name.push(rdn(CN, &[common_name])?);
    }
    if names.has_unique_id {
        name.push(rdn(UNIQUE_IDENTIFIER, &[&unique_id(names.id)])?);
    }
    name.to_der()
}

/// The first half of the ID's SHA-256, in hex. Source: SPIRE, pkg/common/x509svid/uniqueid.go.
fn unique_id(id: &SpiffeId) -> String {
    let hash = digest(&SHA256, id.as_str().as_bytes());
    hex(&hash.as_ref()[..hash.as_ref().len() / 2])
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
            let id = SpiffeId::parse("spiffe://example.org/web").unwrap();
            let dns_names: Vec<String> = common_name.into_iter().map(str::to_owned).collect();
            let names = SvidNames { id: &id, dns_names: &dns_names, has_unique_id: false };
            assert_eq!(hex(&svid_subject(names).unwrap()), go);
        }
    }
}
