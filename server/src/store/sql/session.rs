//! Who runs a statement.

use rusqlite::params_from_iter;

use super::{Row, Value};
use crate::store::{StoreError, postgres};

/// A connection to an engine, while it is lent to read or to change facts. A statement is parsed once by each connection.
#[derive(Clone, Copy)]
pub(in crate::store) enum Session<'c> {
    Sqlite(&'c rusqlite::Connection),
    Postgres(&'c postgres::Connection),
}

impl Session<'_> {
    /// Runs it; how many rows it has added, changed or removed.
    pub fn execute(&self, statement: &str, values: &[&dyn Value]) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(connection) => {
                let rows = connection.prepare_cached(statement)?.execute(params_from_iter(sqlite_values(values)))?;
                Ok(rows as u64)
            }
            Self::Postgres(connection) => connection.execute(statement, values),
        }
    }

    /// Runs it, and hands each row of its answer to `take`, which asks for nothing else meanwhile.
    pub fn each(
        &self,
        statement: &str,
        values: &[&dyn Value],
        take: &mut dyn FnMut(&Row<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(statement)?;
                let mut rows = statement.query(params_from_iter(sqlite_values(values)))?;
                while let Some(row) = rows.next()? {
                    take(&Row::Sqlite(row))?;
                }
                Ok(())
            }
            Self::Postgres(connection) => connection.each(statement, values, &mut |row| take(&Row::Postgres(row))),
        }
    }

    /// Every row of its answer.
    pub fn all<T>(
        &self,
        statement: &str,
        values: &[&dyn Value],
        read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut all = Vec::new();
        self.each(statement, values, &mut |row| {
            all.push(read(row)?);
            Ok(())
        })?;
        Ok(all)
    }

    /// The first row of its answer; none if there is none.
    pub fn first<T>(
        &self,
        statement: &str,
        values: &[&dyn Value],
        read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.all(statement, values, read)?.into_iter().next())
    }

    /// The first row of an answer that has one.
    pub fn one<T>(
        &self,
        statement: &str,
        values: &[&dyn Value],
        read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let none = || StoreError::Corrupt("a row that must be there is not".into());
        self.first(statement, values, read)?.ok_or_else(none)
    }
}

fn sqlite_values<'v>(values: &'v [&'v dyn Value]) -> impl Iterator<Item = &'v dyn rusqlite::ToSql> {
    values.iter().map(|value| *value as &dyn rusqlite::ToSql)
}
