//! Why a database is not taken for SPIRE's, or not read.

use std::io;

use thiserror::Error;

use super::{MAX_DATABASE_BYTES, SCHEMA_VERSIONS};
use crate::store::StoreError;

/// Why a database is not taken for SPIRE's, or not read. Nothing was taken from it.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum SpireStoreError {
    #[error("cannot {what} SPIRE's database")]
    Io {
        what: &'static str,
        #[source]
        error: io::Error,
    },
    /// A directory, a device, a pipe.
    #[error("it is not a regular file: give the path that connection_string of SPIRE's DataStore \"sql\" names")]
    NotRegular,
    /// Another kind of file.
    #[error(
        "it is no SQLite database: give the path that connection_string of SPIRE's DataStore \"sql\" names (database_type sqlite3)"
    )]
    NotSqlite,
    /// Another program's.
    #[error("it is a database, but none of SPIRE's: it has no table \"migrations\" with SPIRE's columns")]
    NotSpires,
    #[error("it has {0} bytes, more than the {MAX_DATABASE_BYTES} that are accepted")]
    TooLarge(u64),
    /// A running server may write to it.
    #[error("a server has it open: stop spire-server first (or look only, with -dryRun)")]
    InUse,
    /// As [`InUse`](Self::InUse), of a database server.
    #[error(
        "others are connected to it ({0}): stop every spire-server on it first, and whoever else has it open (or look only, with -dryRun)"
    )]
    Connected(String),
    /// It changed while it was copied, each time.
    #[error("it is being written to: stop spire-server first")]
    Changing,
    #[error("it is damaged ({0}): restore it from its backup")]
    Damaged(String),
    #[error(
        "it has schema version {found} (written by SPIRE {code_version}); versions {} to {} are read, of SPIRE 1.9 to 1.16: {}",
        SCHEMA_VERSIONS.start(),
        SCHEMA_VERSIONS.end(),
        if found > SCHEMA_VERSIONS.end() {
            "it is newer than what this server knows, so take a newer Ironroot"
        } else {
            "start SPIRE 1.9 or newer on it once, which migrates it"
        }
    )]
    Version { found: i64, code_version: String },
    /// Not one row that says which version it has.
    #[error("it says {0} times which schema version it has, and once is right: it is half written, or damaged")]
    VersionRows(i64),
    #[error("table {table} has {rows} rows, more than the {most} that are accepted")]
    TooManyRows { table: &'static str, rows: i64, most: i64 },
    #[error("table {table} has a value of {bytes} bytes, more than the {most} that are accepted")]
    TooLong { table: &'static str, bytes: i64, most: i64 },
    /// Another type than SPIRE writes, or a time that is none.
    #[error("row {row} of table {table} is damaged: {reason}")]
    Row { table: &'static str, row: i64, reason: String },
    /// The database server does not answer, or turns us away.
    #[error("it does not answer")]
    Unreachable(#[source] StoreError),
    /// A table or a column is missing, or what else the engine says.
    #[error("it cannot be read: it is half written, or damaged")]
    Sql(#[source] StoreError),
}

impl From<StoreError> for SpireStoreError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unreachable(_) => Self::Unreachable(error),
            error => Self::Sql(error),
        }
    }
}

impl From<rusqlite::Error> for SpireStoreError {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_too_new_is_not_sent_to_a_newer_spire() {
        let told = |found| SpireStoreError::Version { found, code_version: "1.2.3".to_owned() }.to_string();
        assert!(told(SCHEMA_VERSIONS.end() + 1).contains("take a newer Ironroot"));
        assert!(told(SCHEMA_VERSIONS.start() - 1).contains("which migrates it"));
    }
}
