//! The names, addresses and URIs in a certificate's subjectAltName.

use std::collections::BTreeMap;
use std::net::IpAddr;

use der::asn1::OctetString;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// What subjectAltName says, in the certificate's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlternativeNames {
    /// dNSName.
    pub dns_names: Vec<String>,
    /// rfc822Name.
    pub email_addresses: Vec<String>,
    /// uniformResourceIdentifier, as written.
    pub uris: Vec<String>,
    /// iPAddress; those of other lengths than an address are left out.
    pub ip_addresses: Vec<IpAddr>,
}

impl AlternativeNames {
    pub(super) fn of(names: SubjectAltName) -> Self {
        let mut all = Self::default();
        for name in names.0 {
            match name {
                GeneralName::DnsName(name) => all.dns_names.push(name.to_string()),
                GeneralName::Rfc822Name(address) => all.email_addresses.push(address.to_string()),
                GeneralName::UniformResourceIdentifier(uri) => all.uris.push(uri.to_string()),
                GeneralName::IpAddress(address) => all.ip_addresses.extend(address_of(&address)),
                _ => {}
            }
        }
        all
    }

    /// What the URIs `x509pop://<trust domain>/<key>/<value>` say: of a key that is there twice, the last value counts.
    /// Source: SPIRE, `parseUriSanSelectors`.
    pub fn pairs(&self, trust_domain: &str) -> BTreeMap<String, String> {
        let prefix = format!("x509pop://{trust_domain}/");
        let pair = |uri: &String| {
            let path = uri.strip_prefix(&prefix)?.split(['?', '#']).next()?;
            let path = percent_decoded(path)?;
            let (key, value) = path.trim_matches('/').split_once('/')?;
            Some((key.to_owned(), value.to_owned()))
        };
        self.uris.iter().filter_map(pair).collect()
    }
}

fn address_of(address: &OctetString) -> Option<IpAddr> {
    let bytes = address.as_bytes();
    let four = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let sixteen = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    four().or_else(|_| sixteen()).ok().map(|address| address.to_canonical())
}

/// None if an escape is broken, or what comes out is no text. Source: RFC 3986 §2.1.
fn percent_decoded(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: SPIRE, x509pop_test.go, and what Go's net/url makes of the rest.
    #[test]
    fn uris_of_the_trust_domain_are_pairs_of_key_and_value() {
        let pairs = |uris: &[&str]| {
            let uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
            let pairs = AlternativeNames { uris, ..AlternativeNames::default() }.pairs("example.org");
            pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(pairs(&["x509pop://example.org/datacenter/us-east-1"]), ["datacenter=us-east-1"]);
        assert_eq!(pairs(&["x509pop://example.org/a/b/c/", "x509pop://example.org/rack/1?x#y"]), ["a=b/c", "rack=1"]);
        assert_eq!(pairs(&["x509pop://example.org/a%20b/%63"]), ["a b=c"]);
        assert_eq!(pairs(&["x509pop://example.org/k/1", "x509pop://example.org/k/2"]), ["k=2"]);
        for none in ["x509pop://other.org/a/b", "spiffe://example.org/a/b", "x509pop://example.org/a"] {
            assert_eq!(pairs(&[none]), Vec::<String>::new(), "{none}");
        }
        for broken in ["x509pop://example.org/a/%f", "x509pop://example.org/a/%+1", "x509pop://example.org/a/%ff"] {
            assert_eq!(pairs(&[broken]), Vec::<String>::new(), "{broken}");
        }
    }

    #[test]
    fn an_address_has_four_bytes_or_sixteen() {
        let address = |bytes: &[u8]| address_of(&OctetString::new(bytes).expect("short"));
        assert_eq!(address(&[127, 0, 0, 1]), Some(IpAddr::from([127, 0, 0, 1])));
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
        assert_eq!(address(&mapped), Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(address(&[0; 8]), None, "an address and a mask are a name constraint's");
    }
}
