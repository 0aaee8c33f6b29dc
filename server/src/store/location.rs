//! Where a trust domain's facts are: in which engine's hands, and what it needs to find them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::thread;

use ironroot_api::TrustDomain;

use super::writer::Writer;
use super::{StoppedStore, Store, StoreError, Summary, postgres, sqlite};
use crate::facts::older_state::OlderState;

/// Why there is no copy of a database of PostgreSQL.
const NO_COPY: StoreError = StoreError::NoFile(
    "its own tools back it up (pg_dump, or a base backup and its log): see \"On PostgreSQL\" in the handbook",
);

/// A data store, as a configuration names it. A variant for each engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// SQLite's file; its `-wal` and `-shm` lie beside it.
    Sqlite(PathBuf),
    /// A database of PostgreSQL, which several servers may share.
    Postgres(Box<postgres::Address>),
}

impl Location {
    /// Opens the data store that is there, or makes it. Blocks: see [`Store::open`].
    pub fn open(&self, trust_domain: &TrustDomain) -> Result<Store, StoreError> {
        match self {
            Self::Sqlite(path) => Store::open(path, trust_domain),
            Self::Postgres(address) => {
                let database = on_a_thread(|| postgres::open(address, trust_domain))?;
                Ok(Store { trust_domain: trust_domain.clone(), writer: Writer::start(database)?, is_shared: true })
            }
        }
    }

    /// Where copies of it that are to be gone again may lie: who reads that place reads it anyway.
    pub fn beside(&self) -> Result<&Path, StoreError> {
        match self {
            Self::Sqlite(path) => Ok(path),
            Self::Postgres(_) => Err(NO_COPY),
        }
    }

    /// Why [`open`](Self::open) would refuse what is there for whose it is; changes nothing: see [`Store::recognise`].
    pub fn recognise(&self, trust_domain: &TrustDomain) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(path) => Store::recognise(path, trust_domain),
            Self::Postgres(address) => on_a_thread(|| postgres::recognise(address, trust_domain)),
        }
    }

    /// Files of it to which others than their owner have rights: whoever reads them has its join tokens.
    pub fn open_to_others(&self) -> Vec<PathBuf> {
        match self {
            Self::Sqlite(path) => sqlite::open_to_others(path),
            Self::Postgres(_) => Vec::new(),
        }
    }

    /// The CA's journal of each server of a file, by name. On a database that servers share each name has a CA of its own. Changes nothing.
    pub fn ca_journals(&self, trust_domain: &TrustDomain) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        match self {
            Self::Sqlite(path) => sqlite::peek(path, trust_domain, |facts| facts.ca_journals()),
            Self::Postgres(_) => Ok(Vec::new()),
        }
    }

    /// The CA's journal of the server of that name; none if there is none yet. Changes nothing.
    pub fn ca_journal(&self, trust_domain: &TrustDomain, server: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Self::Sqlite(path) => sqlite::peek(path, trust_domain, |facts| facts.ca_journal(server).map(Some)),
            Self::Postgres(address) => {
                on_a_thread(|| postgres::peek(address, trust_domain, |facts| facts.ca_journal(server).map(Some)))
            }
        }
        .map(Option::flatten)
    }

    /// Copies what is there into the new file `to`, as one moment has it; a server may be running on it.
    pub fn copy(&self, to: &Path, trust_domain: &TrustDomain) -> Result<Summary, StoreError> {
        match self {
            Self::Sqlite(path) => sqlite::copy(path, to, trust_domain),
            Self::Postgres(_) => Err(NO_COPY),
        }
    }

    /// What is there, at a glance; none if nothing is. Changes nothing.
    pub fn summary(&self, trust_domain: &TrustDomain) -> Result<Option<Summary>, StoreError> {
        match self {
            Self::Sqlite(path) => sqlite::summary(path, trust_domain),
            Self::Postgres(address) => on_a_thread(|| postgres::summary(address, trust_domain)),
        }
    }

    /// The place of it, with no server running on it; an error while one is.
    pub fn stop(&self) -> Result<StoppedStore, StoreError> {
        match self {
            Self::Sqlite(path) => StoppedStore::lock(path),
            Self::Postgres(_) => Err(StoreError::NoFile(
                "its own tools put it back (psql, pg_restore): see \"On PostgreSQL\" in the handbook",
            )),
        }
    }

    /// That what is there is older than what was there before, if that is not settled. A few pages are read; nothing is changed.
    pub fn older_state(&self, trust_domain: &TrustDomain) -> Result<Option<OlderState>, StoreError> {
        match self {
            Self::Sqlite(path) => sqlite::peek(path, trust_domain, |facts| facts.older_state()),
            Self::Postgres(address) => {
                on_a_thread(|| postgres::peek(address, trust_domain, |facts| facts.older_state()))
            }
        }
    }
}

/// A connection to PostgreSQL waits in a runtime of its own, which a thread of another runtime cannot have.
pub(super) fn on_a_thread<T: Send, E: From<StoreError> + Send>(
    ask: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    thread::scope(|scope| scope.spawn(ask).join().unwrap_or_else(|_| Err(StoreError::Closed.into())))
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres(address) => address.fmt(f),
        }
    }
}
