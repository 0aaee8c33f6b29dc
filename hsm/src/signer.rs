//! Token keys where the ecosystem expects a signing key: rcgen and rustls.

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{Error as TlsError, OtherError, SignatureAlgorithm, SignatureScheme};
use std::sync::Arc;

use crate::key::TokenKey;
use crate::token::Urgency;

impl PublicKeyData for TokenKey {
    fn der_bytes(&self) -> &[u8] {
        self.public_point()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// Blocks: rcgen is synchronous.
impl rcgen::SigningKey for TokenKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature =
            self.sign_digest_blocking(sha256(message), Urgency::FIRST).map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(signature.to_der())
    }
}

/// Blocks when it signs: a handshake with a token key belongs on a thread that may block.
impl SigningKey for TokenKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.spki_der()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for TokenKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TlsError> {
        let signature = self.sign_digest_blocking(sha256(message), Urgency::FIRST);
        Ok(signature.map_err(|e| TlsError::Other(OtherError(Arc::new(e))))?.to_der())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

fn sha256(message: &[u8]) -> [u8; 32] {
    digest(&SHA256, message).as_ref().try_into().expect("SHA-256 has 32 bytes")
}
