//! Devices in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use super::contradiction::Suspicion;
use crate::facts::device::KnownDevice;

#[derive(Debug, Default)]
pub(super) struct Table {
    all: BTreeMap<i64, KnownDevice>,
    by_ek: HashMap<[u8; 32], i64>,
    /// One for each device at the most.
    pub suspicions: HashMap<[u8; 32], Suspicion>,
}

impl Table {
    /// Adds the device, or replaces it.
    pub fn put(&mut self, device: KnownDevice) {
        self.by_ek.insert(device.record.ek_sha256, device.seq);
        self.all.insert(device.seq, device);
    }

    /// Removes the device, if it is there.
    pub fn remove(&mut self, ek_sha256: &[u8; 32]) {
        self.suspicions.remove(ek_sha256);
        if let Some(seq) = self.by_ek.remove(ek_sha256) {
            self.all.remove(&seq);
        }
    }

    /// The device of that endorsement key.
    pub fn get(&self, ek_sha256: &[u8; 32]) -> Option<&KnownDevice> {
        self.by_ek.get(ek_sha256).and_then(|seq| self.all.get(seq))
    }

    /// The devices behind that place, in order.
    pub fn behind(&self, place: i64) -> impl Iterator<Item = &KnownDevice> {
        self.all.range((Bound::Excluded(place), Bound::Unbounded)).map(|(_, device)| device)
    }
}

impl FromIterator<KnownDevice> for Table {
    fn from_iter<I: IntoIterator<Item = KnownDevice>>(devices: I) -> Self {
        let mut table = Self::default();
        devices.into_iter().for_each(|device| table.put(device));
        table
    }
}
