//! The tables, whose they are, and how older ones become today's.

use ironroot_api::TrustDomain;
use uuid::Uuid;

use super::Connection;
use crate::store::error::{StoreError, WayBack};
use crate::store::sql::{Column, Row, Value};

/// What leads from version n to n + 1. A migration that has shipped is never edited, and takes nothing away that the server before it
/// needs: during an upgrade both run.
pub(super) const MIGRATIONS: &[&str] =
    &[include_str!("schema/1.sql"), include_str!("schema/2.sql"), include_str!("schema/3.sql")];

/// The name of the table that says whose database it is and of which version: no other program has one.
const MARK: &str = "ironroot_schema";

/// Counts tables and the like, also those that are shown to others alone.
const TABLES: &str = "SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
                      WHERE nspname = current_schema() AND relkind IN ('r', 'p', 'v', 'm', 'f')";

/// What nobody else locks while the tables change; a random number.
const MIGRATION_LOCK: i64 = 0x4972_6f6e_4f4e_4501;

/// The oldest server that is worked on, as PostgreSQL counts. Older ones get no corrections any more.
const OLDEST_SERVER: i64 = 130_000;

/// What there is in the place that a connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No table.
    Nothing,
    /// Tables of ours, of that version.
    Ours(i64),
}

fn one<T: Column>(connection: &Connection, select: &str, values: &[&dyn Value]) -> Result<Option<T>, StoreError> {
    let mut found = None;
    connection.each(select, values, &mut |row| {
        found = Some(Row::Postgres(row).get(0)?);
        Ok(())
    })?;
    Ok(found)
}

/// Refuses a server on which this store does not work, and tables of another program's, of a newer server's, of another trust domain.
pub(super) fn look(connection: &Connection, trust_domain: &TrustDomain, known: i64) -> Result<Found, StoreError> {
    check_server(connection)?;
    if one(connection, TABLES, &[])? == Some(0_i64) {
        return Ok(Found::Nothing);
    }
    if is_spires(connection)? {
        return Err(StoreError::Spire);
    }
    if one(connection, &format!("{TABLES} AND relname = ?1"), &[&MARK])? == Some(0_i64) {
        return Err(StoreError::NotOurs);
    }
    let found = one(connection, "SELECT version FROM ironroot_schema", &[])?;
    let found = found.ok_or_else(|| StoreError::Corrupt("it names no version of its tables".into()))?;
    //= FLT-S22 server faults: "the newer refused"
    if found > known {
        return Err(StoreError::NewerSchema { found, known, back: WayBack::Dump });
    }
    check_owner(connection, trust_domain)?;
    Ok(Found::Ours(found))
}

fn check_server(connection: &Connection) -> Result<(), StoreError> {
    let version = one::<String>(connection, "SELECT current_setting('server_version_num')", &[])?.unwrap_or_default();
    if version.parse().unwrap_or(0) < OLDEST_SERVER {
        let oldest = OLDEST_SERVER / 10_000;
        return Err(StoreError::Unsupported(format!("its server is of version {version}; {oldest} is the oldest")));
    }
    match one::<String>(connection, "SELECT current_setting('server_encoding')", &[])?.as_deref() {
        Some("UTF8") => Ok(()),
        other => Err(StoreError::Unsupported(format!(
            "its encoding is {}: make it with ENCODING 'UTF8'",
            other.unwrap_or("not known")
        ))),
    }
}

/// Source: SPIRE's `sqlstore.Migration`, as [`crate::store::sqlite::is_spires`].
pub(in crate::store) fn is_spires(connection: &Connection) -> Result<bool, StoreError> {
    let columns = "SELECT count(*) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
                   JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = current_schema()
                   AND relname = 'migrations' AND attname IN ('version', 'code_version')";
    Ok(one(connection, columns, &[])? == Some(2_i64))
}

fn check_owner(connection: &Connection, trust_domain: &TrustDomain) -> Result<(), StoreError> {
    match one::<String>(connection, "SELECT trust_domain FROM about", &[])? {
        Some(found) if found == trust_domain.as_str() => Ok(()),
        Some(found) => Err(StoreError::OtherTrustDomain { found, expected: trust_domain.as_str().to_owned() }),
        None => Err(StoreError::Corrupt("it names no trust domain".into())),
    }
}

/// Brings the tables to the newest version, all or nothing, one server at a time.
pub(super) fn migrate(
    connection: &Connection,
    trust_domain: &TrustDomain,
    migrations: &[&str],
) -> Result<(), StoreError> {
    connection.batch("BEGIN")?;
    let migrated = migrate_in_transaction(connection, trust_domain, migrations);
    match migrated {
        Ok(()) => connection.batch("COMMIT"),
        Err(why) => {
            // A connection that cannot take it any more has ended its transaction.
            let _ = connection.batch("ROLLBACK");
            Err(why)
        }
    }
}

fn migrate_in_transaction(
    connection: &Connection,
    trust_domain: &TrustDomain,
    migrations: &[&str],
) -> Result<(), StoreError> {
    one::<bool>(connection, "SELECT pg_advisory_xact_lock(?1) IS NULL", &[&MIGRATION_LOCK])?;
    let known = migrations.len() as i64;
    let found = match look(connection, trust_domain, known)? {
        Found::Nothing => 0,
        Found::Ours(version) => version,
    };
    let done = usize::try_from(found).map_err(|_| StoreError::Corrupt(format!("schema version is {found}")))?;
    let pending = migrations.get(done..).unwrap_or_default();
    pending.iter().try_for_each(|migration| connection.batch(migration))?;
    if found == 0 {
        found_tables(connection, trust_domain)?;
    }
    if !pending.is_empty() {
        connection.execute("UPDATE ironroot_schema SET version = ?1", &[&known])?;
    }
    Ok(())
}

/// What is in new tables, and the mark that they are ours.
fn found_tables(connection: &Connection, trust_domain: &TrustDomain) -> Result<(), StoreError> {
    connection.batch("CREATE TABLE ironroot_schema (version BIGINT NOT NULL)")?;
    connection.batch("INSERT INTO ironroot_schema (version) VALUES (0)")?;
    connection.batch("INSERT INTO revision (\"only\", revision) VALUES (1, 1)")?;
    let start = "INSERT INTO changes (revision, id, kind, key) VALUES (1, ?1, 'start', ?2)";
    connection.execute(start, &[&Uuid::new_v4().into_bytes(), &Vec::<u8>::new()])?;
    connection.execute("INSERT INTO about (trust_domain) VALUES (?1)", &[&trust_domain.as_str()])?;
    Ok(())
}
