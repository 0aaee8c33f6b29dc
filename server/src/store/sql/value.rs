//! What goes into a statement, and what comes out of a row.

use rusqlite::types::FromSql;
use tokio_postgres::types::{FromSqlOwned, ToSql};

use crate::store::StoreError;

/// What every engine takes for a parameter: texts, bytes, 64-bit integers, truth; none for NULL.
pub(in crate::store) trait Value: rusqlite::ToSql + ToSql + Sync {}

impl<T: rusqlite::ToSql + ToSql + Sync> Value for T {}

/// A row of an answer.
pub(in crate::store) enum Row<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r tokio_postgres::Row),
}

impl Row<'_> {
    /// The column at that place, from 0.
    pub fn get<T: Column>(&self, place: usize) -> Result<T, StoreError> {
        match self {
            Self::Sqlite(row) => Ok(row.get(place)?),
            Self::Postgres(row) => {
                let wrong = || StoreError::Corrupt(format!("column {place} of a row is not what it must be"));
                T::from_stored(row.try_get(place)?).ok_or_else(wrong)
            }
        }
    }
}

/// What a column is read as.
pub(in crate::store) trait Column: FromSql {
    /// The form in which PostgreSQL has it.
    type Stored: FromSqlOwned;

    /// None if it is out of bounds.
    fn from_stored(stored: Self::Stored) -> Option<Self>;
}

/// Columns that PostgreSQL has as they are.
macro_rules! columns {
    ($($column:ty),*) => {
        $(impl Column for $column {
            type Stored = Self;

            fn from_stored(stored: Self) -> Option<Self> {
                Some(stored)
            }
        })*
    };
}

columns!(bool, i64, String, Vec<u8>);

impl Column for u32 {
    type Stored = i64;

    fn from_stored(stored: i64) -> Option<Self> {
        stored.try_into().ok()
    }
}

impl<const N: usize> Column for [u8; N] {
    type Stored = Vec<u8>;

    fn from_stored(stored: Vec<u8>) -> Option<Self> {
        stored.try_into().ok()
    }
}

impl<T: Column> Column for Option<T> {
    type Stored = Option<T::Stored>;

    fn from_stored(stored: Self::Stored) -> Option<Self> {
        match stored {
            None => Some(None),
            Some(stored) => T::from_stored(stored).map(Some),
        }
    }
}
