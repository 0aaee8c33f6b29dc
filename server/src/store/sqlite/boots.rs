//! What devices have booted.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Row};

use super::{Facts, Transaction};
use crate::facts::device::{Boot, BootFacts, MAX_BOOTS};
use crate::store::{Changed, StoreError};

impl Facts<'_> {
    /// The boots of a device that are kept, the newest first.
    pub(crate) fn boots(&self, ek_sha256: &[u8; 32]) -> Result<Vec<Boot>, StoreError> {
        let select = "SELECT first_at, last_at, facts FROM boots WHERE ek_sha256 = ?1 ORDER BY id DESC";
        let mut select = self.connection.prepare_cached(select)?;
        let rows = select.query_map([ek_sha256], |row| Ok(boot(row)))?;
        rows.map(|row| row?).collect()
    }

    /// What a device has booted last.
    pub(crate) fn last_boot(&self, ek_sha256: &[u8; 32]) -> Result<Option<Arc<BootFacts>>, StoreError> {
        let select = "SELECT facts FROM boots WHERE ek_sha256 = ?1 ORDER BY id DESC LIMIT 1";
        let found: Option<String> =
            self.connection.prepare_cached(select)?.query_row([ek_sha256], |row| row.get(0)).optional()?;
        found.map(|facts| parse(&facts).map(Arc::new)).transpose()
    }

    /// When a device first proved what it boots now, UNIX seconds; 0 if it has booted nothing else before.
    pub(crate) fn boot_changed_at(&self, ek_sha256: &[u8; 32]) -> Result<i64, StoreError> {
        let select = "SELECT CASE WHEN count(*) > 1 THEN max(first_at) ELSE 0 END FROM boots WHERE ek_sha256 = ?1";
        Ok(self.connection.prepare_cached(select)?.query_row([ek_sha256], |row| row.get(0))?)
    }
}

impl Transaction<'_> {
    /// Notes what a device has booted, and forgets its oldest boots beyond [`MAX_BOOTS`].
    pub(crate) fn note_boot(&self, ek_sha256: &[u8; 32], facts: &BootFacts, now_unix: i64) -> Result<(), StoreError> {
        self.note(Changed::Device(*ek_sha256));
        if self.last_boot(ek_sha256)?.as_deref() == Some(facts) {
            let again = "UPDATE boots SET last_at = ?2 WHERE id = (SELECT max(id) FROM boots WHERE ek_sha256 = ?1)";
            self.connection.prepare_cached(again)?.execute((ek_sha256, now_unix))?;
            return Ok(());
        }
        let add = "INSERT INTO boots (ek_sha256, first_at, last_at, facts) VALUES (?1, ?2, ?2, ?3)";
        let text = serde_json::to_string(facts).expect("texts and numbers are JSON");
        self.connection.prepare_cached(add)?.execute((ek_sha256, now_unix, text))?;
        let forget = "DELETE FROM boots WHERE ek_sha256 = ?1 AND id NOT IN
                      (SELECT id FROM boots WHERE ek_sha256 = ?1 ORDER BY id DESC LIMIT ?2)";
        self.connection.prepare_cached(forget)?.execute((ek_sha256, MAX_BOOTS as i64))?;
        Ok(())
    }

    /// Forgets what a device has booted.
    pub(crate) fn remove_boots(&self, ek_sha256: &[u8; 32]) -> Result<(), StoreError> {
        self.connection.prepare_cached("DELETE FROM boots WHERE ek_sha256 = ?1")?.execute([ek_sha256])?;
        Ok(())
    }
}

fn boot(row: &Row<'_>) -> Result<Boot, StoreError> {
    Ok(Boot { first_at: row.get(0)?, last_at: row.get(1)?, facts: parse(&row.get::<_, String>(2)?)? })
}

pub(super) fn parse(facts: &str) -> Result<BootFacts, StoreError> {
    serde_json::from_str(facts).map_err(|error| StoreError::Corrupt(format!("a boot state: {error}")))
}
