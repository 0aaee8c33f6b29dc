//! How many devices there are, and how they are, for whoever counts.

use super::Devices;
use super::table::Table;
use crate::facts::device::{DeviceState, KnownDevice};

/// Devices by what an operator has said of them, and those that may attest by what they have booted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCensus {
    /// They wait for an operator.
    pub pending: usize,
    /// They may attest.
    pub enrolled: usize,
    /// They may not.
    pub banned: usize,
    /// Of those that may: a policy is about them, and they meet one.
    pub boot_as_wanted: usize,
    /// Policies are about them, and what they have booted last meets none.
    pub boot_otherwise: usize,
    /// No policy is about them, or nothing is known of what they booted.
    pub boot_unjudged: usize,
    /// Two machines seem to show their chip.
    pub suspected: usize,
}

impl DeviceCensus {
    fn count(&mut self, table: &Table, known: &KnownDevice) {
        let state = match known.record.state {
            DeviceState::Pending => &mut self.pending,
            DeviceState::Enrolled => &mut self.enrolled,
            DeviceState::Banned => &mut self.banned,
        };
        *state += 1;
        if known.record.state == DeviceState::Enrolled {
            *self.boot(table, known) += 1;
        }
    }

    fn boot(&mut self, table: &Table, known: &KnownDevice) -> &mut usize {
        let labels = &known.record.labels;
        let Some(boot) = known.boot.as_deref() else { return &mut self.boot_unjudged };
        match table.policies.values().any(|policy| policy.is_about(labels)) {
            false => &mut self.boot_unjudged,
            true if table.met(labels, boot).is_empty() => &mut self.boot_otherwise,
            true => &mut self.boot_as_wanted,
        }
    }
}

impl Devices {
    /// The devices now.
    pub fn census(&self) -> DeviceCensus {
        let table = self.read();
        let mut census = DeviceCensus { suspected: table.suspicions.len(), ..DeviceCensus::default() };
        table.behind(i64::MIN).for_each(|known| census.count(&table, known));
        census
    }

    /// How often a device was seen to have booted something else than the time before, since the start.
    pub fn boots_changed(&self) -> u64 {
        self.boots_changed.count()
    }
}
