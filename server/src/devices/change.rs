//! What operators decide of devices.

use std::sync::Arc;

use crate::devices::NewDevice;
use crate::facts::device::{DeviceRecord, DeviceState};
use ironroot_text::hex::hex;

use super::import::{DuplicateSerials, Import};
use super::{DeviceError, Devices};
use crate::rights::Administrator;
use crate::store::Transaction;

/// Most devices of one import.
pub const MAX_IMPORT: usize = 100_000;
/// Most devices that wait for approval. Strangers make these rows: this bounds what they can fill.
pub const MAX_PENDING: i64 = 1000;

/// What an import did.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// Every device of the manifest, as it is now, in the manifest's order, each with what changed of it.
    pub devices: Vec<(Arc<DeviceRecord>, Vec<String>)>,
    /// How many were not known before.
    pub created: usize,
    /// How many were known, and changed.
    pub updated: usize,
}

impl Devices {
    /// Enrols all these devices or, if anything fails, none. Known ones take what the manifest says of serial and labels,
    /// and those that waited for approval are enrolled; a banned one stays banned. The same import again changes nothing.
    /// No two devices come to have one serial, unless `duplicates` says that they may.
    pub async fn import(
        &self,
        _: &Administrator,
        devices: Vec<NewDevice>,
        duplicates: DuplicateSerials,
        now_unix: i64,
    ) -> Result<Imported, DeviceError> {
        self.import_those_that(|_, _| Ok(()), devices, duplicates, now_unix).await
    }

    /// Enrols devices that are known and not banned, with what is said of their serial and labels: all of them or, if one of them
    /// is not known or is banned, none.
    pub async fn approve_described(
        &self,
        _: &Administrator,
        devices: Vec<NewDevice>,
        duplicates: DuplicateSerials,
        now_unix: i64,
    ) -> Result<Imported, DeviceError> {
        self.import_those_that(may_be_approved, devices, duplicates, now_unix).await
    }

    async fn import_those_that(
        &self,
        may_be: fn(&Transaction<'_>, &NewDevice) -> Result<(), DeviceError>,
        devices: Vec<NewDevice>,
        duplicates: DuplicateSerials,
        now_unix: i64,
    ) -> Result<Imported, DeviceError> {
        let import = self.store.change(move |tx| {
            let mut import = Import::default();
            for device in &devices {
                may_be(tx, device)?;
                import.take(tx, device, now_unix)?;
            }
            if duplicates == DuplicateSerials::Refused {
                import.refuse_new_duplicates(tx)?;
            }
            Ok::<_, DeviceError>(import)
        });
        let Import { all, changes, created, updated, .. } = import.await?;
        Ok(Imported { devices: all.into_iter().map(|known| known.record).zip(changes).collect(), created, updated })
    }

    /// Lets a device that asked attest from now on. A banned one must be deleted first.
    pub async fn approve(&self, _: &Administrator, ek_sha256: &[u8; 32]) -> Result<Arc<DeviceRecord>, DeviceError> {
        let approve = |record| match record {
            DeviceRecord { state: DeviceState::Banned, .. } => Err(DeviceError::Banned),
            record => Ok(DeviceRecord { state: DeviceState::Enrolled, ..record }),
        };
        self.change_known(ek_sha256, approve).await
    }

    /// Forgets the device, its ban and its clock included.
    pub async fn delete(&self, _: &Administrator, ek_sha256: &[u8; 32]) -> Result<(), DeviceError> {
        let ek_sha256 = *ek_sha256;
        let remove = move |tx: &Transaction<'_>| match tx.remove_device(&ek_sha256)? {
            true => Ok(tx.remove_contradiction(&ek_sha256)?),
            false => Err(DeviceError::NotFound),
        };
        self.store.change(remove).await
    }

    pub(super) async fn change_known(
        &self,
        ek_sha256: &[u8; 32],
        change: impl Fn(DeviceRecord) -> Result<DeviceRecord, DeviceError> + Send + 'static,
    ) -> Result<Arc<DeviceRecord>, DeviceError> {
        let ek_sha256 = *ek_sha256;
        let set = move |tx: &Transaction<'_>| {
            let known = tx.device(&ek_sha256)?.ok_or(DeviceError::NotFound)?;
            let changed = change((*known.record).clone())?;
            tx.put_device(&changed, known.clock)?;
            Ok(Arc::new(changed))
        };
        self.store.change(set).await
    }
}

fn may_be_approved(tx: &Transaction<'_>, device: &NewDevice) -> Result<(), DeviceError> {
    let ek_sha256 = device.ek_sha256();
    match tx.device(&ek_sha256)?.map(|known| known.record.state) {
        None => Err(DeviceError::UnknownAmong { ek_sha256: hex(&ek_sha256) }),
        Some(DeviceState::Banned) => Err(DeviceError::BannedAmong { ek_sha256: hex(&ek_sha256) }),
        Some(DeviceState::Pending | DeviceState::Enrolled) => Ok(()),
    }
}

pub(super) fn unknown(ek_sha256: [u8; 32], state: DeviceState, now_unix: i64) -> DeviceRecord {
    DeviceRecord {
        ek_sha256,
        serial: String::new(),
        labels: Default::default(),
        state,
        manufacturer: String::new(),
        created_at: now_unix,
        last_attested_at: 0,
        agent_id: None,
        ban: None,
    }
}
