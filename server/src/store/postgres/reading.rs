//! A database that is only looked at.

use std::sync::Arc;

use ironroot_api::TrustDomain;

use super::database::runtime;
use super::schema::{self, Found, MIGRATIONS};
use super::{Address, Connection};
use crate::store::sql::Session;
use crate::store::{Facts, StoreError, Summary};

/// A connection to any program's database.
pub(in crate::store) fn connect(address: &Address) -> Result<Connection, StoreError> {
    Connection::open(address, &runtime()?, &Arc::default())
}

/// From here on it reads what is there at one moment, and changes nothing.
pub(in crate::store) fn begin_reading(connection: &Connection) -> Result<(), StoreError> {
    connection.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
}

fn look<T>(
    address: &Address,
    trust_domain: &TrustDomain,
    read: impl FnOnce(&Connection, Found) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let connection = connect(address)?;
    begin_reading(&connection)?;
    let found = schema::look(&connection, trust_domain, MIGRATIONS.len() as i64)?;
    read(&connection, found)
}

/// Whose database is at `address`. One that has no tables yet is no mistake.
pub(in crate::store) fn recognise(address: &Address, trust_domain: &TrustDomain) -> Result<(), StoreError> {
    look(address, trust_domain, |_, _| Ok(()))
}

/// What the database holds; none if it has no tables yet.
pub(in crate::store) fn summary(address: &Address, trust_domain: &TrustDomain) -> Result<Option<Summary>, StoreError> {
    look(address, trust_domain, |connection, found| match found {
        Found::Nothing => Ok(None),
        Found::Ours(version) => Facts::new(Session::Postgres(connection), trust_domain).summary(version).map(Some),
    })
}

/// What the database says; its tables must be of today's version.
pub(in crate::store) fn peek<T>(
    address: &Address,
    trust_domain: &TrustDomain,
    read: impl FnOnce(&Facts<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let known = MIGRATIONS.len() as i64;
    look(address, trust_domain, |connection, found| match found {
        Found::Ours(version) if version == known => read(&Facts::new(Session::Postgres(connection), trust_domain)),
        Found::Ours(found) => Err(StoreError::OlderSchema { found, known }),
        Found::Nothing => Err(StoreError::NotOurs),
    })
}
