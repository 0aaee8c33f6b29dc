//! Registration entries.

use std::collections::BTreeSet;

use crate::facts::entry::{EntryRow, NewEntry, RegistrationEntry};
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_shell::describe;

use super::{Facts, Row, SLICE, Transaction, Value};
use crate::store::{Changed, StoreError};

/// An entry's columns, behind its place in lists.
const COLUMNS: &str = "seq, id, spiffe_id, parent_id, expires_at, terms";
/// Writes what [`EntryRow`] has over an entry.
const REPLACE: &str = "UPDATE entries SET spiffe_id = ?2, parent_id = ?3, expires_at = ?4, terms = ?5 WHERE id = ?1";

impl Facts<'_> {
    /// How many entries there are.
    pub fn count_entries(&self) -> Result<usize, StoreError> {
        let count: i64 = self.sql.one("SELECT count(*) FROM entries", &[], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or_default())
    }

    /// Hands every entry to `take`, with its place in lists, in order.
    pub fn each_entry(&self, take: &mut dyn FnMut(i64, RegistrationEntry)) -> Result<(), StoreError> {
        self.sql.each(&format!("SELECT {COLUMNS} FROM entries ORDER BY seq"), &[], &mut |row| {
            let (seq, entry) = found(row)?;
            take(seq, entry);
            Ok(())
        })
    }

    /// The entries whose parent is exactly that ID, in no order; it does not look further down.
    pub fn entries_below(&self, parent: &SpiffeId) -> Result<Vec<RegistrationEntry>, StoreError> {
        let select = format!("SELECT {COLUMNS} FROM entries WHERE parent_id = ?1");
        self.sql.all(&select, &[&parent.as_str()], |row| Ok(found(row)?.1))
    }

    /// The entry of that ID with its place in the order of creation; `None` if there is none.
    pub fn entry(&self, id: &str) -> Result<Option<(i64, RegistrationEntry)>, StoreError> {
        self.sql.first(&format!("SELECT {COLUMNS} FROM entries WHERE id = ?1"), &[&id], found)
    }

    /// Whether an entry gives that SPIFFE ID a CA. It looks at all entries: there is no index of their IDs alone.
    pub(super) fn gives_ca(&self, spiffe_id: &str) -> Result<bool, StoreError> {
        let select = format!("SELECT {COLUMNS} FROM entries WHERE spiffe_id = ?1");
        let entries = self.sql.all(&select, &[&spiffe_id], |row| Ok(found(row)?.1))?;
        Ok(entries.iter().any(RegistrationEntry::downstream))
    }

    /// The first entry that gives the same identity to the same holder as `new` would.
    pub fn entry_similar_to(&self, new: &NewEntry) -> Result<Option<(i64, RegistrationEntry)>, StoreError> {
        let select = format!("SELECT {COLUMNS} FROM entries WHERE spiffe_id = ?1 AND parent_id = ?2 ORDER BY seq");
        let rows = self.sql.all(&select, &[&new.spiffe_id().as_str(), &new.parent_id().as_str()], found)?;
        Ok(rows.into_iter().find(|(_, entry)| entry.is_similar_to(new)))
    }
}

