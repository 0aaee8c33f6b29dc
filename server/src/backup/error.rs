//! Why a backup is not made, or not put back.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::container::FORMAT;
use super::operator_key::OperatorKeyError;
use crate::keys::KeyFileError;
use crate::store::StoreError;

/// Why a backup is not made, or not put back. Nothing was changed.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum BackupError {
    #[error("cannot {doing} {path}")]
    Io {
        /// Which step, as a verb.
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A backup never takes another file's place.
    #[error("{0} is there already: name another file")]
    Exists(PathBuf),
    #[error("the data store cannot be copied")]
    Store(#[from] StoreError),
    #[error("the key file cannot be copied")]
    Keys(#[from] KeyFileError),
    /// It was replaced again and again while the database was copied.
    #[error("the key file {0} keeps changing: try again")]
    KeysKeepChanging(PathBuf),
    #[error("the operator's key cannot be used")]
    OperatorKey(#[from] OperatorKeyError),
    /// The provider of cryptography refused.
    #[error("the backup cannot be sealed")]
    Seal(#[source] rustls::Error),
    #[error("{0} is no backup of an Ironroot server")]
    NotABackup(PathBuf),
    #[error(
        "{path} is a backup of format {found}, this server knows formats up to {FORMAT}: use the newer server's ironroot-server"
    )]
    NewerFormat { path: PathBuf, found: u32 },
    /// It ends before what it announces.
    #[error("{0} is cut short: take another copy of it, or another backup")]
    Truncated(PathBuf),
    #[error("{path} is damaged ({what}): take another copy of it, or another backup")]
    Damaged { path: PathBuf, what: &'static str },
    /// A sealed one does not say which of the two it is.
    #[error("{0} does not open: it is damaged, cut short, or was changed; take another copy of it, or another backup")]
    DoesNotOpen(PathBuf),
    #[error("{path} is sealed to the key {fingerprint}: give its private half with -key")]
    Sealed { path: PathBuf, fingerprint: String },
    #[error(
        "{path} is sealed to the key {sealed_to}, and the key that was given is {given}: give the other one with -key"
    )]
    OtherKey { path: PathBuf, sealed_to: String, given: String },
    #[error("the backup belongs to trust domain {found:?}, the configuration says {expected:?}")]
    OtherTrustDomain { found: String, expected: String },
    /// Whoever has the operator's public key can make one.
    #[error(
        "the backup is another server's: its roots ({found}) are not those here ({here}), and what it says would be believed in place of this; if it is the one that you mean, say -otherServer"
    )]
    OtherServer { found: String, here: String },
    /// The configuration has no place for them.
    #[error(
        "the backup holds a key file, and the configuration has no KeyManager \"disk\": add it, with the keys_path where the keys are to be"
    )]
    NoPlaceForKeys,
    /// A server is running on what would be replaced, or another restore is.
    #[error("the server is running: stop it first")]
    Running(#[source] StoreError),
    /// What the backup holds cannot be put there.
    #[error("the backup cannot be put into the data store's place")]
    Place(#[source] StoreError),
}

impl BackupError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    pub(super) fn damaged(path: &Path, what: &'static str) -> Self {
        Self::Damaged { path: path.to_owned(), what }
    }
}
