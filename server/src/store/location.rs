//! Where a trust domain's facts are: in which engine's hands, and what it needs to find them.

use std::fmt;
use std::path::{Path, PathBuf};

use ironroot_api::TrustDomain;

use super::{Facts, StoppedStore, Store, StoreError, Summary, sqlite};
use crate::facts::older_state::OlderState;

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

    /// Where copies of it that are to be gone again may lie: who reads that place reads it anyway.
    pub fn beside(&self) -> &Path {
        match self {
            Self::Sqlite(path) => path,
        }
    }

    /// Why [`open`](Self::open) would refuse what is there for whose it is; changes nothing: see [`Store::recognise`].
    pub fn recognise(&self, trust_domain: &TrustDomain) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(path) => Store::recognise(path, trust_domain),
        }
    }

    /// Copies what is there into the new file `to`, as one moment has it; a server may be running on it.
    pub fn copy(&self, to: &Path, trust_domain: &TrustDomain) -> Result<Summary, StoreError> {
        match self {
            Self::Sqlite(path) => sqlite::copy(path, to, trust_domain),
        }
    }

    /// What is there, at a glance; none if nothing is. Changes nothing.
    pub fn summary(&self, trust_domain: &TrustDomain) -> Result<Option<Summary>, StoreError> {
        match self {
            Self::Sqlite(path) => sqlite::summary(path, trust_domain),
        }
    }

    /// The place of it, with no server running on it; an error while one is.
    pub fn stop(&self) -> Result<StoppedStore, StoreError> {
        match self {
            Self::Sqlite(path) => StoppedStore::lock(path),
        }
    }

    /// That what is there is older than what was there before, if that is not settled. A few pages are read; nothing is changed.
    pub fn older_state(&self, trust_domain: &TrustDomain) -> Result<Option<OlderState>, StoreError> {
        match self {
            Self::Sqlite(path) => sqlite::peek(path, trust_domain, |facts| facts.older_state()),
        }
    }

    /// What is there, read without changing it and checked whole. Of today's schema, and with no server running on it.
    pub fn read<T>(
        &self,
        trust_domain: &TrustDomain,
        read: impl FnOnce(&Facts<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self {
            Self::Sqlite(path) => sqlite::read(path, trust_domain, read),
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
