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
        match Judgement::of(table, known) {
            Judgement::None => &mut self.boot_unjudged,
            Judgement::Otherwise => &mut self.boot_otherwise,
            Judgement::AsWanted => &mut self.boot_as_wanted,
        }
    }
}

/// What a device has booted last, held against the policies about it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judgement {
    /// There is none, or nothing is known of what it booted.
    None,
    AsWanted,
    Otherwise,
}

impl Judgement {
    fn of(table: &Table, known: &KnownDevice) -> Self {
        let labels = &known.record.labels;
        let Some(boot) = known.boot.as_deref() else { return Self::None };
        match table.policies.values().any(|policy| policy.is_about(labels)) {
            false => Self::None,
            true if table.met(labels, boot).is_empty() => Self::Otherwise,
            true => Self::AsWanted,
        }
    }
}

/// How a device stands, besides what its record says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// When it first proved what it boots now, UNIX seconds; 0 if it has booted nothing else before.
    pub boot_changed_at: i64,
    /// It may attest, policies are about it, and what it booted last meets none.
    pub booted_otherwise: bool,
    /// Two machines seem to show its chip.
    pub suspected: bool,
}

impl Devices {
    /// The devices now.
    pub fn census(&self) -> DeviceCensus {
        let table = self.read();
        let mut census = DeviceCensus { suspected: table.suspicions.len(), ..DeviceCensus::default() };
        table.behind(i64::MIN).for_each(|known| census.count(&table, known));
        census
    }

    /// How the device stands now; of one that there is not, as one that nothing is known of.
    pub fn standing(&self, ek_sha256: &[u8; 32]) -> Standing {
        let table = self.read();
        let Some(known) = table.get(ek_sha256) else { return Standing::default() };
        let may_attest = known.record.state == DeviceState::Enrolled;
        Standing {
            boot_changed_at: known.boot_changed_at,
            booted_otherwise: may_attest && Judgement::of(&table, known) == Judgement::Otherwise,
            suspected: table.suspicions.contains_key(ek_sha256),
        }
    }

    /// How often a device was seen to have booted something else than the time before, since the start.
    pub fn boots_changed(&self) -> u64 {
        self.boots_changed.count()
    }
}
