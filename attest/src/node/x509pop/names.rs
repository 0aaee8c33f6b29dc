//! A subject's or an issuer's name, attribute by attribute.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc4519;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::pkix::name::DirectoryString;
use x509_cert::name::Name;

/// What a name says; texts alone, those that cannot be read are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Vec<(ObjectIdentifier, String)>);

/// An attribute of a name. Source: Go, crypto/x509/pkix, `Name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the standard's words")]
pub enum NamesKind {
    CommonName,
    SerialNumber,
    Country,
    Organization,
    OrganizationalUnit,
    Locality,
    Province,
    StreetAddress,
    PostalCode,
}

impl Names {
    pub(super) fn of(name: &Name) -> Self {
        Self(name.iter().filter_map(text).collect())
    }

    /// The last one, if there are several, as Go has it. None if it is empty.
    pub fn last(&self, kind: NamesKind) -> Option<&str> {
        self.all(kind).last().filter(|text| !text.is_empty())
    }

    /// Each of them, in the certificate's order.
    pub fn all(&self, kind: NamesKind) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(oid, _)| *oid == kind.oid()).map(|(_, text)| text.as_str())
    }
}

impl NamesKind {
    fn oid(self) -> ObjectIdentifier {
        match self {
            Self::CommonName => rfc4519::COMMON_NAME,
            Self::SerialNumber => rfc4519::SERIAL_NUMBER,
            Self::Country => rfc4519::COUNTRY_NAME,
            Self::Organization => rfc4519::ORGANIZATION_NAME,
            Self::OrganizationalUnit => rfc4519::ORGANIZATIONAL_UNIT_NAME,
            Self::Locality => rfc4519::LOCALITY_NAME,
            Self::Province => rfc4519::ST,
            Self::StreetAddress => rfc4519::STREET,
            Self::PostalCode => rfc4519::POSTAL_CODE,
        }
    }
}

/// An attribute that is no text says nothing, and does not hide one before it that is.
fn text(attribute: &AttributeTypeAndValue) -> Option<(ObjectIdentifier, String)> {
    let text = DirectoryString::try_from(&attribute.value).ok()?;
    Some((attribute.oid, text.value().into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_common_names_the_last_counts_as_in_go() {
        let named =
            |text: &str| Names::of(&text.parse().expect("a name")).last(NamesKind::CommonName).map(str::to_owned);
        // The text of a name has its last attribute first.
        assert_eq!(named("CN=last,OU=unit,CN=first").as_deref(), Some("last"));
        assert_eq!(named("OU=unit,CN=only").as_deref(), Some("only"));
        assert_eq!(named("CN=,CN=first"), None, "as in Go, an empty one is none");
        assert_eq!(named("OU=unit"), None);
    }

    #[test]
    fn attributes_are_told_apart_and_in_the_certificates_order() {
        let names = Names::of(&"CN=device,OU=second,OU=first,O=org,C=DE".parse().expect("a name"));
        let all = |kind| names.all(kind).collect::<Vec<_>>();
        assert_eq!(all(NamesKind::OrganizationalUnit), ["first", "second"]);
        assert_eq!((all(NamesKind::Organization), all(NamesKind::Country)), (vec!["org"], vec!["DE"]));
        assert_eq!(all(NamesKind::Locality), Vec::<&str>::new());
    }
}
