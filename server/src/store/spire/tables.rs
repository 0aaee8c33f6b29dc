//! SPIRE's tables in either engine: the few words in which the two differ, and values of the types that SPIRE writes.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error::SpireStoreError;
use crate::store::StoreError;
use crate::store::sql::{Column, Row, Session};

/// SPIRE's tables.
#[derive(Clone, Copy)]
pub(super) struct Tables<'c>(pub(super) Session<'c>);

impl Tables<'_> {
    /// The column as a whole number; 0 if there is none. PostgreSQL has some in 32 bits.
    pub(super) fn number(self, column: &str) -> String {
        match self.0 {
            Session::Sqlite(_) => format!("coalesce({column}, 0)"),
            Session::Postgres(_) => format!("CAST(coalesce({column}, 0) AS BIGINT)"),
        }
    }

    /// The column as yes or no; no if there is neither.
    pub(super) fn flag(self, column: &str) -> String {
        match self.0 {
            Session::Sqlite(_) => format!("coalesce({column}, 0)"),
            Session::Postgres(_) => format!("coalesce({column}, FALSE)"),
        }
    }

    /// The column as [`Columns::time`] reads it: SQLite has a text, PostgreSQL a time, which it rounds as SPIRE does.
    pub(super) fn time(self, column: &str) -> String {
        match self.0 {
            Session::Sqlite(_) => column.to_owned(),
            Session::Postgres(_) => format!("CAST(floor(extract(epoch FROM {column}) + 0.5) AS BIGINT)"),
        }
    }

    /// What stands for a column of bytes that is not there yet.
    pub(super) fn no_bytes(self) -> &'static str {
        match self.0 {
            Session::Sqlite(_) => "NULL",
            Session::Postgres(_) => "CAST(NULL AS bytea)",
        }
    }

    /// The longest value of the column, bytes.
    pub(super) fn longest(self, column: &str) -> String {
        match self.0 {
            Session::Sqlite(_) => format!("coalesce(max(length(CAST({column} AS BLOB))), 0)"),
            Session::Postgres(_) => format!("CAST(coalesce(max(octet_length({column})), 0) AS BIGINT)"),
        }
    }

    /// The first column of an answer's one row.
    pub(super) fn one<T: Column>(self, select: &str) -> Result<T, SpireStoreError> {
        Ok(self.0.one(select, &[], |row| row.get(0))?)
    }

    /// Reads rows that begin with their number. A value of another type than SPIRE's is told with it.
    pub(super) fn each<T>(
        self,
        table: &'static str,
        select: &str,
        read: impl Fn(&Columns<'_>) -> Result<T, SpireStoreError>,
    ) -> Result<Vec<T>, SpireStoreError> {
        let (mut all, mut wrong) = (Vec::new(), None);
        let asked = self.0.each(select, &[], &mut |row| match read(&Columns { table, number: row.get(0)?, row }) {
            Ok(value) => {
                all.push(value);
                Ok(())
            }
            Err(error) => {
                wrong = Some(error);
                // No more rows are wanted.
                Err(StoreError::Closed)
            }
        });
        match wrong {
            Some(error) => Err(error),
            None => Ok(asked.map(|()| all)?),
        }
    }
}

/// A row of an answer.
pub(super) struct Columns<'r> {
    table: &'static str,
    pub(super) number: i64,
    row: &'r Row<'r>,
}

impl Columns<'_> {
    pub(super) fn get<T: Column>(&self, column: usize) -> Result<T, SpireStoreError> {
        self.row.get(column).map_err(|error| self.damaged(ironroot_shell::describe(&error)))
    }

    /// UNIX seconds; 0 if there is no time. SQLite has it as SPIRE's engine writes it, `2026-11-25 21:16:17.204657828+00:00`, rounded
    /// here as SPIRE does.
    pub(super) fn time(&self, column: usize) -> Result<i64, SpireStoreError> {
        if matches!(self.row, Row::Postgres(_)) {
            return Ok(self.get::<Option<i64>>(column)?.unwrap_or_default());
        }
        let text: Option<String> = self.get(column)?;
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(0) };
        parse_time(&text).ok_or_else(|| self.damaged(format!("{text:?} is no time")))
    }

    fn damaged(&self, reason: String) -> SpireStoreError {
        SpireStoreError::Row { table: self.table, row: self.number, reason }
    }
}

/// Source: mattn/go-sqlite3, SQLiteTimestampFormats: a blank or a T between date and time, and no zone is UTC.
fn parse_time(text: &str) -> Option<i64> {
    let (date, time) = text.split_once([' ', 'T'])?;
    let has_zone = time.ends_with('Z') || time.contains('+') || time.contains('-');
    let zone = if has_zone { "" } else { "Z" };
    let time = OffsetDateTime::parse(&format!("{date}T{time}{zone}"), &Rfc3339).ok()?;
    Some(time.unix_timestamp() + i64::from(time.nanosecond() >= 500_000_000))
}

#[cfg(test)]
mod tests {
    use super::parse_time;

    #[test]
    fn times_are_read_as_the_go_driver_writes_them_and_rounded_as_spire_does() {
        for (text, unix) in [
            ("2026-11-25 21:16:17.204657828+00:00", 1_795_641_377),
            ("2026-11-25 21:16:17.504657828+00:00", 1_795_641_378),
            ("2026-11-25 21:16:17+00:00", 1_795_641_377),
            ("2026-11-25 22:16:17+01:00", 1_795_641_377),
            ("2026-11-25T21:16:17Z", 1_795_641_377),
            ("2026-11-25 21:16:17", 1_795_641_377),
            ("0001-01-01 00:00:00+00:00", -62_135_596_800),
        ] {
            assert_eq!(parse_time(text), Some(unix), "{text}");
        }
        for wrong in ["", "now", "2026-11-25", "2026-13-25 21:16:17", "99999-01-01 00:00:00"] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
    }
}
