//! Where the agent's own TLS key lives: in the TPM, on disk or in memory.
//!
//! Two slots, A and B: a new key is made (and kept) in the slot that the current certificate does not use, so a power cut
//! at any moment leaves the key of whichever certificate survived. Which slot is current is not written down: it is the
//! one whose public key the certificate names.

mod request;
mod software;
mod spire_keys;
mod store;
mod tpm;
mod workload_key;

use std::sync::Arc;

use ironroot_attest::tpm::TpmError;
use thiserror::Error;

pub use request::certificate_request;
pub use software::SoftwareKey;
pub use store::{Keep, KeyPlace, KeyStore};
pub use tpm::TpmKey;
pub use workload_key::WorkloadKey;

/// Why the agent's key could not be made, kept or used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum KeyError {
    /// The chip refused or is away.
    #[error("the TPM could not do it")]
    Tpm(#[source] TpmError),
    /// A key file cannot be read or written.
    #[error("cannot use key file {path}")]
    File {
        path: std::path::PathBuf,
        #[source]
        error: std::io::Error,
    },
    /// A key file does not hold a P-256 key of the expected kind.
    #[error("key file {0} does not hold a P-256 key")]
    Content(std::path::PathBuf),
    /// The crypto library refused: no randomness, or a key it cannot use.
    #[error("the crypto library could not {0}")]
    Crypto(&'static str),
}

/// The agent's private key. Cloning shares it.
#[derive(Clone, Debug)]
pub enum AgentKey {
    /// Inside the chip, which signs; its wrapped blob lies on disk.
    Tpm(Arc<TpmKey>),
    /// In this process, and on disk if so configured.
    Software(Arc<SoftwareKey>),
}

impl AgentKey {
    /// DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        match self {
            Self::Tpm(key) => key.spki_der(),
            Self::Software(key) => key.spki_der(),
        }
    }

    /// A PKCS#10 request over the key, DER. Asks the chip, if the key lives there, without stalling the runtime.
    pub async fn certificate_request(&self) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Software(key) => certificate_request(&**key),
            Self::Tpm(key) => {
                let key = key.clone();
                let request = tokio::task::spawn_blocking(move || key.certificate_request());
                request.await.map_err(|_| KeyError::Crypto("finish a certificate request"))?
            }
        }
    }

    /// The key as rustls uses it. Signing with a chip-held key blocks the calling thread: dial on a blocking thread.
    pub fn tls_key(&self) -> Arc<dyn rustls::sign::SigningKey> {
        match self {
            Self::Tpm(key) => key.clone(),
            Self::Software(key) => key.tls_key(),
        }
    }

    /// Whether signing waits for a chip.
    pub fn is_in_tpm(&self) -> bool {
        matches!(self, Self::Tpm(_))
    }
}
