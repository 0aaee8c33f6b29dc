//! Devices, each with its TPM's clock at the last attestation.

use std::sync::Arc;

use crate::facts::device::{DeviceRecord, DeviceState};
use ironroot_api::SpiffeId;
use ironroot_attest::node::tpm2::ClockReading;

use super::boots::parse as parse_boot;
use super::{Facts, Row, Transaction, Value};
use crate::facts::device::KnownDevice;
use crate::store::{Changed, StoreError};

const COLUMNS: &str = "seq, ek_sha256, serial, labels, state, manufacturer, created_at, last_attested_at, agent_id,
                       clock_ms, reset_count, restart_count, clock_safe, ban,
                       (SELECT facts FROM boots WHERE boots.ek_sha256 = devices.ek_sha256 ORDER BY id DESC LIMIT 1),
                       (SELECT CASE WHEN count(*) > 1 THEN max(first_at) ELSE 0 END FROM boots
                        WHERE boots.ek_sha256 = devices.ek_sha256)";

impl Facts<'_> {
    /// Every device, in the order of its place in lists.
    pub(crate) fn devices(&self) -> Result<Vec<KnownDevice>, StoreError> {
        self.sql.all(&format!("SELECT {COLUMNS} FROM devices ORDER BY seq"), &[], known)
    }

    /// The device of that endorsement key.
    pub(crate) fn device(&self, ek_sha256: &[u8; 32]) -> Result<Option<KnownDevice>, StoreError> {
        self.sql.first(&format!("SELECT {COLUMNS} FROM devices WHERE ek_sha256 = ?1"), &[ek_sha256], known)
    }

    /// Every serial, with the device that has it.
    pub(crate) fn device_serials(&self) -> Result<Vec<(String, [u8; 32])>, StoreError> {
        let select = "SELECT serial, ek_sha256 FROM devices WHERE serial <> ''";
        self.sql.all(select, &[], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// How many devices wait for approval.
    pub(crate) fn count_pending_devices(&self) -> Result<i64, StoreError> {
        self.sql.one("SELECT count(*) FROM devices WHERE state = 'pending'", &[], |row| row.get(0))
    }
}

impl Transaction<'_> {
    /// Adds the device or replaces its row; returns its place in lists, which it keeps.
    pub(crate) fn put_device(&self, record: &DeviceRecord, clock: Option<ClockReading>) -> Result<i64, StoreError> {
        let put = "INSERT INTO devices (ek_sha256, serial, labels, state, manufacturer, created_at, last_attested_at, agent_id,
                                        clock_ms, reset_count, restart_count, clock_safe, ban)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
                   ON CONFLICT (ek_sha256) DO UPDATE SET
                       serial = excluded.serial, labels = excluded.labels, state = excluded.state,
                       manufacturer = excluded.manufacturer, created_at = excluded.created_at,
                       last_attested_at = excluded.last_attested_at, agent_id = excluded.agent_id,
                       clock_ms = excluded.clock_ms, reset_count = excluded.reset_count,
                       restart_count = excluded.restart_count, clock_safe = excluded.clock_safe,
                       ban = excluded.ban
                   RETURNING seq";
        let values: [&dyn Value; 13] = [
            &record.ek_sha256,
            &record.serial,
            &serde_json::to_string(&record.labels).expect("a map of strings is JSON"),
            &state_name(record.state),
            &record.manufacturer,
            &record.created_at,
            &record.last_attested_at,
            &record.agent_id.as_ref().map(SpiffeId::as_str),
            // SQL's integers have a sign; the bits are what counts.
            &clock.map(|clock| clock.clock_ms.cast_signed()),
            &clock.map(|clock| i64::from(clock.reset_count)),
            &clock.map(|clock| i64::from(clock.restart_count)),
            &clock.map(|clock| clock.safe),
            &record.ban.as_ref().map(|ban| serde_json::to_string(ban).expect("texts and numbers are JSON")),
        ];
        self.note_once(Changed::Device(record.ek_sha256));
        self.sql.one(put, &values, |row| row.get(0))
    }

    /// Removes a device, with what it has booted; false if there is none of that endorsement key.
    pub(crate) fn remove_device(&self, ek_sha256: &[u8; 32]) -> Result<bool, StoreError> {
        let removed = self.sql.execute("DELETE FROM devices WHERE ek_sha256 = ?1", &[ek_sha256])? == 1;
        if removed {
            self.remove_boots(ek_sha256)?;
            self.note(Changed::Device(*ek_sha256));
        }
        Ok(removed)
    }
}

fn known(row: &Row<'_>) -> Result<KnownDevice, StoreError> {
    let seq: i64 = row.get(0)?;
    let damaged = |why: &dyn std::error::Error| StoreError::Corrupt(format!("device in row {seq}: {why}"));
    let agent_id = row.get::<Option<String>>(8)?.map(|id| SpiffeId::parse(&id)).transpose();
    let ban = row.get::<Option<String>>(13)?.map(|ban| serde_json::from_str(&ban));
    let record = DeviceRecord {
        ek_sha256: row.get(1)?,
        serial: row.get(2)?,
        labels: serde_json::from_str(&row.get::<String>(3)?).map_err(|e| damaged(&e))?,
        state: state(&row.get::<String>(4)?)
            .ok_or_else(|| StoreError::Corrupt(format!("device in row {seq}: state")))?,
        manufacturer: row.get(5)?,
        created_at: row.get(6)?,
        last_attested_at: row.get(7)?,
        agent_id: agent_id.map_err(|e| damaged(&e))?,
        ban: ban.transpose().map_err(|e| damaged(&e))?,
    };
    let boot = row.get::<Option<String>>(14)?.map(|facts| parse_boot(&facts).map(Arc::new)).transpose()?;
    Ok(KnownDevice { seq, record: Arc::new(record), clock: clock(row)?, boot, boot_changed_at: row.get(15)? })
}

fn clock(row: &Row<'_>) -> Result<Option<ClockReading>, StoreError> {
    let Some(clock_ms) = row.get::<Option<i64>>(9)? else { return Ok(None) };
    Ok(Some(ClockReading {
        clock_ms: clock_ms.cast_unsigned(),
        reset_count: row.get(10)?,
        restart_count: row.get(11)?,
        safe: row.get(12)?,
    }))
}

fn state_name(state: DeviceState) -> &'static str {
    match state {
        DeviceState::Pending => "pending",
        DeviceState::Enrolled => "enrolled",
        DeviceState::Banned => "banned",
    }
}

fn state(name: &str) -> Option<DeviceState> {
    [DeviceState::Pending, DeviceState::Enrolled, DeviceState::Banned].into_iter().find(|s| state_name(*s) == name)
}
