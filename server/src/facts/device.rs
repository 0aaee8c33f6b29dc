//! Devices: endorsement keys that may enrol. SPIRE has no counterpart.

mod ban;
mod boot;
mod contradiction;
mod ima;

use std::collections::BTreeMap;
use std::sync::Arc;

use ironroot_attest::node::tpm2::ClockReading;
use ironroot_attest::{Selector, SelectorSet};
use ironroot_text::hex::hex;

pub use ban::{Ban, BanReason, Sighting};
pub use boot::{Boot, BootFacts, MAX_BOOTS, PcrValue, SecureBootFacts, boots_to_pb};
pub use contradiction::Contradiction;
pub use ima::{ImaFacts, Judged, MAX_JUDGED, MAX_OUTSIDE};

use ironroot_api::SpiffeId;
use ironroot_api::pb::device as pb;

/// Type of the selectors that a device's record gives; the TPM's own evidence has the same.
const SELECTOR_TYPE: &str = "tpm2";

/// Where a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceState {
    /// It asked; an operator has not decided.
    Pending,
    /// It may attest, whoever made its TPM.
    Enrolled,
    /// It may not, whatever it proves.
    Banned,
}

impl DeviceState {
    /// The wire form.
    pub fn to_pb(self) -> pb::DeviceState {
        match self {
            Self::Pending => pb::DeviceState::Pending,
            Self::Enrolled => pb::DeviceState::Enrolled,
            Self::Banned => pb::DeviceState::Banned,
        }
    }

    /// From the wire; unspecified is no state.
    pub fn from_pb(state: pb::DeviceState) -> Option<Self> {
        match state {
            pb::DeviceState::Unspecified => None,
            pb::DeviceState::Pending => Some(Self::Pending),
            pb::DeviceState::Enrolled => Some(Self::Enrolled),
            pb::DeviceState::Banned => Some(Self::Banned),
        }
    }
}

/// A device as the server remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRecord {
    /// SHA-256 of the endorsement key's DER SubjectPublicKeyInfo: what identifies the device.
    pub ek_sha256: [u8; 32],
    /// The operator's name for it; may be empty.
    pub serial: String,
    /// The operator's words about it.
    pub labels: BTreeMap<String, String>,
    /// Whether it may attest; what became of its agent is the registry's.
    pub state: DeviceState,
    /// Manufacturer of the TPM, as its certificate says; empty if none was seen.
    pub manufacturer: String,
    /// When it was first heard of, UNIX seconds.
    pub created_at: i64,
    /// When it last proved its key, UNIX seconds; 0 if never.
    pub last_attested_at: i64,
    /// The agent that last attested with it.
    pub agent_id: Option<SpiffeId>,
    /// Why it is banned; none if it is not, or was before this was noted.
    pub ban: Option<Ban>,
}

impl DeviceRecord {
    /// What the operator said of the device, as selectors: `tpm2:serial:<serial>`, `tpm2:label:<name>:<value>`.
    pub fn selectors(&self) -> SelectorSet {
        let serial = Some(format!("serial:{}", self.serial)).filter(|_| !self.serial.is_empty());
        let labels = self.labels.iter().map(|(name, value)| format!("label:{name}:{value}"));
        let selector = |value: String| {
            Selector::accepted(&format!("{SELECTOR_TYPE}:{value}")).expect("there is a colon between type and value")
        };
        serial.into_iter().chain(labels).map(selector).collect()
    }

    /// The wire form.
    pub fn to_pb(&self) -> pb::DeviceRecord {
        pb::DeviceRecord {
            ek_sha256: hex(&self.ek_sha256),
            serial: self.serial.clone(),
            labels: self.labels.clone().into_iter().collect(),
            state: self.state.to_pb().into(),
            created_at: self.created_at,
            last_attested_at: self.last_attested_at,
            agent_id: self.agent_id.as_ref().map(SpiffeId::to_string).unwrap_or_default(),
            manufacturer: self.manufacturer.clone(),
            ban: self.ban.as_ref().map(Ban::to_pb),
            ..pb::DeviceRecord::default()
        }
    }
}

/// A device, its place in lists, and its TPM's clock at the last attestation.
#[derive(Clone, Debug)]
pub struct KnownDevice {
    /// Its place in lists: grows with each device that is added, so pages do not shift.
    pub seq: i64,
    /// What is known of it now; a change makes another.
    pub record: Arc<DeviceRecord>,
    /// None before the first attestation.
    pub clock: Option<ClockReading>,
    /// What it has proven to have booted last.
    pub boot: Option<Arc<BootFacts>>,
    /// When it first proved that, UNIX seconds; 0 if it has booted nothing else before.
    pub boot_changed_at: i64,
}

/// Whether the selector is an operator's word about a device (serial, label), not evidence of its TPM.
pub fn is_operators_selector(selector: &Selector) -> bool {
    selector.kind() == SELECTOR_TYPE
        && (selector.value().starts_with("serial:") || selector.value().starts_with("label:"))
}

#[cfg(test)]
impl DeviceRecord {
    /// In that state, and with nothing to be said of it.
    pub(crate) fn example(ek_sha256: [u8; 32], state: DeviceState) -> Self {
        Self {
            ek_sha256,
            serial: String::new(),
            labels: BTreeMap::new(),
            state,
            manufacturer: String::new(),
            created_at: 0,
            last_attested_at: 0,
            agent_id: None,
            ban: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_and_labels_become_selectors() {
        let labels = [("site".to_owned(), "berlin:hall 2".to_owned()), ("ring".to_owned(), "1".to_owned())];
        let mut device = DeviceRecord {
            serial: "A-1".into(),
            labels: labels.into(),
            ..DeviceRecord::example([1; 32], DeviceState::Enrolled)
        };
        let texts = |device: &DeviceRecord| device.selectors().iter().map(Selector::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&device), ["tpm2:label:ring:1", "tpm2:label:site:berlin:hall 2", "tpm2:serial:A-1"]);
        device.serial.clear();
        device.labels.clear();
        assert!(device.selectors().is_empty());
    }
}
