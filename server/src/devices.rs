//! The fleet: endorsement keys that may enrol.
//!
//! In memory as the registry is, and changed as it is: decided in a transaction, in force when it is on disk and followed.
//!
//! ```text
//!  manifest ── import ──► Enrolled ──┐
//!  stranger ── record_pending ──► Pending ── approve ──┘      any ── ban ──► Banned ── delete ──► unknown
//! ```

mod admission;
mod attested;
mod ban;
mod census;
mod change;
mod contradiction;
mod filter;
mod import;
mod mirror;
mod new_device;
mod new_policy;
mod policies;
mod table;

use std::sync::{Arc, RwLock, RwLockReadGuard};

use crate::facts::page::{ListPage, Page, PageTokenError};
use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::ClockReading;
use ironroot_shell::command_line::counted;
use ironroot_shell::telemetry::Counter;
use thiserror::Error;

pub use admission::{AdmissionPolicy, Admitted, NotAdmitted, ProvenDevice};
pub(crate) use attested::{note_attested, refuse_banned};
pub use ban::Banned;
pub use census::{DeviceCensus, Standing};
pub use change::{Imported, MAX_IMPORT, MAX_PENDING};
pub use contradiction::{ContradictedChip, ForkProof};
pub use filter::{DeviceFilter, MIN_PREFIX_DIGITS, names};
pub use import::DuplicateSerials;
pub use new_device::{
    DeviceTexts, MAX_LABEL_NAME_BYTES, MAX_LABEL_VALUE_BYTES, MAX_LABELS, MAX_SERIAL_BYTES, NewDevice, NewDeviceError,
    check_label, check_serial,
};
pub use new_policy::{MAX_ALTERNATIVES, MAX_NAME_BYTES, MAX_NOTE_BYTES, NewPolicy, PcrPolicyError};
pub use policies::{DeviceToday, ImaTask, PolicyError};

use crate::facts::device::{Boot, DeviceRecord, DeviceState};

use crate::store::{Store, StoreError};
use table::Table;

/// Why the device registry refuses.
#[derive(Clone, Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum DeviceError {
    /// The registry has no device of that name.
    #[error("device not found")]
    NotFound,
    /// An operator shut it out; delete it first.
    #[error("device is banned")]
    Banned,
    /// Devices are approved together, and this one nobody has seen.
    #[error("device {ek_sha256}: device not found")]
    UnknownAmong { ek_sha256: String },
    /// Devices are approved together, and this one was shut out.
    #[error("device {ek_sha256}: device is banned")]
    BannedAmong { ek_sha256: String },
    /// Strangers fill the list; an operator must look at it.
    #[error("{MAX_PENDING} devices wait for approval already; approve, ban or delete some")]
    TooManyPending,
    /// An import would give several devices one serial.
    #[error(
        "{} would belong to several devices: {named}; entries that select by serial would cover them all: \
         give another, or import with -allowDuplicateSerials", counted(*count, "serial", "serials")
    )]
    DuplicateSerials {
        count: usize,
        /// The first of them, with their devices.
        named: String,
    },
    /// A device would break a bound with what is known of it already.
    #[error("device would be illegal")]
    Device(#[from] NewDeviceError),
    /// Another attestation of the device was recorded meanwhile, with a later clock.
    #[error("clock of the device's TPM went back")]
    Clock(#[source] Refusal),
    /// The page token was not made by this server.
    #[error(transparent)]
    PageToken(#[from] PageTokenError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The devices: durable in the store, answered from memory.
#[derive(Debug)]
pub struct Devices {
    store: Store,
    table: Arc<RwLock<Table>>,
    boots_changed: Arc<Counter>,
}

impl Devices {
    /// Reads every device the store holds, and follows what becomes of them.
    pub async fn load(store: Store) -> Result<Self, StoreError> {
        let table = Arc::new(RwLock::new(Table::default()));
        let boots_changed = Arc::new(Counter::default());
        store.follow(mirror::follower(&table, boots_changed.clone())).await?;
        Ok(Self { store, table, boots_changed })
    }

    /// The device of that endorsement key.
    pub fn device(&self, ek_sha256: &[u8; 32]) -> Option<Arc<DeviceRecord>> {
        self.read().get(ek_sha256).map(|known| known.record.clone())
    }

    /// Those that are banned.
    pub fn banned(&self) -> Vec<Arc<DeviceRecord>> {
        let (table, is_banned) = (self.read(), |record: &Arc<DeviceRecord>| record.state == DeviceState::Banned);
        table.behind(i64::MIN).map(|known| known.record.clone()).filter(is_banned).collect()
    }

    /// What the device has proven to have booted, the newest first.
    pub async fn boots(&self, ek_sha256: &[u8; 32]) -> Result<Vec<Boot>, StoreError> {
        let ek_sha256 = *ek_sha256;
        self.store.change(move |tx| tx.boots(&ek_sha256)).await
    }

    /// What the TPM's clock said when the device last attested.
    pub fn last_clock(&self, ek_sha256: &[u8; 32]) -> Option<ClockReading> {
        self.read().get(ek_sha256).and_then(|known| known.clock)
    }

    /// The devices that `filter` matches, in the order they became known. `page_size` and `page_token` as on the wire.
    pub fn list(
        &self,
        filter: &DeviceFilter,
        page_size: i32,
        page_token: &str,
    ) -> Result<ListPage<Arc<DeviceRecord>>, DeviceError> {
        let page = Page::from_pb(page_size, page_token)?;
        let table = self.read();
        let behind = table.behind(page.after).filter(|known| filter.matches(&known.record));
        Ok(page.cut(behind.map(|known| (known.seq, known.record.clone()))))
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().expect("no code panics while it holds the table")
    }
}

#[cfg(test)]
impl Devices {
    /// Nobody reads the fleet while this is held.
    pub(crate) fn hold(&self) -> impl Sized {
        self.table.write().expect("no panic")
    }
}
