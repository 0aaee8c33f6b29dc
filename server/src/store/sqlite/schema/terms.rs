//! Version 5: entries get a format of their own.

use rusqlite::Connection;

use crate::facts::entry::terms_of_wire_form;
use crate::store::StoreError;

/// Rows that are converted between two reads: bounds the memory that a migration takes.
const PAGE: usize = 1000;

/// Rewrites what was kept as a message of the wire.
pub(super) fn convert(connection: &Connection) -> Result<(), StoreError> {
    let mut last = i64::MIN;
    loop {
        let rows = page_behind(connection, last)?;
        let Some((seq, _)) = rows.last() else { return Ok(()) };
        last = *seq;
        let mut replace = connection.prepare_cached("UPDATE entries SET terms = ?2 WHERE seq = ?1")?;
        for (seq, wire) in rows {
            let damaged = |why| StoreError::Corrupt(format!("entry in row {seq}: {why}"));
            replace.execute((seq, terms_of_wire_form(&wire).map_err(damaged)?))?;
        }
    }
}

fn page_behind(connection: &Connection, seq: i64) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    let select = "SELECT seq, terms FROM entries WHERE seq > ?1 ORDER BY seq LIMIT ?2";
    let mut select = connection.prepare_cached(select)?;
    let rows = select.query_map((seq, PAGE as i64), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
