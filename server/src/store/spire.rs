//! A database of SPIRE's server, read once: what is in it, and nothing of what it means.
//!
//! ```text
//!  its files ── copied, while nobody writes ──► a private copy ── checked whole ──┐
//!  its tables on PostgreSQL ── one transaction, read only ────────────────────────┴─ bounded ──► SpireFacts
//! ```
//! What is SPIRE's is only read: recovering its log, as SQLite must, happens in the copy.
//!
//! Source: SPIRE pkg/server/datastore/sqlstore/models.go, migration.go; schema versions 23 to 25, SPIRE 1.9 to 1.16.

mod copy;
mod error;
mod on_postgres;
mod rows;
mod tables;

use std::path::Path;

use rusqlite::Connection;

use super::Location;
use super::location::on_a_thread;
use super::sql::Session;
use super::sqlite::is_spires;
use copy::PrivateCopy;
pub use error::SpireStoreError;
pub use rows::{SpireAgent, SpireBundle, SpireEntry, SpireFacts, SpireJournal, SpireRelationship, SpireToken};

/// Schema versions that are read: 23 came with SPIRE 1.8, 24 with 1.14, 25 with 1.16.
pub const SCHEMA_VERSIONS: std::ops::RangeInclusive<i64> = 23..=25;
/// Longest database accepted, bytes: a million entries of a kilobyte, and their indices.
pub const MAX_DATABASE_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Reads SPIRE's database. Blocks. `must_be_at_rest`: refused while a server of SPIRE's has it open.
pub fn read(database: &Location, must_be_at_rest: bool) -> Result<SpireFacts, SpireStoreError> {
    match database {
        Location::Sqlite(path) => read_file(path, must_be_at_rest),
        Location::Postgres(address) => on_a_thread(|| on_postgres::read(address, must_be_at_rest)),
    }
}

fn read_file(path: &Path, must_be_at_rest: bool) -> Result<SpireFacts, SpireStoreError> {
    if must_be_at_rest && copy::is_in_use(path)? {
        return Err(SpireStoreError::InUse);
    }
    let copy = PrivateCopy::of(path)?;
    let connection = copy.open()?;
    check_integrity(&connection, &copy)?;
    if !is_spires(&connection).unwrap_or(false) {
        return Err(SpireStoreError::NotSpires);
    }
    let transaction = connection.unchecked_transaction()?;
    rows::read(Session::Sqlite(&transaction))
}

/// Reads every page, and compares the file's length with what it says: SQLite takes what is missing of the last page for zeros.
fn check_integrity(connection: &Connection, copy: &PrivateCopy) -> Result<(), SpireStoreError> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(SpireStoreError::Damaged(verdict));
    }
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, u32>(0));
    let expected = u64::from(pragma("page_count")?) * u64::from(pragma("page_size")?);
    let found = copy.bytes()?;
    if found < expected {
        return Err(SpireStoreError::Damaged(format!("it has {found} bytes, {expected} are expected")));
    }
    Ok(())
}
