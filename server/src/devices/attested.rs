//! What an attestation leaves with its device.

use ironroot_api::SpiffeId;
use ironroot_attest::node::tpm2::AttestedTpm;

use super::change::{MAX_PENDING, unknown};
use super::{DeviceError, Devices, ProvenDevice};
use crate::facts::device::{DeviceRecord, DeviceState};
use crate::store::Transaction;

/// Notes a proven attestation, in the transaction that stores its agent: when, by which agent, what it has booted, and what the
/// TPM's clock said. A
/// device that only its manufacturer vouched for is enrolled by it. Refused if the device was banned or deleted, or attested
/// with a later clock, while this attestation was under way.
pub(crate) fn note_attested(
    tx: &Transaction<'_>,
    device: &ProvenDevice,
    agent: &SpiffeId,
    now_unix: i64,
) -> Result<(), DeviceError> {
    let &ProvenDevice { ek_sha256, clock, may_be_new, .. } = device;
    let known = tx.device(&ek_sha256)?;
    let last_clock = known.as_ref().and_then(|known| known.clock);
    let record = known.as_ref().map(|known| (*known.record).clone());
    let new = may_be_new.then(|| unknown(ek_sha256, DeviceState::Enrolled, now_unix));
    let mut record = record.or(new).ok_or(DeviceError::NotFound)?;
    if record.manufacturer.is_empty() {
        record.manufacturer.clone_from(&device.manufacturer);
    }
    if record.state == DeviceState::Banned {
        return Err(DeviceError::Banned);
    }
    last_clock.map_or(Ok(()), |last| clock.check_follows(&last)).map_err(DeviceError::Clock)?;
    tx.remove_contradiction(&ek_sha256)?;
    let (state, agent_id) = (DeviceState::Enrolled, Some(agent.clone()));
    tx.note_boot(&ek_sha256, known.as_ref(), device.boot(), now_unix)?;
    tx.put_device(&DeviceRecord { state, last_attested_at: now_unix, agent_id, ..record }, Some(clock))?;
    Ok(())
}

/// Refuses a TPM that attests in another way than `tpm2` if an operator has shut its device out, in the transaction that stores
/// its agent.
pub(crate) fn refuse_banned(tx: &Transaction<'_>, ek_sha256: &[u8; 32]) -> Result<(), DeviceError> {
    match tx.device(ek_sha256)? {
        Some(known) if known.record.state == DeviceState::Banned => Err(DeviceError::Banned),
        _ => Ok(()),
    }
}

impl Devices {
    /// Notes what a device has booted that is refused for it, and forgets its agent: the certificate of before is worth nothing
    /// from then on. The agent, if there was one.
    pub async fn note_refused_boot(
        &self,
        device: &ProvenDevice,
        now_unix: i64,
    ) -> Result<Option<SpiffeId>, DeviceError> {
        let device = device.clone();
        let note = move |tx: &Transaction<'_>| {
            let Some(known) = tx.device(&device.ek_sha256)? else { return Ok(None) };
            known.clock.map_or(Ok(()), |last| device.clock.check_follows(&last)).map_err(DeviceError::Clock)?;
            tx.note_boot(&device.ek_sha256, Some(&known), device.boot(), now_unix)?;
            tx.put_device(&known.record, Some(device.clock))?;
            let Some(agent) = known.record.agent_id.clone() else { return Ok(None) };
            // A banned agent stays one.
            let may_go = tx.agent(&agent)?.is_some_and(|(_, agent)| !agent.banned);
            Ok((may_go && tx.remove_agent(&agent)?).then_some(agent))
        };
        self.store.change(note).await
    }

    /// Notes that an unknown device asked to attest, and proved its key. False, and nothing is written, for a device that is known.
    pub async fn record_pending(&self, proven: &AttestedTpm, now_unix: i64) -> Result<bool, DeviceError> {
        let ek_sha256 = proven.ek_sha256();
        if self.device(&ek_sha256).is_some() {
            return Ok(false);
        }
        let record = move |tx: &Transaction<'_>| {
            if tx.device(&ek_sha256)?.is_some() {
                return Ok(false);
            }
            if tx.count_pending_devices()? >= MAX_PENDING {
                return Err(DeviceError::TooManyPending);
            }
            tx.put_device(&unknown(ek_sha256, DeviceState::Pending, now_unix), None)?;
            Ok(true)
        };
        self.store.change(record).await
    }
}
