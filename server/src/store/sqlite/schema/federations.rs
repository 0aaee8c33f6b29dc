//! Version 7: which entries federate with whom is a table.

use rusqlite::Connection;

use crate::facts::entry::federates_with_of_terms;
use crate::store::StoreError;

/// Writes a row for each trust domain that an entry's terms name.
pub(super) fn fill(connection: &Connection) -> Result<(), StoreError> {
    let mut select = connection.prepare("SELECT seq, id, terms FROM entries")?;
    let mut add =
        connection.prepare("INSERT OR IGNORE INTO entry_federations (trust_domain, entry_id) VALUES (?1, ?2)")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (seq, id): (i64, String) = (row.get(0)?, row.get(1)?);
        let damaged = |why| StoreError::Corrupt(format!("entry in row {seq}: {why}"));
        for trust_domain in federates_with_of_terms(row.get_ref(2)?.as_blob().unwrap_or_default()).map_err(damaged)? {
            add.execute((trust_domain, &id))?;
        }
    }
    Ok(())
}
