//! The names that a request asks for.

use const_oid::db::rfc5280::ID_CE_SUBJECT_ALT_NAME;
use const_oid::db::rfc5912::ID_EXTENSION_REQ;
use der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::request::{CertReq, ExtensionReq};

use super::CsrError;

/// The alternative names of a request that this house reads; those of other kinds are left out, as is the subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestedNames {
    /// URIs as they stand there.
    pub uris: Vec<String>,
    /// DNS names as they stand there.
    pub dns_names: Vec<String>,
}

impl RequestedNames {
    /// Source: RFC 2985 §5.4.2 (extensionRequest), RFC 5280 §4.2.1.6.
    pub(super) fn of(request: &CertReq) -> Result<Self, CsrError> {
        let asked = request.info.attributes.iter().filter(|attribute| attribute.oid == ID_EXTENSION_REQ);
        let mut names = Self::default();
        for value in asked.flat_map(|attribute| attribute.values.iter()) {
            let extensions: ExtensionReq = value.decode_as().map_err(|_| CsrError::Malformed)?;
            for extension in extensions.0.iter().filter(|extension| extension.extn_id == ID_CE_SUBJECT_ALT_NAME) {
                let alternative = SubjectAltName::from_der(extension.extn_value.as_bytes());
                names.add(alternative.map_err(|_| CsrError::Malformed)?);
            }
        }
        Ok(names)
    }

    fn add(&mut self, names: SubjectAltName) {
        for name in names.0 {
            match name {
                GeneralName::UniformResourceIdentifier(uri) => self.uris.push(uri.to_string()),
                GeneralName::DnsName(name) => self.dns_names.push(name.to_string()),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;
    use crate::csr::Csr;

    #[test]
    fn the_names_are_those_of_the_request_in_their_order_and_a_request_without_has_none() {
        let key = KeyPair::generate().expect("a key");
        let text = |name: &str| name.try_into().expect("ASCII");
        let names = vec![
            SanType::DnsName(text("b.example.org")),
            SanType::URI(text("spiffe://td/web")),
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::DnsName(text("a.example.org")),
            SanType::URI(text("https://x")),
        ];
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let request = params.serialize_request(&key).expect("signs");
        let (csr, names) = Csr::parse_with_names(request.der()).expect("its own key's");
        let owned = |names: [&str; 2]| names.map(str::to_owned).to_vec();
        let (uris, dns_names) = (owned(["spiffe://td/web", "https://x"]), owned(["b.example.org", "a.example.org"]));
        assert_eq!(names, RequestedNames { uris, dns_names });
        assert_eq!(csr.spki(), Csr::parse(request.der()).expect("parses").spki());
        let bare = CertificateParams::default().serialize_request(&key).expect("signs");
        assert_eq!(Csr::parse_with_names(bare.der()).expect("parses").1, RequestedNames::default());
    }
}
