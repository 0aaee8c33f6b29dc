//! SPIRE's tables where a database server has them.

use std::thread;
use std::time::{Duration, Instant};

use super::error::SpireStoreError;
use super::rows::{self, SpireFacts};
use crate::store::StoreError;
use crate::store::postgres::{self, Address, Connection};
use crate::store::sql::{Row, Session};

/// Most of those who are connected that are named.
const MAX_NAMED: usize = 5;

/// How long a server that was stopped just now may seem to be connected still, and how often is looked.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Reads the tables as one moment has them. On a thread of no runtime.
pub(super) fn read(address: &Address, must_be_at_rest: bool) -> Result<SpireFacts, SpireStoreError> {
    let connection = postgres::connect(address)?;
    if !postgres::is_spires(&connection)? {
        return Err(SpireStoreError::NotSpires);
    }
    if must_be_at_rest {
        wait_for_rest(&connection)?;
    }
    // Whatever others wrote before they went is there from here on.
    postgres::begin_reading(&connection)?;
    rows::read(Session::Postgres(&connection))
}

fn wait_for_rest(connection: &Connection) -> Result<(), SpireStoreError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let others = others(Session::Postgres(connection))?;
        match others.is_empty() {
            true => return Ok(()),
            false if Instant::now() > deadline => return Err(SpireStoreError::Connected(named(&others))),
            false => thread::sleep(LOOK_AGAIN),
        }
    }
}

/// Who else has a connection to this database: users and what they call themselves. A server of SPIRE's keeps its own.
fn others(tables: Session<'_>) -> Result<Vec<String>, StoreError> {
    let who = "SELECT usename::text, coalesce(application_name, '') FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename IS NOT NULL ORDER BY pid";
    tables.all(who, &[], |row: &Row<'_>| {
        let (user, program) = (row.get::<String>(0)?, row.get::<String>(1)?);
        Ok(if program.is_empty() { user } else { format!("{user} with {program:?}") })
    })
}

fn named(others: &[String]) -> String {
    let first = others.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match others.len().checked_sub(MAX_NAMED) {
        Some(more @ 1..) => format!("{first} and {more} more"),
        _ => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_named_and_the_others_counted() {
        let others = |count| vec!["spire".to_owned(); count];
        assert_eq!(named(&others(2)), "spire, spire");
        assert_eq!(named(&others(MAX_NAMED)), ["spire"; MAX_NAMED].join(", "));
        assert!(named(&others(MAX_NAMED + 2)).ends_with("spire and 2 more"));
    }
}
