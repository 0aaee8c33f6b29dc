//! A P-256 key that was made in the chip and never leaves it.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use der::Decode;
use ironroot_attest::tpm::{KeyBlob, Tpm, TpmError};
use rustls::sign::Signer;
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use spki::SubjectPublicKeyInfoRef;

use super::KeyError;
use super::not_signed::NotSigned;
use super::request::request_signed_elsewhere;

/// A signing key inside a TPM: the wrapped blob, and the handle to the chip that can unwrap it.
pub struct TpmKey {
    tpm: Tpm,
    blob: KeyBlob,
    spki: Vec<u8>,
    /// The uncompressed point, as certificate requests carry it.
    point: Vec<u8>,
}

impl TpmKey {
    /// Takes up a wrapped key. Nothing is loaded into the chip until it signs.
    pub fn new(tpm: Tpm, blob: KeyBlob) -> Result<Self, KeyError> {
        let spki = blob.spki_der().map_err(KeyError::Tpm)?;
        let info = SubjectPublicKeyInfoRef::from_der(&spki).map_err(|_| KeyError::Crypto("read a TPM public key"))?;
        let point = info.subject_public_key.as_bytes().ok_or(KeyError::Crypto("read a TPM public key"))?.to_vec();
        Ok(Self { tpm, blob, spki, point })
    }

    /// Makes a key in the chip.
    pub async fn generate(tpm: &Tpm) -> Result<Self, KeyError> {
        let blob = tpm.run("create signing key", |chip| chip.create_signing_key()).await.map_err(KeyError::Tpm)?;
        Self::new(tpm.clone(), blob)
    }

    /// The wrapped key: safe at rest.
    pub fn blob(&self) -> &KeyBlob {
        &self.blob
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// A PKCS#10 request over the key, DER. Blocks the calling thread until the chip has signed.
    pub fn certificate_request(&self) -> Result<Vec<u8>, KeyError> {
        request_signed_elsewhere(&self.point, |message| self.sign_message(message))
    }

    /// DER ECDSA-Sig-Value over the SHA-256 of `message`. Blocks the calling thread until the chip has signed.
    pub(super) fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        sign(&self.tpm, &self.blob, message).map_err(KeyError::Tpm)
    }
}

fn sign(tpm: &Tpm, blob: &KeyBlob, message: &[u8]) -> Result<Vec<u8>, TpmError> {
    let hash: [u8; 32] = digest(&SHA256, message).as_ref().try_into().expect("SHA-256 has 32 bytes");
    let blob = blob.clone();
    tpm.run_blocking("sign", move |chip| chip.sign_digest(&blob, &hash))
}

impl rustls::sign::SigningKey for TpmKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = || TpmSigner { tpm: self.tpm.clone(), blob: self.blob.clone() };
        offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256).then(|| Box::new(signer()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.spki.as_slice()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

struct TpmSigner {
    tpm: Tpm,
    blob: KeyBlob,
}

impl fmt::Debug for TpmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TpmKey").finish_non_exhaustive()
    }
}

impl fmt::Debug for TpmSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TpmSigner").finish_non_exhaustive()
    }
}

impl Signer for TpmSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        sign(&self.tpm, &self.blob, message).map_err(|error| NotSigned::because(&error).into())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}
