//! The PKCS#10 request that agents send: only its key is used by servers.

use std::sync::{Mutex, PoisonError};

use rcgen::{CertificateParams, DistinguishedName, DnType, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};

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

/// The same over a P-256 key in a device. `point`: uncompressed, SEC 1 §2.3.3. `sign`: DER ECDSA-Sig-Value over the SHA-256 of its
/// argument.
pub fn request_signed_elsewhere(
    point: &[u8],
    sign: impl Fn(&[u8]) -> Result<Vec<u8>, KeyError>,
) -> Result<Vec<u8>, KeyError> {
    let signer = Elsewhere { point, sign, failure: Mutex::default() };
    certificate_request(&signer).map_err(|error| {
        let failure = signer.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        failure.unwrap_or(error)
    })
}

/// The key as rcgen uses it. rcgen has no room for why a signature failed, so it is kept aside.
struct Elsewhere<'a, Sign> {
    point: &'a [u8],
    sign: Sign,
    failure: Mutex<Option<KeyError>>,
}

impl<Sign> PublicKeyData for Elsewhere<'_, Sign> {
    fn der_bytes(&self) -> &[u8] {
        self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl<Sign: Fn(&[u8]) -> Result<Vec<u8>, KeyError>> SigningKey for Elsewhere<'_, Sign> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        (self.sign)(message).map_err(|failure| {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            rcgen::Error::RemoteKeyError
        })
    }
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
