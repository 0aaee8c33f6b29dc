//! What can go wrong with durable facts.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

/// What an engine or the system said; shared, because one failed commit answers many callers.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why the database refused. Cloned, because one failed commit answers many callers.
#[derive(Clone, Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum StoreError {
    /// The disk, or the quota, is full.
    #[error("no space left for the database; free some, nothing was changed")]
    Full(#[source] Cause),
    /// The file or its file system cannot be written.
    #[error("database is read-only; nothing was changed")]
    ReadOnly,
    /// The file is not what this server wrote. Never repaired silently: restore a backup.
    #[error("database is damaged ({0}); restore it from a backup")]
    Corrupt(String),
    /// The file is SPIRE's. It was not touched.
    #[error(
        "this is a SPIRE database; it was left as it is: give DataStore \"sql\" another connection_string, and take over what it holds with: \
         ironroot-server import spire -datastore PATH -keys PATH"
    )]
    Spire,
    /// Another server process runs on the same file.
    #[error("database {} is in use by another server process", .0.display())]
    InUse(PathBuf),
    /// Another program holds the database's lock for longer than we wait.
    #[error("database is locked by another program; nothing was changed")]
    Locked,
    /// Written by a newer server.
    #[error(
        "database has schema version {found}, this server knows versions up to {known}; run the newer server, or {back}"
    )]
    NewerSchema {
        found: i64,
        /// The newest this server knows.
        known: i64,
        /// How to go back to what this server knows.
        back: WayBack,
    },
    /// Written by an older server, and only read here.
    #[error("database has schema version {found}, and what this server reads has {known}")]
    OlderSchema {
        found: i64,
        /// The newest this server knows.
        known: i64,
    },
    /// There is no file.
    #[error("there is no database {}", .0.display())]
    None(PathBuf),
    /// A restore ended between two files.
    #[error(
        "a restore into database {} was cut off: restore once more (ironroot-server restore FILE), and it will be whole", .0.display()
    )]
    RestoreCutOff(PathBuf),
    /// The file belongs to another trust domain.
    #[error("database belongs to trust domain {found:?}, the configuration says {expected:?}")]
    OtherTrustDomain { found: String, expected: String },
    /// Where the file is to be made there is no directory.
    #[error("there is no directory {} for the database: make it, or mount what belongs there", .0.display())]
    NoDirectory(PathBuf),
    /// The file cannot be opened, created or locked.
    #[error("cannot open database {}", path.display())]
    Open { path: PathBuf, source: Cause },
    /// The database server does not answer, or lets nobody in.
    #[error("database server is out of reach or turns us away; nothing was changed")]
    Unreachable(#[source] Cause),
    /// The connection broke in a commit, and what became of it could not be found out.
    #[error(
        "connection to the database broke in a commit, and whether that was done is not known; look before you try again"
    )]
    OutcomeUnknown(#[source] Cause),
    /// What was followed is not in the database any more: another one, or an earlier state, stands in its place.
    #[error(
        "database is at revision {found} of another history than the one that was followed to revision {followed}: commits were lost; nothing is changed \
         before an operator has looked"
    )]
    OtherHistory { followed: i64, found: i64 },
    /// A database server that this store does not work on.
    #[error("database cannot be used: {0}")]
    Unsupported(String),
    /// Its tables are those of another program. They were not touched.
    #[error(
        "database has tables that are not of ironroot-server: give it a database, or a schema (options='-c search_path=NAME'), of its own"
    )]
    NotOurs,
    /// Another connection has this server's name.
    #[error("another server with the name {0:?} is connected to the database: give each its own server_name")]
    SameName(String),
    /// The database has not ended the session that this server had before: it commits still.
    #[error(
        "the database has not ended this server's session of before: its commit waits, for a standby or a disk; nothing was changed"
    )]
    OwnSession,
    /// What is asked is done with a file, and this is none.
    #[error("the data store is PostgreSQL, and {0}")]
    NoFile(&'static str),
    /// A change in the same commit made the engine give up the whole commit (full disk, failed write).
    #[error("database gave up a commit that held this change; nothing was changed")]
    RolledBack,
    /// Anything else the database's engine says.
    #[error("database operation failed")]
    Sql(#[source] Cause),
    /// The store was closed, or its thread died.
    #[error("database is closed")]
    Closed,
}

/// What an upgrade leaves of the database before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayBack {
    /// Of SQLite's file: a copy.
    Copy,
    /// Of PostgreSQL's tables: nothing but what the operator has made.
    Dump,
}

impl fmt::Display for WayBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Copy => {
                "put the copy that its upgrade left beside the database (a name that ends with .v and its version) in its place"
            }
            Self::Dump => "put back what pg_dump made before its upgrade (pg_restore)",
        })
    }
}

impl StoreError {
    pub(super) fn open(path: &std::path::Path, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Open { path: path.to_owned(), source: Arc::new(source) }
    }
}
