//! A private key on its way to its workload.

use std::fmt;
use std::str::FromStr;

use prost::bytes::Bytes;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use zeroize::Zeroizing;

/// A workload's private key, PKCS#8 DER. Clones share the bytes, which are wiped when the last one goes.
#[derive(Clone, PartialEq, Eq)]
pub struct WorkloadKey(Bytes);

impl WorkloadKey {
    /// Takes over the key's bytes.
    pub fn new(pkcs8_der: Zeroizing<Vec<u8>>) -> Self {
        Self(Bytes::from_owner(pkcs8_der))
    }

    /// The PKCS#8 DER, to be handed to its workload and nobody else.
    pub fn pkcs8_der(&self) -> &Bytes {
        &self.0
    }

    /// The DER SubjectPublicKeyInfo that belongs to it; `None` if it is not PKCS#8 of a kind we know.
    pub fn spki_der(&self) -> Option<Vec<u8>> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&self.0[..]));
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).ok()?;
        signer.public_key().map(|spki| spki.to_vec())
    }
}

impl fmt::Debug for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkloadKey(..)")
    }
}

/// What kind of key the agent makes for workloads' X509-SVIDs. Source of the names: SPIRE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkloadKeyKind {
    /// NIST P-256.
    #[default]
    EcP256,
    /// NIST P-384.
    EcP384,
    /// RSA, 2048 bits.
    Rsa2048,
}

/// Not the name of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a key type: use ec-p256, ec-p384 or rsa-2048")]
pub struct UnknownKeyKind;

impl FromStr for WorkloadKeyKind {
    type Err = UnknownKeyKind;

    /// In capitals, too, as at SPIRE.
    fn from_str(text: &str) -> Result<Self, UnknownKeyKind> {
        match text.to_ascii_lowercase().as_str() {
            "ec-p256" => Ok(Self::EcP256),
            "ec-p384" => Ok(Self::EcP384),
            "rsa-2048" => Ok(Self::Rsa2048),
            _ => Err(UnknownKeyKind),
        }
    }
}
