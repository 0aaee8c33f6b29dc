//! The CA's journals: a blob for each server, replaced whole. What they say is the CA's business.

use super::{Facts, Transaction};
use crate::store::{Changed, StoreError};

impl Facts<'_> {
    /// The journal of this server, if it ever wrote one.
    pub fn ca_journal(&self, server: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let select = "SELECT journal FROM ca_journals WHERE server = ?1";
        self.sql.first(select, &[&server], |row| row.get(0))
    }

    /// Every server's name, and its journal.
    pub fn ca_journals(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let select = "SELECT server, journal FROM ca_journals ORDER BY server";
        self.sql.all(select, &[], |row| Ok((row.get(0)?, row.get(1)?)))
    }
}

impl Transaction<'_> {
    /// Replaces the journal of this server.
    pub fn put_ca_journal(&self, server: &str, journal: &[u8]) -> Result<(), StoreError> {
        let replace = "INSERT INTO ca_journals (server, journal) VALUES (?1, ?2)
                       ON CONFLICT (server) DO UPDATE SET journal = excluded.journal";
        self.sql.execute(replace, &[&server, &journal])?;
        self.note(Changed::CaJournal);
        Ok(())
    }

    /// Gives the journal of the server without a name to `server`, which has none; whether there was one.
    pub fn name_ca_journal(&self, server: &str) -> Result<bool, StoreError> {
        let rename = "UPDATE ca_journals SET server = ?1 WHERE server = ''";
        let was_there = self.sql.execute(rename, &[&server])? > 0;
        if was_there {
            self.note(Changed::CaJournal);
        }
        Ok(was_there)
    }
}
