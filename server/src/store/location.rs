//! Where a trust domain's facts are: in which engine's hands, and what it needs to find them.

use std::fmt;
use std::path::PathBuf;

use ironroot_api::TrustDomain;

use super::{Store, StoreError};

/// A data store, as a configuration names it. A variant for each engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// SQLite's file; its `-wal` and `-shm` lie beside it.
    Sqlite(PathBuf),
}

impl Location {
    /// Opens the data store that is there, or makes it. Blocks: see [`Store::open`].
    pub fn open(&self, trust_domain: &TrustDomain) -> Result<Store, StoreError> {
        match self {
            Self::Sqlite(path) => Store::open(path, trust_domain),
        }
    }

    /// Why [`open`](Self::open) would refuse what is there for whose it is; changes nothing: see [`Store::recognise`].
    pub fn recognise(&self, trust_domain: &TrustDomain) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(path) => Store::recognise(path, trust_domain),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
        }
    }
}
