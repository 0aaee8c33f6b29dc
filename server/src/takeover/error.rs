//! Why nothing is taken over.

use std::path::PathBuf;

use thiserror::Error;

use crate::ca::JournalError;
use crate::keys::{KeyError, KeyFileError};
use crate::store::StoreError;
use crate::store::spire::SpireStoreError;

/// Why nothing is taken over. Nothing was written.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum TakeoverError {
    #[error("SPIRE's database {database} cannot be taken over")]
    Spire {
        database: String,
        #[source]
        error: SpireStoreError,
    },
    #[error("SPIRE's keys cannot be taken over")]
    Keys(#[source] KeyFileError),
    /// A server of SPIRE's with a key manager on disk has written it before its first CA.
    #[error("there is no key file {0}: give the one that keys_path of SPIRE's KeyManager \"disk\" names")]
    NoKeys(PathBuf),
    /// Another trust domain's.
    #[error(
        "SPIRE's database holds no bundle of trust domain {expected:?}, which the configuration says, but of {found}: correct trust_domain"
    )]
    OtherTrustDomain {
        expected: String,
        /// Whose bundles it holds.
        found: String,
    },
    #[error("the {what} in SPIRE's database is damaged: it does not decode")]
    Blob { what: &'static str },
    #[error("an authority of SPIRE's is damaged ({0})")]
    Authority(String),
    /// SPIRE's own server would not find its CA either.
    #[error(
        "none of the {journals} CA journals in SPIRE's database belongs to these keys: the database and the key file are of different \
         servers or times; give those that belong together"
    )]
    NoJournal { journals: usize },
    #[error(
        "the CA journal says that {id} signs, and the key file holds {found}: the database and the key file are of different servers or \
         times; give those that belong together"
    )]
    KeyMissing {
        id: String,
        /// What is there in its place.
        found: &'static str,
    },
    /// It would be one more than one server can follow.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// It is somebody's.
    #[error(
        "the data store {0} holds {1} already: a server of SPIRE's is taken over into an empty one; give DataStore \"sql\" another \
         connection_string"
    )]
    NotEmpty(String, &'static str),
    #[error("the data store cannot be used")]
    Store(#[from] StoreError),
    /// They would be overwritten, or SPIRE's file changed.
    #[error("the key file {0} of KeyManager \"disk\" holds other keys already: name another in keys_path")]
    KeyFileInUse(PathBuf),
    #[error("keys_path of KeyManager \"disk\" is SPIRE's own key file, which is only read: name another")]
    SpiresKeyFile,
    #[error("the keys cannot be written")]
    KeyManager(#[from] KeyError),
}