impl Transaction<'_> {
    /// Adds an entry whose ID is not taken.
    pub fn add_entry(&self, entry: &RegistrationEntry) -> Result<(), StoreError> {
        let add = "INSERT INTO entries (id, spiffe_id, parent_id, expires_at, terms) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.write_entry(add, entry)?;
        if entry.downstream() {
            self.settle_keys_of(entry.spiffe_id().as_str())?;
        }
        self.add_federations(entry)
    }

    /// Replaces the entry of the same ID; it keeps its place in lists.
    pub fn replace_entry(&self, entry: &RegistrationEntry) -> Result<(), StoreError> {
        let before = self.entry(entry.id())?.map(|(_, before)| before);
        self.write_entry(REPLACE, entry)?;
        for one in before.iter().chain([entry]).filter(|one| one.downstream()) {
            self.settle_keys_of(one.spiffe_id().as_str())?;
        }
        self.forget_federations(entry.id())?;
        self.add_federations(entry)
    }

    fn write_entry(&self, statement: &str, entry: &RegistrationEntry) -> Result<(), StoreError> {
        let EntryRow { id, spiffe_id, parent_id, expires_at, terms } = entry.to_row();
        self.sql.execute(statement, &[&id, &spiffe_id, &parent_id, &expires_at, &terms])?;
        self.note(Changed::Entry(id));
        Ok(())
    }

    /// Removes an entry; false if there is none of that ID.
    pub fn remove_entry(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.remove_entries("id = ?1", &[&id])? == 1)
    }

    /// Removes entries that have ended, a slice at most; how many.
    pub fn remove_expired_entries(&self, now_unix: i64) -> Result<usize, StoreError> {
        let ended = "id IN (SELECT id FROM entries WHERE expires_at <> 0 AND expires_at <= ?1 LIMIT ?2)";
        self.remove_entries(ended, &[&now_unix, &SLICE])
    }

    /// Removes entries that ask for the bundle of that trust domain, a slice at most; how many.
    pub(crate) fn remove_entries_federated_with(&self, trust_domain: &TrustDomain) -> Result<usize, StoreError> {
        let asking = "id IN (SELECT entry_id FROM entry_federations WHERE trust_domain = ?1 LIMIT ?2)";
        self.remove_entries(asking, &[&trust_domain.as_str(), &SLICE])
    }

    /// Has entries that ask for the bundle of that trust domain ask for it no more, `at_most` so many; how many. One answer of the database
    /// for each, and two for all of them.
    pub(crate) fn dissociate_entries(&self, trust_domain: &TrustDomain, at_most: i64) -> Result<usize, StoreError> {
        let some = "SELECT entry_id FROM entry_federations WHERE trust_domain = ?1 ORDER BY entry_id LIMIT ?2";
        let values: [&dyn Value; 2] = [&trust_domain.as_str(), &at_most];
        let select = format!("SELECT {COLUMNS} FROM entries WHERE id IN ({some})");
        let entries = self.sql.all(&select, &values, |row| Ok(found(row)?.1))?;
        entries.iter().try_for_each(|entry| self.write_entry(REPLACE, &entry.dissociated_from(trust_domain)))?;
        let forget = format!("DELETE FROM entry_federations WHERE trust_domain = ?1 AND entry_id IN ({some})");
        Ok(usize::try_from(self.sql.execute(&forget, &values)?).unwrap_or_default())
    }

    /// Removes the entries of which that is true, and what goes with them; how many.
    fn remove_entries(&self, which: &str, values: &[&dyn Value]) -> Result<usize, StoreError> {
        let remove = format!("DELETE FROM entries WHERE {which} RETURNING {COLUMNS}");
        let removed = self.sql.all(&remove, values, |row| Ok(found(row)?.1))?;
        removed.iter().for_each(|entry| self.note(Changed::Entry(entry.id().to_owned())));
        let lower: BTreeSet<_> = removed.iter().filter(|one| one.downstream()).map(|one| one.spiffe_id()).collect();
        lower.into_iter().try_for_each(|id| self.settle_keys_of(id.as_str()))?;
        Ok(removed.len())
    }
}

fn found(row: &Row<'_>) -> Result<(i64, RegistrationEntry), StoreError> {
    let entry = EntryRow {
        id: row.get(1)?,
        spiffe_id: row.get(2)?,
        parent_id: row.get(3)?,
        expires_at: row.get(4)?,
        terms: row.get(5)?,
    };
    let seq: i64 = row.get(0)?;
    let damaged = |why| StoreError::Corrupt(format!("entry in row {seq}: {}", describe(&why)));
    Ok((seq, RegistrationEntry::from_row(entry).map_err(damaged)?))
}
