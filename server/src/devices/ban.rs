//! Bans of devices: by an administrator's word, or by proof of a copy.

use std::sync::Arc;

use super::contradiction::ForkProof;
use super::{DeviceError, Devices};
use crate::facts::device::{Ban, BanReason, DeviceRecord, DeviceState};
use crate::rights::Administrator;

/// A device that is banned: its agents are to be banned too. Made by the bans here alone.
#[derive(Clone, Debug)]
#[must_use]
pub struct BannedDevice(Arc<DeviceRecord>);

impl BannedDevice {
    /// The device.
    pub fn record(&self) -> &DeviceRecord {
        &self.0
    }
}

impl Devices {
    /// Shuts the device out. The reason of an earlier ban is kept.
    pub async fn ban(
        &self,
        by: &Administrator,
        ek_sha256: &[u8; 32],
        now_unix: i64,
    ) -> Result<BannedDevice, DeviceError> {
        let reason = BanReason::Administrator { by: by.caller().to_string() };
        self.shut_out(ek_sha256, Ban { at: now_unix, reason }).await
    }

    /// Shuts out a device that runs twice. The reason of an earlier ban is kept.
    pub async fn ban_copied(&self, proof: &ForkProof, now_unix: i64) -> Result<BannedDevice, DeviceError> {
        let reason = BanReason::RunsTwice { sightings: proof.sightings().clone() };
        self.shut_out(&proof.ek_sha256, Ban { at: now_unix, reason }).await
    }

    async fn shut_out(&self, ek_sha256: &[u8; 32], ban: Ban) -> Result<BannedDevice, DeviceError> {
        let shut_out = move |record: DeviceRecord| {
            let ban = if record.state == DeviceState::Banned { record.ban } else { Some(ban.clone()) };
            Ok(DeviceRecord { state: DeviceState::Banned, ban, ..record })
        };
        self.change_known(ek_sha256, shut_out).await.map(BannedDevice)
    }
}
