//! Registration entries.

use crate::facts::entry::{NewEntry, RegistrationEntry};
use ironroot_api::SpiffeId;
use ironroot_api::pb::types;
use prost::Message;
use rusqlite::{OptionalExtension, Row};

use super::{Facts, Transaction};
use crate::store::{Changed, StoreError};

/// A row of the table: its place in lists, and the entry as it was encoded.
type Found = (i64, Vec<u8>);

impl Facts<'_> {
    /// Hands every entry to `take`, with its place in lists, in order.
    pub fn each_entry(&self, mut take: impl FnMut(i64, RegistrationEntry)) -> Result<(), StoreError> {
        let mut select = self.connection.prepare_cached("SELECT seq, entry FROM entries ORDER BY seq")?;
        for row in select.query_map([], found)? {
            let (seq, entry) = self.decode(row?)?;
            take(seq, entry);
        }
        Ok(())
    }

    /// The entries below that parent.
    pub fn entries_below(&self, parent: &SpiffeId) -> Result<Vec<RegistrationEntry>, StoreError> {
        let select = "SELECT seq, entry FROM entries WHERE parent_id = ?1";
        let mut select = self.connection.prepare_cached(select)?;
        let rows = select.query_map([parent.as_str()], found)?;
        rows.map(|row| Ok(self.decode(row?)?.1)).collect()
    }

    /// The entry with that ID.
    pub fn entry(&self, id: &str) -> Result<Option<(i64, RegistrationEntry)>, StoreError> {
        let mut select = self.connection.prepare_cached("SELECT seq, entry FROM entries WHERE id = ?1")?;
        select.query_row([id], found).optional()?.map(|row| self.decode(row)).transpose()
    }

    /// The first entry that gives the same identity to the same holder as `new` would.
    pub fn entry_similar_to(&self, new: &NewEntry) -> Result<Option<(i64, RegistrationEntry)>, StoreError> {
        let select = "SELECT seq, entry FROM entries WHERE spiffe_id = ?1 AND parent_id = ?2 ORDER BY seq";
        let mut select = self.connection.prepare_cached(select)?;
        let rows = select.query_map([new.spiffe_id().as_str(), new.parent_id().as_str()], found)?;
        for row in rows {
            let (seq, entry) = self.decode(row?)?;
            if entry.is_similar_to(new) {
                return Ok(Some((seq, entry)));
            }
        }
        Ok(None)
    }

    fn decode(&self, (seq, bytes): Found) -> Result<(i64, RegistrationEntry), StoreError> {
        let damaged = |why: &dyn std::error::Error| StoreError::Corrupt(format!("entry in row {seq}: {why}"));
        let message = types::Entry::decode(&*bytes).map_err(|e| damaged(&e))?;
        let entry = RegistrationEntry::from_pb(&message, self.trust_domain).map_err(|e| damaged(&e))?;
        Ok((seq, entry))
    }
}

impl Transaction<'_> {
    /// Adds an entry whose ID is not taken; returns its place in lists.
    pub fn add_entry(&self, entry: &RegistrationEntry) -> Result<i64, StoreError> {
        let add = "INSERT INTO entries (id, spiffe_id, parent_id, expires_at, entry) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.connection.prepare_cached(add)?.execute((
            entry.id(),
            entry.spiffe_id().as_str(),
            entry.parent_id().as_str(),
            entry.expires_at(),
            entry.to_pb().encode_to_vec(),
        ))?;
        self.note(Changed::Entry(entry.id().to_owned()));
        Ok(self.connection.last_insert_rowid())
    }

    /// Replaces the entry of the same ID.
    pub fn replace_entry(&self, entry: &RegistrationEntry) -> Result<(), StoreError> {
        let replace = "UPDATE entries SET spiffe_id = ?2, parent_id = ?3, expires_at = ?4, entry = ?5 WHERE id = ?1";
        self.connection.prepare_cached(replace)?.execute((
            entry.id(),
            entry.spiffe_id().as_str(),
            entry.parent_id().as_str(),
            entry.expires_at(),
            entry.to_pb().encode_to_vec(),
        ))?;
        self.note(Changed::Entry(entry.id().to_owned()));
        Ok(())
    }

    /// Removes an entry; false if there is none of that ID.
    pub fn remove_entry(&self, id: &str) -> Result<bool, StoreError> {
        let removed = self.connection.prepare_cached("DELETE FROM entries WHERE id = ?1")?.execute([id])? == 1;
        if removed {
            self.note(Changed::Entry(id.to_owned()));
        }
        Ok(removed)
    }

    /// Removes the entries that have ended; returns their IDs.
    pub fn remove_expired_entries(&self, now_unix: i64) -> Result<Vec<String>, StoreError> {
        let remove = "DELETE FROM entries WHERE expires_at <> 0 AND expires_at <= ?1 RETURNING id";
        let mut remove = self.connection.prepare_cached(remove)?;
        let ids = remove.query_map([now_unix], |row| row.get(0))?;
        let ids = ids.collect::<Result<Vec<String>, _>>()?;
        ids.iter().for_each(|id| self.note(Changed::Entry(id.clone())));
        Ok(ids)
    }
}

fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    Ok((row.get(0)?, row.get(1)?))
}
