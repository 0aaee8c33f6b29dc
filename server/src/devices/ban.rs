//! Bans of devices: by an administrator's word, or by proof of a copy.

use std::sync::Arc;

use super::contradiction::ForkProof;
use super::{DeviceError, Devices};
use crate::facts::device::{Ban, BanReason, DeviceRecord, DeviceState};
use crate::rights::Administrator;
use crate::store::Transaction;
use ironroot_api::SpiffeId;

/// What a ban shut out.
#[derive(Clone, Debug)]
pub struct Banned {
    /// The device, as it is now.
    pub device: Arc<DeviceRecord>,
    /// Every agent that attested with it. By its key: a device that was deleted and imported again names none of them.
    pub agents: Vec<SpiffeId>,
}

impl Devices {
    /// Shuts the device out, and every agent that attested with it. The reason of an earlier ban is kept.
    pub async fn ban(&self, by: &Administrator, ek_sha256: &[u8; 32], now_unix: i64) -> Result<Banned, DeviceError> {
        let reason = BanReason::Administrator { by: by.caller().to_string() };
        self.shut_out(ek_sha256, Ban { at: now_unix, reason }).await
    }

    /// Shuts out a device that runs twice, and its agents. The reason of an earlier ban is kept.
    pub async fn ban_copied(&self, proof: &ForkProof, now_unix: i64) -> Result<Banned, DeviceError> {
        let reason = BanReason::RunsTwice { sightings: proof.sightings().clone() };
        self.shut_out(&proof.ek_sha256, Ban { at: now_unix, reason }).await
    }

    /// Device and agents in one commit: callers are judged by their agent's row, and nothing would repeat a ban that stopped
    /// between the two.
    async fn shut_out(&self, ek_sha256: &[u8; 32], ban: Ban) -> Result<Banned, DeviceError> {
        let ek_sha256 = *ek_sha256;
        let shut_out = move |tx: &Transaction<'_>| {
            let known = tx.device(&ek_sha256)?.ok_or(DeviceError::NotFound)?;
            let record = (*known.record).clone();
            let ban = if record.state == DeviceState::Banned { record.ban } else { Some(ban.clone()) };
            let device = Arc::new(DeviceRecord { state: DeviceState::Banned, ban, ..record });
            tx.put_device(&device, known.clock)?;
            Ok(Banned { device, agents: tx.ban_agents_of(&ek_sha256)? })
        };
        self.store.change(shut_out).await
    }
}
