//! What speaks against chips of the fleet.

use super::{Contradiction, DeviceError, Devices};
use crate::store::Transaction;

impl Devices {
    /// What speaks against the device of that endorsement key.
    pub fn contradiction(&self, ek_sha256: &[u8; 32]) -> Option<Contradiction> {
        self.read().contradictions.get(ek_sha256).cloned()
    }

    /// Keeps the newest contradiction of a device that is known.
    pub async fn note_contradiction(&self, ek_sha256: [u8; 32], seen: Contradiction) -> Result<(), DeviceError> {
        let note = move |tx: &Transaction<'_>| {
            tx.device(&ek_sha256)?.ok_or(DeviceError::NotFound)?;
            Ok(tx.put_contradiction(&ek_sha256, &seen)?)
        };
        self.store.change(note).await
    }
}
