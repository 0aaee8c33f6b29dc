//! What spoke against chips: proven, with a clock or counters older than those they had shown before.

use ironroot_attest::node::tpm2::ClockReading;
use rusqlite::{OptionalExtension, Row};

use super::{Facts, Transaction};
use crate::facts::device::Contradiction;
use crate::store::{Changed, StoreError};

impl Facts<'_> {
    /// Every contradiction, with its device.
    pub(crate) fn contradictions(&self) -> Result<Vec<([u8; 32], Contradiction)>, StoreError> {
        let select = "SELECT ek_sha256, seen_at, address, clock_ms, reset_count, restart_count FROM contradictions";
        let mut select = self.connection.prepare_cached(select)?;
        let rows = select.query_map([], contradiction)?;
        rows.map(|row| Ok(row?)).collect()
    }

    /// What spoke against that device.
    pub(crate) fn contradiction(&self, ek_sha256: &[u8; 32]) -> Result<Option<Contradiction>, StoreError> {
        let select = "SELECT ek_sha256, seen_at, address, clock_ms, reset_count, restart_count FROM contradictions
                      WHERE ek_sha256 = ?1";
        let found = self.connection.prepare_cached(select)?.query_row([ek_sha256], contradiction).optional()?;
        Ok(found.map(|(_, contradiction)| contradiction))
    }
}

impl Transaction<'_> {
    /// Notes the newest contradiction of that device in the place of an older one.
    pub(crate) fn put_contradiction(&self, ek_sha256: &[u8; 32], seen: &Contradiction) -> Result<(), StoreError> {
        let put =
            "INSERT OR REPLACE INTO contradictions (ek_sha256, seen_at, address, clock_ms, reset_count, restart_count)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let ClockReading { clock_ms, reset_count, restart_count, .. } = seen.clock;
        // SQLite's integers have a sign; the bits are what counts.
        let clock_ms = clock_ms.cast_signed();
        let values = (ek_sha256, seen.at_unix, &seen.address, clock_ms, reset_count, restart_count);
        self.connection.prepare_cached(put)?.execute(values)?;
        self.note(Changed::Device(*ek_sha256));
        Ok(())
    }

    /// Forgets what spoke against that device.
    pub(crate) fn remove_contradiction(&self, ek_sha256: &[u8; 32]) -> Result<(), StoreError> {
        let mut remove = self.connection.prepare_cached("DELETE FROM contradictions WHERE ek_sha256 = ?1")?;
        if remove.execute([ek_sha256])? > 0 {
            self.note(Changed::Device(*ek_sha256));
        }
        Ok(())
    }
}

fn contradiction(row: &Row<'_>) -> Result<([u8; 32], Contradiction), rusqlite::Error> {
    let clock = ClockReading {
        clock_ms: row.get::<_, i64>(3)?.cast_unsigned(),
        reset_count: row.get(4)?,
        restart_count: row.get(5)?,
        safe: true,
    };
    Ok((row.get(0)?, Contradiction { at_unix: row.get(1)?, address: row.get(2)?, clock }))
}
