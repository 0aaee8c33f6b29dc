//! Which devices a list shows.

use std::collections::BTreeMap;

use crate::facts::device::{DeviceRecord, DeviceState};
use ironroot_api::pb::device as pb;
use ironroot_text::hex::hex;

/// Fewest digits of a hash that name a device: 24 bits tell 300 devices apart, and no serial is taken for them by accident.
pub const MIN_PREFIX_DIGITS: usize = 6;

/// Conditions that all must hold. Default: none, every device matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    /// Devices that stand so.
    pub state: Option<DeviceState>,
    /// Devices that have all these labels.
    pub labels: BTreeMap<String, String>,
    /// If there are any: devices that one of these names.
    pub names: Vec<String>,
}

impl DeviceFilter {
    /// What a list request asks for; a field that is not set holds for every device.
    pub fn from_pb(request: &pb::ListDevicesRequest) -> Self {
        Self {
            state: DeviceState::from_pb(request.by_state()),
            labels: request.by_labels.clone().into_iter().collect(),
            names: request.by_names.clone(),
        }
    }

    /// Whether every condition holds.
    pub fn matches(&self, device: &DeviceRecord) -> bool {
        self.state.is_none_or(|state| state == device.state)
            && self.labels.iter().all(|(name, value)| device.labels.get(name) == Some(value))
            && (self.names.is_empty()
                || self.names.iter().any(|name| names(name, &hex(&device.ek_sha256), &device.serial)))
    }
}

/// Whether `name` means the device: its serial, or at least [`MIN_PREFIX_DIGITS`] first digits of its hash, in either case.
pub fn names(name: &str, ek_sha256: &str, serial: &str) -> bool {
    let is_prefix = || ek_sha256.starts_with(&name.to_ascii_lowercase());
    (!name.is_empty() && name == serial) || (name.len() >= MIN_PREFIX_DIGITS && is_prefix())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_or_six_digits_of_the_hash_name_a_device() {
        let hash = "5f1c2aff".repeat(8);
        for (name, named) in [
            ("5f1c2a", true),
            ("5F1C2A", true),
            (hash.as_str(), true),
            ("SN-1", true),
            ("5f1c2", false),
            ("sn-1", false),
            ("SN", false),
            ("", false),
            ("f1c2aff", false),
        ] {
            assert_eq!(names(name, &hash, "SN-1"), named, "{name}");
        }
        assert!(!names("", &hash, ""));
    }
}
