//! Devices in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::contradiction::Suspicion;
use super::policies::DeviceToday;
use crate::facts::device::{BootFacts, KnownDevice, MAX_JUDGED};
use crate::facts::pcr_policy::PcrPolicy;

#[derive(Debug, Default)]
pub(super) struct Table {
    all: BTreeMap<i64, KnownDevice>,
    by_ek: HashMap<[u8; 32], i64>,
    /// One for each device at the most.
    pub suspicions: HashMap<[u8; 32], Suspicion>,
    /// What devices may have booted, by name.
    pub policies: BTreeMap<String, Arc<PcrPolicy>>,
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

    /// That device as it is today.
    pub fn today(&self, known: &KnownDevice) -> DeviceToday {
        let (labels, boot) = (&known.record.labels, known.boot.as_deref());
        let policies = boot.map(|boot| self.met(labels, boot)).unwrap_or_default();
        let files = boot.map(|boot| self.named(labels, |policy| policy.allows_files_of(boot))).unwrap_or_default();
        DeviceToday { record: known.record.clone(), policies, files }
    }

    /// The policies that a device with these labels meets if it has booted that.
    //= TPM-44 TCG PC Client Platform Firmware Profile: "a state that no policy allows loses the selector"
    pub fn met(&self, labels: &BTreeMap<String, String>, boot: &BootFacts) -> BTreeSet<String> {
        self.named(labels, |policy| policy.is_met_by(boot))
    }

    fn named(&self, labels: &BTreeMap<String, String>, is_met: impl Fn(&PcrPolicy) -> bool) -> BTreeSet<String> {
        let met = self.policies.values().filter(|policy| policy.is_about(labels) && is_met(policy));
        met.map(|policy| policy.name.clone()).collect()
    }

    /// The policies of files that are about a device with these labels, the first [`MAX_JUDGED`] by name.
    pub fn of_files(&self, labels: &BTreeMap<String, String>) -> Vec<Arc<PcrPolicy>> {
        let about = self.policies.values().filter(|policy| policy.ima.is_some() && policy.is_about(labels));
        about.take(MAX_JUDGED).cloned().collect()
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
