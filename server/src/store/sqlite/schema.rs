//! The tables, and how older files become today's.

mod federations;
mod terms;

use ironroot_api::TrustDomain;
use rusqlite::{Connection, OptionalExtension};

use crate::store::error::{StoreError, WayBack};

/// SQLite's application_id of our files: "Iron".
pub(super) const APPLICATION_ID: i64 = 0x4972_6f6e;

/// What leads from version n to n + 1. A migration that has shipped is never edited.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration::sql(include_str!("schema/1.sql")),
    Migration::sql(include_str!("schema/2.sql")),
    Migration::sql(include_str!("schema/3.sql")),
    Migration::sql(include_str!("schema/4.sql")),
    Migration { sql: include_str!("schema/5.sql"), then: terms::convert },
    Migration::sql(include_str!("schema/6.sql")),
    Migration::sql(include_str!("schema/7.sql")),
    Migration { sql: include_str!("schema/8.sql"), then: federations::fill },
    Migration::sql(include_str!("schema/9.sql")),
    Migration::sql(include_str!("schema/10.sql")),
    Migration::sql(include_str!("schema/11.sql")),
    Migration::sql(include_str!("schema/12.sql")),
    Migration::sql(include_str!("schema/13.sql")),
];

/// What leads to the next version.
#[derive(Clone, Copy)]
pub(super) struct Migration {
    sql: &'static str,
    /// What SQL cannot say, done after it.
    then: fn(&Connection) -> Result<(), StoreError>,
}

impl Migration {
    /// One that SQL can say.
    pub const fn sql(sql: &'static str) -> Self {
        Self { sql, then: |_| Ok(()) }
    }
}

/// Brings the file to the newest version, all or nothing.
pub(super) fn migrate(
    connection: &Connection,
    migrations: &[Migration],
    trust_domain: &TrustDomain,
) -> Result<(), StoreError> {
    check_known(connection, migrations)?;
    let (found, known) = (version(connection)?, migrations.len() as i64);
    let pending = usize::try_from(found).ok().and_then(|done| migrations.get(done..));
    let pending = pending.ok_or_else(|| StoreError::Corrupt(format!("schema version is {found}")))?;
    if pending.is_empty() {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    for migration in pending {
        transaction.execute_batch(migration.sql)?;
        (migration.then)(&transaction)?;
    }
    if found == 0 {
        transaction.execute("INSERT INTO about (trust_domain) VALUES (?1)", [trust_domain.as_str()])?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    Ok(transaction.commit()?)
}

/// Refuses a file that a newer server has written.
pub(super) fn check_known(connection: &Connection, migrations: &[Migration]) -> Result<(), StoreError> {
    let (found, known) = (version(connection)?, migrations.len() as i64);
    //= FLT-S22 server faults: "the newer refused"
    if found > known { Err(StoreError::NewerSchema { found, known, back: WayBack::Copy }) } else { Ok(()) }
}

/// The file's schema version; 0 before the first migration.
pub(super) fn version(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Refuses a file of another trust domain, of another program, or of none.
pub(super) fn check_owner(connection: &Connection, trust_domain: &TrustDomain) -> Result<(), StoreError> {
    let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application != APPLICATION_ID {
        return Err(StoreError::Corrupt("not written by an Ironroot server".into()));
    }
    let found: Option<String> =
        connection.query_row("SELECT trust_domain FROM about", [], |row| row.get(0)).optional()?;
    match found {
        Some(found) if found == trust_domain.as_str() => Ok(()),
        Some(found) => Err(StoreError::OtherTrustDomain { found, expected: trust_domain.as_str().to_owned() }),
        None => Err(StoreError::Corrupt("it names no trust domain".into())),
    }
}

/// Whether SPIRE made the file: it notes its own and its schema's version in a table of this name, with these columns. Source:
/// SPIRE's `sqlstore.Migration`.
pub(in crate::store) fn is_spires(connection: &Connection) -> Result<bool, StoreError> {
    let columns = "SELECT count(*) FROM pragma_table_info('migrations') WHERE name IN ('version', 'code_version')";
    let count: i64 = connection.query_row(columns, [], |row| row.get(0))?;
    Ok(count == 2)
}
