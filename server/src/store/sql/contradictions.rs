//! What spoke against chips: proven, with a clock or counters older than those they had shown before.

use ironroot_attest::node::tpm2::ClockReading;

use super::{Facts, Row, Transaction, Value};
use crate::facts::device::Contradiction;
use crate::store::{Changed, StoreError};

impl Facts<'_> {
    /// Every contradiction, with its device.
    pub(crate) fn contradictions(&self) -> Result<Vec<([u8; 32], Contradiction)>, StoreError> {
        let select = "SELECT ek_sha256, seen_at, address, clock_ms, reset_count, restart_count FROM contradictions";
        self.sql.all(select, &[], contradiction)
    }

    /// What spoke against that device.
    pub(crate) fn contradiction(&self, ek_sha256: &[u8; 32]) -> Result<Option<Contradiction>, StoreError> {
        let select = "SELECT ek_sha256, seen_at, address, clock_ms, reset_count, restart_count FROM contradictions
                      WHERE ek_sha256 = ?1";
        Ok(self.sql.first(select, &[ek_sha256], contradiction)?.map(|(_, contradiction)| contradiction))
    }
}

impl Transaction<'_> {
    /// Notes the newest contradiction of that device in the place of an older one.
    pub(crate) fn put_contradiction(&self, ek_sha256: &[u8; 32], seen: &Contradiction) -> Result<(), StoreError> {
        let put = "INSERT INTO contradictions (ek_sha256, seen_at, address, clock_ms, reset_count, restart_count)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (ek_sha256) DO UPDATE SET
                 seen_at = excluded.seen_at, address = excluded.address, clock_ms = excluded.clock_ms,
                 reset_count = excluded.reset_count, restart_count = excluded.restart_count";
        let ClockReading { clock_ms, reset_count, restart_count, .. } = seen.clock;
        // SQL's integers have a sign; the bits are what counts.
        let clock_ms = clock_ms.cast_signed();
        let (resets, restarts) = (i64::from(reset_count), i64::from(restart_count));
        let values: [&dyn Value; 6] = [ek_sha256, &seen.at_unix, &seen.address, &clock_ms, &resets, &restarts];
        self.sql.execute(put, &values)?;
        self.note(Changed::Device(*ek_sha256));
        Ok(())
    }

    /// Forgets what spoke against that device.
    pub(crate) fn remove_contradiction(&self, ek_sha256: &[u8; 32]) -> Result<(), StoreError> {
        if self.sql.execute("DELETE FROM contradictions WHERE ek_sha256 = ?1", &[ek_sha256])? > 0 {
            self.note(Changed::Device(*ek_sha256));
        }
        Ok(())
    }
}

fn contradiction(row: &Row<'_>) -> Result<([u8; 32], Contradiction), StoreError> {
    let clock = ClockReading {
        clock_ms: row.get::<i64>(3)?.cast_unsigned(),
        reset_count: row.get(4)?,
        restart_count: row.get(5)?,
        safe: true,
    };
    Ok((row.get(0)?, Contradiction { at_unix: row.get(1)?, address: row.get(2)?, clock }))
}
