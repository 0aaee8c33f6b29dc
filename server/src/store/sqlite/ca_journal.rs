//! The CA's journal: one blob, replaced whole. What it says is the CA's business.

use rusqlite::OptionalExtension;

use super::{Facts, Transaction};
use crate::store::{Changed, StoreError};

impl Facts<'_> {
    /// The journal, if one was ever written.
    pub fn ca_journal(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.connection.query_row("SELECT journal FROM ca_journal", [], |row| row.get(0)).optional()?)
    }
}

impl Transaction<'_> {
    /// Replaces the journal.
    pub fn put_ca_journal(&self, journal: &[u8]) -> Result<(), StoreError> {
        let replace = "INSERT INTO ca_journal (only, journal) VALUES (1, ?1)
                       ON CONFLICT (only) DO UPDATE SET journal = excluded.journal";
        self.connection.execute(replace, [journal])?;
        self.note(Changed::CaJournal);
        Ok(())
    }
}
