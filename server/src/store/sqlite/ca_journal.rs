//! The CA's journal: one blob, replaced whole. What it says is the CA's business.

use rusqlite::OptionalExtension;

use super::{Store, StoreError};

impl Store {
    /// The journal, if one was ever written.
    pub async fn ca_journal(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.run(|tx| {
            let read = tx.connection.query_row("SELECT journal FROM ca_journal", [], |row| row.get(0));
            Ok(read.optional()?)
        })
        .await
    }

    /// Replaces the journal; durable on return.
    pub async fn put_ca_journal(&self, journal: Vec<u8>) -> Result<(), StoreError> {
        self.run(move |tx| {
            let replace = "INSERT INTO ca_journal (only, journal) VALUES (1, ?1)
                           ON CONFLICT (only) DO UPDATE SET journal = excluded.journal";
            tx.connection.execute(replace, [journal])?;
            Ok(())
        })
        .await
    }
}
