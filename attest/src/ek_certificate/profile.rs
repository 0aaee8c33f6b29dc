//! The profile of an endorsement key certificate (TCG EK Credential Profile §3.2), and what it says of the TPM.

use const_oid::{AssociatedOid, ObjectIdentifier};
use der::Decode;
use x509_cert::TbsCertificate;
use x509_cert::certificate::Version;
use x509_cert::ext::pkix::name::{DirectoryString, GeneralName};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};
use x509_cert::name::Name;

use super::EkCertificateError;
use crate::structures::PublicKey;

/// tcg-kp-EKCertificate.
pub(super) const TCG_KP_EK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");
const TPM_MANUFACTURER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.1");
const TPM_MODEL: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.2");
const TPM_VERSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.3");

/// What the subject alternative name says of the TPM (TCG EK Credential Profile §3.2.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmModel {
    /// The vendor ID of the TCG registry: up to 4 ASCII characters such as `IFX`, or 8 hex digits if it is not text.
    pub manufacturer: String,
    /// The manufacturer's name of the model.
    pub model: String,
    /// Firmware version at manufacture, as the certificate writes it (`id:` and hex digits). Not the running one.
    pub version: String,
}

/// Checks everything that is in the certificate itself; signature and validity are webpki's.
pub(super) fn check(tbs: &TbsCertificate, key: &PublicKey) -> Result<TpmModel, EkCertificateError> {
    if tbs.version() != Version::V3 {
        return Err(EkCertificateError::Version);
    }
    if extension::<BasicConstraints>(tbs, "basicConstraints")?.is_some_and(|constraints| constraints.ca) {
        return Err(EkCertificateError::IsCa);
    }
    if extension::<KeyUsage>(tbs, "keyUsage")?.is_some_and(|usage| !is_ek_usage(&usage, key)) {
        return Err(EkCertificateError::KeyUsage);
    }
    let extended = extension::<ExtendedKeyUsage>(tbs, "extendedKeyUsage")?;
    if extended.is_some_and(|usages| !usages.0.contains(&TCG_KP_EK_CERTIFICATE)) {
        return Err(EkCertificateError::ExtendedKeyUsage);
    }
    let names = extension::<SubjectAltName>(tbs, "subjectAltName")?.map(|names| names.0).unwrap_or_default();
    Ok(TpmModel {
        manufacturer: manufacturer(&attribute(&names, TPM_MANUFACTURER, "manufacturer")?)?,
        model: attribute(&names, TPM_MODEL, "model")?,
        version: attribute(&names, TPM_VERSION, "version")?,
    })
}

fn extension<'a, T>(tbs: &'a TbsCertificate, name: &'static str) -> Result<Option<T>, EkCertificateError>
where
    T: Decode<'a, Error = der::Error> + AssociatedOid,
{
    let found = tbs.get_extension::<T>().map_err(|_| EkCertificateError::Extension(name))?;
    Ok(found.map(|(_critical, value)| value))
}

/// Endorsement keys decrypt: RSA keys encipher, ECC keys agree, and neither signs certificates.
fn is_ek_usage(usage: &KeyUsage, key: &PublicKey) -> bool {
    let wanted = if key.is_rsa() { usage.key_encipherment() } else { usage.key_agreement() };
    wanted && !usage.key_cert_sign() && !usage.crl_sign()
}

/// The one value of an attribute in the directory names.
fn attribute(names: &[GeneralName], oid: ObjectIdentifier, what: &'static str) -> Result<String, EkCertificateError> {
    let directory_names = names.iter().filter_map(|name| match name {
        GeneralName::DirectoryName(name) => Some(name),
        _ => None,
    });
    let mut values = directory_names.flat_map(Name::iter).filter(|attribute| attribute.oid == oid);
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(EkCertificateError::TpmAttribute(what));
    };
    let value = DirectoryString::try_from(&value.value).map_err(|_| EkCertificateError::TpmAttribute(what))?;
    Ok(value.value().into_owned())
}

/// `id:` and 8 hex digits, which mostly are ASCII padded with NUL or space.
fn manufacturer(text: &str) -> Result<String, EkCertificateError> {
    let refusal = || EkCertificateError::TpmAttribute("manufacturer");
    let digits = text.strip_prefix("id:").filter(|digits| digits.len() == 8).ok_or_else(refusal)?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(refusal());
    }
    let id = u32::from_str_radix(digits, 16).map_err(|_| refusal())?.to_be_bytes();
    let letters = id.trim_ascii_end();
    let letters = letters.strip_suffix(&[0]).unwrap_or(letters);
    if !letters.is_empty() && letters.iter().all(u8::is_ascii_alphanumeric) {
        return Ok(letters.iter().copied().map(char::from).collect());
    }
    Ok(digits.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manufacturer_is_text_where_the_id_is() {
        for (id, name) in [
            ("id:49465800", "IFX"),
            ("id:53544D20", "STM"),
            ("id:4E544300", "NTC"),
            ("id:414D4400", "AMD"),
            ("id:494E5443", "INTC"),
            ("id:00001014", "00001014"),
        ] {
            assert_eq!(manufacturer(id).as_deref(), Ok(name));
        }
        for not_an_id in ["", "IFX", "id:", "id:4946580", "id:4946580g", "id:+9465800"] {
            assert!(manufacturer(not_an_id).is_err(), "{not_an_id}");
        }
    }
}
