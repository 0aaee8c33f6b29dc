//! The change log: a row for each fact that a transaction changed, numbered by one counter.
//!
//! Written last in the transaction, so that an engine with several writers holds the counter's lock for the shortest time.
//! Source of the form: a counter row makes revisions without gaps, in the order of commits.

use uuid::Uuid;

use super::{Facts, Row, Session, Value};
use crate::store::StoreError;
use crate::store::changed::Changed;
use crate::store::feed::{Break, LogPage, PAGE, Position};

/// Rows of the log that are kept, some 100 bytes each. A follower that has missed more reads everything anew. Never 0: the
/// newest row proves to followers where they stand.
pub(in crate::store) const MAX_CHANGES: i64 = 10_000;

/// Rows of the log that one statement writes, while there are as many: few statements, each parsed once, and few answers to wait for
/// while the counter is locked.
const ROWS_AT_ONCE: [usize; 3] = [64, 8, 1];

/// Writes a row for each of the changes, and forgets rows beyond [`MAX_CHANGES`]. Returns the random ID that they have in common.
pub(in crate::store) fn append(sql: Session<'_>, changes: &[Changed]) -> Result<[u8; 16], StoreError> {
    let count = i64::try_from(changes.len()).expect("changes fit in memory");
    let take = "UPDATE revision SET revision = revision + ?1 RETURNING revision";
    let last: i64 = sql.one(take, &[&count], |row| row.get(0))?;
    let id = Uuid::new_v4().into_bytes();
    let (mut from, mut rest) = (last - count + 1, changes);
    for size in ROWS_AT_ONCE {
        if rest.len() < size {
            continue;
        }
        let add = insert_rows(size);
        while let Some((now, later)) = rest.split_at_checked(size) {
            add_rows(sql, &add, &id, from, now)?;
            (from, rest) = (from + now.len() as i64, later);
        }
    }
    sql.execute("DELETE FROM changes WHERE revision <= ?1", &[&(last - MAX_CHANGES)])?;
    Ok(id)
}

fn insert_rows(count: usize) -> String {
    let row = |at: usize| format!("(?{}, ?1, ?{}, ?{})", 3 * at + 2, 3 * at + 3, 3 * at + 4);
    let rows: Vec<_> = (0..count).map(row).collect();
    format!("INSERT INTO changes (revision, id, kind, key) VALUES {}", rows.join(", "))
}

/// Writes rows from that revision on, with the statement for as many.
fn add_rows(
    sql: Session<'_>,
    statement: &str,
    id: &[u8; 16],
    from: i64,
    changes: &[Changed],
) -> Result<(), StoreError> {
    let rows: Vec<_> = (from..).zip(changes).map(|(revision, one)| (revision, one.kind(), one.key())).collect();
    let mut values: Vec<&dyn Value> = vec![id];
    for (revision, kind, key) in &rows {
        values.extend([revision as &dyn Value, kind, key]);
    }
    sql.execute(statement, &values).map(drop)
}

impl Facts<'_> {
    /// How far the log goes.
    pub fn revision(&self) -> Result<i64, StoreError> {
        Ok(self.log_end()?.revision)
    }

    /// The log's newest row.
    pub(in crate::store) fn log_end(&self) -> Result<Position, StoreError> {
        let newest = "SELECT revision, id FROM changes ORDER BY revision DESC LIMIT 1";
        self.sql.first(newest, &[], position)?.ok_or_else(|| StoreError::Corrupt("the change log is empty".into()))
    }

    /// The rows behind `place`, if the log goes on from there.
    pub(in crate::store) fn log_after(&self, place: &Position) -> Result<LogPage, StoreError> {
        let select = "SELECT revision, id, kind, key FROM changes WHERE revision >= ?1 ORDER BY revision LIMIT ?2";
        let row = |row: &Row<'_>| Ok((position(row)?, changed(row)?));
        // One more than a page: the row at `place` itself proves that this is the log which was followed.
        let mut rows = self.sql.all(select, &[&place.revision, &(PAGE as i64 + 1)], row)?.into_iter();
        match rows.next() {
            Some((at, _)) if at == *place => Ok(LogPage::Rows(rows.collect())),
            Some((at, _)) if at.revision > place.revision => Ok(LogPage::Broken(Break::Pruned)),
            _ => Ok(LogPage::Broken(Break::OtherHistory(self.revision()?))),
        }
    }

    /// An error if the log has another row at `place`, or has not come so far.
    pub(in crate::store) fn check_place(&self, place: &Position) -> Result<(), StoreError> {
        let end = self.log_end()?;
        let is_same = self.id_at(place.revision)?.is_none_or(|id| id == place.id) && end.revision >= place.revision;
        let (followed, found) = (place.revision, end.revision);
        if is_same { Ok(()) } else { Err(StoreError::OtherHistory { followed, found }) }
    }

    /// Whether the commit whose rows have that ID is in the log.
    pub(in crate::store) fn has_commit(&self, id: [u8; 16]) -> Result<bool, StoreError> {
        self.sql.one("SELECT EXISTS (SELECT 1 FROM changes WHERE id = ?1)", &[&id], |row| row.get(0))
    }
}

fn position(row: &Row<'_>) -> Result<Position, StoreError> {
    Ok(Position { revision: row.get(0)?, id: row.get(1)? })
}

fn changed(row: &Row<'_>) -> Result<Option<Changed>, StoreError> {
    Ok(Changed::from_row(&row.get::<String>(2)?, &row.get::<Vec<u8>>(3)?))
}
