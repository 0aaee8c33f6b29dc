//! Why a key manager did not do what was asked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ironroot_hsm::HsmError;
use ironroot_text::secret_file::SecretFileError;
use thiserror::Error;

/// Why a key manager did not do what was asked.
#[derive(Clone, Debug, Error)]
pub enum KeyError {
    /// The token does not answer, or refuses.
    #[error(transparent)]
    Token(#[from] HsmError),
    /// The file of keys.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The key of that name is of another kind than the one that is looked for.
    #[error(
        "the key {name} of the key manager is not of the kind that is looked for, {kind}: restore the key file from its backup"
    )]
    Kind {
        /// What the key is called.
        name: String,
        /// What was looked for.
        kind: ironroot_hsm::KeyKind,
    },
    /// The crypto library refuses, or ran out of memory.
    #[error("the crypto library cannot {0}")]
    Crypto(&'static str),
    /// The process ends.
    #[error("the key manager's work was cut off: the process ends")]
    CutOff,
}

/// Why a file of keys is not used.
#[derive(Clone, Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum KeyFileError {
    /// It cannot be written.
    #[error("cannot {what} the key file {path}")]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        error: Arc<io::Error>,
    },
    /// It cannot be read, is no regular file, too large, or others than its owner have rights to it.
    #[error("the key file, which holds the CA's private keys, cannot be used")]
    File(#[from] Arc<SecretFileError>),
    /// Not what SPIRE's KeyManager "disk" writes.
    #[error("the key file {path} is damaged, or no key file: {reason}; restore it from its backup")]
    Malformed { path: PathBuf, reason: String },
    /// More keys than a server can have.
    #[error("the key file {path} has more than {most} keys: is it the right file?")]
    TooMany { path: PathBuf, most: usize },
    /// One of its keys.
    #[error(
        "the key {id:?} in the key file {path} is no private key of a kind that is known (ec-p256, ec-p384, rsa-2048, rsa-4096, ml-dsa-44, ml-dsa-65, ml-dsa-87)"
    )]
    Key { path: PathBuf, id: String },
}
