//! A database copied while a server may be writing to it, and what one holds at a glance.

use std::fs::File;
use std::path::Path;

use ironroot_api::TrustDomain;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::{file, schema};
use crate::store::sql::Session;
use crate::store::{Facts, StoreError, Summary};

/// All pages in one step: it reads what is there at one moment, and in this journal mode no writer waits for that. In several steps
/// a writer would have it begin anew each time.
const ALL_PAGES: i32 = -1;

/// Copies the database at `path` into `to`, an empty file or a new one, as one moment has it. It is on the disk on return.
pub(in crate::store) fn copy(path: &Path, to: &Path, trust_domain: &TrustDomain) -> Result<Summary, StoreError> {
    recognise_one(path, trust_domain)?;
    let from = file::connect(path)?;
    let is_empty = to.metadata().is_ok_and(|found| found.is_file() && found.len() == 0);
    if !is_empty {
        file::create_empty(to)?;
    }
    let mut copy = Connection::open(to).map_err(|e| StoreError::open(to, e))?;
    match Backup::new(&from, &mut copy)?.step(ALL_PAGES)? {
        StepResult::Done => {}
        _ => return Err(StoreError::Locked),
    }
    file::check_integrity(&copy)?;
    let summary = summary_of(&copy, trust_domain)?;
    copy.close().map_err(|(_, e)| StoreError::from(e))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(|e| StoreError::open(to, e))?;
    Ok(summary)
}

/// What the database at `path` holds; none if there is none. Changes nothing, and a server may be running on it.
pub(in crate::store) fn summary(path: &Path, trust_domain: &TrustDomain) -> Result<Option<Summary>, StoreError> {
    if !file::exists(path)? {
        return Ok(None);
    }
    recognise_one(path, trust_domain)?;
    summary_of(&file::look_into(path)?, trust_domain).map(Some)
}

/// What a database that no server is running on says, read without changing it and checked whole; its schema must be today's.
pub(in crate::store) fn read<T>(
    path: &Path,
    trust_domain: &TrustDomain,
    read: impl FnOnce(&Facts<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    recognise_one(path, trust_domain)?;
    file::check_integrity(&file::look_into(path)?)?;
    peek(path, trust_domain, read)
}

/// The same of one that was checked when it was opened.
pub(in crate::store) fn peek<T>(
    path: &Path,
    trust_domain: &TrustDomain,
    read: impl FnOnce(&Facts<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    recognise_one(path, trust_domain)?;
    let connection = file::look_into(path)?;
    let (found, known) = (schema::version(&connection)?, schema::MIGRATIONS.len() as i64);
    if found != known {
        return Err(StoreError::OlderSchema { found, known });
    }
    read(&Facts::new(Session::Sqlite(&connection), trust_domain))
}

/// As [`file::recognise`], and there must be one.
fn recognise_one(path: &Path, trust_domain: &TrustDomain) -> Result<(), StoreError> {
    if !file::exists(path)? {
        return Err(StoreError::None(path.to_owned()));
    }
    file::recognise(path, trust_domain)
}

fn summary_of(connection: &Connection, trust_domain: &TrustDomain) -> Result<Summary, StoreError> {
    Facts::new(Session::Sqlite(connection), trust_domain).summary(schema::version(connection)?)
}
