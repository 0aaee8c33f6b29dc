//! A PKCS #10 request over a DevID key.

use std::sync::{Mutex, PoisonError};

use der::Decode;
use ironroot_attest::tpm::{DevIdKey, Tpm, TpmError};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
    PublicKeyData, SignatureAlgorithm, SigningKey,
};
use spki::SubjectPublicKeyInfoRef;
use thiserror::Error;

/// id-at-serialNumber (IEEE 802.1AR §8.6 wants a device's there).
const SERIAL_NUMBER: &[u64] = &[2, 5, 4, 5];

/// Why there is no request.
#[derive(Debug, Error)]
pub(super) enum RequestError {
    /// The chip did not sign it.
    #[error("the TPM did not sign the request")]
    Chip(#[source] TpmError),
    /// The library did not write it.
    #[error("the request cannot be written")]
    Written(#[source] rcgen::Error),
    /// The key is none that a request can hold.
    #[error("the DevID key cannot be written down")]
    Key,
}

/// PEM, signed by the key. Blocks until the chip has signed.
pub(super) fn pkcs10(
    tpm: &Tpm,
    key: &DevIdKey,
    common_name: &str,
    serial: Option<&str>,
) -> Result<String, RequestError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    if let Some(serial) = serial {
        params.distinguished_name.push(DnType::CustomDnType(SERIAL_NUMBER.to_vec()), serial);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let spki = key.key().to_spki_der();
    let spki = SubjectPublicKeyInfoRef::from_der(&spki).map_err(|_| RequestError::Key)?;
    let bits = spki.subject_public_key.as_bytes().ok_or(RequestError::Key)?.to_vec();
    let signer = Signer { tpm, key, bits, failure: Mutex::default() };
    let written = params.serialize_request(&signer).and_then(|request| request.pem());
    written.map_err(|error| {
        let failure = signer.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        failure.map_or(RequestError::Written(error), RequestError::Chip)
    })
}

/// The key as rcgen uses it. rcgen has no room for why a signature failed, so it is kept aside.
struct Signer<'a> {
    tpm: &'a Tpm,
    key: &'a DevIdKey,
    bits: Vec<u8>,
    failure: Mutex<Option<TpmError>>,
}

impl PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        if self.key.key().is_rsa() { &PKCS_RSA_SHA256 } else { &PKCS_ECDSA_P256_SHA256 }
    }
}

impl SigningKey for Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let (key, message) = (self.key.clone(), message.to_vec());
        let signed = self.tpm.run_blocking("sign the request", move |chip| chip.sign_with_devid(&key, &message));
        signed.map_err(|failure| {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            rcgen::Error::RemoteKeyError
        })
    }
}
