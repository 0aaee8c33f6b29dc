//! The PKCS#10 request that agents send: only its key is used by servers.

use rcgen::{CertificateParams, DistinguishedName, DnType, SigningKey};

use super::KeyError;

/// A DER PKCS#10 request signed by `key`, with the subject that SPIRE's agents send. Source: RFC 2986.
pub fn certificate_request(key: &impl SigningKey) -> Result<Vec<u8>, KeyError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CountryName, "US");
    params.distinguished_name.push(DnType::OrganizationName, "SPIRE");
    let request = params.serialize_request(key).map_err(|_| KeyError::Crypto("sign a certificate request"))?;
    Ok(request.der().to_vec())
}

#[cfg(test)]
mod tests {
    use super::super::SoftwareKey;
    use super::*;

    #[test]
    fn request_proves_possession_of_its_key() {
        let key = SoftwareKey::generate().expect("key");
        let csr = ironroot_api::csr::Csr::parse(&certificate_request(&key).expect("request")).expect("accepted");
        assert_eq!(csr.spki().as_der(), key.spki_der());
    }
}
