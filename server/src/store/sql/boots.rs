//! What devices have booted.

use super::{Facts, Row, Transaction};
use crate::facts::device::{Boot, BootFacts, KnownDevice, MAX_BOOTS};
use crate::store::{Changed, StoreError};

impl Facts<'_> {
    /// The boots of a device that are kept, the newest first.
    pub(crate) fn boots(&self, ek_sha256: &[u8; 32]) -> Result<Vec<Boot>, StoreError> {
        let select = "SELECT first_at, last_at, facts FROM boots WHERE ek_sha256 = ?1 ORDER BY id DESC";
        self.sql.all(select, &[ek_sha256], boot)
    }
}

impl Transaction<'_> {
    /// Notes what a device has booted, and forgets its oldest boots beyond [`MAX_BOOTS`]. `known`: the device as this transaction finds
    /// it; none if it is new.
    pub(crate) fn note_boot(
        &self,
        ek_sha256: &[u8; 32],
        known: Option<&KnownDevice>,
        facts: &BootFacts,
        now_unix: i64,
    ) -> Result<(), StoreError> {
        self.note(Changed::Device(*ek_sha256));
        let text = serde_json::to_string(facts).expect("texts and numbers are JSON");
        if known.and_then(|known| known.boot.as_deref()).is_some_and(|last| last.is_same_state(facts)) {
            let again =
                "UPDATE boots SET last_at = ?2, facts = ?3 WHERE id = (SELECT max(id) FROM boots WHERE ek_sha256 = ?1)";
            self.sql.execute(again, &[ek_sha256, &now_unix, &text])?;
            return Ok(());
        }
        let add = "INSERT INTO boots (ek_sha256, first_at, last_at, facts) VALUES (?1, ?2, ?2, ?3)";
        self.sql.execute(add, &[ek_sha256, &now_unix, &text])?;
        let forget = "DELETE FROM boots WHERE ek_sha256 = ?1 AND id NOT IN
                      (SELECT id FROM boots WHERE ek_sha256 = ?1 ORDER BY id DESC LIMIT ?2)";
        self.sql.execute(forget, &[ek_sha256, &(MAX_BOOTS as i64)])?;
        Ok(())
    }

    /// Forgets what a device has booted.
    pub(crate) fn remove_boots(&self, ek_sha256: &[u8; 32]) -> Result<(), StoreError> {
        self.sql.execute("DELETE FROM boots WHERE ek_sha256 = ?1", &[ek_sha256])?;
        Ok(())
    }
}

fn boot(row: &Row<'_>) -> Result<Boot, StoreError> {
    Ok(Boot { first_at: row.get(0)?, last_at: row.get(1)?, facts: parse(&row.get::<String>(2)?)? })
}

pub(super) fn parse(facts: &str) -> Result<BootFacts, StoreError> {
    serde_json::from_str(facts).map_err(|error| StoreError::Corrupt(format!("a boot state: {error}")))
}
