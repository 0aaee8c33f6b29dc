//! What is the same of every certificate that somebody gave a device: its path to an authority, its names.

use const_oid::db::rfc4519::COMMON_NAME;
use rustls_pki_types::CertificateDer;
use webpki::{EndEntityCert, Error, ExtendedKeyUsageValidator, KeyPurposeIdIter};
use x509_cert::ext::pkix::name::DirectoryString;
use x509_cert::name::Name;

use crate::authorities::{Authorities, Fingerprint};

/// Every certificate above `leaf` on any path to one of `authorities`, in no order: by signatures, names, validity at `now_unix`
/// (UNIX seconds), basicConstraints and keyUsage, the authorities' own included. Extended key usage is not looked at, as in SPIRE.
/// `intermediates`: DER, in any order; the caller bounds their number and size.
pub(super) fn issuers(
    leaf: &[u8],
    intermediates: &[Vec<u8>],
    authorities: &Authorities,
    now_unix: i64,
) -> Result<Vec<Fingerprint>, Error> {
    let leaf = CertificateDer::from(leaf);
    let intermediates: Vec<_> = intermediates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let leaf = EndEntityCert::try_from(&leaf)?;
    Ok(authorities.above(&leaf, &intermediates, now_unix, AnyUsage)?.into_iter().collect())
}

/// The last one, if there are several, as Go has it. None if it is empty or no text.
pub(super) fn common_name(name: &Name) -> Option<String> {
    let last = name.iter().filter(|attribute| attribute.oid == COMMON_NAME).last()?;
    let name = DirectoryString::try_from(&last.value).ok()?.value().into_owned();
    Some(name).filter(|name| !name.is_empty())
}

/// Whatever the certificates are for.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
