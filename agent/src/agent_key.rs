//! Where the agent's own TLS key lives: in the TPM, in a PKCS#11 token, on disk or in memory.
//!
//! Two slots, A and B: a new key is made (and kept) in the slot that the current certificate does not use, so a power cut
//! at any moment leaves the key of whichever certificate survived. Which slot is current is not written down: it is the
//! one whose public key the certificate names.

mod not_signed;
mod request;
mod software;
mod spire_keys;
mod store;
mod token_key;
mod tpm;
mod workload_key;

use std::sync::Arc;

use ironroot_attest::tpm::TpmError;
use ironroot_text::secret_file::SecretFileError;
use thiserror::Error;
use tokio::runtime::Handle;

use crate::token::TokenFailure;

pub use not_signed::NotSigned;
pub use request::certificate_request;
pub use software::SoftwareKey;
pub use store::{Keep, KeyOf, KeyPlace, KeyStore};
pub use token_key::TokenHeldKey;
pub use tpm::TpmKey;
pub use workload_key::{UnknownKeyKind, WorkloadKey, WorkloadKeyKind};

/// Why the agent's key could not be made, kept or used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum KeyError {
    /// The chip refused or is away.
    #[error("the TPM could not do it")]
    Tpm(#[source] TpmError),
    /// The token refused or is away.
    #[error("the PKCS#11 token could not do it")]
    Token(#[source] TokenFailure),
    /// A key file cannot be read or written.
    #[error("cannot use key file {path}")]
    File {
        path: std::path::PathBuf,
        #[source]
        error: std::io::Error,
    },
    /// A key file is not its owner's alone, or not to be read.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
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
    /// Inside a PKCS#11 token, which signs; its name and public half lie on disk.
    Token(TokenHeldKey),
    /// In this process, and on disk if so configured.
    Software(Arc<SoftwareKey>),
}

impl AgentKey {
    /// DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        match self {
            Self::Tpm(key) => key.spki_der(),
            Self::Token(key) => key.spki_der(),
            Self::Software(key) => key.spki_der(),
        }
    }

    /// A PKCS#10 request over the key, DER. Asks the chip or token, if the key lives there, without stalling the runtime.
    pub async fn certificate_request(&self) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Software(key) => certificate_request(&**key),
            Self::Tpm(key) => {
                let key = key.clone();
                requested(move || key.certificate_request()).await
            }
            Self::Token(key) => {
                let (key, runtime) = (key.clone(), Handle::current());
                requested(move || key.certificate_request(&runtime)).await
            }
        }
    }

    /// The key as rustls uses it. Signing with a key in hardware blocks the calling thread: dial on a blocking thread.
    pub fn tls_key(&self) -> Arc<dyn rustls::sign::SigningKey> {
        match self {
            Self::Tpm(key) => key.clone(),
            Self::Token(key) => key.tls_key(),
            Self::Software(key) => key.tls_key(),
        }
    }

    /// DER ECDSA-Sig-Value over the SHA-256 of `message`. Blocks the calling thread until chip or token has signed; `runtime` goes on
    /// meanwhile.
    pub fn sign_blocking(&self, runtime: &Handle, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Software(key) => key.sign_message(message),
            Self::Tpm(key) => key.sign_message(message),
            Self::Token(key) => key.sign_blocking(runtime, message).map_err(KeyError::Token),
        }
    }

    /// Whether signing waits for a chip or a token.
    pub fn is_in_hardware(&self) -> bool {
        match self {
            Self::Tpm(_) | Self::Token(_) => true,
            Self::Software(_) => false,
        }
    }
}

impl From<SoftwareKey> for AgentKey {
    fn from(key: SoftwareKey) -> Self {
        Self::Software(Arc::new(key))
    }
}

/// Makes a request on a thread that may block.
async fn requested(make: impl FnOnce() -> Result<Vec<u8>, KeyError> + Send + 'static) -> Result<Vec<u8>, KeyError> {
    let made = tokio::task::spawn_blocking(make).await;
    made.map_err(|_| KeyError::Crypto("finish a certificate request"))?
}
